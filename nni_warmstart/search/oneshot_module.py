"""What happens inside one epoch of a search: ordered alphas, real validation, figures for the page. Sits on NNI's module."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import nni
import torch
from torch import Tensor, nn

from ..nni_adapter import choices
from ..nni_adapter.architectures import best_sample, skip_share
from ..nni_adapter.choices import alpha_entropy
from ..nni_adapter.oneshot import DartsLightningModule, GumbelDartsLightningModule
from ..nni_adapter.paths import best_path, every_path
from ..utils.random import random_state, set_random_state
from . import collapse
from .alpha_rate import alpha_rate
from .evaluation import Evaluation

_logger = logging.getLogger(__name__)

STATE = 'nni_warmstart'
"""Our key in a Lightning checkpoint."""


class SearchModule(Evaluation):
    """Mixed into NNI's one-shot Lightning modules; adds, and changes nothing in the training itself but the alphas' rate
    where they are ``paced``.

    - Alphas enter the optimizer in the order of their labels, so that a resumed search gives each its own moments.
    - The validation loader validates. Validation leaves no trace: the random generators and the batch-norm statistics are
      put back, so that weights and alphas stay NNI's own to the bit.
    - Before validation, batch-norm statistics are re-estimated on training data: a few steps an epoch leave them behind.
    - Each epoch's figures go to NNI and to Lightning's loggers.
    """

    held_out: Callable[[], Iterable[Any]] | None = None
    """Gives validation batches for the eigenvalue."""

    paced = False
    """Whether the alphas' rate is set by the number of steps."""

    warm_start: dict[str, Any] | None = None
    """The strategy's report as plain data; a resumed search has that of its beginning."""

    run = ''
    """Identity of a search, which a resumed one keeps."""

    seconds_before = 0.0
    begun = 0.0
    """Seconds that a resumed search took before, and by this process' clock its start; in checkpoints too."""

    parameter_free_cap: int | None = None
    stop_on_eigenvalue = False
    """Guards of :mod:`nni_warmstart.search.collapse`; the strategy sets them."""

    def setup(self, stage: str) -> None:  # type: ignore[override]
        super().setup(stage)
        self.curve: list[dict[str, float]] = getattr(self, 'curve', [])
        self.samples: list[dict[str, Any]] = getattr(self, 'samples', [])
        self.alphas: list[dict[str, dict[str, float]]] = getattr(self, 'alphas', [])
        self.final: dict[str, float] = {}
        self._losses: list[Tensor] = []
        self._epoch_start = time.perf_counter()
        self._random: Any = None
        self._averaged = None
        self._earlier = None
        self._aside = ExitStack()

    def arch_parameters(self) -> list[nn.Parameter]:
        ordered = choices.arch_parameters(self.model)
        others = set(super().arch_parameters()) - set(ordered)  # of a user's own supernet modules
        return ordered + [parameter for parameter in self.parameters() if parameter in others]

    # -- training ----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        why_not = self._why_not_averaged() if self.average else ''
        if why_not:
            _logger.warning('The weights are not averaged: %s.', why_not)
        elif self.average:
            self._start_averaging()
        if self.paced:
            self._pace_alphas()
        if self._draw_on():  # resumed
            # Lightning made this epoch's iterator before any hook could run, with other random numbers
            iter(self.trainer.fit_loop._data_fetcher)  # pyright: ignore[reportArgumentType]
        if self.stop_on_eigenvalue and self._collapsing():  # resumed after it had stopped
            self.trainer.should_stop = True
        return super().on_train_start()

    def _pace_alphas(self) -> None:
        epochs = self.trainer.max_epochs or -1
        steps = (epochs - self.warmup_epochs) * self.trainer.num_training_batches if epochs > 0 else float('inf')
        rate, optimizer = alpha_rate(steps), cast(Any, self.architecture_optimizers())
        for group in optimizer.param_groups:
            group['lr'] = rate
        _logger.info('The alphas learn at a rate of %.2g.', rate)

    def _draw_on(self) -> bool:
        """Go on with the random numbers that would have come next, if a state is kept; whether there was one."""
        if self._random is None:
            return False
        set_random_state(self._random, self._generators())
        self._random = None
        return True

    def on_train_epoch_start(self) -> None:
        self._epoch_start = time.perf_counter()
        self._losses = []
        return super().on_train_epoch_start()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        result = super().training_step(batch, batch_idx)
        loss: Any = result['loss'] if isinstance(result, dict) else result
        self._losses.append(loss.detach())
        return result

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx, *args, **kwargs)
        if self._averaged is not None:
            self._averaged.update()
        # Validation may start after this hook, and its loader draws random numbers before the next one.
        self._random = random_state(self._generators())

    # -- validation --------------------------------------------------------------------------------------------------

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        return self.training_module.validation_step(*args, **kwargs)

    def on_validation_start(self) -> None:
        super().on_validation_start()
        share = self._head_share(self.current_epoch + 1)
        self._aside.enter_context(self._evaluating(calibrate=not self.trainer.sanity_checking, head=share))

    def on_validation_epoch_start(self) -> None:
        self.training_module.on_validation_epoch_start()

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.training_module.on_validation_batch_start(*args, **kwargs)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.training_module.on_validation_batch_end(*args, **kwargs)

    def on_validation_epoch_end(self) -> None:
        if not self._is_nnis('on_validation_epoch_end'):
            self.training_module.on_validation_epoch_end()
        self._aside.close()
        if not self.trainer.sanity_checking:
            self._draw_on()

    def on_validation_end(self) -> None:
        super().on_validation_end()
        if self.trainer.sanity_checking:
            return
        figures = self._figures()
        if self.stop_on_eigenvalue:
            figures['alpha_eigenvalue'] = self._eigenvalue()
        figures = self._of_all_devices(figures)
        self.curve.append(figures)
        self.samples.append(self._constrained(best_sample(self.model)))
        self.alphas.append(
            {str(label): {str(c): round(p, 4) for c, p in each.items()} for label, each in self.probabilities().items()}
        )
        if self.stop_on_eigenvalue and self._collapsing():
            _logger.warning('The curvature of the alphas grows: stopped after epoch %d.', len(self.curve))
            self.trainer.should_stop = True
        for logger in self.trainer.loggers:
            logger.log_metrics({f'search/{key}': value for key, value in figures.items()}, step=self.trainer.global_step)
        if 'default' in figures and self._reports_to_nni():
            nni.report_intermediate_result(figures)

    def on_fit_end(self) -> None:
        self.to(self.trainer.strategy.root_device)  # from which Lightning has taken it before this hook
        self._draw_on()  # where it was resumed after its last epoch: an export may draw numbers
        if self._averaged is None and self._earlier is not None:  # it went on after its last epoch: nothing was trained
            self._start_averaging()
        if self._averaged is not None:
            self._averaged.apply()
        if not (self.curve and self._is_nnis('on_fit_end')):  # NNI's own would only report a second time
            super().on_fit_end()
        if self._averaged is not None:
            self._fit_averaged()
        self.final = dict(self.curve[-1]) if self.curve else {}
        test = self._test_accuracy()
        if test is not None:
            self.final['test_accuracy'] = test
        self.final = self.trainer.strategy.broadcast(self.final)
        self.cpu()
        if 'default' in self.final and self._reports_to_nni():
            nni.report_final_result(self.final)

    @property
    def seconds(self) -> float:
        """Wall-clock of the search so far, in all its processes."""
        return self.seconds_before + time.perf_counter() - self.begun

    def probabilities(self) -> dict[str, dict[Any, float]]:
        """Of every candidate by choice: NNI's ``export_probs`` without the noise of GumbelDARTS, so it draws no numbers."""
        with best_path(self.model), torch.no_grad():
            found = self.export_probs()
        return {label: {c: float(p) for c, p in each.items()} for label, each in found.items()}  # of depths, tensors

    # -- guards ------------------------------------------------------------------------------------------------------

    def export(self) -> dict[str, Any]:
        if self.stop_on_eigenvalue and self._collapsing():
            return self.samples[-1 - collapse.WINDOW]
        started_warm = self.warm_start is not None  # Proxyless as in NNI draws a path from the probabilities
        return self._constrained(best_sample(self.model) if started_warm else super().export())

    def _constrained(self, sample: dict[str, Any]) -> dict[str, Any]:
        if self.parameter_free_cap is not None:
            sample = collapse.capped(self.model, collapse.without_zeros(self.model, sample), self.parameter_free_cap)
        penalty: Any = self.penalty
        return sample if penalty is None else penalty.kept(sample, self.probabilities())

    def _collapsing(self) -> bool:
        return collapse.collapsing([figures['alpha_eigenvalue'] for figures in self.curve])

    def _eigenvalue(self) -> float:
        """Dominant eigenvalue of the Hessian of the loss on one validation batch."""
        assert self.held_out is not None
        state = random_state(self._generators())
        batch = self._on_device(next(iter(self.held_out())))
        alphas = choices.arch_parameters(self.model)
        learning = [alpha.requires_grad for alpha in alphas]  # not while NNI warms up the weights
        with self._evaluating(every_path, calibrate=True), self._silent(), torch.enable_grad():
            for alpha in alphas:
                alpha.requires_grad_(True)
            value = collapse.dominant_eigenvalue(lambda: self._loss(batch), alphas)
        for alpha, learns in zip(alphas, learning, strict=True):
            alpha.requires_grad_(learns)
        set_random_state(state, self._generators())
        return value

    def _loss(self, batch: Any) -> Tensor:
        result: Any = self.training_module.training_step(batch, 0)
        return result['loss'] if isinstance(result, dict) else result

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Let the evaluator's step log nothing; Lightning allows it at few moments."""
        mine = vars(self.training_module)
        kept = {name: mine[name] for name in ('log', 'log_dict') if name in mine}  # NNI's own
        mine.update(log=_nothing, log_dict=_nothing)
        try:
            yield
        finally:
            for name in ('log', 'log_dict'):
                del mine[name]
            mine.update(kept)

    def _figures(self) -> dict[str, float]:
        figures = {
            'train_loss': float(torch.stack(self._losses).mean()) if self._losses else float('nan'),
            'alpha_entropy': alpha_entropy(self.model),
            'skip_share': skip_share(self.model, best_sample(self.model)),
            'epoch_seconds': time.perf_counter() - self._epoch_start,
        }
        measured = self.trainer.callback_metrics
        if 'val_loss' in measured:
            figures['val_loss'] = float(measured['val_loss'])
        name = self._validation_metric(measured)
        if name is not None:
            figures['default'] = float(measured[name])
            figures |= {key: float(value) for key, value in measured.items() if key.startswith(f'{name}/')}  # by dataset
        elif not self.curve:
            _logger.warning(
                'The evaluator logs no validation metric (val_acc, val_accuracy, or val_ and the name of its metric), so '
                'nothing is reported to NNI; it logs %s.', ', '.join(measured) or 'nothing',
            )  # fmt: skip
        return figures

    def _of_all_devices(self, figures: dict[str, float]) -> dict[str, float]:
        """Means over the devices, each of which has validated its own part."""
        if self.trainer.world_size == 1:
            return figures
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        return dict(zip(figures, self.trainer.strategy.reduce(values, reduce_op='mean').tolist(), strict=True))

    def _reports_to_nni(self) -> bool:
        return self.trainer.is_global_zero and nni.get_current_parameter() is not None

    def _validation_metric(self, measured: Any) -> str | None:
        names = ['val_acc', 'val_accuracy', *(f'val_{name}' for name in getattr(self.training_module, 'metrics', {}))]
        return next((name for name in names if name in measured), None)

    # -- resume ------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_save_checkpoint(checkpoint)
        averaged = None if self._averaged is None else self._averaged.values
        checkpoint[STATE] = {
            'curve': self.curve, 'averaged': averaged,
            'samples': json.dumps(self.samples),  # labels of NNI are no plain text
            'alphas': json.dumps(self.alphas),
            'warm_start': json.dumps(self.warm_start),
            'run': self.run,
            'seconds': self.seconds,
            'random': random_state(self._generators()),
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_load_checkpoint(checkpoint)
        if STATE in checkpoint:
            self.curve = list(checkpoint[STATE]['curve'])
            self.samples = json.loads(checkpoint[STATE].get('samples', '[]'))
            unknown = json.dumps([{} for _ in self.curve])  # a checkpoint from before they were recorded
            self.alphas = json.loads(checkpoint[STATE].get('alphas', unknown))
            self.warm_start = json.loads(checkpoint[STATE].get('warm_start', 'null'))
            self.run = checkpoint[STATE].get('run', self.run)
            self.seconds_before = checkpoint[STATE].get('seconds', 0.0)
            self._earlier = checkpoint[STATE].get('averaged')
            self._random = checkpoint[STATE]['random']


class DartsSearchModule(SearchModule, DartsLightningModule):
    """For DARTS and Proxyless."""


class GumbelDartsSearchModule(SearchModule, GumbelDartsLightningModule):
    """For GumbelDARTS."""


_SEARCH_MODULES = {DartsLightningModule: DartsSearchModule, GumbelDartsLightningModule: GumbelDartsSearchModule}


def search_module(module: DartsLightningModule) -> SearchModule:
    """Turn the module that NNI's strategy made into a search module, in place.

    Our classes add methods only, so the class of the finished object is exchanged: NNI's constructors, and the arguments
    that its strategies give them, need not be written again.
    """
    module.__class__ = _SEARCH_MODULES[type(module)]
    assert isinstance(module, SearchModule)
    return module


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass
