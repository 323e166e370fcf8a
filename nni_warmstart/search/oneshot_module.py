"""One-shot modules of NNI with alphas in a fixed order, real validation, and the callbacks of a warm-started search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from pytorch_lightning import Callback
from torch import nn

from ..errors import REFUSALS, reason
from ..nni_adapter.architectures import best_sample
from ..nni_adapter.choices import arch_parameters
from ..nni_adapter.oneshot import (
    DartsLightningModule,
    GumbelDartsLightningModule,
    has_nnis,
    reporting_training,
    without_onnx_export,
)
from ..nni_adapter.paths import best_path
from ..nni_adapter.penalty import bound
from ..utils.inputs import size_of
from . import collapse
from .alpha_rate import AlphaRate
from .continuity import Continuity
from .eigenvalue_stop import EigenvalueStop
from .ending import Ending
from .evaluation import Evaluation
from .fast import Fast
from .held_out import HeldOutImages
from .held_statistics import HeldStatistics
from .hooks import EvaluatorsLast, Withdrawal
from .inherited_rate import InheritedRate
from .loaders import Loaders
from .phases import Phases
from .random_state import RandomState
from .record import STATE, Curve, Identity
from .residual_cells import MANY, residual
from .settings import SearchSettings
from .step_length import StepLength
from .undo import Undo

_logger = logging.getLogger(__name__)


class DartsSearchModule(DartsLightningModule):
    """NNI's module for DARTS and Proxyless, with additions that do not change the training itself.

    - Alphas enter the optimizer in the order of their labels, so that a resumed search gives each its own moments.
    - The validation loader validates (microsoft/nni #5160): NNI's module does not forward the hooks of validation and of
      checkpoints.
    - All other additions are callbacks, each with its own state (:meth:`configure_callbacks`).

    Derive your own module from this class; see :attr:`~nni_warmstart.WarmStartDARTS.search_module`.

    Parameters
    ----------
    training_module
        Lightning module of the evaluator.
    settings
        Settings of the search.
    loaders
        Loaders of the search.
    penalty
        NNI's penalty, made differentiable, or a :class:`~nni_warmstart.nni_adapter.cost_penalty.CostPenalty`.
    **kwargs
        Other arguments of NNI's module.

    Attributes
    ----------
    identity, record, evaluation, statistics, held_out, ending
        Parts that others query: run and warm start, figures by epoch, averaged weights, batch-norm statistics that are held,
        test images, final figures.
    once_set_up
        Function that is called once, when the trainer has set up the data module and the module of the evaluator.
    """

    def __init__(
        self, training_module: Any, *, settings: SearchSettings, loaders: Loaders, penalty: Any = None, **kwargs: Any
    ) -> None:
        if penalty is not None:
            penalty = bound(penalty, lambda: training_module.model)
        super().__init__(training_module, penalty=penalty, **kwargs)
        self.settings = settings
        self.identity = Identity()
        self.evaluation = Evaluation(settings, loaders)
        self.randomness = RandomState()
        self.record = Curve()
        self.phases = Phases()
        self.statistics, self.inherited_rate, self.step_length = HeldStatistics(), InheritedRate(), StepLength()
        self.fast = Fast(settings.fast, settings.fast_asked)
        self.held_out = HeldOutImages(loaders.data)
        self.ending = Ending(self.evaluation, self.randomness, self.record, self.held_out)
        self.once_set_up: Callable[[], None] | None = None
        self.undo = Undo()
        self.guard: EigenvalueStop | None = None
        if settings.stop_on_eigenvalue:
            self.guard = EigenvalueStop(self.evaluation, loaders, self.record)
        self.continuity = Continuity(settings)
        self._added: list[Callback] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), 'once_set_up': None}  # a copy of a module starts nothing

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return the callbacks of the search, in the order in which each hook runs after those of the user."""
        pace = AlphaRate() if self.settings.paced else None
        step = [self.statistics, self.inherited_rate, self.step_length, self.phases, self.fast]
        found = [self.undo, self.evaluation, self.identity, self.continuity, pace, EvaluatorsLast(), self.record]
        self._added = [each for each in (*found, *step, self.guard, self.randomness) if each is not None]
        return self._added

    def setup(self, stage: str) -> None:  # type: ignore[override]
        super().setup(stage)
        first, last = [self.undo, self.evaluation], Withdrawal()
        others = [each for each in self.trainer.callbacks if each not in first]
        self.trainer.callbacks = [*first, *others, last]  # before those of the user, and after those that save checkpoints
        self._added.append(last)
        if self.once_set_up is not None:
            self.once_set_up()
            self.once_set_up = None

    def teardown(self, stage: str) -> None:  # type: ignore[override]
        super().teardown(stage)
        self.withdraw_callbacks()

    def withdraw_callbacks(self) -> None:
        """Remove the callbacks of the search from the trainer, where Lightning leaves them for the next module."""
        self.trainer.callbacks = [each for each in self.trainer.callbacks if each not in self._added]

    @property
    def curve(self) -> list[dict[str, float]]:
        """Figures of every finished epoch, as reported to NNI."""
        return self.record.figures

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Architecture of every finished epoch."""
        return self.record.samples

    @property
    def alphas(self) -> list[dict[str, dict[str, float]]]:
        """Probabilities of the candidates of every choice, by finished epoch."""
        return self.record.alphas

    @property
    def final(self) -> dict[str, float]:
        """Figures at the end of the search."""
        return self.ending.figures

    # -- architectures -----------------------------------------------------------------------------------------------

    def arch_parameters(self) -> list[nn.Parameter]:
        """Return the alphas in the order of their labels; NNI's order, ``list(set(...))``, changes between processes."""
        ordered = arch_parameters(self.model)
        others = set(super().arch_parameters()) - set(ordered)  # alphas of a user's own supernet modules
        return ordered + [parameter for parameter in self.parameters() if parameter in others]

    def probabilities(self) -> dict[str, dict[Any, float]]:
        """Return NNI's ``export_probs`` without the noise of GumbelDARTS, so that no random numbers are drawn."""
        with best_path(self.model), torch.no_grad():
            found = self.export_probs()
        return {label: {c: float(p) for c, p in each.items()} for label, each in found.items()}  # NNI has tensors for depths

    def further_figures(self) -> dict[str, float]:
        """Return figures of an epoch that take long to measure; none after one that fails."""
        if self.guard is None:
            return {}
        try:
            return self.guard.measure(self)
        except REFUSALS as error:
            _logger.warning('The search is not stopped by the curvature of the alphas any more: %s', reason(error))
            self.guard = None
            return {}

    def export(self) -> dict[str, Any]:
        """Return the found architecture: label of a choice -> chosen candidate or value."""
        if self.guard is not None and self.guard.collapsing:
            return self.samples[-1 - collapse.WINDOW]
        started_warm = self.identity.warm_start is not None  # cold, NNI's Proxyless draws a path
        return self.constrained(best_sample(self.model) if started_warm else super().export())

    def constrained(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return an architecture in the form and within the bounds that the settings ask for."""
        in_form = self.settings.residual_cells
        if in_form is None:
            in_form = self.evaluation.loaders.count('train') >= MANY
        if in_form and not self.inherited_rate.names:
            sample = residual(self.model, sample)
        cap = self.settings.parameter_free_cap
        if cap is not None:
            sample = collapse.capped(self.model, collapse.without_zeros(self.model, sample), cap)
        penalty: Any = self.penalty
        return sample if penalty is None else penalty.kept(sample, self.probabilities())

    # -- training ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Train alphas on one batch, then weights on another: the steps of NNI, each with its own gradients only."""
        with self.fast.applied():
            if self.trainer.current_epoch >= self.warmup_epochs:
                with self.phases.gradients('alphas'):
                    self._alpha_step(batch['val'], 2 * batch_idx)
            with self.phases.gradients('weights'):
                outputs = self._weight_step(batch['train'], batch_idx)
        self.advance_lr_schedulers(batch_idx)
        if batch_idx % self.log_prob_every_n_step == 0:
            self.log_probs(self.export_probs())
        return outputs

    def _alpha_step(self, batch: Any, step: int) -> None:
        optimizer: Any = self.architecture_optimizers()
        self.resample()  # a path of Proxyless
        optimizer.zero_grad()
        with self.phases.watching():
            outputs: Any = self.training_module.training_step(batch, step)
        loss = outputs['loss'] if isinstance(outputs, dict) else outputs
        if self.penalty is not None:
            loss, details = self.penalty(loss, self.export_probs())
            self.log_dict({f'penalty/{name}': value for name, value in details.items()})
        self.phases.look(self, loss)
        self.manual_backward(self.phases.with_gradient(loss))
        optimizer.step()

    def _weight_step(self, batch: Any, batch_idx: int) -> Any:
        self.resample()
        with self.phases.watching():
            outputs: Any = self.training_module.training_step(batch, 2 * batch_idx + 1)
        loss = outputs['loss'] if isinstance(outputs, dict) else outputs
        self.phases.look(self, loss)
        self.advance_optimization(self.phases.with_gradient(loss), batch_idx, self._clip(size_of(batch)))
        self.record.add_loss(loss)
        return outputs

    def _clip(self, images: int) -> float | None:
        """Return the largest norm of gradients when they are clipped: with ``16-mixed``, that of gradients times a scale."""
        scaler = getattr(self.trainer.precision_plugin, 'scaler', None)
        clip = self.gradient_clip_val
        if clip is None:
            clip = self.step_length.limit(self, images)
        return clip if clip is None or scaler is None else clip * scaler.get_scale()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.randomness.begin_fit()

    def on_train_start(self) -> None:
        super().on_train_start()
        self.evaluation.begin(self)
        self.randomness.resume(self)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.randomness.begin_epoch()

    def end_batch(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Run the last hook of a batch, which may change weights, and average them."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        self.evaluation.update()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: :meth:`end_batch` is called earlier."""

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.randomness.end_epoch()

    # -- hooks that NNI's module does not forward --------------------------------------------------------------------

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        if not self.record.validated:
            return None
        try:
            with without_onnx_export(self.training_module), self.fast.applied():
                return self.training_module.validation_step(*args, **kwargs)
        except REFUSALS as error:  # in NNI it never runs, and may not suit the batches
            _logger.warning('The search goes on without validation, since validation_step fails: %s', reason(error)[:200])
            self.record.validated = False

    def on_validation_epoch_start(self) -> None:
        if self.record.validated:
            self.training_module.on_validation_epoch_start()
        self.record.look(self)
        self.evaluation.open(self)

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients: NNI does not validate, and an evaluator may accumulate them."""

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        if self.record.validated:
            self.training_module.on_validation_batch_start(*args, **kwargs)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if self.record.validated:
            self.training_module.on_validation_batch_end(*args, **kwargs)

    def on_validation_epoch_end(self) -> None:
        nnis = has_nnis(self.training_module, 'on_validation_epoch_end')  # it only reports, as the curve does
        if self.record.validated and not nnis:
            self.training_module.on_validation_epoch_end()

    def end_validation(self) -> None:
        """Run the last hook of a validation."""
        super().on_validation_end()

    def on_validation_end(self) -> None:
        """Do nothing: :meth:`end_validation` is called earlier."""

    def on_fit_end(self) -> None:
        self.ending.begin(self)
        validated = bool(self.curve) and 'default' in self.curve[-1]
        try:
            with nullcontext() if validated else reporting_training(self.training_module):
                if not (validated and has_nnis(self.training_module, 'on_fit_end')):  # NNI's would report twice
                    super().on_fit_end()
        finally:
            self.ending.finish(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_load_checkpoint(checkpoint)
        if STATE in checkpoint:  # earlier versions stored the states of all callbacks together
            for callback in (self.identity, self.evaluation, self.randomness, self.record):
                callback.load_state_dict(checkpoint[STATE])
        self.randomness.put_loops(checkpoint)


class GumbelDartsSearchModule(DartsSearchModule, GumbelDartsLightningModule):
    """NNI's module for GumbelDARTS, with the additions of :class:`DartsSearchModule`."""
