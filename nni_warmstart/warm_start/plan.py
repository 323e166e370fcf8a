"""Plan: a warm start prepared once, as far as possible without images, and applied to the target or to copies of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..data.labelled import MOST_BYTES, Data, SampleBatches, check_range, first_batches, has_classes, in_range
from ..errors import TransferError, reason
from ..fast_forward.forward import FastForward
from ..mapping.alignment import check_weights
from ..nni_adapter.classifier import find_head
from ..nni_adapter.oneshot import is_supernet
from ..nni_adapter.paths import best_path
from ..supernets.supernet import Supernet
from ..utils.metrics import accuracy_on
from ..utils.modules import modes_kept, state_kept
from ..utils.random import quiet_randomness
from .classes import ClassMatch, in_order_of_target
from .compatibility import input_shape, name_of_head
from .fitting import Batches, fit_head, fit_other_classes, reestimate_statistics
from .fuse import prepare_fusion
from .heads.base import head_tensors
from .heads.registry import HEADS
from .inherit import FITTED, Inherit, prepare_one
from .match import Target
from .new_state import load
from .report import TransferReport
from .settings import TransferSettings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Prepared warm start of one target.

    Attributes
    ----------
    sources
        Supernets to start from, with weights that sum to one.
    settings
        Settings of the warm start.
    head_name
        Path of the target's classifier; None if it has none.
    inherit
        Function that returns what the target inherits; images matter only if the target is narrower or sources are fused.
    seconds
        Wall-clock time of the preparation.
    classes
        Match of the classes of an inherited classifier; None for other heads.
    """

    sources: list[tuple[Supernet, float]]
    settings: TransferSettings
    head_name: str | None
    inherit: Inherit
    seconds: float
    classes: ClassMatch | None = None

    @classmethod
    def prepare(
        cls, sources: Sequence[tuple[Supernet, float]], target: nn.Module, settings: TransferSettings, batches: Batches
    ) -> Plan:
        """Match the sources with a target, and map everything that does not depend on images.

        Parameters
        ----------
        sources
            Supernets with weights that sum to one; those of weight 0 are left out.
        target
            Mutated model space, freshly initialised; it is not changed.
        settings
            Settings of the warm start.
        batches
            Some batches of its data, the first of which shows the shape of images; empty if there are no data.

        Raises
        ------
        TransferError
            If the weights don't sum to one, target and sources have nothing in common, a source diverged, or the head needs
            classes and there are none.
        """
        start = time.perf_counter()
        check_target(target)
        _check_data(settings.head, batches)
        check_weights([weight for _, weight in sources], len(sources))
        sources = [(source, weight) for source, weight in sources if weight > 0]
        if settings.keep is None and all(source.holds_statistics for source, _ in sources):
            settings = replace(settings, keep=1.0)  # less costs most of the features of a network
        for source, _ in sources:
            if source.diverged:
                raise TransferError(f'supernet {source.name!r} has {source.divergence}: its training diverged.')
        first = sources[0][0]
        with quiet_randomness(), _placed(target, settings.device) as model:
            head_name = _head_of(model, settings, batches) if batches else name_of_head(model, first)
            classes = None
            if HEADS[settings.head].is_inherited and head_name is not None:
                count, tensors = cast(nn.Linear, model.get_submodule(head_name)).out_features, head_tensors(head_name)
                sources, classes = in_order_of_target(sources, count, tensors, settings.class_names or ())
                first = sources[0][0]
            shape = input_shape(model, batches[0][0] if batches else None, first)
            images = _images(batches[:1], settings.device)
            fresh = Target(model, head_name, shape)
            if len(sources) == 1:
                inherit = prepare_one(first, fresh, settings, images)
            else:
                inherit = prepare_fusion(sources, fresh, settings, images)
        return cls(sources, settings, head_name, inherit, time.perf_counter() - start, classes)

    def apply(self, target: nn.Module, data: Data | None = None, val_data: Data | None = None) -> TransferReport:
        """Write the inherited tensors, re-estimate statistics, fit the head, and measure the accuracy.

        If anything fails, the target is restored.

        Parameters
        ----------
        target
            Target that the plan was prepared for, still fresh, or a copy of it; changed in place.
        data, val_data
            Same as in :func:`~nni_warmstart.transfer`.

        Raises
        ------
        TransferError
            If the data do not fit the target.
        """
        settings, head = self.settings, HEADS[self.settings.head]
        with quiet_randomness():
            clock = _Clock()
            batches = first_batches(data, settings.max_samples)
            _check_data(settings.head, batches)
            with _all_or_nothing(target), _placed(target, settings.device) as model:
                classes = ''
                # Mapping: write weights and alphas.
                inherited = self.inherit(model, _images(batches, settings.device))
                others = self._rows_without_class(model)
                load(model, inherited.tensors)
                origins = dict(inherited.origins)
                clock.stop('mapping')
                with best_path(model), FastForward(model).applied() if settings.fast else nullcontext():
                    # Batch norm: inherited statistics describe the source's images. Those of a pretrained network describe
                    # so many that they serve better (flowers5: 0.64 of the test images right with them, 0.51 without).
                    held = all(source.holds_statistics for source, _ in self.sources)
                    changed = () if held else reestimate_statistics(model, batches, settings.device)
                    origins |= {n: replace(origins[n], how='re-estimated') for n in changed if n in origins}
                    clock.stop('batch_norm')
                    # Head: fit the classifier to the warm features.
                    if self.head_name is not None and head.is_fitted:
                        fit_head(model, self.head_name, self.sources[0][0], batches, settings)
                        names = [name for name in head_tensors(self.head_name, origins) if name in origins]
                        origins |= {name: replace(origins[name], how=head.origin) for name in names}
                    elif self.classes is not None:
                        how = self._fill_classes(model, others, batches)
                        names = [name for name in head_tensors(self.head_name) if name in origins]
                        origins |= {name: replace(origins[name], by=how) for name in names}
                        classes = how
                    clock.stop('head')
                    # Probe: accuracy before any training.
                    held_out = first_batches(val_data, settings.max_samples) if val_data is not None else batches
                    accuracy = self._accuracy(model, held_out)
                    clock.stop('probe')
        return TransferReport(
            ' + '.join(source.name for source, _ in self.sources),
            tuple(origins.values()),
            settings.head,
            accuracy,
            clock.seconds,
            blocks=inherited.correspondence.blocks,
            choices={label: pair[1] for label, pair in inherited.correspondence.choices.items()},
            candidates=inherited.candidates,
            couplings=inherited.couplings,
            classes=classes,
            notes=inherited.notes,
        )

    def _rows_without_class(self, model: nn.Module) -> list[Tensor]:
        """Return the fresh rows of the classifier for classes that the source does not have, tensor by tensor."""
        if self.classes is None or not self.classes.missing:
            return []
        head = model.get_submodule(self.head_name or '')
        return [tensor.detach()[list(self.classes.missing)].clone() for tensor in head.parameters(recurse=False)]

    def _fill_classes(self, model: nn.Module, fresh: list[Tensor], batches: Batches) -> str:
        """Fit the rows of classes that the source does not have, or leave them fresh; return what was done, in words."""
        assert self.classes is not None and self.head_name is not None
        missing = list(self.classes.missing)
        if not missing:
            return self.classes.text
        with torch.no_grad():
            for tensor, rows in zip(model.get_submodule(self.head_name).parameters(recurse=False), fresh, strict=True):
                tensor[missing] = rows
        if not batches or not has_classes(batches):
            return f'{self.classes.text}: fresh'
        fit_other_classes(model, self.head_name, self.sources[0][0], batches, self.settings, missing)
        return f'{self.classes.text}: fitted'

    def _accuracy(self, model: nn.Module, batches: Batches) -> float | None:
        """Return the accuracy; None where labels are no classes, or are none of the model's."""
        if not batches or not has_classes(batches):
            return None
        labels = torch.cat([y for _, y in batches])
        if self.head_name is not None and HEADS[self.settings.head].is_fitted:
            check_range(labels, model.get_submodule(self.head_name).out_features)
        elif not _gives_logits(model, batches[0][0].to(self.settings.device), labels):
            return None
        return accuracy_on(model, batches, self.settings.device, self.settings.heads)


def check_target(target: Any) -> None:
    """Raise an error unless the target is a complete, mutated model space.

    Raises
    ------
    TransferError
        If it is not.
    """
    if not isinstance(target, nn.Module):
        raise TransferError(f'target must be a mutated model space, not {type(target).__name__}.')
    if isinstance(target, ModelSpace) and not is_supernet(target):
        raise TransferError(f'{type(target).__name__} is not mutated; pass the result of strategy.mutate_model(space).')
    lazy = next((name for name, parameter in target.named_parameters() if is_lazy(parameter)), None)
    if lazy is not None:
        raise TransferError(f'{lazy} has no shape yet, being of a lazy layer: run the space on a batch first.')
    if next(target.parameters(), None) is None:
        raise TransferError(f'{type(target).__name__} has no parameters; there is nothing to start warm.')


def _check_data(head: str, batches: Batches) -> None:
    """Raise an error for data on which a head cannot be fitted."""
    if not HEADS[head].is_fitted:
        return
    if not batches:
        raise TransferError(
            f"head {head!r} is fitted on the target's training data and there are none; pass data=, or head='random'."
        )
    if not has_classes(batches):
        raise TransferError(
            f'head {head!r} is fitted on classes, whole numbers from 0, one per image, and data has labels of shape '
            f"{tuple(batches[0][1].shape)} and type {batches[0][1].dtype}; pass head='random'."
        )


def _gives_logits(model: nn.Module, x: Tensor, labels: Tensor) -> bool:
    """Check whether outputs are logits of classes, shape ``(n, n_classes)``, and labels are some of these.

    They may also be several tensors, one logit of two classes, or numbers to predict; an index may be ignored.
    """
    with modes_kept(model), state_kept(model), torch.no_grad():
        outputs = model.eval()(x)
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        return False
    if not in_range(labels, outputs.shape[1]):
        _logger.warning(
            'The accuracy before training is not known: data has labels from %d to %d, and the model %d outputs. If they '
            'are classes, number them from 0.', labels.min(), labels.max(), outputs.shape[1],
        )  # fmt: skip
        return False
    return True


@contextmanager
def _placed(model: nn.Module, device: torch.device | str) -> Iterator[nn.Module]:
    """Move the model to ``device``; restore its device and the modes of its modules at the end."""
    home = next(model.parameters()).device
    try:
        with modes_kept(model):
            yield model.to(device)
    finally:
        model.to(home)


@contextmanager
def _all_or_nothing(target: nn.Module) -> Iterator[None]:
    """Restore the target if anything fails."""
    before = [tensor.detach().clone() for tensor in (*target.parameters(), *target.buffers())]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, value in zip((*target.parameters(), *target.buffers()), before, strict=True):
                tensor.copy_(value)
        raise


def _images(batches: Batches, device: torch.device | str) -> Tensor | None:
    """Return the images that mapping looks at; None if there are none."""
    if isinstance(batches, SampleBatches):
        batches = batches.within(MOST_BYTES // 4)
    images: list[Tensor] = []
    for x, _ in batches:
        if sum(map(len, images)) >= FITTED:
            break
        if isinstance(x, Tensor) and x.dim() == 4:
            images.append(x)
    return torch.cat(images)[:FITTED].to(device) if images else None


def _head_of(model: nn.Module, settings: TransferSettings, batches: Batches) -> str | None:
    """Return the name of the classifier; None if the model has none and the head needs none."""
    with best_path(model):
        try:
            return find_head(model, batches[0][0].to(settings.device))
        except TransferError:
            if HEADS[settings.head].is_fitted:
                raise
            return None
        except (RuntimeError, TypeError, AttributeError) as error:
            raise TransferError(
                f'the first batch of data does not go into {type(model).__name__} as it is '
                f'({reason(error)}); give data= batches (inputs, classes) that the model itself takes.'
            ) from error


class _Clock:
    """Stopwatch that records seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, step: str) -> None:
        """End a step, and begin the next one."""
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now
