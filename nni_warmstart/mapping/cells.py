"""Cells as places: chains of edges that compute what a residual block or a single convolution does.

A cell of NAS-Bench-201 sums, in every node, what its candidates (ReLU, convolution, batch norm) make of the nodes before it.
A residual block ``x + bn(conv(relu(bn(conv(x)))))`` of a ResNet, where ``x`` is the ReLU of a sum, is one path of it: two
convolutions one after the other, and on the edge past them a convolution that hands on its input, ReLU included. That is
exact, and so is ``skip_connect`` on that edge for blocks that add the sum itself. A convolution without a shortcut is the
edge from the input to the output, also exactly. The blocks of a ResNet that reduce the image have a strided convolution on
their shortcut; they go to the space's own reduction blocks, where an average pool precedes it, and no ReLU: approximately
the same. All cells share their choices, so the kind of block that the network has most often decides, and cells to spare
hand on their input.
"""

from __future__ import annotations

import itertools

from ..tracing.structure import Structure
from .candidates import family
from .network_layers import Layer
from .places import Candidate, Idle, Place


def is_cell(structure: Structure, path: str) -> bool:
    """Check whether a module is a cell of this kind."""
    return structure.kinds.get(path) == 'NasBench201Cell' and f'{path}.layers.0.0' in structure.sites


def cell_place(structure: Structure, path: str, layers: list[tuple[str, str, Layer]]) -> Place:
    """Make a place of a cell.

    Parameters
    ----------
    structure, path
        Structure of the space, and path of the cell.
    layers
        Label of the choice, candidate, and layer, of every layer in it.
    """
    last = len(structure.children[f'{path}.layers'])
    sites = {(j, i): structure.sites[f'{path}.layers.{i - 1}.{j}'] for i in range(1, last + 1) for j in range(i)}
    inside = {label: {name: layer for other, name, layer in layers if other == label} for label, _ in sites.values()}
    empty = {
        label: name
        for (j, i), (label, names) in sites.items() for name, child in names.items()
        if _family(structure, f'{path}.layers.{i - 1}.{j}.{child}') == 'zero'
    }  # fmt: skip
    past, names = sites[0, last]
    skip = [
        name
        for name, child in names.items()
        if family(structure.ops.get(f'{path}.layers.{last - 1}.0.{child}', [])) == 'skip'
    ]
    smallest = sorted(inside[past], key=lambda name: inside[past][name].kernels)
    shortcuts = [('', name) for name in skip[:1]] + [('relu', name) for name in smallest[:1]]
    candidates = []
    for number, nodes in enumerate(_chains(last)):
        labels = [sites[edge][0] for edge in itertools.pairwise(nodes)]
        beside = [layer for label in inside for layer in inside[label].values() if label not in labels]
        for names in itertools.product(*(inside[label] for label in labels)):
            chosen = dict(zip(labels, names, strict=True))
            chain, cost = [inside[label][name] for label, name in chosen.items()], 0.01 * number
            candidates.append(Candidate(chain, {**empty, **chosen}, cost=cost, handing_on=beside))
            for activation, name in shortcuts if len(labels) > 1 else ():
                selects = {**empty, past: name, **chosen}
                candidates.append(Candidate(chain, selects, True, activation, cost, beside))
    silenced = [layer.norm for j in range(1, last) for layer in inside[sites[j, last][0]].values() if layer.norm]
    return Place(candidates, idle=Idle(list(inside[past].values()), silenced))


def _family(structure: Structure, path: str) -> str:
    return family(structure.ops.get(path, []))


def _chains(last: int) -> list[tuple[int, ...]]:
    """Return the ways from node 0 to the last node, by the number of edges."""
    inner = range(1, last)
    return [(0, *nodes, last) for count in range(last) for nodes in itertools.combinations(inner, count)]
