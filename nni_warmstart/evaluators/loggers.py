"""Loggers of Lightning by name, to which a run writes besides ``logs/metrics.csv``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from ..utils.importing import optional

_PROJECT = 'nni-warmstart'
"""Name under which MLflow and Weights & Biases group the runs."""


def _tensorboard(out: Path) -> Logger:
    return TensorBoardLogger(out, name='tensorboard', version='')  # which a trial shows to NNI's page


def _mlflow(out: Path) -> Logger:
    # the variable as it is now, and no folder, which is Lightning's default, and which newer versions of MLflow refuse
    server = os.environ.get('MLFLOW_TRACKING_URI') or f'sqlite:///{out.resolve() / "mlflow.db"}'
    return MLFlowLogger(_PROJECT, run_name=out.resolve().name, tracking_uri=server)


def _wandb(out: Path) -> Logger:
    return WandbLogger(name=out.resolve().name, save_dir=out, project=os.environ.get('WANDB_PROJECT', _PROJECT))


_MAKERS: dict[str, Callable[[Path], Logger]] = {'tensorboard': _tensorboard, 'mlflow': _mlflow, 'wandb': _wandb}
"""Name of a logger, of its package, and of the extra that installs it -> function that makes one for a folder."""

LOGGERS = ('csv', *_MAKERS)
"""Names of loggers; csv is there in any case."""


def further_loggers(name: str, out: str | Path) -> list[Logger]:
    """Return the loggers of a run besides the one of ``logs/metrics.csv``.

    Parameters
    ----------
    name
        One of :data:`LOGGERS`.
    out
        Folder of the run.

    Raises
    ------
    ConfigError
        If the package of the logger is not installed; the message has the command that installs it.
    """
    if name == 'csv':
        return []
    optional(name, name)
    return [_MAKERS[name](Path(out))]
