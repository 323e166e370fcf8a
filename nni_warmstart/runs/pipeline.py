"""Pipeline from images to a trained network: a search, the training of the network that it found, and exports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.task import Task
from ..errors import ConfigError
from ..nni_adapter.trial import parameters_kept
from ..supernets.network import Network
from ..supernets.supernet import Supernet
from ..utils.distributed import is_first, leave_group
from ..utils.files import write_json
from .config import SearchConfig
from .folder import NETWORK, SEARCH, RunFolder
from .provenance import Provenance
from .retrain import folder_of, is_outdated, retrain, tell_of_lost
from .search import run_search
from .setup import check_apart, versions

_logger = logging.getLogger(__name__)


def run_pipeline(
    config: SearchConfig,
    *,
    out: str | Path,
    network_config: SearchConfig | None = None,
    changed: Iterable[str] = (),
    weights: str = 'inherited',
    exports: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    task: Task | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = _logger.info,
) -> dict[str, Any]:
    """Search, train the network that was found, test and export it; ``out/search`` and ``out/network`` are the two runs.

    Parameters
    ----------
    config
        Checked settings of the search, and the seed of all random generators.
    out
        Folder for the results, which no other process may use meanwhile.
    network_config
        Settings by which the network is trained; None for those of the search.
    changed
        Dotted names of settings in which they differ on purpose, see :func:`~nni_warmstart.runs.retrain.retrain`.
    weights
        Initial weights of the network: 'inherited' for those of the supernet, or 'scratch'.
    exports
        Additional formats of the network: 'pt2' (torch.export), 'onnx'.
    resume
        Whether to resume where an earlier pipeline in ``out`` has ended, in whichever stage; its result is the same as
        without an interruption. A stage that is finished is not repeated, unless the search goes on (for more epochs, say):
        then its network is trained anew.
    overwrite
        Whether to replace an earlier pipeline in ``out``.
    task
        Images, in place of those that ``config.data`` names.
    progress
        Whether to show progress bars.
    tell
        Called with one line at the beginning of each stage and of each export, and with what the search starts from.

    Returns
    -------
    dict
        Content of ``out/result.json``; empty in processes for further devices, which take part in the search alone.

    Raises
    ------
    WarmStartError
        If data, space, source or settings do not work, ``out`` holds another run or is in use, training diverges, or the
        search has found a network that cannot be trained or exported.
    """
    # Check what would fail only after the search.
    folder, search = RunFolder(Path(out), 'pipeline'), RunFolder(Path(out) / SEARCH)
    network, network_config = folder_of(folder.path / NETWORK, weights, exports), network_config or config
    if weights == 'inherited' and network_config.space != config.space:
        raise ConfigError(
            "the network has another space than the search, so it cannot have weights = 'inherited'; choose 'scratch'."
        )
    check_apart(config, folder.path)
    with folder.claimed(resume=resume, overwrite=overwrite):
        with network.claimed(resume=resume, overwrite=overwrite):
            pass
        lines: list[str] = []

        def forget_network() -> None:
            """Delete what followed from an earlier search, or from one of fewer epochs."""
            if is_first():
                tell_of_lost(network, network.exports, tell)
                folder.clear()
                network.clear()

        def searching(line: str) -> None:
            forget_network()
            lines.append(line)
            tell(line)

        tell(f'1/2 Search: {config.strategy.name} in {config.space.name}, {_length(config)}')
        with parameters_kept():
            found = run_search(
                config, seed=config.seed, out=search.path, resume=resume and search.can_resume(), overwrite=overwrite,
                keep_finished=True, task=task, progress=progress, tell=searching,
            )  # fmt: skip
        leave_group()
        if not is_first():
            return {}
        if not lines:
            tell(f'Finished before: {search.path}')
            if weights == 'inherited' and is_outdated(network, Supernet.load(search.path / 'supernet.safetensors')):
                forget_network()  # the search went on by itself
        tell(f'2/2 Network: {_length(network_config)}, {weights} weights')
        trained = retrain(
            network_config, search.path, out=network.path, weights=weights, exports=exports, seed=network_config.seed,
            resume=resume and network.can_resume(), overwrite=overwrite, keep_finished=True, changed=changed, task=task,
            progress=progress, tell=tell,
        )  # fmt: skip
        result = _result(found, trained, folder.path)
        settings = {**asdict(config), 'weights': weights, 'network': asdict(network_config.evaluator)}
        provenance = Provenance.of(settings, found['run']['data'])
        folder.begin(provenance, resume=True)
        result['run'] = {**provenance.to_dict(), 'search': found['run']['id'], 'network': trained['run']['id']}
        write_json(folder.path / 'result.json', result)
        return result


def _length(config: SearchConfig) -> str:
    """Return how long a training lasts, for people."""
    evaluator = config.evaluator
    limit = f' or {evaluator.max_seconds:g} s' if evaluator.max_seconds else ''
    return f'{evaluator.max_epochs} epoch{"" if evaluator.max_epochs == 1 else "s"}{limit}'


def _result(found: dict[str, Any], trained: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return the result of both runs: what was found, how good it is, and what is needed to use the network."""
    final = found['final']
    measured_on = 'test' if 'test_accuracy' in final else 'validation'
    card = Network.load(out / NETWORK / 'network.safetensors')
    return {
        'data': trained['data'],
        'seed': found['seed'],
        'source': found['source'],
        'architecture': trained['architecture'],
        'supernet': {
            'accuracy': final.get('test_accuracy', final.get('default')),
            'measured_on': measured_on,
            'epochs': len(found['curve']),
            'seconds': found['seconds'],
            'file': f'{SEARCH}/supernet.safetensors',
        },
        'network': {
            'accuracy': trained['curve'][-1],  # of the network that is written
            'measured_on': trained['measured_on'],
            'epochs': len(trained['curve']),
            'seconds': trained['seconds'],
            'weights': trained['weights'],
            'parameters': trained['parameters'],
            'files': [f'{NETWORK}/{name}' for name in trained['files']],
            'image_shape': list(card.pictures),
            'mean': card.mean,
            'std': card.std,
            'class_names': card.class_names,
        },
        'seconds': found['seconds'] + trained['seconds'],
        'versions': versions(),
    }
