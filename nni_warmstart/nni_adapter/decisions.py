"""Decisions of a supernet between operations, with the costs of the candidates: those expected, and those of a sample."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Option(NamedTuple):
    """What may be chosen at a node: a score that is higher for likelier ones, its cost, and its part of an architecture."""

    score: float
    cost: float
    part: dict[str, Any]


def cheapest(options: Sequence[Option]) -> Option:
    return min(options, key=lambda option: option.cost)


def dearest(options: Sequence[Option]) -> Option:
    return max(options, key=lambda option: option.cost)


@dataclass(frozen=True)
class Decision:
    """Node of a cell, of whose edges some are kept with a candidate each; a ``LayerChoice`` is a node with one edge.

    Attributes
    ----------
    alphas
        Label of the alphas of each edge.
    candidates
        Names of the candidates of every edge.
    costs
        Cost of each candidate on each edge.
    usable
        Whether each candidate is none that gives zeros; of each, if all do.
    kept
        Number of edges that an architecture keeps.
    node
        Cell and node, ('cell', 2), by which NNI names the choices of an architecture; None for a ``LayerChoice``.
    """

    alphas: tuple[str, ...]
    candidates: tuple[str, ...]
    costs: tuple[tuple[float, ...], ...]
    usable: tuple[bool, ...]
    kept: int = 1
    node: tuple[str, int] | None = None

    def cost_of(self, sample: Mapping[str, Any]) -> float:
        """Return the cost of what an architecture has here."""
        if self.node is None:
            return self.costs[0][self.candidates.index(sample[self.alphas[0]])]
        (cell, node), cost = self.node, 0.0
        for k in range(self.kept):
            (edge,) = sample[f'{cell}/input_{node}_{k}']
            cost += self.costs[edge][self.candidates.index(sample[f'{cell}/op_{node}_{k}'])]
        return cost

    def sample_of(self, edges: Sequence[int], candidates: Sequence[int]) -> dict[str, Any]:
        """Return the part of an architecture that keeps these edges, each with a candidate."""
        if self.node is None:
            return {self.alphas[0]: self.candidates[candidates[0]]}
        (cell, node), found = self.node, {}
        for k, (edge, candidate) in enumerate(zip(edges, candidates, strict=True)):
            found[f'{cell}/op_{node}_{k}'] = self.candidates[candidate]
            found[f'{cell}/input_{node}_{k}'] = [edge]
        return found

    def expected(self, alphas: Sequence[Tensor]) -> Tensor:
        """Return the expected cost, a scalar, of a network that is drawn by the alphas.

        Pairs of an edge and a candidate are drawn one after another, by the softmax of their logits over the edges that are
        left. NNI's export takes the pairs with the largest logits, to which this tends as logits grow.

        Parameters
        ----------
        alphas
            Logits of the candidates of each edge, shape ``(n_candidates,)`` each.
        """
        costs = [torch.tensor(each, dtype=alphas[0].dtype, device=alphas[0].device) for each in self.costs]
        on_edges = torch.stack([alpha.softmax(-1) @ cost for alpha, cost in zip(alphas, costs, strict=True)])
        drawn = inclusion(torch.stack([alpha.logsumexp(-1) for alpha in alphas]), self.kept)
        return drawn @ on_edges

    def options(self, alphas: Sequence[Tensor]) -> list[Option]:
        """Return what may be chosen here, without candidates that give zeros.

        The score is the sum of logits less the log of the sum of all exponentials, so that NNI's export has the highest.
        """
        total = float(torch.stack([alpha.logsumexp(-1) for alpha in alphas]).logsumexp(0))
        usable = [i for i, flag in enumerate(self.usable) if flag]
        logits = [alpha.tolist() for alpha in alphas]
        found = []
        for edges in itertools.combinations(range(len(alphas)), self.kept):
            for candidates in itertools.product(usable, repeat=self.kept):
                pairs = list(zip(edges, candidates, strict=True))
                score = sum(logits[edge][candidate] - total for edge, candidate in pairs)
                cost = sum(self.costs[edge][candidate] for edge, candidate in pairs)
                found.append(Option(score, cost, self.sample_of(edges, candidates)))
        return found


def inclusion(logits: Tensor, kept: int) -> Tensor:
    """Return the probability of each to be among ``kept`` that are drawn without replacement, by the softmax of those left.

    Parameters
    ----------
    logits
        Shape ``(n,)``.
    kept
        Number of draws.

    Returns
    -------
    Tensor
        Probabilities, shape ``(n,)``, whose sum is ``kept``, or n if that is less.
    """
    if kept >= len(logits):
        return torch.ones_like(logits)
    first = logits.softmax(-1)
    if kept == 1:
        return first
    total, nothing = first, logits.new_zeros(1)
    for i in range(len(logits)):
        later = inclusion(torch.cat([logits[:i], logits[i + 1 :]]), kept - 1)
        total = total + first[i] * torch.cat([later[:i], nothing, later[i:]])
    return total
