"""The warm-started strategies: when to warm-start; how is in :mod:`nni_warmstart.mapping`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn

from . import channel
from .data import quiet_randomness
from .errors import TransferError, ZooError
from .mapping.report import TransferReport
from .mapping.transfer import check_settings, fits, transfer
from .ranking import EMBEDDING, Ranked, by_distance, rank
from .search_module import SearchModule, search_module
from .supernet import Supernet
from .zoo import SupernetZoo, open_zoo, resolve_source

_logger = logging.getLogger(__name__)

Source = Supernet | str | os.PathLike[str]

FUSED = 2
"""Supernets that 'fused' takes."""


class WarmStartDARTS(DARTS):
    """NNI's DARTS, started from a trained supernet instead of random weights and flat alphas.

    Without a source it is NNI's DARTS, weights, alphas and exported architecture equal to the bit, and in addition it
    validates each epoch and reports the figures.

    Parameters
    ----------
    source
        What to start from: None (a cold start), a :class:`~nni_warmstart.Supernet`, the path of a file, the name of a
        zoo entry, 'nearest': the entry whose data are nearest to the training data by optimal transport, among those
        that fit the model space (of any width, depth and ops), 'fused': the two nearest, or a list of supernets, files,
        names and 'nearest', which are fused: aligned by optimal transport and averaged, the nearer the data the more.
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
        source: Source | Sequence[Source] | None = None,
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
        sources, ranking = self._choose(target)
        choosing = time.perf_counter() - start
        report = transfer(
            sources,
            target,
            head=self.head,
            alpha=self.alpha,
            keep=self.keep,
            noise=self.noise,
            data=self._loader('train'),
            val_data=self._loader('val'),
            seed=torch.initial_seed() % 2**32,
            device=evaluator.trainer.strategy.root_device,
        )
        return replace(
            report, seconds={'choosing': choosing, **report.seconds}, ranking=tuple((r.name, r.distance) for r in ranking)
        )

    def _choose(self, target: nn.Module) -> tuple[list[tuple[Supernet, float]], list[Ranked]]:
        """The sources with their weights, and the candidates that they were chosen from."""
        if isinstance(self.source, str) and self.source in ('nearest', 'fused'):
            candidates, ranking = self._nearest(target)
            chosen = ranking[: 1 if self.source == 'nearest' else FUSED]
            weights = by_distance([each.distance for each in chosen])
            return [(candidates[each.name], weight) for each, weight in zip(chosen, weights, strict=True)], ranking
        if not isinstance(self.source, list | tuple):
            return [(resolve_source(cast(Any, self.source), self.zoo), 1.0)], []
        if not self.source:
            raise ZooError('source is an empty list; name at least one supernet.')
        found = [self._choose_one(item, target) for item in self.source]
        if len(found) == 1 or not all(EMBEDDING in each.sketches for each in found):
            return [(each, 1 / len(found)) for each in found], []
        numbered = {f'{index}': each.renamed(f'{index}') for index, each in enumerate(found)}
        distances = {each.name: each.distance for each in rank(list(numbered.values()), self._loader('train'))}
        return list(zip(found, by_distance([distances[name] for name in numbered]), strict=True)), []

    def _choose_one(self, source: Any, target: nn.Module) -> Supernet:
        if source == 'nearest':
            candidates, ranking = self._nearest(target)
            return candidates[ranking[0].name]
        return resolve_source(source, self.zoo)

    def _nearest(self, target: nn.Module) -> tuple[dict[str, Supernet], list[Ranked]]:
        """The zoo's entries that fit the target, and their ranking, the nearest first."""
        zoo = open_zoo(self.zoo)
        candidates = {entry.name: entry for entry in zoo.entries() if fits(entry, target, self.head)}
        if not candidates:
            raise ZooError(
                f'source {self.source!r}: zoo {zoo.root} has no entry that fits this model space with head {self.head!r}; '
                f'it has {", ".join(zoo.names()) or "none"}. Pretrain one on a similar space.'
            )
        return candidates, rank(list(candidates.values()), self._loader('train'))

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
