"""Correspondence of the tensors, blocks, ops and choices of a target and a source, by walking both trees of modules."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..tracing.structure import Structure, ancestors
from .candidates import family, match_candidates

Kind = tuple[str, bool, bool]

ONLY: tuple[str, dict[str, str]] = ('', {'': ''})
"""Site of a module that is not a choice: its only candidate is the module itself."""


@dataclass
class Correspondence:
    """Correspondence of a target and a source; keys are the target's.

    Attributes
    ----------
    tensors
        Tensor -> tensor of the source.
    blocks
        Path of a block of a sequence -> path of the source's block, for sequences that differ.
    added
        Blocks that repeat a source block which another target block carries already: they may start as the identity.
    choices
        Label -> label of the source, and candidate -> candidate of the source.
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
    """Match two networks from the root: children by name, candidates by optimal transport, blocks by kind and depth.

    Tensors of modules whose channels are not known, on either side, have no partner.
    """
    walk = _Walk(target, source)
    walk.down('', '')
    tensors = {a: b for a, b in walk.found.tensors.items() if not (why_opaque(target, a) or why_opaque(source, b))}
    return replace(walk.found, tensors=tensors)


def why_opaque(structure: Structure, tensor: str) -> str | None:
    """Return the reason why the channels of a tensor are not known, or those of its module; None if they are.

    Operators of the root module count only for the parameters that they read.
    """
    opaque = structure.channels.opaque
    return next((opaque[path] for path in (tensor, *ancestors(tensor.rpartition('.')[0])[:-1]) if path in opaque), None)


class _Walk:
    """Walk of both trees at once, which records the correspondence on the way."""

    def __init__(self, target: Structure, source: Structure) -> None:
        self.target, self.source = target, source
        self.found = Correspondence()

    def down(self, target_path: str, source_path: str) -> None:
        """Walk down from a module of the target and its partner, and record what corresponds."""
        for local in self.target.locals.get(target_path, ()):
            if local in self.source.locals.get(source_path, ()):
                self.found.tensors[_join(target_path, local)] = _join(source_path, local)
        values = self.target.values.get(target_path, ()), self.source.values.get(source_path, ())
        for label, other in _labels(*values).items():
            self.found.values.setdefault(label, other)
        chosen = target_path in self.target.sites or source_path in self.source.sites
        pairs = (self._candidates if chosen else self._children)(target_path, source_path)
        for child, other in pairs:
            path = _join(target_path, child)
            self.down(path, other)
            if chosen and not any(_join(path, name) in self.found.tensors for name in self.target.inside.get(path, ())):
                self.found.tensors.update(self._layer_by_layer(path, other))

    def _layer_by_layer(self, target_path: str, source_path: str) -> dict[str, str]:
        """Pair the tensors of two candidates that have no names in common.

        Layers of the same kind are paired in the order of execution, if both candidates have the same number of them.
        """
        own, others = _layers(self.target, target_path), _layers(self.source, source_path)
        return {
            f'{layer}.{local}': f'{other}.{local}'
            for kind in own.keys() & others.keys() if len(own[kind]) == len(others[kind])
            for layer, other in zip(own[kind], others[kind], strict=True)
            for local in ('weight', 'bias') if local in self.target.locals[layer] and local in self.source.locals[other]
        }  # fmt: skip

    def _candidates(self, target_path: str, source_path: str) -> list[tuple[str, str]]:
        """Pair names of the target's candidates with paths of the source's; a module without a choice is its only one."""
        label, target_names = self.target.sites.get(target_path, ONLY)
        other, source_names = self.source.sites.get(source_path, ONLY)
        if label in self.found.choices and self.found.choices[label][0] == other:
            partners = self.found.choices[label][1]  # a label that all cells share is matched once
        else:
            partners = match_candidates(
                {name: self.target.ops.get(_join(target_path, child), []) for name, child in target_names.items()},
                {name: self.source.ops.get(_join(source_path, child), []) for name, child in source_names.items()},
            )
            if label and other:
                self.found.choices.setdefault(label, (other, partners))
        for name, partner in partners.items():
            if name != partner and name in target_names and partner in source_names:
                self.found.renamed[_join(target_path, target_names[name])] = _join(source_path, source_names[partner])
        known = {name: partner for name, partner in partners.items() if name in target_names and partner in source_names}
        return [(target_names[name], _join(source_path, source_names[partner])) for name, partner in known.items()]

    def _children(self, target_path: str, source_path: str) -> list[tuple[str, str]]:
        """Pair names of the target's children with paths of the source's."""
        target_names, source_names = self.target.children.get(target_path, []), self.source.children.get(source_path, [])
        if not (target_names and source_names and all(name.isdigit() for name in (*target_names, *source_names))):
            return [(name, _join(source_path, name)) for name in target_names if name in source_names]
        kinds = [_kind(self.target, _join(target_path, name)) for name in target_names]
        others = [_kind(self.source, _join(source_path, name)) for name in source_names]
        paired = [(name, _join(source_path, other)) for name, other in zip(target_names, source_names, strict=False)]
        one_is_a_choice = [
            (_join(target_path, name) in self.target.sites) != (other in self.source.sites) for name, other in paired
        ]
        alike = [kind == other for (kind, *_), (other, *_) in zip(kinds, others, strict=False)]
        if len(target_names) == len(source_names) and all(map(operator.or_, alike, one_is_a_choice)):
            return paired
        if target_path.rpartition('.')[0] in self.target.values and source_path.rpartition('.')[0] in self.source.values:
            last = len(source_names) - 1
            prefix = [source_names[min(index, last)] for index in range(len(target_names))]  # new blocks come last
            pairs = [(name, _join(source_path, other)) for name, other in zip(target_names, prefix, strict=True)]
        else:
            pairs = self._by_depth(target_path, source_path)
        carried: set[str] = set()
        for child, other in pairs:
            self.found.blocks[_join(target_path, child)] = other
            if other in carried or other.rpartition('.')[0] != source_path:
                self.found.added.append(_join(target_path, child))
            carried.add(other)
        return pairs

    def _by_depth(self, target_path: str, source_path: str) -> list[tuple[str, str]]:
        """Pair each block with the one of its kind at the nearest relative depth.

        Blocks are looked for in the corresponding run, then in the sequence, then in the sequence next to it.
        """
        target_names, source_names = self.target.children.get(target_path, []), self.source.children.get(source_path, [])
        others = [_join(source_path, name) for name in source_names]
        target_runs = _runs([_kind(self.target, _join(target_path, name)) for name in target_names])
        source_runs = _runs([_kind(self.source, other) for other in others])
        # Group the target's blocks with the source's that they may take: by run, if the runs are alike, else by kind.
        groups: list[tuple[list[int], list[str]]] = []
        if [kind for kind, _ in target_runs] == [kind for kind, _ in source_runs]:
            groups = [
                (left, [others[j] for j in right]) for (_, left), (_, right) in zip(target_runs, source_runs, strict=True)
            ]
        else:
            blocks_of: dict[Kind, list[int]] = defaultdict(list)
            for kind, indices in target_runs:
                blocks_of[kind] += indices
            for kind, indices in blocks_of.items():
                alike = [other for other in others if _kind(self.source, other) == kind]
                groups.append((indices, alike or _beside(self.source, source_path, kind)))
        # Within a group prefer blocks with the same tensors, then those at the nearest relative depth.
        pairs = []
        for left, right in groups:
            inside = [self.source.inside.get(other, frozenset()) for other in right]
            for rank, i in enumerate(left if right else ()):
                own = self.target.inside.get(_join(target_path, target_names[i]), frozenset())
                depth = (rank + 0.5) / len(left)
                best = min(
                    range(len(right)),
                    key=lambda k: (round(10 * (1 - _overlap(own, inside[k]))), abs((k + 0.5) / len(right) - depth)),
                )
                pairs.append((i, right[best]))
        return [(target_names[i], other) for i, other in sorted(pairs)]


def _labels(target: Sequence[str], source: Sequence[str]) -> dict[str, str]:
    """Pair the choices among numbers of two layers: equal labels, then the others in their order if they are as many."""
    own, others = [each for each in target if each not in source], [each for each in source if each not in target]
    in_order = zip(own, others, strict=True) if len(own) == len(others) else ()
    return {**{label: label for label in target if label in source}, **dict(in_order)}


def _layers(structure: Structure, path: str) -> dict[tuple[int, bool], list[str]]:
    """Group the paths of layers by the dimensions of their weights and whether these are grouped."""
    found: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for name, axes in structure.channels.tensors.items():
        if name.startswith(f'{path}.') and name.endswith('.weight') and len(axes.shape) > 1:
            found[len(axes.shape), axes.groups > 1].append(name.rpartition('.')[0])
    return found


def _kind(structure: Structure, path: str) -> Kind:
    """Return the kind of a block.

    The kind is its class, whether it reduces the image size (for a single layer, whether it is depthwise), and whether it
    reads the network's input.
    """
    first = path in structure.first
    if structure.children.get(path):
        return structure.kinds[path], structure.channels.scales.get(path, 1.0) < 1, first
    return structure.kinds[path], any(op.kind == 'depthwise' for op in structure.channels.ops.get(path, ())), first


def handed_on(found: Correspondence, target: Structure, source: Structure) -> dict[str, str]:
    """Return the depthwise weights of separable candidates whose partners are ordinary convolutions -> path of the partner.

    If the depthwise kernel is the identity, the 1 x 1 convolution after it can do what the ordinary one does.
    """
    names = {}
    for target_path, source_path in found.renamed.items():
        if (family(target.ops.get(target_path, [])), family(source.ops.get(source_path, []))) == ('separable', 'conv'):
            for name, axes in target.channels.tensors.items():
                if name.startswith(f'{target_path}.') and name not in found.tensors and 1 < axes.groups == axes.shape[0]:
                    names[name] = source_path
    return names


def _beside(source: Structure, source_path: str, kind: Kind) -> list[str]:
    """Return blocks of a kind in the nearest sequence beside one, as 'stages.0.blocks' is beside 'stages.1.blocks'."""
    parts = source_path.split('.')
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
