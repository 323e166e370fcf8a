"""Record of a search, also in its checkpoints: identity, warm start, and curve."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import nni
import torch
from pytorch_lightning import Callback
from torch import Tensor

from ..nni_adapter.architectures import best_sample, skip_share
from ..nni_adapter.choices import alpha_entropy

_logger = logging.getLogger(__name__)

STATE = 'nni_warmstart'
"""Key of the states of all callbacks of this folder in checkpoints of earlier versions."""

IDENTITY, CURVE = 'nni_warmstart.identity', 'nni_warmstart.curve'


def recorded_curve(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``curve``, ``samples`` and ``alphas`` by epoch from a Lightning checkpoint.

    Raises
    ------
    KeyError
        If the checkpoint is not from a search.
    """
    return _curve_of(checkpoint[STATE] if STATE in checkpoint else checkpoint['callbacks'][CURVE])


def run_of(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the unique name of the search that wrote a Lightning checkpoint; None if it has none."""
    return _identity_of(checkpoint).get('run')


def sources_of(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return the :attr:`~nni_warmstart.Supernet.key` of every source of the search that wrote a checkpoint, by name."""
    return json.loads(_identity_of(checkpoint).get('sources', '{}'))


def _identity_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    return checkpoint[STATE] if STATE in checkpoint else checkpoint.get('callbacks', {}).get(IDENTITY, {})


def _curve_of(state: Mapping[str, Any]) -> dict[str, Any]:
    unknown = json.dumps([{} for _ in state['curve']])  # a checkpoint from before they were recorded
    return {
        'curve': list(state['curve']),
        'samples': json.loads(state.get('samples', '[]')),
        'alphas': json.loads(state.get('alphas', unknown)),
    }


class Identity(Callback):
    """Identity of a search, which a resumed search keeps: run, warm start, seconds.

    Attributes
    ----------
    run
        Unique name of the search.
    warm_start
        Report of the warm start as plain data; None after a cold start. A resumed search keeps its report.
    sources
        Name of every source -> :attr:`~nni_warmstart.Supernet.key` of its weights.
    """

    @property
    def state_key(self) -> str:
        return IDENTITY

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex
        self.warm_start: dict[str, Any] | None = None
        self.sources: dict[str, str] = {}
        self._begun, self._seconds_before = time.perf_counter(), 0.0

    def count_from(self, begun: float) -> None:
        """Count the seconds of this process from an earlier reading of ``time.perf_counter``."""
        self._begun = begun

    @property
    def resumed(self) -> bool:
        """Whether the search was started by another process."""
        return self._seconds_before > 0

    @property
    def seconds(self) -> float:
        """Wall-clock time of the search so far, over all processes that ran it."""
        return self._seconds_before + time.perf_counter() - self._begun

    def state_dict(self) -> dict[str, Any]:
        texts = {'warm_start': json.dumps(self.warm_start), 'sources': json.dumps(self.sources)}
        return {'run': self.run, **texts, 'seconds': self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.run = state_dict.get('run', self.run)
        self.warm_start = json.loads(state_dict.get('warm_start', 'null'))
        self.sources = json.loads(state_dict.get('sources', '{}'))
        self._seconds_before = state_dict.get('seconds', 0.0)


class Curve(Callback):
    """Records figures, architecture and probabilities of every epoch, for NNI and for the loggers of Lightning.

    Attributes
    ----------
    figures
        Figures by epoch.
    samples
        Architecture by epoch: label of a choice -> chosen candidate or value.
    alphas
        Probabilities by epoch: label of a choice -> candidate -> rounded probability.
    validated
        Whether the evaluator validates; not once its validation has failed.
    """

    @property
    def state_key(self) -> str:
        return CURVE

    def __init__(self) -> None:
        self.figures: list[dict[str, float]] = []
        self.samples: list[dict[str, Any]] = []
        self.alphas: list[dict[str, dict[str, float]]] = []
        self.validated = True
        self._losses: list[Tensor] = []
        self._validated: dict[str, Any] = {}  # the architecture that is validated: sample, probabilities, figures
        self._epoch_start = time.perf_counter()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._epoch_start, self._losses = time.perf_counter(), []

    def add_loss(self, loss: Tensor) -> None:
        """Add the training loss of a batch to those of the epoch."""
        self._losses.append(loss.detach())

    def losses_so_far(self) -> Callable[[], None]:
        """Return a function that forgets the losses from now on."""
        losses, count = self._losses, len(self._losses)

        def forget() -> None:
            del losses[count:]

        return forget

    def look(self, pl_module: Any) -> None:
        """Note the architecture that is about to be validated: callbacks may have exchanged the alphas, too."""
        model, best = pl_module.model, best_sample(pl_module.model)
        probabilities = pl_module.probabilities().items()
        self._validated = {
            'sample': pl_module.constrained(best),
            'alphas': {str(label): {str(c): round(p, 4) for c, p in each.items()} for label, each in probabilities},
            'figures': {'alpha_entropy': alpha_entropy(model), 'skip_share': skip_share(model, best)},
        }

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        figures = {**self._measure(trainer, pl_module), **pl_module.further_figures()}
        figures = self._of_all_devices(trainer, figures)
        self.figures.append(figures)
        self.samples.append(self._validated['sample'])
        self.alphas.append(self._validated['alphas'])
        for logger in trainer.loggers:
            logger.log_metrics({f'search/{key}': value for key, value in figures.items()}, step=trainer.global_step)
        if 'default' in figures and reports_to_nni(trainer):
            nni.report_intermediate_result(figures)

    def _measure(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        figures = {
            'train_loss': float(self._stacked_losses().mean()) if self._losses else float('nan'),
            **self._validated['figures'],
            'epoch_seconds': time.perf_counter() - self._epoch_start,
        }
        measured = trainer.callback_metrics if self.validated else {}
        if 'val_loss' in measured:
            figures['val_loss'] = float(measured['val_loss'])
        name = _validation_metric(measured, pl_module.training_module)
        if name is not None:
            figures['default'] = float(measured[name])
            figures |= {key: float(value) for key, value in measured.items() if key.startswith(f'{name}/')}  # by dataset
        elif not self.figures and self.validated:
            _logger.warning(
                'The evaluator logs no validation metric (val_acc, val_accuracy, or val_ and the name of its metric), so '
                'nothing is reported to NNI; it logs %s.', ', '.join(measured) or 'nothing',
            )  # fmt: skip
        return figures

    def _stacked_losses(self) -> Tensor:
        return torch.stack([loss.to(self._losses[-1].device) for loss in self._losses])

    def _of_all_devices(self, trainer: Any, figures: dict[str, float]) -> dict[str, float]:
        """Average figures over the devices, each of which has validated its own part."""
        if trainer.world_size == 1:
            return figures
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=trainer.strategy.root_device)
        return dict(zip(figures, trainer.strategy.reduce(values, reduce_op='mean').tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        # as text, since NNI's labels are instances of a class of its own, which cannot be loaded as data only
        known = {'curve': self.figures, 'samples': json.dumps(self.samples), 'alphas': json.dumps(self.alphas)}
        return {**known, 'losses': self._stacked_losses()} if self._losses else known

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        known = _curve_of(state_dict)
        self.figures, self.samples, self.alphas = known['curve'], known['samples'], known['alphas']
        self._losses = list(state_dict.get('losses', ()))


def reports_to_nni(trainer: Any) -> bool:
    """Check whether this process has to report the figures of its search to NNI."""
    return trainer.is_global_zero and nni.get_current_parameter() is not None


def _validation_metric(measured: Mapping[str, Any], training_module: Any) -> str | None:
    names = ['val_acc', 'val_accuracy', *(f'val_{name}' for name in getattr(training_module, 'metrics', {}))]
    return next((name for name in names if name in measured), None)
