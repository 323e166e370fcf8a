"""TransferReport: the origin of every tensor of a warm supernet."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from ..mapping.mapper import MappedKind

OriginKind = Literal[MappedKind, 'identity', 'fused', 'fitted', 'transported', 're-estimated', 'fresh']
"""Ways in which a tensor is obtained; see :attr:`TensorOrigin.how`."""

INHERITED: frozenset[OriginKind] = frozenset(get_args(OriginKind)) - {'fresh'}
"""Ways to obtain a tensor from the source (its values, its features, or its activations)."""


@dataclass(frozen=True)
class TensorOrigin:
    """Origin of one target tensor.

    Attributes
    ----------
    target
        Name of the tensor in the target supernet.
    how
        Way in which it was obtained: 'copied', 'widened', 'merged' (narrower), 'kernel-resized', 'op-mapped' (from another
        candidate), 'block-mapped' (from a block at another depth), 'identity' (part of an added block or kernel that returns
        its input), 'fused' (an average of several sources); all of these shrunk and perturbed if
        ``keep < 1``. 'fitted' (a closed-form head on the source's features), 'transported' (a head from the source's class
        weights), 're-estimated' (batch-norm statistics), 'fresh'.
    source
        Name of the source tensor, or None; of several sources, the names that differ.
    numel
        Number of elements.
    parameter
        Whether the tensor is a parameter (rather than a buffer).
    by
        Couplings in words, such as 'out 8 -> 16, in 8 -> 16', or the reason why a tensor of the body is fresh; '' for none.
    cell
        Path of the cell or block that contains the tensor.
    op
        Candidate op that contains the tensor; '' for none.
    """

    target: str
    how: OriginKind
    source: str | None
    numel: int
    parameter: bool
    by: str = ''
    cell: str = ''
    op: str = ''


@dataclass(frozen=True)
class TransferReport:
    """Account of what a warm start inherited. Prints as a table.

    Attributes
    ----------
    source
        Name of the source supernet.
    origins
        Origin of every target tensor (shared tensors once).
    head
        Method by which the classifier was initialised.
    zero_shot_accuracy
        Accuracy before any training, on the validation data if given, else on the data of the head; None without data, and
        where it is not known: labels that are no classes, a model of several outputs.
    seconds
        Wall-clock time of each step: 'mapping', 'batch_norm', 'head', 'probe', and 'choosing' if the source was chosen.
    ranking
        Name and distance (for 'auto', error rate) of every candidate, the best first; empty if the source was named.
    rule
        Rule by which the source was chosen: 'nearest', 'fused' or 'auto'; '' if it was named.
    blocks
        Target block -> source block, for sequences of blocks that differ.
    choices
        Label of a choice -> target candidate -> source candidate; candidates without a partner are missing.
    candidates
        Label of a choice -> all candidates of the target, and of the source.
    couplings
        Source tensor -> coupling of the channel space that occurs first in this tensor, shape ``(n_source, n_target)``;
        empty if the model spaces are the same. For several sources, keys are 'source: tensor'.
    classes
        How the classes of an inherited classifier were matched, in words; '' for other heads.
    notes
        What else is to be said, in sentences: operators that are not followed, means over channels with unequal copies.
    """

    source: str
    origins: tuple[TensorOrigin, ...]
    head: str
    zero_shot_accuracy: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    ranking: tuple[tuple[str, float], ...] = ()
    rule: str = ''
    blocks: dict[str, str] = field(repr=False, default_factory=dict)
    choices: dict[str, dict[str, str]] = field(repr=False, default_factory=dict)
    candidates: dict[str, tuple[list[str], list[str]]] = field(repr=False, default_factory=dict)
    couplings: dict[str, Tensor] = field(repr=False, default_factory=dict)
    classes: str = ''
    notes: tuple[str, ...] = ()

    @property
    def share_inherited(self) -> float:
        """Share of the parameters (by number of elements, alphas included) that come from the source."""
        total = sum(origin.numel for origin in self.origins if origin.parameter)
        return sum(o.numel for o in self.origins if o.parameter and o.how in INHERITED) / max(total, 1)

    @property
    def chosen(self) -> str:
        """Explanation of how the source was chosen; '' if it was named."""
        if not self.ranking:
            return ''
        if self.rule == 'auto':
            return f'the best of {len(self.ranking)} that were tried'
        number = len(self.source.split(' + '))
        return f'the {"" if number == 1 else f"{number} "}nearest of {len(self.ranking)}'

    @property
    def total_seconds(self) -> float:
        """Wall-clock time of the whole warm start."""
        return sum(self.seconds.values())

    def rows(self) -> list[tuple[str, str, int, int]]:
        """Return a summary by cell or block: (path, way of obtaining, number of tensors, number of elements)."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for origin in self.origins:
            groups[origin.cell, origin.how].append(origin.numel)
        return [(cell, how, len(sizes), sum(sizes)) for (cell, how), sizes in groups.items()]

    def shares(self, by: str = 'cell') -> dict[str, float]:
        """Return the share of the parameters that come from the source, by 'cell' (or block) or by candidate 'op'."""
        total: dict[str, int] = defaultdict(int)
        inherited: dict[str, int] = defaultdict(int)
        for origin in self.origins:
            group = origin.cell if by == 'cell' else origin.op
            if origin.parameter and group:
                total[group] += origin.numel
                inherited[group] += origin.numel if origin.how in INHERITED else 0
        return {group: inherited[group] / max(total[group], 1) for group in total}

    def to_text(self, *, every_tensor: bool = False) -> str:
        """Return the table as text, by cell (or block) or with one line per tensor."""
        if every_tensor:
            header = ('tensor', 'how', 'from', 'by', 'numbers')
            body = [(o.target, o.how, o.source or '-', o.by or '-', f'{o.numel:,}') for o in self.origins]
        else:
            share = self.shares()
            header = ('cell', 'inherited', 'how', 'tensors', 'numbers')
            body = [(c, f'{share.get(c, 0):.0%}', how, str(count), f'{size:,}') for c, how, count, size in self.rows()]
        lines = [header, *body]
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        text = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        text.insert(1, '  '.join('-' * width for width in widths))
        return '\n'.join([self.summary(), *text, *self.notes])

    def summary(self) -> str:
        """Return a summary in one line."""
        accuracy = '' if self.zero_shot_accuracy is None else f', accuracy before training {self.zero_shot_accuracy:.3f}'
        chosen = f', {self.chosen}' if self.chosen else ''
        classes = f' (classes {self.classes})' if self.classes else ''
        return (
            f'warm start from {self.source!r}{chosen}: {self.share_inherited:.1%} of the parameters inherited, '
            f'head {self.head!r}{classes}{accuracy}, {self.total_seconds:.2f} s'
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {
            'source': self.source,
            'head': self.head,
            'classes': self.classes,
            'notes': list(self.notes),
            'share_inherited': self.share_inherited,
            'zero_shot_accuracy': self.zero_shot_accuracy,
            'seconds': self.seconds,
            'ranking': [list(entry) for entry in self.ranking],
            'chosen': self.chosen,
            'blocks': self.blocks,
            'choices': self.choices,
            'cells': [list(row) for row in self.rows()],
            'share_by_cell': self.shares(),
            'share_by_op': self.shares('op'),
            'tensors': [[o.target, o.how, o.source, o.numel, o.by] for o in self.origins],
        }

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the mapping into a PNG file: source cells against target cells, and the ops of every choice that differs."""
        from ..utils import plots  # matplotlib takes long to import

        cells: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        sizes: dict[str, int] = defaultdict(int)
        for origin in self.origins:
            if origin.parameter:
                sizes[origin.cell] += origin.numel
                if origin.source and origin.how in INHERITED:
                    depth = origin.cell.count('.') + 1
                    cells['.'.join(origin.source.split('.')[:depth])][origin.cell] += origin.numel
        shares = {origin: {cell: n / sizes[cell] for cell, n in row.items()} for origin, row in cells.items()}
        plots.mapping(path, shares, list(sizes), self.choices, self.candidates, self.summary())

    def __str__(self) -> str:
        return self.to_text()
