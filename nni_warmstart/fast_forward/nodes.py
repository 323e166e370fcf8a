"""Nodes of a mixed forward: weighted sums over the candidates of the edges that enter them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from ..nni_adapter.mixed import Edge, gives_zeros, weighted_sum
from .chains import Chain, State, chain_of, is_norm, run, weighted_norm
from .sums import mixed_sum


@dataclass(frozen=True)
class _Candidate:
    """Chain of layers, and the batch norm at its end, which takes the weight; both None for a candidate that gives zeros."""

    chain: Chain | None
    norm: nn.Module | None = None

    @classmethod
    def of(cls, module: nn.Module) -> _Candidate:
        if gives_zeros(module):
            return cls(None)
        chain = chain_of(module)
        return cls(chain[:-1], chain[-1].layer) if chain and is_norm(chain[-1].layer) else cls(chain)


class Node:
    """Node of a mixed forward, from the edges that enter it.

    Random numbers, those of dropout and of GumbelDARTS, are drawn in the order of NNI: edge by edge, the candidates first.
    """

    def __init__(self, edges: Sequence[Edge]) -> None:
        self._edges = [(edge, [_Candidate.of(module) for module in edge.candidates]) for edge in edges]

    @property
    def is_zero(self) -> bool:
        """Whether no candidate gives anything but zeros, so that the shape of the sum is not known."""
        return all(candidate.chain is None for _, candidates in self._edges for candidate in candidates)

    def __call__(self, states: Sequence[State]) -> State:
        plain: list[Tensor] = []
        weighted: list[Tensor] = []
        factors: list[Tensor] = []
        for edge, candidates in self._edges:
            values = [None if c.chain is None else run(c.chain, states[edge.source]) for c in candidates]
            weights = edge.weights().unbind()  # NNI's cell has one more, of an edge that is left out
            for candidate, value, weight in zip(candidates, values, weights, strict=False):
                if candidate.norm is not None and value is not None:
                    plain.append(weighted_norm(candidate.norm, value, weight))
                elif value is not None:
                    weighted.append(value)
                    factors.append(weight)
        if not all(isinstance(value, Tensor) for value in weighted):
            return State(weighted_sum(weighted, cast(Any, factors)))  # lists and dicts of tensors
        return State(mixed_sum(weighted, factors, plain))
