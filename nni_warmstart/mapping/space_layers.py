"""The layers of a model space, by the places to which a network's layers can go: choices, blocks, cells, single layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..tracing.structure import Structure, ancestors
from .candidates import family
from .cells import cell_place, is_cell
from .network_layers import Layer, is_residual, layers_of
from .places import Candidate, Place

_MOST = 64  # combinations of candidates in one block; the choices of blocks with more are places of their own


@dataclass
class _Draft:
    """Layers of a place, by the choices that they are in: label ('' for none) and candidate of each layer."""

    path: str
    layers: list[tuple[str, str, Layer]] = field(default_factory=list)
    block: str = ''
    repeat: str = ''


def places_of(structure: Structure) -> list[Place]:
    """Return the places of a model space in the order of execution.

    Layers in NNI's own cells (those of DARTS's space, say) have none: every node reads separable convolutions of all nodes
    before it, and the cell returns all nodes, which is nothing that a run of a network's layers does.
    """
    in_cells = tuple(f'{path}.' for path, kind in structure.kinds.items() if kind == 'Cell')
    layers = [layer for layer in layers_of(structure) if not layer.path.startswith(in_cells)]
    crowded = _crowded(layers, structure)
    ends = {each.path: layer.path for i, layer in enumerate(layers) for each in layers[i + 1 - layer.passed : i + 1]}
    drafts: dict[str, _Draft] = {}
    for layer in layers:
        parents = ancestors(layer.path)
        sites = [path for path in parents if path in structure.sites]
        repeats = [path for path in parents if structure.kinds.get(path) == 'Repeat']
        block = _block_in(parents, repeats)
        cell = next((path for path in parents if is_cell(structure, path)), '')
        single = cell or (sites[0] if sites and block in crowded else '')
        key = single or block or (sites[-1] if sites else ends.get(layer.path, layer.path))
        draft = drafts.setdefault(
            key, _Draft(key, [], '' if single else block, repeats[-1] if repeats and not single else '')
        )
        label = name = ''
        if sites:
            label, names = structure.sites[sites[0]]
            inside = layer.path[len(sites[0]) + 1 :].partition('.')[0]
            name = next(candidate for candidate, child in names.items() if child == inside)
        draft.layers.append((label, name, layer))
    skips = _skips(structure)
    return [
        cell_place(structure, draft.path, draft.layers) if is_cell(structure, draft.path) else _place(draft, skips)
        for draft in drafts.values()
    ]


def _place(draft: _Draft, skips: dict[str, list[str]]) -> Place:
    index = _number_in(draft.block, draft.repeat) or 0
    return Place(list(_combined(draft, skips)), draft.block, draft.repeat, index)


def _combined(draft: _Draft, skips: dict[str, list[str]]) -> Iterator[Candidate]:
    """Yield every combination of the candidates of a place's choices."""
    names: dict[str, list[str]] = {}
    for label, name, _ in draft.layers:
        if label and name not in names.setdefault(label, list(skips.get(label, ()))):
            names[label].append(name)
    for chosen in itertools.product(*names.values()):
        selects = dict(zip(names, chosen, strict=True))
        layers = [layer for label, name, layer in draft.layers if not label or selects[label] == name]
        yield Candidate(layers, selects, is_residual(layers))


def _crowded(layers: list[Layer], structure: Structure) -> set[str]:
    """Return the blocks with more choices than can be combined."""
    counts: dict[str, dict[str, int]] = {}
    for layer in layers:
        parents = ancestors(layer.path)
        block = _block_in(parents, [path for path in parents if structure.kinds.get(path) == 'Repeat'])
        for path in parents:
            if path in structure.sites:
                label, names = structure.sites[path]
                counts.setdefault(block, {})[label] = len(names)
    return {block for block, sizes in counts.items() if block and math.prod(sizes.values()) > _MOST}


def _skips(structure: Structure) -> dict[str, list[str]]:
    """Return the candidates of each choice that only hand on their input."""
    found: dict[str, list[str]] = {}
    for path, (label, names) in structure.sites.items():
        plain = [name for name, child in names.items() if family(structure.ops.get(f'{path}.{child}', [])) == 'skip']
        found[label] = [name for name in plain if name in found.get(label, plain)]
    return found


def _block_in(parents: list[str], repeats: list[str]) -> str:
    """Return the block, among the ancestors of a layer, in the outermost repeated stage; '' without one."""
    return next((path for path in parents if _number_in(path, repeats[-1]) is not None), '') if repeats else ''


def _number_in(path: str, repeat: str) -> int | None:
    """Return the number of a block directly in a repeated stage (or in its list of blocks); None for other paths."""
    if not path.startswith(f'{repeat}.') or path == repeat:
        return None
    rest = path[len(repeat) + 1 :].removeprefix('blocks.')
    return int(rest) if rest.isdigit() else None
