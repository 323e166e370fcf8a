"""Alignment of a trained network's channels with those of another, and fusion of several networks into one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import TransferError
from ..tracing.axes import IN, OUT
from ..tracing.channel_spaces import ChannelSpace, Couplings, Occurrences, occurrences, place
from ..tracing.structure import Structure
from .correspondence import Correspondence, match_modules
from .coupling import aligned
from .mapper import Mapping, evenly, map_tensors, pair_tensors
from .patches import Activations
from .projection import averaging, project, sharing

SWEEPS = 50  # largest number of passes over all spaces; networks of the benchmarks took 2 to 18

_State = dict[str, Tensor]

_Pair = tuple[int, int]  # numbers of a target's space and of its partner in the source

_Both = tuple[Occurrences, Occurrences]  # in the source's axis and in the target's


def align(
    state: dict[str, Tensor],
    source: Structure,
    target: Structure,
    reference: dict[str, Tensor],
    *,
    activations: tuple[Activations, Activations] | None = None,
    weights: bool | None = None,
    narrow: str = 'merge',
    skip: frozenset[str] = frozenset(),
    correspondence: Correspondence | None = None,
) -> Mapping:
    """Map the weights of ``source`` to the channels of ``target``, in the order of the channels of ``reference``.

    There is one coupling per channel space, so residual streams stay consistent; images and logits keep their channels.
    Equal widths are permuted, and in a wider target each channel copies one of the source's: both preserve the function.

    Parameters
    ----------
    state, source
        Tensors of the network to map, and its structure.
    target, reference
        Structure of the other network, and its tensors.
    activations
        Activations of the source and of the reference on the same images
        (:func:`~nni_warmstart.mapping.repair.activations`): channels are matched by their correlation (OTFusion).
    weights
        Whether to match by weights as well: by every tensor in which a space occurs, one space after the other until nothing
        changes (weight matching). None matches by weights only if there are no activations.
    narrow
        Method for a narrower target: 'merge' source channels, or 'select' one for each target channel. Selecting is better
        for a single source and needs :func:`~nni_warmstart.mapping.repair.repair`; merging is better for a fusion, and
        without repair.
    skip
        Target tensors that are left out (the classifier).
    correspondence
        Correspondence of the two networks; None to find it.

    Raises
    ------
    TransferError
        If ``narrow`` is unknown, or the two networks' activations are not of the same images.

    References
    ----------
    Singh & Jaggi, *Model Fusion via Optimal Transport*, NeurIPS 2020. Ainsworth et al., *Git Re-Basin*, ICLR 2023.
    """
    if narrow not in ('merge', 'select'):
        raise TransferError(f"narrow = {narrow!r} is unknown; choose 'merge' or 'select'.")
    found = match_modules(target, source) if correspondence is None else correspondence
    pairs = pair_tensors(found, state, skip)
    matching = _Matching(state, source, target, reference, pairs, narrow)
    gains = {} if activations is None else matching.correlations(*activations)
    matching.descend(gains, not gains if weights is None else weights)
    return map_tensors(state, source, target, couple=matching.couple, skip=skip, correspondence=found)


class _Matching:
    """Couplings of all pairs of spaces, improved one at a time; on the CPU, where optimal transport is solved."""

    def __init__(
        self, state: _State, source: Structure, target: Structure, reference: _State, pairs: dict[str, str], narrow: str
    ) -> None:
        self.state, self.reference = ({name: x.cpu() for name, x in each.items()} for each in (state, reference))
        self.narrow = narrow
        self.target, self.source = target.channels, source.channels
        self.fixed = evenly(source)
        self.found: dict[_Pair, Tensor] = {}
        self.couplings = Couplings(self.target, self.source, pairs, self.couple)
        self.axes: dict[str, dict[int, dict[_Pair, _Both]]] = {}
        self.pairs: dict[str, str] = {}
        self.places: dict[_Pair, list[tuple[str, int]]] = defaultdict(list)
        for name, other in pairs.items():
            a, b = self.target.tensors[name], self.source.tensors[other]
            if a.roles != b.roles or name not in reference:
                continue
            self.pairs[name] = other
            self.axes[name] = {}
            for axis in range(len(a.roles)):
                x, y = a.held(axis), b.held(axis)
                if x is not None and y is not None and x.ndim == y.ndim == 1:  # 2 for a grouped convolution's input
                    self.axes[name][axis] = self._pairs_of(x, y)
                    for pair in self.axes[name][axis]:
                        self.places[pair].append((name, axis))
        self.order = [pair for pair in sorted(self.places) if not self._fixed(pair)]

    def couple(self, source_space: ChannelSpace, target_space: ChannelSpace) -> Tensor:
        """Return the coupling found for two spaces, else the one without data."""
        found = self.found.get((target_space.index, source_space.index))
        return self.fixed(source_space, target_space) if found is None else found

    def _fixed(self, pair: _Pair) -> bool:
        """Check whether a pair of spaces has channels of the images or of the logits."""
        both = zip(self._spaces(pair), (self.target, self.source), strict=True)
        return any(np.isin(space.channels, np.concatenate([net.inputs, net.outputs])).any() for space, net in both)

    def _spaces(self, pair: _Pair) -> tuple[ChannelSpace, ChannelSpace]:
        return self.couplings.target_spaces.spaces[pair[0]], self.couplings.source_spaces.spaces[pair[1]]

    def _pairs_of(self, target_axis: np.ndarray, source_axis: np.ndarray) -> dict[_Pair, _Both]:
        """Return the pairs of spaces of two axes and their occurrences, several in flattened or concatenated axes."""
        targets, sources = self.couplings.target_spaces.of[target_axis], self.couplings.source_spaces.of[source_axis]
        result = {}
        for space in map(int, np.unique(targets)):
            other = self.couplings.partner(space, np.unique(sources))
            result[space, other] = (
                occurrences(source_axis, sources == other, self.couplings.source_spaces.rank),
                occurrences(target_axis, targets == space, self.couplings.target_spaces.rank),
            )
        return result

    def _axis(self, name: str, axis: int) -> Tensor:
        """Return the current coupling of a whole axis, shape ``(n_source, n_target)``."""
        shape = self.source.tensors[self.pairs[name]].shape[axis], self.target.tensors[name].shape[axis]
        coupling = torch.zeros(shape, dtype=torch.float64)
        for pair, both in self.axes[name][axis].items():
            target_space, source_space = self._spaces(pair)
            place(coupling, self.couple(source_space, target_space), *both)
        return coupling

    def correlations(self, source: Activations, target: Activations) -> dict[_Pair, Tensor]:
        """Sum the correlations of outputs over all layers with channels of a space that run at one resolution in both."""
        gains: dict[_Pair, Tensor] = {}
        for pair in self.order:
            for name, axis in self.places[pair]:
                paths = self.pairs[name].rpartition('.')[0], name.rpartition('.')[0]
                if self.target.tensors[name].roles[axis] != OUT or len(self.target.tensors[name].shape) < 2:
                    continue
                if paths[0] not in source or paths[1] not in target:
                    continue
                if source.places[paths[0]] != target.places[paths[1]]:
                    continue
                a, b = source[paths[0]], target[paths[1]]
                if len(a) != len(b):
                    raise TransferError(
                        f'activations of {paths[0]!r} have {len(a)} rows and those of {paths[1]!r} {len(b)}; '
                        'take both on the same images.'
                    )
                self._add(gains, pair, name, axis, (_standard(a).T @ _standard(b)).cpu())
        return gains

    def _add(self, gains: dict[_Pair, Tensor], pair: _Pair, name: str, axis: int, gain: Tensor) -> None:
        """Add a gain of two axes, shape ``(..., n_source, n_target)``, to the gain of a pair of spaces."""
        if pair not in gains:
            target_space, source_space = self._spaces(pair)
            gains[pair] = torch.zeros(*gain.shape[:-2], len(source_space), len(target_space), dtype=torch.float64)
        source, target = self.axes[name][axis][pair]
        if source.is_whole and target.is_whole and gain.shape == gains[pair].shape:
            gains[pair] += gain
            return
        partners = source.turns_for(target)
        for turn in target.turn.unique().tolist():
            targets = target.turn == turn
            sources = source.turn == partners[targets][0]
            part = gain[..., source.positions[sources][:, None], target.positions[targets]]
            gains[pair][..., source.ranks[sources][:, None], target.ranks[targets]] += part.double()

    def _similarity(self, pair: _Pair, incoming: bool) -> Tensor | None:
        """Return the cosines of the weights of source and target channels, given the couplings of the other spaces."""
        gains: dict[_Pair, Tensor] = {}
        for name, axis in self.places[pair]:
            roles = self.target.tensors[name].roles
            role, grouped = roles[axis], len(self.axes[name]) < len(roles) - roles.count('')
            if name.endswith(('running_mean', 'running_var')) or grouped or (incoming and role == IN):
                continue
            # The current couplings of the other axes express the source's weight in the target's channels.
            weight, reference = self.state[self.pairs[name]], self.reference[name]
            for other in self.axes[name]:
                if other != axis:
                    coupling = self._axis(name, other)
                    matrix = averaging(coupling) if roles[other] == OUT else sharing(coupling)
                    weight = project(weight, matrix, None, (other, other))
            a, b = (each.movedim(axis, 0).reshape(each.shape[axis], -1) for each in (weight, reference))
            if a.shape[1] == b.shape[1]:
                if role == IN:
                    a = a * (len(a) / len(b))  # weights on a channel are shared out among its copies
                squares = [each.square().sum(1) for each in (a, b)]
                norms = torch.broadcast_tensors(squares[0][:, None], squares[1])
                self._add(gains, pair, name, axis, torch.stack([a @ b.T, *norms]))
        if not gains:
            return None
        inner, left, right = gains[pair]
        return inner / (left * right).sqrt().clamp_min(1e-30)

    def descend(self, gains: dict[_Pair, Tensor], weights: bool) -> None:
        """Find the best coupling of each space given the others, until nothing changes.

        The first sweep uses incoming weights only, since the spaces after a layer are not matched yet.
        """
        neighbours = {
            pair: {other for name, _ in self.places[pair] for axis in self.axes[name].values() for other in axis} - {pair}
            for pair in self.order
        }
        stale = set(self.order)
        for sweep in range(SWEEPS if weights else 1):
            if not stale:
                break
            for pair in self.order:
                if pair not in stale:
                    continue
                stale.discard(pair)
                similarity = self._similarity(pair, incoming=not sweep) if weights else None
                terms = [each for each in (gains.get(pair), similarity) if each is not None]
                if not terms:
                    continue
                new = _matched(-torch.stack(terms).sum(0), self.narrow)
                if pair not in self.found or not torch.equal(new, self.found[pair]):
                    self.found[pair] = new
                    stale |= neighbours[pair] & set(self.order)
            if not sweep and weights:
                stale = set(self.order)


def _matched(cost: Tensor, narrow: str) -> Tensor:
    if narrow == 'merge' or cost.shape[0] <= cost.shape[1]:
        return aligned(cost)
    coupling = torch.zeros(cost.shape, dtype=torch.float64)
    coupling[linear_sum_assignment(cost.numpy())] = 1.0
    return coupling


def _standard(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x / x.norm(dim=0).clamp_min(1e-12)


def fuse(states: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted mean of the tensors (or activations) of aligned networks, for tensors that all of them have.

    Raises
    ------
    TransferError
        If there is not one weight per network, or the weights don't sum to one.
    """
    check_weights(weights, len(states))
    common = [name for name in states[0] if all(name in state for state in states)]
    mixed = {name: sum(w * state[name] for state, w in zip(states, weights, strict=True)) for name in common}
    return {name: torch.as_tensor(value).to(states[0][name].dtype) for name, value in mixed.items()}


def check_weights(weights: Sequence[float], count: int) -> None:
    """Raise an error unless the weights of a fusion are one per network, not negative, and sum to one."""
    if len(weights) != count or not all(0 <= weight <= 1 for weight in weights) or abs(sum(weights) - 1) > 1e-6:
        raise TransferError(
            f'weights = {list(weights)} for {count} networks sum to {sum(weights):g}; give one per network, 1 in all.'
        )
