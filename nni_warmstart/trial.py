"""Trial that nnictl starts: ``trialCommand: python -m nni_warmstart.trial --config search.yml``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .cli.common import console, quiet
from .cli.main import status_of
from .nni_adapter.trial import next_parameter, show_tensorboard
from .runs.config import parse_search
from .runs.folder import RunFolder
from .runs.search import run_search
from .runs.settings import chosen, overridden, read


def main(argv: list[str] | None = None) -> int:
    """Run one search with the hyper-parameters NNI gives; they override keys of the YAML by dotted name.

    After `nnictl resume`, a trial that had not ended goes on from its last checkpoint.
    """
    parser = argparse.ArgumentParser(prog='python -m nni_warmstart.trial', description=main.__doc__)
    parser.add_argument('--config', required=True, type=Path, help='search.yml')
    parser.add_argument('--overwrite', action='store_true', help='outside of NNI: replace the search in this folder')
    arguments = parser.parse_args(argv)
    quiet()
    return status_of(lambda: _search(arguments))  # the page's "View trial error" shows its line on stderr


def _search(arguments: argparse.Namespace) -> None:
    document = overridden(read(arguments.config), chosen(next_parameter()))
    config = parse_search(document, arguments.config.resolve().parent)
    given = os.environ.get('NNI_OUTPUT_DIR')
    out = Path(given or '.')
    resume = given is not None and RunFolder(out).has_checkpoint()
    if config.evaluator.logger == 'tensorboard':
        show_tensorboard()
    run_search(
        config, seed=config.seed, out=out, resume=resume, overwrite=arguments.overwrite and not resume, progress=False,
        tell=console.print,
    )  # fmt: skip


if __name__ == '__main__':
    sys.exit(main())
