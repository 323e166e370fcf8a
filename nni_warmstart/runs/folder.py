"""The folder of a run: what it holds, and whether a run may go on in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..evaluators.checkpoints import last, path_in
from ..utils.distributed import is_first
from ..utils.files import unwritable, write_json
from .settings import flat

if TYPE_CHECKING:
    from ..search.strategies import WarmStartDARTS

RESULTS = (
    'result.json', 'architecture.json', 'supernet.safetensors', 'network.safetensors', 'network.pt2', 'network.onnx',
)  # fmt: skip
"""What searches and retrainings leave at their end."""


def output_folder(out: str | Path) -> Path:
    """The folder for a run's results.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    trouble = unwritable(Path(out))
    if trouble:
        raise ConfigError(f'output folder {trouble}')
    return Path(out)


def check(out: Path, settings: dict[str, Any]) -> None:
    """The settings of a run that goes on must be those it began with, but for epochs and seconds.

    Raises
    ------
    ConfigError
        Naming what differs.
    """
    path = out / 'settings.json'
    if not path.is_file():
        return
    now = flat(_plain(settings))
    try:
        before = flat(json.loads(path.read_text()))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f'{path} is damaged; delete it to go on with these settings.') from error
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and key not in ('evaluator.max_epochs', 'evaluator.max_seconds'):
            raise ConfigError(
                f'the run in {out} has {key} = {before.get(key)!r} and should go on with {now.get(key)!r}; put it '
                'back, or choose another --out.'
            )


def begin(out: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Write down the settings of a run that is about to train; a new one forgets the checkpoint and results of an older, so
    that none of these is taken for its own."""
    if not is_first():
        return
    if not resume:
        for stale in (path_in(out), *(out / name for name in RESULTS)):
            stale.unlink(missing_ok=True)
    write_json(out / 'settings.json', _plain(settings))


def _plain(settings: dict[str, Any]) -> Any:
    return json.loads(json.dumps({key: value for key, value in settings.items() if key != 'base'}, default=str))


def resume(strategy: WarmStartDARTS, out: Path, max_epochs: int) -> None:
    """Let an initialised strategy go on from the checkpoint in ``out``, if there is one; errors as of :func:`last`."""
    path = last(out, strategy.supernet, 'training_module._model.', max_epochs)
    if path is not None:
        strategy.load_state_dict({'ckpt_path': str(path)})
