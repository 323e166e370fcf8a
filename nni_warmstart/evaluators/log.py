"""Log of a run in ``logs/metrics.csv``, which a resumed run continues: no row is lost, and none is there twice."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from torch import Tensor

from ..utils.files import write_atomic


class Rows(ExperimentWriter):
    """Writer of rows, which Lightning's own deletes at every start.

    Attributes
    ----------
    count
        Number of rows in the file.
    """

    count = 0

    def _check_log_dir_exists(self) -> None:
        """Leave the rows there until :meth:`begin`."""

    def begin(self, count: int, further: list[dict[str, Any]]) -> None:
        """Keep the first rows of the file, and add further ones that are not there."""
        path = Path(self.metrics_file_path)
        kept: list[dict[str, Any]] = []
        if count and path.is_file():
            with path.open(newline='') as file:
                reader = csv.DictReader(file)
                kept = [row for row, _ in zip(reader, range(count), strict=False)]
                self.metrics_keys = list(reader.fieldnames or ())
            self._replace(kept)
        else:
            path.unlink(missing_ok=True)
        self.count = len(kept)
        self.metrics = [*further, *self.metrics]

    def save(self) -> None:
        self.count += len(self.metrics)
        super().save()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline='') as file:
            rows = list(csv.DictReader(file))
        self._replace(rows)

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.metrics_file_path, text.getvalue().encode())


class RowLogger(CSVLogger):
    """Lightning's CSV logger, without the deletion of rows that are there."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = Rows(log_dir=self.log_dir)
        return self._experiment


class KeepRows(Callback):
    """Keeps the rows up to a checkpoint when a run is resumed from it.

    Lightning logs the figures of the training part of an epoch after its checkpoint is saved, so they are in the checkpoint.

    Parameters
    ----------
    logger
        Logger of the run.
    """

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.log'

    def __init__(self, logger: RowLogger) -> None:
        self.logger = logger
        self._trainer: Any = None
        self._epoch_ends = False
        self._loaded: dict[str, Any] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._trainer, self._loaded, self._epoch_ends = trainer, {}, False

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.logger.experiment.begin(self._loaded.get('count', 0), self._loaded.get('further', []))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._epoch_ends = False

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._epoch_ends = True

    def state_dict(self) -> dict[str, Any]:
        trainer = self._trainer
        if not trainer.is_global_zero:
            return {}
        self.logger.save()
        return {'count': self.logger.experiment.count, 'further': self._logged_next() if self._epoch_ends else []}

    def _logged_next(self) -> list[dict[str, Any]]:
        figures = self._trainer._logger_connector.metrics['log']
        if not figures:
            return []
        figures = apply_to_collection(figures, Tensor, lambda figure: figure.item())
        step = self._trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        return [{'epoch': self._trainer.current_epoch, **figures, 'step': step}]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = dict(state_dict)
