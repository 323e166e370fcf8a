"""Runs in the middle of a session of Python: what they leave as it was, and how they are interrupted."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOUD = ('nni', 'pytorch_lightning', 'pytorch_lightning.utilities.rank_zero')
"""Loggers of libraries that tell of every training."""


@contextmanager
def seeds_kept() -> Iterator[None]:
    """Restore the seeds that Lightning leaves in the environment for later trainings."""
    before = {name: os.environ.get(name) for name in ('PL_GLOBAL_SEED', 'PL_SEED_WORKERS')}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise the interruption by Ctrl+C, of which Lightning makes the end of the process."""
    try:
        yield
    except SystemExit as ending:
        if isinstance(ending.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from ending
        raise


@contextmanager
def quiet_libraries(quiet: bool) -> Iterator[None]:
    """Keep libraries from telling of every training, for a while."""
    loggers = [logging.getLogger(name) for name in _LOUD if quiet]
    before = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            if quiet:
                warnings.filterwarnings('ignore', module='pytorch_lightning|nni|torch')
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
