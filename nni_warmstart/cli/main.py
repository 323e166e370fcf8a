"""The command line ``nni-warmstart``: one module per command, none of which imports torch before it runs."""

from __future__ import annotations

import argparse
import importlib
import sys

from ..errors import WarmStartError, reason
from .common import quiet

COMMANDS = ('search', 'retrain', 'pretrain', 'zoo', 'report', 'doctor', 'spaces')
"""Modules of this package with HELP, DESCRIPTION, ``add_arguments(parser)`` and ``run(arguments)``."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; wrong input gives one line on stderr and status 2."""
    arguments = make_parser().parse_args(argv)
    quiet()
    try:
        return arguments.run(arguments) or 0
    except WarmStartError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, say, or a folder that was removed
        print(f'error: {reason(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='nni-warmstart', description='Warm-started differentiable architecture search on Microsoft NNI.'
    )
    actions = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name in COMMANDS:
        command = importlib.import_module(f'..{name}', __name__)
        action = actions.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
        action.set_defaults(run=command.run)
        command.add_arguments(action)
    return parser
