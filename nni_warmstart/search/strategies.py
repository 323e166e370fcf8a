"""Warm-started strategies, which decide when to warm-start; :mod:`nni_warmstart.warm_start` implements the warm start."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn

from ..data.labelled import name_and_classes
from ..errors import REFUSALS, ConfigError, TransferError, ZooError, as_well, reason
from ..nni_adapter import trial
from ..nni_adapter.oneshot import DartsLightningModule, GumbelDartsLightningModule, undo_patches
from ..supernets.history import record
from ..supernets.supernet import Supernet
from ..utils.checks import Expected, Range, check, checks_arguments
from ..utils.divergence import divergence
from ..utils.progress import waiting
from ..utils.random import quiet_randomness
from ..warm_start.heads.registry import HEADS
from ..warm_start.report import TransferReport
from ..warm_start.settings import TransferSettings
from ..warm_start.transfer import transfer
from ..zoo.recognition import own_entry
from ..zoo.selection import Source, SourceSelector
from ..zoo.zoo import SupernetZoo, open_zoo
from . import collapse
from .alpha_rate import NNIS
from .loaders import AlphaLoader, Loaders
from .model_inputs import as_model_reads, reads_after_set_up
from .oneshot_module import DartsSearchModule, GumbelDartsSearchModule
from .settings import SearchSettings

_logger = logging.getLogger(__name__)

_NNIS_ARGUMENTS = (
    'arc_learning_rate', 'gradient_clip_val', 'log_prob_every_n_step', 'warmup_epochs', 'penalty', 'temperature_scheduler',
)  # fmt: skip
"""Names of arguments of NNI's one-shot modules, and of the attributes that hold them."""


@runtime_checkable
class Remembering(Protocol):
    """Evaluator module that creates the trained supernet itself, such as that for several datasets."""

    def remembered(self, model: nn.Module, *, name: str, history: dict[str, Any] | None = None) -> Supernet:
        """Return the trained supernet as data."""
        ...


class WarmStartDARTS(DARTS):
    """NNI's DARTS, started from a trained supernet instead of random weights and flat alphas.

    Without a source (and a penalty) it is equal to NNI's DARTS, with weights, alphas and exported architecture identical to
    the bit. In addition it validates each epoch and reports the figures.

    Parameters
    ----------
    source
        Supernet to start from: None (a cold start), a :class:`~nni_warmstart.Supernet`, any pretrained network
        (``nn.Module``) or its name (``torchvision:NAME``, ``timm:NAME``, ``python:package.module:function``), the path of a
        file, the name of a zoo entry, or a rule. 'nearest' takes the entry whose data are
        nearest to the training data by optimal transport, among those that fit the model space best; 'fused' takes the two
        nearest; 'joint' takes the entry trained on most datasets; 'auto' takes the joint entry, unless the nearest, both
        fused, or a network without choices have a clearly lower error on some images. The members of a list are fused:
        aligned by optimal transport and averaged, with larger weights for nearer data.
    zoo
        Zoo in which names are looked up: a :class:`~nni_warmstart.SupernetZoo`, a folder, or None for the shipped zoo.
    download
        Whether published weights of a network that is named may be fetched if they are not on the disk.
    head
        Method to initialise the classifier: 'ridge', 'ot', 'prototype', 'random' or 'copy'; see
        :func:`~nni_warmstart.transfer`.
    alpha
        'transfer', 'reset', or the strength of the inherited prior in [0, 1].
    keep
        Factor of shrink and perturb in [0, 1]: share of the inherited weights; the rest is fresh initialisation. None for
        0.8, and for 1 if the source is a network.
    class_names
        Names of the classes in the order of their numbers, for head 'copy' and for the card of the supernet that is saved;
        None for those that the data have, if any.
    noise
        Noise on replicated channels, relative to the scale of each tensor.
    untraceable
        Treatment of modules whose channels are not known if the spaces differ: 'error' raises an error, 'fresh' leaves them
        as initialised.
    average
        Number of epochs over which weights are averaged for validation, test and export; see
        :class:`~nni_warmstart.search.averaging.WeightAverage`. None averages over one epoch after a warm start and, as in
        NNI, not at all after a cold start.
    refit_head
        Whether averaged weights are evaluated with the mean of their classifier and a 'ridge' one, which is fitted to their
        features on up to 2,048 training images. The share of the fitted one falls from a half in the first epoch to nothing
        in the last (with Proxyless, which trains one path per step, it stays), and is smaller if the trained one makes few
        errors on these images. Training continues without it. None for True if ``head`` is a fitted one.
    arc_learning_rate
        Learning rate of Adam for the alphas. None for NNI's 3e-4 after a cold start, and after a warm start for a rate at
        which they can move as far as in DARTS's own search, at most 0.03; see :mod:`nni_warmstart.search.alpha_rate`. NNI's
        as well if the source is a network.
    save_to
        Zoo or folder in which the trained supernet is saved after the search, under the first free name; a resumed search
        replaces its own entry, never a copy. A warning says where it is not saved, since it has diverged, or the zoo cannot
        be written any more.
    parameter_free_cap
        Largest number of operations without parameters (skip, pooling) in a cell of an exported architecture; zero
        operations are then replaced by the next best ones. See :mod:`nni_warmstart.search.collapse`. None for two after a
        warm start, whose alphas have had more time to collapse, and, as in NNI, no cap after a cold start.
    residual_cells
        Whether exported cells of NAS-Bench-201 have shortcuts from their first two nodes to the output, and operations with
        parameters on all other edges; see :mod:`nni_warmstart.search.residual_cells`. None for True after a warm start with
        many training images for which no ``parameter_free_cap`` is given, and False otherwise. If the source is a network,
        its path decides.
    stop_on_eigenvalue
        Whether to stop when the curvature of the alphas' loss grows, and to export the architecture from before. It takes
        some seconds per epoch. See :mod:`nni_warmstart.search.collapse`.
    fast
        Whether the cells and choices of the supernet run in less time than by NNI's forward, with the same mathematics but
        other rounding; see :mod:`nni_warmstart.fast_forward`. The log says which modules have no plan and run NNI's forward.
        None for True after a warm start, and False after a cold start, which stays equal to NNI's to the bit. A resumed
        search goes on as it began.
    **kwargs
        Arguments of NNI's strategy of the same name. None for ``gradient_clip_val`` clips nothing after a cold start, as in
        NNI, to 5 if the source is a network, and after another warm start to a norm at which no step moves the weights far;
        see :mod:`nni_warmstart.search.step_length`. Unlike in NNI 3.0, ``penalty`` has an effect, and if it punishes costs
        above its baseline, the exported architecture respects this; see :mod:`nni_warmstart.nni_adapter.penalty`. In cells
        it takes a :class:`~nni_warmstart.nni_adapter.cost_penalty.CostPenalty`.

    Attributes
    ----------
    report
        The :class:`~nni_warmstart.TransferReport` once initialised; None after a cold start.
    search_module
        Class of the one-shot module; a derived strategy may set a class derived from it.
    """

    search_module: ClassVar[type[DartsSearchModule]] = DartsSearchModule

    @checks_arguments(ConfigError)
    def __init__(
        self,
        *,
        source: Source | Sequence[Source] | None = None,
        zoo: SupernetZoo | str | os.PathLike[str] | None = None,
        download: bool = False,
        head: str = 'ridge',
        alpha: str | float = 'transfer',
        keep: float | None = None,
        noise: float = 1e-3,
        untraceable: str = 'error',
        average: Annotated[float, Range(0)] | None = None,
        refit_head: bool | None = None,
        arc_learning_rate: Annotated[float, Range(0)] | None = None,
        save_to: SupernetZoo | str | os.PathLike[str] | None = None,
        parameter_free_cap: Annotated[int, Range(0)] | None = None,
        stop_on_eigenvalue: bool = False,
        fast: bool | None = None,
        class_names: Sequence[str] | None = None,
        residual_cells: bool | None = None,
        **kwargs: Any,
    ) -> None:
        warm = source is not None
        check(residual_cells, 'residual_cells', Expected(bool, optional=True), ConfigError)
        check(fast, 'fast', Expected(bool, optional=True), ConfigError)
        check(download, 'download', Expected(bool), ConfigError)
        transfer_settings = TransferSettings(
            head=head, alpha=alpha, keep=keep, noise=noise, untraceable=untraceable, class_names=class_names,
            fast=warm if fast is None else fast,
        )  # fmt: skip
        settings = SearchSettings(
            average=float(warm) if average is None else average,
            refit_head=warm and HEADS[head].is_fitted if refit_head is None else refit_head,
            one_path=isinstance(self, Proxyless),
            paced=warm and arc_learning_rate is None,
            parameter_free_cap=collapse.CAP if warm and parameter_free_cap is None else parameter_free_cap,
            residual_cells=residual_cells if warm and parameter_free_cap is None else bool(residual_cells),
            stop_on_eigenvalue=stop_on_eigenvalue,
            fast=transfer_settings.fast,
            fast_asked=bool(fast),
        )
        super().__init__(arc_learning_rate=NNIS if arc_learning_rate is None else arc_learning_rate, **kwargs)
        self.source, self.zoo, self.download = source, zoo, download
        self.transfer_settings, self.settings, self.save_to = transfer_settings, settings, save_to
        self.report: TransferReport | None = None
        self._validates = False
        self._trainer: Any = None
        self._loaders = Loaders()
        self._resumed_from: Path | None = None

    def resume_from(self, checkpoint: Path) -> None:
        """Resume from a Lightning checkpoint when the search is initialised.

        The source is not used again, but defaults that depend on it, such as the number of epochs to average over, remain.
        The file is read when the search runs.
        """
        self._resumed_from = checkpoint

    @property
    def curve(self) -> list[dict[str, float]]:
        """Figures of every finished epoch, as reported to NNI."""
        return getattr(self.oneshot_module, 'curve', [])

    def mutate_model(self, model: ModelSpace) -> Any:
        try:
            return super().mutate_model(model)
        except REFUSALS as error:
            kind, name = type(model).__name__, type(self).__name__
            raise as_well(ConfigError, error)(f'NNI cannot make a supernet of {kind} for {name}: {reason(error)}') from error

    def configure_oneshot_module(self, training_module: Any) -> DartsSearchModule:
        """Construct the one-shot module, with the arguments that NNI's strategy would give its own module.

        Raises
        ------
        ConfigError
            If a user's strategy constructs a module that does not derive from :class:`DartsSearchModule`.
        """
        nnis: Any = super().configure_oneshot_module(training_module)
        if isinstance(nnis, DartsSearchModule):
            return nnis
        if type(nnis) not in (DartsLightningModule, GumbelDartsLightningModule):
            raise ConfigError(
                f'{type(self).__name__} makes a {type(nnis).__name__}, to which a warm-started search cannot be added; '
                f'derive that from {self.search_module.__name__}, and name it as search_module of your strategy.'
            )
        arguments = {name: getattr(nnis, name) for name in _NNIS_ARGUMENTS if hasattr(nnis, name)}
        return self.search_module(training_module, settings=self.settings, loaders=self._loaders, **arguments)

    def mutate_evaluator(self, evaluator: Any) -> Any:
        data = None
        if isinstance(evaluator, Lightning):
            data, self._trainer = evaluator.datamodule, evaluator.trainer
            undo_patches(data)
            self._loaders = Loaders(data)
            self._validates = is_overridden('validation_step', evaluator.module)
        mutated = super().mutate_evaluator(evaluator)
        if data is not None and is_overridden('setup', data, LightningDataModule):
            data.setup = partial(self._set_up_data, data.setup)
        return mutated

    def _set_up_data(self, set_up: Callable[[Any], None], stage: str | None = None) -> None:
        if stage == 'fit':
            cast(DartsSearchModule, self.oneshot_module).held_out.before_set_up()
        set_up(stage)

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        data = self._loaders.data
        alphas = data.arc_dataloader if isinstance(data, AlphaLoader) else val_dataloader_fn
        made = super().train_dataloader
        return self._loaders.for_training(lambda: made(train_dataloader_fn, alphas))

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        # NNI's DARTS returns None in any case, so that validation never runs (microsoft/nni #5160)
        if not self._validates:
            return None
        try:
            return self._loaders.for_validation(self._trainer)
        except TransferError as error:
            _logger.warning('The search goes on without validation: %s.', error)
            return None

    def _initialize(self, model_space: Any, engine: Any) -> Any:
        if self.save_to is not None:
            open_zoo(self.save_to).check_can_add('name')
        mutated: Any = super()._initialize(model_space, engine)
        module: DartsSearchModule = mutated.evaluator.module
        module.set_model(mutated.model_space)  # an evaluator may change the classifier, and a transfer fits it
        trainer = mutated.evaluator.trainer
        if 0 < (trainer.max_epochs or 0) <= trainer.current_epoch:
            _logger.warning('The trainer has run all of its %d epochs; a search needs a new evaluator.', trainer.max_epochs)
        if self._resumed_from is not None:
            self.load_state_dict({'ckpt_path': str(self._resumed_from)})
        elif self.source is not None:
            start_warm = partial(self._start_warm, mutated.model_space, mutated.evaluator)
            if self._loaders.need_trainer or reads_after_set_up(module.training_module):
                module.once_set_up = start_warm  # a data module that was set up twice might split its images twice
            else:
                start_warm()
        if self.save_to is not None:
            module.ending.keep.append(self._remember)
        if trial.in_trial():
            trial.forward_metrics(engine, lambda: len(self.curve) - 1)
        return mutated

    def _start_warm(self, target: nn.Module, evaluator: Any) -> None:
        with quiet_randomness():
            self.report = self._warm_start(target, evaluator)
        evaluator.module.identity.warm_start = self.report.to_dict()
        evaluator.module.step_length.is_limited = True
        _logger.info('%s', self.report.summary())

    def _warm_start(self, target: nn.Module, evaluator: Any) -> TransferReport:
        copies = HEADS[self.transfer_settings.head].is_inherited
        settings = replace(
            self.transfer_settings,
            heads=getattr(evaluator.module.training_module, 'heads', None),
            seed=torch.initial_seed() % 2**32,
            device=evaluator.trainer.strategy.root_device,
            class_names=self._class_names(self._readable('train', self._loaders.read) if copies else None),
        )

        def make(part: str) -> Any:
            return as_model_reads(self._loaders.read(part), evaluator.module.training_module)

        start = time.perf_counter()
        with waiting('choosing the source'), quiet_randomness():  # whatever was chosen, its images come in the same order
            choice = SourceSelector(self.zoo, target, make, settings, self.download).choose(cast(Source, self.source))
        choosing = time.perf_counter() - start
        train, val = (self._readable(part, make) for part in ('train', 'val'))
        evaluator.module.identity.sources = {each.name: each.key for each, _ in choice.sources}
        with waiting('mapping the source'):
            if choice.plan is not None:
                report = choice.plan.apply(target, train, val)
            else:
                report = transfer(choice.sources, target, data=train, val_data=val, **vars(settings))
        if all(each.holds_statistics for each, _ in choice.sources):
            evaluator.module.statistics.hold(report)
            evaluator.module.inherited_rate.slow_down(report)
        return replace(
            report,
            seconds={'choosing': choosing, **report.seconds},
            ranking=tuple((r.name, r.distance) for r in choice.ranking),
            rule=self.source if isinstance(self.source, str) and choice.ranking else '',
        )

    def _readable(self, part: str, make: Callable[[str], Any]) -> Any:
        """Return the loader of a half; None for one that cannot be read and that a warm start can do without."""
        head = self.transfer_settings.head
        try:
            return make(part)
        except TransferError as error:
            if part == 'train' and HEADS[head].is_fitted:
                raise TransferError(f"{error}, and head {head!r} is fitted on them; pass head='random'.") from error
            _logger.warning('The warm start does without some images: %s.', error)
            return None

    def _class_names(self, data: Any) -> list[str] | None:
        """Return the names of the classes, as given, as the data module has them or as ``data`` have them."""
        named = self.transfer_settings.class_names or self._loaders.class_names or name_and_classes(data)[1]
        return list(named) or None

    def _run(self) -> None:
        super()._run()
        module: Any = self.oneshot_module
        self.report = module.trainer.strategy.broadcast(self.report)  # the first device's warm start counts

    @property
    def holds_statistics(self) -> bool:
        """Whether the search held the batch-norm statistics of a pretrained network."""
        module = self.oneshot_module
        return isinstance(module, DartsSearchModule) and bool(module.statistics.names)

    def _remember(self) -> None:
        module: Any = self.oneshot_module
        if self.save_to is None or not module.trainer.is_global_zero:
            return
        try:
            zoo, found = open_zoo(self.save_to), divergence(self.supernet.named_parameters())
            if found is not None:
                _logger.warning('The supernet is not remembered in %s: its training diverged, %s.', zoo.root, found)
                return
            with quiet_randomness():
                name = self._remembered(zoo, module)
        except ZooError as error:  # hours after it could be written
            _logger.warning(
                'The supernet is not remembered: %s; add that of a run later by `nni-warmstart zoo add '
                'OUT/supernet.safetensors --zoo ZOO`, or in Python a `Supernet.from_strategy` by `SupernetZoo.add`.',
                str(error).rstrip('.'),
            )
        else:
            _logger.info('Remembered the supernet as %r in %s.', name, zoo)

    def _remembered(self, zoo: SupernetZoo, module: DartsSearchModule) -> str:
        """Add the supernet to a zoo, replacing the entry that the same search left before it was resumed."""
        history = record(curve=self.curve, run=module.identity.run)
        if isinstance(module.training_module, Remembering):
            supernet = module.training_module.remembered(self.supernet, name='new', history=history)
        else:
            data = self._readable_data(module)
            supernet = Supernet.from_strategy(
                self, name='new', dataset=data, class_names=self._class_names(data), history=history
            )
        stem = type(self.supernet).__name__.lower()
        own = own_entry(zoo, module.identity.run, stem) if module.identity.resumed else None
        if own is None:
            return zoo.add_numbered(supernet, stem)
        zoo.add(supernet.remembered_as(own))
        return own

    def _readable_data(self, module: DartsSearchModule) -> Any:
        """Return the training data, to be sketched; None if they cannot be read."""
        try:
            return as_model_reads(self._loaders.read('train'), module.training_module)
        except TransferError as error:
            _logger.warning('The supernet is remembered without sketches of its data: %s.', error)
            return None


class WarmStartGumbelDARTS(WarmStartDARTS, GumbelDARTS):
    """NNI's GumbelDARTS with a warm start; parameters as :class:`WarmStartDARTS`, and ``temperature`` as NNI's."""

    search_module = GumbelDartsSearchModule


class WarmStartProxyless(WarmStartDARTS, Proxyless):
    """NNI's Proxyless with a warm start; parameters as :class:`WarmStartDARTS`.

    After a warm start the most probable path is exported; after a cold start, as in NNI, a path is drawn at random.
    """
