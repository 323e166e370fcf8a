"""Nodes of a mixed forward: weighted sums over the candidates of the edges that enter them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from ..nni_adapter.mixed import Edge, gives_zeros, weighted_sum
from .chains import Chain, State, chain_of, is_norm, run, weighted_norm
from .merging import MergedConvolution, Unconvolved, is_fixed, unconvolved
from .sums import mixed_sum


@dataclass(frozen=True)
class _Candidate:
    """Chain of layers, and the batch norm at its end, which takes the weight; both None for a candidate that gives zeros."""

    chain: Chain | None
    norm: nn.Module | None = None

    @property
    def before_convolution(self) -> Hashable | None:
        """How the input of its convolution is made from the node, which others may share; None if there is no such."""
        if not self.chain or not self.chain[-1].is_convolution or self.norm is None:
            return None
        keys = tuple(link.key for link in self.chain[:-1])
        return None if None in keys else keys

    @classmethod
    def of(cls, module: nn.Module) -> _Candidate:
        if gives_zeros(module):
            return cls(None)
        chain = chain_of(module)
        return cls(chain[:-1], chain[-1].layer) if chain and is_norm(chain[-1].layer) else cls(chain)

    def value(self, state: State, merges: bool) -> Any:
        """Return the value before the batch norm, or before the convolution where both can be merged with others."""
        assert self.chain is not None
        if merges and is_fixed(self.norm):
            found = unconvolved(run(self.chain[:-1], state), self.chain[-1].layer)
            if found is not None:
                return found
        return run(self.chain, state)


class Node:
    """Node of a mixed forward, from the edges that enter it.

    Random numbers, those of dropout and of GumbelDARTS, are drawn in the order of NNI: edge by edge, the candidates first.
    """

    def __init__(self, edges: Sequence[Edge]) -> None:
        self._edges = [(edge, [_Candidate.of(module) for module in edge.candidates]) for edge in edges]
        inputs = Counter((edge.source, each.before_convolution) for edge, candidates in self._edges for each in candidates)
        several = {key for key, count in inputs.items() if key[1] is not None and count > 1}
        self._merges = [
            [(edge.source, each.before_convolution) in several for each in candidates] for edge, candidates in self._edges
        ]

    @property
    def is_zero(self) -> bool:
        """Whether no candidate gives anything but zeros, so that the shape of the sum is not known."""
        return all(candidate.chain is None for _, candidates in self._edges for candidate in candidates)

    def __call__(self, states: Sequence[State]) -> State:
        plain: list[Tensor] = []
        weighted: list[Tensor] = []
        factors: list[Tensor] = []
        merged = MergedConvolution()
        for (edge, candidates), merges in zip(self._edges, self._merges, strict=True):
            values = [
                None if each.chain is None else each.value(states[edge.source], merge)
                for each, merge in zip(candidates, merges, strict=True)
            ]
            weights = edge.weights().unbind()  # NNI's cell has one more, of an edge that is left out
            for candidate, value, weight in zip(candidates, values, weights, strict=False):
                if isinstance(value, Unconvolved):
                    merged.add(value, candidate.norm, weight)
                elif candidate.norm is not None and value is not None:
                    plain.append(weighted_norm(candidate.norm, value, weight))
                elif value is not None:
                    weighted.append(value)
                    factors.append(weight)
        if merged:
            plain.append(merged.output())
        if not all(isinstance(value, Tensor) for value in weighted):
            return State(weighted_sum(weighted, cast(Any, factors)))  # lists and dicts of tensors
        return State(mixed_sum(weighted, factors, plain))
