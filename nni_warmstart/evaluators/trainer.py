"""Lightning trainer of a run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from nni.nas.evaluator.pytorch import Trainer
from pytorch_lightning.callbacks import Timer

from ..errors import ConfigError, reason
from .checkpoints import AtomicCheckpoints
from .log import KeepRows, RowLogger
from .loggers import further_loggers
from .stop_at import StopAt

SAFE_LOADING = {'weights_only': True}
"""Arguments of ``Trainer.fit`` by which a resumed checkpoint is loaded as data only, never unpickled."""


def make_trainer(
    max_epochs: int,
    out: str | Path,
    *,
    progress: bool = True,
    callbacks: list[Any] | None = None,
    max_seconds: float = 0.0,
    stop_at: float | None = None,
    devices: int = 1,
    accelerator: str = 'auto',
    num_nodes: int = 1,
    precision: Any = '32-true',
    logger: str = 'csv',
    gradient_clip_val: float | None = None,
    **settings: Any,
) -> Any:
    """Make a Lightning trainer that writes its CSV log under ``out``, which a resumed run continues.

    ``logger`` names one of :data:`~nni_warmstart.evaluators.loggers.LOGGERS`, to which it writes as well.

    It stops after ``max_epochs``, after the epoch in which ``max_seconds`` have passed (0 for no limit; time before a
    resumption counts), or once the validation accuracy ``stop_at`` is reached and held (:class:`StopAt`). On several devices
    it starts this script again for each, and gradients are averaged. ``accelerator``, ``num_nodes``, ``precision`` and
    ``gradient_clip_val`` are Lightning's.

    Raises
    ------
    ConfigError
        If the machine has no such accelerator, or fewer devices, or the package of the logger is not installed.
    """
    rows = RowLogger(str(out), name='logs', version='')
    loggers = [rows, *further_loggers(logger, out)]
    ends: list[Any] = [Timer(timedelta(seconds=max_seconds), interval='epoch')] if max_seconds else []
    ends += [] if stop_at is None else [StopAt(stop_at)]
    try:
        return Trainer(
            max_epochs=max_epochs,
            devices=devices,
            accelerator=accelerator,
            num_nodes=num_nodes,
            precision=precision,
            gradient_clip_val=gradient_clip_val,
            strategy='auto'
            if devices * num_nodes == 1
            else 'ddp_find_unused_parameters_true',  # Proxyless trains one path per step
            logger=loggers,
            callbacks=[*(callbacks or []), *ends, KeepRows(rows)],
            plugins=[AtomicCheckpoints()],
            enable_progress_bar=progress,
            enable_model_summary=False,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            **settings,
        )
    except (MisconfigurationException, ValueError) as error:
        others = f'accelerator = {accelerator}, precision = {precision}'
        raise ConfigError(f'evaluator.devices = {devices} with {others}: {reason(error)}') from error
