"""Common parts of the commands: console, configuration files, and options of the same meaning."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from ..utils import distributed
from ..utils.files import unwritable
from ..utils.text import visible

_NOISE = (
    'does not have many workers',
    'pkg_resources',
    'Checkpoint directory',
    'Experiment logs directory',
    'LeafSpec',
    'smaller than the logging interval',
    'sync_dist=True',
    'find_unused_parameters=True was specified',
)

_HAS_WIDTH = sys.stdout.isatty() or 'COLUMNS' in os.environ


class _Door(Console):
    """Console through which text of any origin goes out: control characters in it are written out.

    Only the escape sequences of rich itself, whose segments have a ``control`` or a style, reach the terminal.
    """

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(visible(text), **settings)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


console = _Door(quiet=not distributed.is_first(), width=None if _HAS_WIDTH else 120, markup=False, emoji=False)


def loading() -> AbstractContextManager[Any]:
    """Show on a terminal that PyTorch and NNI are being imported, which takes seconds."""
    return console.status('Loading PyTorch and NNI ...')


def complain(message: str) -> None:
    """Print one line on stderr, whatever the message holds."""
    print(visible(message, keep=''), file=sys.stderr)


def _made_visible(record: logging.LogRecord) -> bool:
    own = record.name.startswith('nni_warmstart')  # a message of our own is one line
    record.msg, record.args = visible(record.getMessage(), keep='' if own else '\n\t'), ()
    return True


def quiet() -> None:
    """Silence messages and warnings of libraries that do not concern users, and make those that remain safe to show."""
    for handler in (*logging.getLogger().handlers, logging.lastResort):
        if handler is not None:
            handler.addFilter(_made_visible)
    logging.getLogger('pytorch_lightning').setLevel(logging.WARNING)
    logging.getLogger('pytorch_lightning.utilities.rank_zero').setLevel(logging.WARNING)
    for pattern in _NOISE:
        warnings.filterwarnings('ignore', message=f'.*{pattern}.*')


def a_path(text: str) -> Path:
    """Return a path with its home folder expanded, which shells don't do in ``--out=~/run``."""
    return Path(os.path.expanduser(text))


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add the option --set."""
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE',
        help='replace a key of the YAML by dotted name, e.g. --set strategy.head=prototype; may be repeated',
    )  # fmt: skip


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the option --export."""
    parser.add_argument(
        '--export', action='extend', nargs='+', default=[], metavar='FORMAT',
        help='write network.FORMAT too: pt2 (torch.export) or onnx',
    )  # fmt: skip


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the option --seed."""
    parser.add_argument('--seed', type=int, help='seed of everything random (default: the key seed of the YAML, or 0)')


def add_resume(parser: argparse.ArgumentParser, overwrite: str = 'start anew where --out holds an earlier run') -> None:
    """Add the options --resume and --overwrite, without either of which a folder with a run in it is refused."""
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument('--resume', action='store_true', help='go on from the last checkpoint in --out')
    ways.add_argument(
        '--overwrite', action='store_true',
        help=f'{overwrite}, whose results are deleted when training begins; without --resume or --overwrite such a folder '
             'is refused, and files that no run has written are never replaced',
    )  # fmt: skip


def changed(arguments: argparse.Namespace, *further: str) -> list[str]:
    """Return the dotted names of the settings that --set changes, and options like it."""
    return [item.partition('=')[0] for _, item in _changes(arguments, further)]


def _changes(arguments: argparse.Namespace, further: Sequence[str]) -> list[tuple[str, str]]:
    """Return options with their KEY=VALUE."""
    options = ('--set', *further)
    return [(option, item) for option in options for item in vars(arguments)[option.lstrip('-').replace('-', '_')]]


def document(arguments: argparse.Namespace, *further: str) -> dict[str, Any]:
    """Read --config, changed by --seed, by --set, and by further options like it (their names)."""
    from ..runs.settings import overridden, parse_yaml, read

    changes: dict[str, Any] = {} if arguments.seed is None else {'seed': arguments.seed}
    for option, item in _changes(arguments, further):
        key, equals, value = item.partition('=')
        if not equals:
            raise ConfigError(f'{option} {item!r} has no "="; write KEY=VALUE.')
        try:
            changes[key] = parse_yaml(value)
        except ConfigError as error:
            raise ConfigError(f'{option} {item!r}: the value is not YAML.') from error
    return overridden(read(arguments.config), changes)


def show_costs(costs: dict[str, Any] | None) -> None:
    """Print what a network costs as a table, see :func:`~nni_warmstart.runs.found.costs_of`."""
    if costs is None:
        return
    table = Table(title='Found network')
    for column in ('parameters', 'multiply-adds', 'ms per image', 'quartiles'):
        table.add_column(column, justify='right')
    low, high = costs['latency_ms_quartiles']
    latency = f'{costs["latency_ms"]:.2f}', f'{low:.2f} to {high:.2f}'
    table.add_row(f'{costs["parameters"]:,}', f'{costs["multiply_adds"]:,}', *latency)
    table.caption = 'For one image, on one thread of this CPU'
    console.print(table)


_OWN_FILE = 65_536  # bytes at the beginning of a file among which the name of this package is looked for


def check_file(option: str, path: Path, suffix: str) -> None:
    """Raise an error for a file that could not be written at the end, or that another program has written."""
    if path.suffix != suffix:
        raise ConfigError(f'{option} {path} must end in {suffix}.')
    if path.exists():
        with path.open('rb') as file:
            own = b'nni-warmstart' in file.read(_OWN_FILE)
        if not own:
            raise ConfigError(f'{option} {path} is there, and nni-warmstart has not written it; choose another name.')
    trouble = unwritable(path.resolve().parent)
    if trouble:
        raise ConfigError(f'{option}: folder {trouble}')
