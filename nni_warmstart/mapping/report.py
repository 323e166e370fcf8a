"""TransferReport: where every tensor of a warm supernet came from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

INHERITED = frozenset({'copied', 'fitted', 'transported', 're-estimated'})
"""Ways of getting a tensor that use the source (its values, its features, or its activations)."""


@dataclass(frozen=True)
class TensorOrigin:
    """How one target tensor was obtained.

    Attributes
    ----------
    target
        Its name in the target supernet.
    how
        'copied' (shrunk and perturbed where ``keep < 1``), 'fitted' (a closed-form head on the source's features),
        'transported' (a head from the source's class weights), 're-estimated' (batch-norm statistics) or 'fresh'.
    source
        Name of the source tensor, or None.
    numel
        Its size.
    parameter
        Whether it is a parameter (rather than a buffer).
    """

    target: str
    how: str
    source: str | None
    numel: int
    parameter: bool


@dataclass(frozen=True)
class TransferReport:
    """What a warm start inherited. Prints as a table.

    Attributes
    ----------
    source
        Name of the source supernet.
    origins
        One entry per target tensor (shared tensors once).
    head
        How the classifier was initialised.
    zero_shot_accuracy
        Accuracy before any training, on the validation data where given, else on the data of the head; None without data.
    seconds
        Wall-clock by step: 'mapping', 'batch_norm', 'head', 'probe', and 'choosing' where the source was chosen.
    ranking
        Where the source was chosen: (name, distance) of every candidate, the best first.
    """

    source: str
    origins: tuple[TensorOrigin, ...]
    head: str
    zero_shot_accuracy: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    ranking: tuple[tuple[str, float], ...] = ()

    @property
    def share_inherited(self) -> float:
        """Share of the parameters (numbers, alphas included) that come from the source."""
        total = sum(origin.numel for origin in self.origins if origin.parameter)
        return sum(o.numel for o in self.origins if o.parameter and o.how in INHERITED) / max(total, 1)

    @property
    def total_seconds(self) -> float:
        """Wall-clock of the whole warm start."""
        return sum(self.seconds.values())

    def rows(self, depth: int = 2) -> list[tuple[str, str, int, int]]:
        """Summary by block: (block, how, tensors, numbers); ``depth`` is the number of name parts that make a block."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for origin in self.origins:
            groups['.'.join(origin.target.split('.')[:depth]), origin.how].append(origin.numel)
        return [(block, how, len(sizes), sum(sizes)) for (block, how), sizes in groups.items()]

    def to_text(self, *, every_tensor: bool = False) -> str:
        """The table as text, by block or with one line per tensor."""
        if every_tensor:
            header = ('tensor', 'how', 'from', 'numbers')
            body = [(o.target, o.how, o.source or '-', f'{o.numel:,}') for o in self.origins]
        else:
            header = ('block', 'how', 'tensors', 'numbers')
            body = [(block, how, str(count), f'{numbers:,}') for block, how, count, numbers in self.rows()]
        lines = [header, *body]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        text = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        text.insert(1, '  '.join('-' * width for width in widths))
        return '\n'.join([self.summary(), *text])

    def summary(self) -> str:
        """One line."""
        accuracy = '' if self.zero_shot_accuracy is None else f', accuracy before training {self.zero_shot_accuracy:.3f}'
        chosen = f', the nearest of {len(self.ranking)}' if self.ranking else ''
        return (
            f'warm start from {self.source!r}{chosen}: {self.share_inherited:.1%} of the parameters inherited, '
            f'head {self.head!r}{accuracy}, {self.total_seconds:.2f} s'
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            'source': self.source,
            'head': self.head,
            'share_inherited': self.share_inherited,
            'zero_shot_accuracy': self.zero_shot_accuracy,
            'seconds': self.seconds,
            'ranking': [list(entry) for entry in self.ranking],
            'tensors': [[o.target, o.how, o.source, o.numel] for o in self.origins],
        }

    def __str__(self) -> str:
        return self.to_text()
