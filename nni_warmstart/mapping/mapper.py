"""The weight mapper: tensors of one network in the channels, kernels, ops and depth of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tracing.axes import IN, OUT, Axes
from ..tracing.channel_spaces import ChannelSpace, Couple, Couplings
from ..tracing.structure import Structure, ancestors
from .correspondence import Correspondence, match_modules
from .coupling import replicated
from .projection import averaging, project, project_groups, project_regrouped, resize_kernel, sharing

Share = Callable[[str, Tensor], Tensor]


class Mapping:
    """Weights of a source in a target's shapes; iterating gives each with its name in the target.

    Parameters
    ----------
    state
        The source's tensors by name.
    source, target
        Structures of both.
    couple
        Gives the coupling of two channel spaces; :func:`evenly` when None.
    share
        Gives R, how what a layer reads is shared out: from the name of the source's weight and the coupling of the axis that
        it reads, both of shape ``(n_source, n_target)``; :func:`~nni_warmstart.mapping.projection.sharing` when None.
    skip
        Target tensors that are left out (the classifier).
    correspondence
        What corresponds to what; found when None.

    Attributes
    ----------
    pairs
        Target tensor -> source tensor.
    couplings
        Of the channel spaces.
    how
        By target tensor, once it was given: 'copied', 'widened', 'merged', 'kernel-resized', 'op-mapped' or 'block-mapped'.
    repeated
        Target tensors in which channels are repeated: their symmetry is to be broken.
    unmapped
        By target tensor, why one that has a partner is not mapped.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        source: Structure,
        target: Structure,
        *,
        couple: Couple | None = None,
        share: Share | None = None,
        skip: frozenset[str] = frozenset(),
        correspondence: Correspondence | None = None,
    ) -> None:
        self.state, self.source, self.target = state, source, target
        self.share = share or _share
        self.correspondence = match_modules(target, source) if correspondence is None else correspondence
        self.pairs = {
            mine: theirs for mine, theirs in self.correspondence.tensors.items() if mine not in skip and theirs in state
        }
        self.couplings = Couplings(target.channels, source.channels, self.pairs, couple or evenly(source))
        self.tensors: dict[str, Tensor] = {}
        self.how: dict[str, str] = {}
        self.repeated: set[str] = set()
        self.unmapped: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for mine, theirs in self.pairs.items():
            axes = self.target.channels.tensors[mine], self.source.channels.tensors[theirs]
            mapped = _tensor(self, mine, theirs, self.state[theirs], *axes)
            if mapped is not None:
                self.how[mine] = _how(self.correspondence, mine, theirs, self.state[theirs].shape, mapped.shape)
                yield mine, mapped


def map_tensors(state: dict[str, Tensor], source: Structure, target: Structure, **options: Any) -> Mapping:
    """A :class:`Mapping` that was gone through, with all its results in :attr:`Mapping.tensors`."""
    mapping = Mapping(state, source, target, **options)
    mapping.tensors = dict(mapping)
    return mapping


def evenly(source: Structure) -> Couple:
    """Couplings without data: the identity, replication, and sums or means of the pictures' channels."""

    def couple(theirs: ChannelSpace, mine: ChannelSpace) -> Tensor:
        if len(theirs) != len(mine) and np.isin(theirs.channels, source.channels.inputs).any():
            return torch.ones(len(theirs), len(mine), dtype=torch.float64)
        return replicated(len(theirs), len(mine))

    return couple


def misfit(mine: Axes, theirs: Axes) -> str | None:
    """Why a tensor cannot be made of another, whatever the couplings; None where it can."""
    if mine.roles != theirs.roles:
        return f"its dimensions mean {mine.roles}, the source's {theirs.roles}"
    for here, there in zip(mine.channels, theirs.channels, strict=True):
        grouped = {each.ndim == 2 for each in (here, there) if each is not None}
        if len(grouped) == 2:
            return f"it has {mine.groups} groups, the source's {theirs.groups}"
    return None


def _share(name: str, coupling: Tensor) -> Tensor:
    return sharing(coupling)


def _tensor(mapping: Mapping, name: str, source_name: str, tensor: Tensor, mine: Axes, theirs: Axes) -> Tensor | None:
    why = misfit(mine, theirs)
    if why is not None:
        mapping.unmapped[name] = why
        return None
    couplings: dict[str, tuple[int, Tensor | None]] = {}
    grouped: list[Tensor | None] = []
    regrouped: dict[str, Tensor | None] = {}
    for axis, role in enumerate(mine.roles):
        here, there = mine.channels[axis], theirs.channels[axis]
        if here is None or there is None:
            continue
        if here.ndim == 2 and len(here) != len(there):
            regrouped[role] = mapping.couplings.axis(here.ravel(), there.ravel())
        elif here.ndim == 2:
            blocks = [mapping.couplings.axis(a, b) for a, b in zip(here, there, strict=True)]
            grouped = [None if block is None else sharing(block) for block in blocks]
        else:
            couplings[role] = (axis, mapping.couplings.axis(here, there))
    made_axis, made = couplings.get(OUT, (0, None))
    read_axis, read = couplings.get(IN, (1, None))
    if any(matrix is not None and bool(((matrix != 0).sum(1) > 1).any()) for matrix in (made, read)):
        mapping.repeated.add(name)
    made, read = (None if made is None else averaging(made)), (None if read is None else mapping.share(source_name, read))
    if regrouped:
        size = mine.shape[0], mine.groups * mine.shape[1], mine.groups
        out = project_regrouped(tensor, made, regrouped[IN], theirs.groups, size)
    elif grouped:
        out = project_groups(tensor, made, grouped, mine.groups)
    else:
        out = project(tensor, made, read, (made_axis, read_axis))
    if mine.dilation:
        size = len(mine.dilation)
        out = resize_kernel(out, mine.shape[-size:], mine.dilation, theirs.dilation)
    if tuple(out.shape) != mine.shape:
        mapping.unmapped[name] = f'its shape {mine.shape} cannot be made of {theirs.shape}'
        return None
    return out


def _how(found: Correspondence, mine: str, theirs: str, before: torch.Size, after: torch.Size) -> str:
    if before != after:
        if len(before) > 2 and before[2:] != after[2:]:
            return 'kernel-resized'
        return 'widened' if any(a > b for a, b in zip(after, before, strict=True)) else 'merged'
    paths = ancestors(mine.rpartition('.')[0])
    if any(path in found.renamed for path in paths):
        return 'op-mapped'
    return 'block-mapped' if any(path != found.blocks.get(path, path) for path in paths) else 'copied'
