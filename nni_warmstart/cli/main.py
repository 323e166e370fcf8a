"""The command line ``nni-warmstart``: one module per command, none of which imports torch before it runs."""

from __future__ import annotations

import argparse
import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NoReturn

from ..errors import WarmStartError, reason
from ..utils import limits
from ..utils.distributed import leave_group
from ..utils.text import visible
from .common import complain, quiet

COMMANDS = ('run', 'search', 'retrain', 'pretrain', 'zoo', 'report', 'doctor', 'spaces')
"""Modules of this package with HELP, DESCRIPTION, ``add_arguments(parser)`` and ``run(arguments)``."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; see :func:`status_of` for its status."""
    arguments = make_parser().parse_args(argv)
    quiet()
    with limits.limited(arguments.max_mb):
        return status_of(lambda: arguments.run(arguments))


def status_of(action: Callable[[], int | None]) -> int:
    """Run an action and return its exit status; what goes wrong is one line on stderr.

    The status is 2 for wrong input, 1 for troubles of files and disks and for a training that diverged. After an interrupt
    (Ctrl+C) it is 130 and after SIGTERM 143, as in shells: 128 plus the number of the signal.
    """
    terminated: list[int] = []
    try:
        with _on_sigterm(terminated.append):
            status = action() or 0
            leave_group()  # not after an error, where other processes may still be waiting for this one
            return status
    except WarmStartError as error:
        return _failed(f'error: {error}', error.exit_status)
    except OSError as error:  # a full disk, say, or a folder that was removed
        return _failed(f'error: {reason(error)}', 1)
    except KeyboardInterrupt:
        return _failed('interrupted', 128 + signal.SIGINT)
    except SystemExit as stop:
        if terminated:
            return _failed('terminated', 128 + signal.SIGTERM)
        if isinstance(stop.__context__, KeyboardInterrupt):  # of which Lightning makes a sys.exit(1)
            return _failed('interrupted', 128 + signal.SIGINT)
        raise


@contextmanager
def _on_sigterm(note: Callable[[int], None]) -> Iterator[None]:
    """Note the first SIGTERM and raise SystemExit, so that temporary files and locks are removed.

    Lightning adds this handler to its own, which alone ends a training with status 0, and after the last step not at all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def terminate(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is not to be disturbed
        note(signal.SIGTERM)
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _failed(message: str, status: int) -> int:
    complain(message)
    return status


class _Version(argparse.Action):
    """Print the version and end; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f'nni-warmstart {version("nni-warmstart")}')
        parser.exit()


class _Completion(argparse.Action):
    """Print the completion script of a shell and end."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, __: Any = None) -> NoReturn:
        from ..utils.importing import optional

        parser.exit(status_of(lambda: print(optional('shtab', 'completion').complete(parser, shell))))


class _Parser(argparse.ArgumentParser):
    """Parser that shows wrong arguments, which may be names of files, without their control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message, keep=''))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = _Parser(prog='nni-warmstart', description='Warm-started differentiable architecture search on Microsoft NNI.')
    parser.add_argument('--version', action=_Version, nargs=0, help='print the version and exit')
    parser.add_argument(
        '--print-completion', action=_Completion, choices=('bash', 'zsh', 'tcsh'), metavar='SHELL',
        help='print what makes bash, zsh or tcsh complete commands and options, and exit',
    )  # fmt: skip
    parser.add_argument(
        '--max-mb', type=int, metavar='MB',
        help=f'memory that one entry of a zoo may take (default: {limits.VARIABLE} in the environment, or {limits.DEFAULT})',
    )  # fmt: skip
    actions = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name in COMMANDS:
        command = importlib.import_module(f'..{name}', __name__)
        action = actions.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
        action.set_defaults(run=command.run)
        command.add_arguments(action)
    return parser
