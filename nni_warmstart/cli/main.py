"""The command line ``nni-warmstart``: one module per command, none of which imports torch before it runs."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import NoReturn

from ..errors import WarmStartError, reason
from ..utils import limits
from ..utils.text import visible
from .common import complain, quiet

COMMANDS = ('search', 'retrain', 'pretrain', 'zoo', 'report', 'doctor', 'spaces')
"""Modules of this package with HELP, DESCRIPTION, ``add_arguments(parser)`` and ``run(arguments)``."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; wrong input gives one line on stderr and status 2."""
    arguments = make_parser().parse_args(argv)
    quiet()
    try:
        with limits.limited(arguments.max_mb):
            return arguments.run(arguments) or 0
    except WarmStartError as error:
        complain(f'error: {error}')
        return 2
    except OSError as error:  # a full disk, say, or a folder that was removed
        complain(f'error: {reason(error)}')
        return 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Parser that shows wrong arguments, which may be names of files, without their control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message, keep=''))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = _Parser(prog='nni-warmstart', description='Warm-started differentiable architecture search on Microsoft NNI.')
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
