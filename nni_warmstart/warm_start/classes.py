"""Match of the classes of a source and of a target by their names, or by number where names are not known."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import TransferError
from ..nni_adapter.model_spaces import with_classes
from ..supernets.supernet import Supernet
from ..tracing.axes import OUT, Axes
from ..tracing.structure import Structure

_logger = logging.getLogger(__name__)

SHOWN = 5
"""Number of class names in messages; more are counted."""


@dataclass(frozen=True)
class ClassMatch:
    """Match of classes.

    Attributes
    ----------
    rows
        Row of the source's classifier for each class of the target; None for a class that the source does not have.
    text
        How they were matched, in words.
    by_name
        Whether they were matched by their names.
    """

    rows: tuple[int | None, ...]
    text: str
    by_name: bool

    @property
    def missing(self) -> tuple[int, ...]:
        """Classes of the target that the source does not have."""
        return tuple(index for index, row in enumerate(self.rows) if row is None)


def match_classes(
    source: Supernet,
    count: int,
    names: Sequence[str],
    target_count: int,
    *,
    user: str = "head 'copy'",
    remedy: str = "name the target's classes as the source does (class_names=), or use head='ridge'",
) -> ClassMatch:
    """Match the classes of a target with those of a source.

    Of a source of several datasets, a target of one dataset takes the classes of the one with most names in common.

    Parameters
    ----------
    source
        Source, whose card has class names or none.
    count
        Rows of its classifier.
    names
        Names of the target's classes; empty where they are not known.
    target_count
        Rows of the target's classifier.
    user, remedy
        What needs the match, and what to do without one, for errors.

    Raises
    ------
    TransferError
        If the names are known and no class has the same name, or they are not known and the numbers of classes differ.
    """
    own = _names_by_row(source, names) if len(source.class_names) == count else {}
    why = _unknown(list(own.values()), list(names), target_count, source.name)
    if why is None:
        row_of = {name: row for row, name in own.items()}
        rows = tuple(row_of.get(name) for name in names)
        found = ClassMatch(rows, 'by name', by_name=True)
        if len(found.missing) == len(rows):
            raise TransferError(
                f'{user} needs classes of the same names: {source.name!r} has {shortened(list(row_of))}, and the target '
                f'{shortened(names)}; {remedy}.'
            )
        if found.missing:
            others = shortened([names[index] for index in found.missing])
            text = f'by name, {len(rows) - len(found.missing)} of {len(rows)}; {source.name!r} has no {others}'
            return replace(found, text=text)
        return found
    if count != target_count:
        raise TransferError(
            f'{user} needs equal classifiers, or the names of all classes: {source.name!r} has {count} classes and the '
            f'target {target_count}, and {why}; {remedy}.'
        )
    return ClassMatch(tuple(range(count)), f'by number, since {why}', by_name=False)


def has_classes_of(source: Supernet, count: int, names: Sequence[str], target_count: int) -> bool:
    """Check whether :func:`match_classes` finds a match."""
    try:
        match_classes(source, count, names, target_count)
    except TransferError:
        return False
    return True


def _names_by_row(source: Supernet, names: Sequence[str]) -> dict[int, str]:
    """Return the names of a source's classes by row; of several datasets, those of the one that suits ``names`` best."""
    whole = dict(enumerate(source.class_names))
    wanted = set(names)
    if not source.datasets or wanted & set(whole.values()):
        return whole
    of_dataset: dict[str, dict[int, str]] = {dataset: {} for dataset in source.datasets}
    for row, name in whole.items():
        dataset = max((each for each in of_dataset if name.startswith(f'{each}/')), key=len, default=None)
        if dataset is not None:
            of_dataset[dataset][row] = name[len(dataset) + 1 :]
    return max(of_dataset.values(), key=lambda each: len(wanted & set(each.values())))


def _unknown(own: list[str], names: list[str], target_count: int, source_name: str) -> str | None:
    """Return the reason why classes cannot be matched by name; None if they can.

    Numbers in their order are what data without class names have; they are names where the other side uses them as such.
    """
    if not own:
        return f'the names of the classes of {source_name!r} are not known'
    if not names:
        return "the names of the target's classes are not known"
    if len(names) != target_count:
        return f'the target has {target_count} classes and {len(names)} class names'
    for each, owner in ((own, repr(source_name)), (names, 'the target')):
        if len(set(each)) < len(each):
            return f'{owner} has several classes of one name'
    if _are_numbers(names) and set(names) != set(own):
        return 'the classes of the target have numbers for names'
    if _are_numbers(own) and not set(names) <= set(own):
        return f'the classes of {source_name!r} have numbers for names'
    return None


def _are_numbers(names: list[str]) -> bool:
    return names == [str(number) for number in range(len(names))]


def shortened(names: Sequence[str]) -> str:
    """Return some names in a row, and how many more there are."""
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def classifier_rows(source: Supernet, otherwise: Sequence[str]) -> dict[str, int]:
    """Return the tensors of a source's classifier, which have a row for each class, and their numbers of rows.

    Parameters
    ----------
    source
        Source; its structure tells the classifier if it is known.
    otherwise
        Tensors of the target's classifier, whose names are looked for in a source without a structure.
    """
    if source.structure is None:
        names = [name for name in otherwise if name in source.tensors]
    else:
        tensors = source.structure.channels.tensors
        rows = source.structure.channels.of_outputs(OUT)
        names = [name for name in rows if tensors[name].roles[0] == OUT and name in source.tensors]
    return {name: len(source.tensors[name]) for name in names}


def in_order_of(
    source: Supernet,
    names: Sequence[str],
    match: ClassMatch,
    classifier: Sequence[str],
    fresh: Mapping[str, Tensor] | None = None,
) -> Supernet:
    """Return a source with the classes of a target in the target's order.

    Parameters
    ----------
    source
        Source.
    names
        Names of the target's classes.
    match
        Their match with those of the source.
    classifier
        Tensors of the source's classifier.
    fresh
        Tensors with rows for the classes that the source lacks; None for rows of zeros.
    """
    count = len(match.rows)
    if match.rows == tuple(range(count)) and all(len(source.tensors[name]) == count for name in classifier):
        return source
    taken = torch.tensor([0 if row is None else row for row in match.rows])
    tensors = dict(source.tensors)
    for name in classifier:
        rows, missing = tensors[name][taken].clone(), list(match.missing)
        rows[missing] = 0 if fresh is None else fresh[name][missing].to(rows)
        tensors[name] = rows
    structure = source.structure
    if structure is not None and any(len(tensors[name]) != len(source.tensors[name]) for name in classifier):
        structure = _with_outputs(structure, count, classifier)
    space = with_classes(source.space, count)
    return replace(source, tensors=tensors, structure=structure, space=space, class_names=list(names), sketches={})


def _with_outputs(structure: Structure, count: int, classifier: Sequence[str]) -> Structure:
    """Return the structure of a network with another number of classes."""
    channels = structure.channels
    first = 1 + max((int(c.max()) for axes in channels.tensors.values() for c in axes.channels if c is not None), default=0)
    outputs = np.arange(first, first + count)

    def resized(axes: Axes) -> Axes:
        return replace(axes, shape=(count, *axes.shape[1:]), channels=(outputs, *axes.channels[1:]))

    tensors = {name: resized(axes) if name in classifier else axes for name, axes in channels.tensors.items()}
    return replace(structure, channels=replace(channels, tensors=tensors, outputs=outputs))


def in_order_of_target(
    sources: Sequence[tuple[Supernet, float]], count: int, tensors: Sequence[str], names: Sequence[str]
) -> tuple[list[tuple[Supernet, float]], ClassMatch | None]:
    """Return the sources with their classes in the order of a target, and the match; of several, the classes of all count.

    Parameters
    ----------
    sources
        Supernets and their weights.
    count, tensors
        Rows of the target's classifier, and the names of its tensors.
    names
        Names of the target's classes; empty where they are not known.

    Raises
    ------
    TransferError
        If the classes do not match.
    """
    ordered, matches = [], []
    for source, weight in sources:
        classifier = classifier_rows(source, tensors)
        if not classifier:
            return list(sources), None
        match = match_classes(source, max(classifier.values()), names, count)
        _logger.log(logging.INFO if not match.missing and match.by_name else logging.WARNING,
                    'The classes of %s are copied %s.', source.name, match.text)  # fmt: skip
        ordered.append((in_order_of(source, names, match, list(classifier)), weight))
        matches.append(match)
    lacking = max(matches, key=lambda match: len(match.missing))
    common = [all(match.rows[index] is not None for match in matches) for index in range(count)]
    rows = tuple(row if both else None for row, both in zip(lacking.rows, common, strict=True))
    return ordered, replace(lacking, rows=rows)
