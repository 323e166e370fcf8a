"""The warm-started strategies: when to warm-start; how is in :mod:`nni_warmstart.mapping`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn

from . import channel
from .data import quiet_randomness
from .errors import TransferError, ZooError
from .mapping.report import TransferReport
from .mapping.transfer import check_settings, fits, transfer
from .ranking import Ranked, rank
from .search_module import SearchModule, search_module
from .supernet import Supernet
from .zoo import SupernetZoo, open_zoo, resolve_source

_logger = logging.getLogger(__name__)


class WarmStartDARTS(DARTS):
    """NNI's DARTS, started from a trained supernet instead of random weights and flat alphas.

    Without a source it is NNI's DARTS, weights, alphas and exported architecture equal to the bit, and in addition it
    validates each epoch and reports the figures.

    Parameters
    ----------
    source
        What to start from: None (a cold start), a :class:`~nni_warmstart.Supernet`, the path of a file, the name of a
        zoo entry, or 'nearest': the entry whose data are nearest to the training data by optimal transport, among those
        that fit the model space.
    zoo
        Where names are looked up: a :class:`~nni_warmstart.SupernetZoo`, a folder, or None for the shipped zoo.
    head
        Initial classifier: 'ridge', 'ot', 'prototype', 'random' or 'copy'; see :func:`~nni_warmstart.transfer`.
    alpha
        'transfer', 'reset', or the strength of the inherited prior in [0, 1].
    keep
        Shrink and perturb: share of the inherited weights, the rest is fresh initialisation, in [0, 1].
    noise
        Relative noise on replicated channels.
    save_to
        A zoo or a folder in which the trained supernet is remembered afterwards.
    **kwargs
        Arguments of NNI's strategy of the same name.

    Attributes
    ----------
    report
        The :class:`~nni_warmstart.TransferReport` once initialised; None after a cold start.
    """

    def __init__(
        self,
        *,
        source: Supernet | str | os.PathLike[str] | None = None,
        zoo: SupernetZoo | str | os.PathLike[str] | None = None,
        head: str = 'ridge',
        alpha: str | float = 'transfer',
        keep: float = 0.8,
        noise: float = 1e-3,
        save_to: SupernetZoo | str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_settings(head=head, alpha=alpha, keep=keep, noise=noise)
        super().__init__(**kwargs)
        self.source, self.zoo = source, zoo
        self.head, self.alpha, self.keep, self.noise = head, alpha, keep, noise
        self.save_to = save_to
        self.report: TransferReport | None = None
        self._validates = False
        self._loaders: dict[str, Callable[[], Any]] = {}

    @property
    def curve(self) -> list[dict[str, float]]:
        """Figures of every finished epoch, as reported to NNI."""
        return getattr(self.oneshot_module, 'curve', [])

    def configure_oneshot_module(self, training_module: Any) -> SearchModule:
        inner: Any = super().configure_oneshot_module(training_module)
        self._validates = is_overridden('validation_step', training_module)
        return search_module(inner)

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        self._loaders = {'train': train_dataloader_fn, 'val': val_dataloader_fn}
        return super().train_dataloader(train_dataloader_fn, val_dataloader_fn)

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        return val_dataloader_fn() if self._validates else None

    def _initialize(self, model_space: Any, engine: Any) -> Any:
        if self.save_to is not None:
            open_zoo(self.save_to).check_can_add('name')
        mutated: Any = super()._initialize(model_space, engine)
        evaluator = mutated.evaluator
        evaluator.module.calibration = lambda: self._loader('train')
        if self.source is not None:
            self.report = self._warm_start(mutated.model_space, evaluator)
            _logger.info('%s', self.report.summary())
        if channel.in_trial():
            channel.forward_metrics(engine)
        return mutated

    def _warm_start(self, target: nn.Module, evaluator: Any) -> TransferReport:
        if evaluator.datamodule is not None:
            with quiet_randomness():
                evaluator.datamodule.prepare_data()
                evaluator.datamodule.setup('fit')
                evaluator.datamodule.train_dataloader()  # records the loaders' factories
        start = time.perf_counter()
        source, ranking = self._choose(target)
        choosing = time.perf_counter() - start
        report = transfer(
            source,
            target,
            head=self.head,
            alpha=self.alpha,
            keep=self.keep,
            noise=self.noise,
            data=self._loader('train'),
            val_data=self._loader('val'),
            device=evaluator.trainer.strategy.root_device,
        )
        return replace(
            report, seconds={'choosing': choosing, **report.seconds}, ranking=tuple((r.name, r.distance) for r in ranking)
        )

    def _choose(self, target: nn.Module) -> tuple[Supernet, list[Ranked]]:
        """The source, and the candidates it was chosen from."""
        if self.source != 'nearest':
            return resolve_source(cast(Any, self.source), self.zoo), []
        zoo = open_zoo(self.zoo)
        candidates = {entry.name: entry for entry in zoo.entries() if fits(entry, target, self.head)}
        if not candidates:
            raise ZooError(
                f"source 'nearest': zoo {zoo.root} has no entry that fits this model space with head {self.head!r}; it has "
                f'{", ".join(zoo.names()) or "none"}. Pretrain one on this space, width and depth.'
            )
        ranking = rank(list(candidates.values()), self._loader('train'))
        return candidates[ranking[0].name], ranking

    def _loader(self, part: str) -> Any:
        if part not in self._loaders:
            raise TransferError(f'the evaluator has no {part} data loader.')
        return self._loaders[part]()

    def _run(self) -> None:
        super()._run()
        if self.save_to is not None:
            zoo = open_zoo(self.save_to)
            supernet = Supernet.from_strategy(self, name='new', dataset=self._loader('train'), history={'curve': self.curve})
            name = zoo.add_numbered(supernet, type(self.supernet).__name__.lower())
            _logger.info('Remembered the supernet as %r in %s.', name, zoo)


class WarmStartGumbelDARTS(WarmStartDARTS, GumbelDARTS):
    """NNI's GumbelDARTS with a warm start; parameters as :class:`WarmStartDARTS`, and ``temperature`` as NNI's."""


class WarmStartProxyless(WarmStartDARTS, Proxyless):
    """NNI's Proxyless with a warm start; parameters as :class:`WarmStartDARTS`."""
