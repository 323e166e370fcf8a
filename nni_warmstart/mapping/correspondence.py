"""Which tensor, block, op and choice of a source each one of a target corresponds to, by walking both trees of modules."""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass, field

from ..tracing.structure import Structure, ancestors
from .candidates import family, match_candidates

Kind = tuple[str, bool, bool]

ONLY: tuple[str, dict[str, str]] = ('', {'': ''})
"""The site of a module that is no choice: one candidate, itself."""


@dataclass
class Correspondence:
    """What corresponds to what; keys are the target's.

    Attributes
    ----------
    tensors
        Tensor -> tensor of the source.
    blocks
        Path of a block of a sequence -> path of the source's block, wherever the sequences differ.
    added
        Blocks that repeat a source block which another target block carries already: they may start as the identity.
    choices
        Label -> label of the source and, by candidate, the source's candidate.
    values
        Label of a choice among numbers -> label of the source.
    renamed
        Path of a candidate -> path of the source's candidate, where their names differ.
    """

    tensors: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    choices: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


def match_modules(target: Structure, source: Structure) -> Correspondence:
    """Walk both trees from the root: children by name, candidates by an optimal-transport plan, blocks by kind and depth.

    Tensors of modules whose channels are not known, on either side, correspond to nothing.
    """
    found = Correspondence()
    _walk(target, source, '', '', found)
    found.tensors = {a: b for a, b in found.tensors.items() if not (_is_opaque(target, a) or _is_opaque(source, b))}
    return found


def _is_opaque(structure: Structure, tensor: str) -> bool:
    """Whether a tensor is in a module of unknown channels; an unknown operator of the network itself is in none."""
    return any(path in structure.channels.opaque for path in ancestors(tensor.rpartition('.')[0])[:-1])


def _walk(target: Structure, source: Structure, mine: str, theirs: str, found: Correspondence) -> None:
    for local in target.locals.get(mine, ()):
        if local in source.locals.get(theirs, ()):
            found.tensors[_join(mine, local)] = _join(theirs, local)
    for label, other in zip(target.values.get(mine, ()), source.values.get(theirs, ()), strict=False):
        found.values.setdefault(label, other)
    chosen = mine in target.sites or theirs in source.sites
    pairs = (_candidates if chosen else _children)(target, source, mine, theirs, found)
    for child, other in pairs:
        path = _join(mine, child)
        _walk(target, source, path, other, found)
        if chosen and not any(_join(path, name) in found.tensors for name in target.inside.get(path, ())):
            found.tensors.update(_layer_by_layer(target, source, path, other))


def _layer_by_layer(target: Structure, source: Structure, mine: str, theirs: str) -> dict[str, str]:
    """Tensors of two candidates without a name in common: of their layers of a kind, in the order in which they run, where
    there are as many."""
    ours, others = _layers(target, mine), _layers(source, theirs)
    return {
        f'{layer}.{local}': f'{other}.{local}'
        for kind in ours.keys() & others.keys() if len(ours[kind]) == len(others[kind])
        for layer, other in zip(ours[kind], others[kind], strict=True)
        for local in ('weight', 'bias') if local in target.locals[layer] and local in source.locals[other]
    }  # fmt: skip


def _layers(structure: Structure, path: str) -> dict[tuple[int, bool], list[str]]:
    """Dimensions of a weight, and whether it is grouped -> paths of the layers."""
    found: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for name, axes in structure.channels.tensors.items():
        if name.startswith(f'{path}.') and name.endswith('.weight') and len(axes.shape) > 1:
            found[len(axes.shape), axes.groups > 1].append(name.rpartition('.')[0])
    return found


def _candidates(
    target: Structure, source: Structure, mine: str, theirs: str, found: Correspondence
) -> list[tuple[str, str]]:
    """Names of the target's candidates with the paths of the source's; a module without a choice is its only candidate."""
    (label, here), (other, there) = target.sites.get(mine, ONLY), source.sites.get(theirs, ONLY)
    if label in found.choices and found.choices[label][0] == other:
        partners = found.choices[label][1]  # a label that is shared by all cells is decided once
    else:
        partners = match_candidates(
            {name: target.ops.get(_join(mine, child), []) for name, child in here.items()},
            {name: source.ops.get(_join(theirs, child), []) for name, child in there.items()},
        )
        if label and other:
            found.choices.setdefault(label, (other, partners))
    for name, partner in partners.items():
        if name != partner and name in here and partner in there:
            found.renamed[_join(mine, here[name])] = _join(theirs, there[partner])
    known = {name: partner for name, partner in partners.items() if name in here and partner in there}
    return [(here[name], _join(theirs, there[partner])) for name, partner in known.items()]


def _children(target: Structure, source: Structure, mine: str, theirs: str, found: Correspondence) -> list[tuple[str, str]]:
    """Names of the target's children with the paths of the source's."""
    here, there = target.children.get(mine, []), source.children.get(theirs, [])
    if not (here and there and all(name.isdigit() for name in (*here, *there))):
        return [(name, _join(theirs, name)) for name in here if name in there]
    kinds = [_kind(target, _join(mine, name)) for name in here]
    others = [_kind(source, _join(theirs, name)) for name in there]
    paired = [(name, _join(theirs, other)) for name, other in zip(here, there, strict=False)]
    one_is_a_choice = [(_join(mine, name) in target.sites) != (other in source.sites) for name, other in paired]
    alike = [kind == other for (kind, *_), (other, *_) in zip(kinds, others, strict=False)]
    if len(here) == len(there) and all(map(operator.or_, alike, one_is_a_choice)):
        return paired
    if mine.rpartition('.')[0] in target.values and theirs.rpartition('.')[0] in source.values:
        prefix = [there[min(index, len(there) - 1)] for index in range(len(here))]  # new blocks come last
        pairs = [(name, _join(theirs, other)) for name, other in zip(here, prefix, strict=True)]
    else:
        pairs = _by_depth(target, source, mine, theirs, here, there)
    carried: set[str] = set()
    for child, other in pairs:
        found.blocks[_join(mine, child)] = other
        if other in carried or other.rpartition('.')[0] != theirs:
            found.added.append(_join(mine, child))
        carried.add(other)
    return pairs


def _kind(structure: Structure, path: str) -> Kind:
    """Class of a block, whether it reduces the sides of its pictures (of a single layer, whether it is depthwise), and
    whether it reads the network's input."""
    first = path in structure.first
    if structure.children.get(path):
        return structure.kinds[path], structure.channels.scales.get(path, 1.0) < 1, first
    return structure.kinds[path], any(op.kind == 'depthwise' for op in structure.channels.ops.get(path, ())), first


def handed_on(found: Correspondence, target: Structure, source: Structure) -> dict[str, str]:
    """Depthwise weights of separable candidates that correspond to ordinary convolutions -> path of these.

    A kernel that hands on its input leaves to the 1 x 1 convolution after it what the ordinary one does.
    """
    names = {}
    for mine, theirs in found.renamed.items():
        if (family(target.ops.get(mine, [])), family(source.ops.get(theirs, []))) == ('separable', 'conv'):
            for name, axes in target.channels.tensors.items():
                if name.startswith(f'{mine}.') and name not in found.tensors and 1 < axes.groups == axes.shape[0]:
                    names[name] = theirs
    return names


def _by_depth(
    target: Structure, source: Structure, mine: str, theirs: str, here: list[str], there: list[str]
) -> list[tuple[str, str]]:
    """Each block takes the block of its kind at the nearest relative depth of the corresponding run, or of the sequence, or,
    where this has none, of the sequence next to it."""
    others = [_join(theirs, name) for name in there]
    mine_runs = _runs([_kind(target, _join(mine, name)) for name in here])
    their_runs = _runs([_kind(source, other) for other in others])
    groups: list[tuple[list[int], list[str]]]
    if [kind for kind, _ in mine_runs] == [kind for kind, _ in their_runs]:
        groups = [(left, [others[j] for j in right]) for (_, left), (_, right) in zip(mine_runs, their_runs, strict=True)]
    else:
        ours: dict[Kind, list[int]] = defaultdict(list)
        for kind, indices in mine_runs:
            ours[kind] += indices
        groups = [
            (indices, [other for other in others if _kind(source, other) == kind] or _beside(source, theirs, kind))
            for kind, indices in ours.items()
        ]
    pairs = []
    for left, right in groups:
        inside = [source.inside.get(other, frozenset()) for other in right]
        for rank, i in enumerate(left if right else ()):
            own = target.inside.get(_join(mine, here[i]), frozenset())
            depth = (rank + 0.5) / len(left)
            best = min(
                range(len(right)),
                key=lambda k: (round(10 * (1 - _overlap(own, inside[k]))), abs((k + 0.5) / len(right) - depth)),
            )
            pairs.append((i, right[best]))
    return [(here[i], other) for i, other in sorted(pairs)]


def _beside(source: Structure, theirs: str, kind: Kind) -> list[str]:
    """Blocks of a kind in the nearest of the sequences beside one: 'stages.0.blocks' is beside 'stages.1.blocks'."""
    parts = theirs.split('.')
    numbered = [index for index, part in enumerate(parts) if part.isdigit()]
    if not numbered:
        return []
    at = numbered[-1]
    beside = [name for name in source.children.get('.'.join(parts[:at]), ()) if name.isdigit()]
    for name in sorted(beside, key=lambda name: abs(int(name) - int(parts[at]))):
        path = '.'.join([*parts[:at], name, *parts[at + 1 :]])
        found = [block for child in source.children.get(path, ()) if _kind(source, block := _join(path, child)) == kind]
        if found:
            return found
    return []


def _overlap(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / max(len(left | right), 1)


def _runs(kinds: list[Kind]) -> list[tuple[Kind, list[int]]]:
    runs: list[tuple[Kind, list[int]]] = []
    for index, kind in enumerate(kinds):
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(index)
        else:
            runs.append((kind, [index]))
    return runs


def _join(path: str, name: str) -> str:
    return f'{path}.{name}' if path and name else path or name
