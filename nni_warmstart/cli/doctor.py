"""``nni-warmstart doctor``."""

from __future__ import annotations

import argparse

from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from .common import console

HELP = 'check this machine'
DESCRIPTION = 'Check versions, NNI, port, disk, GPU and zoo, and say how to mend what is wrong (then status 1).'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--zoo', help='folder or URL of the zoo to read (default: the one shipped with the package)')
    parser.add_argument('--port', type=int, default=8080, help="of NNI's web page (default: 8080)")


def run(arguments: argparse.Namespace) -> int:
    """Print all findings with their remedies; return 1 if something is bad."""
    from .examination import examine

    if not 1 <= arguments.port <= 65535:
        raise ConfigError(f'--port {arguments.port} must be from 1 to 65535.')
    colours = {'good': 'green', 'note': 'yellow', 'bad': 'red'}
    table = Table()
    for column in ('', 'checked', 'found', 'remedy'):
        table.add_column(column, overflow='fold')
    bad = 0
    with console.status('Examining this machine ...'):
        for finding in examine(zoo=arguments.zoo, port=arguments.port):
            table.add_row(Text(finding.status, colours[finding.status]), finding.subject, finding.text, finding.remedy)
            bad += finding.status == 'bad'
    console.print(table)
    console.print('All is well.' if not bad else f'{bad} to be mended, see the last column.')
    return 1 if bad else 0
