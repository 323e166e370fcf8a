"""Structure: all that the mapper needs to know about a supernet besides its weights, without the code that made it."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from ..errors import SupernetFileError, TransferError
from ..nni_adapter import choices
from ..nni_adapter.paths import every_path
from ..utils.limits import Budget
from ..utils.modules import state_kept
from ..utils.strict_json import parse_compressed
from .axes import IN, Axes, Channels, Op
from .plain_structure import LABELS, check
from .tracer import trace_channels

_MOST = 2**24  # channels that a network in a file may have


@dataclass(frozen=True)
class Structure:
    """Channels, modules and choices of a network.

    Attributes
    ----------
    channels
        Channels that tensors share, and the operators that ran in each module.
    kinds
        Path of a module -> its kind (the name of its class; of NNI's mixed operations, of the class that they mix), in the
        order of definition.
    sites
        Path of a choice among modules -> its label, and candidate -> name of the child.
    values
        Path of a module with choices among numbers (widths, kernels, depths, inputs) -> their labels.
    """

    channels: Channels
    kinds: dict[str, str]
    sites: dict[str, tuple[str, dict[str, str]]]
    values: dict[str, list[str]]

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """Names of the children by path, in the order of definition."""
        return _by_parent(path for path in self.kinds if path)

    @cached_property
    def locals(self) -> dict[str, list[str]]:
        """Local names of the tensors that a module itself has, by path."""
        return _by_parent(self.channels.tensors)

    @cached_property
    def ops(self) -> dict[str, list[Op]]:
        """Operators that ran in a module, children included, by path."""
        found: dict[str, list[Op]] = defaultdict(list)
        for path, ops in self.channels.ops.items():
            for ancestor in ancestors(path):
                found[ancestor].extend(ops)
        return found

    @cached_property
    def inside(self) -> dict[str, frozenset[str]]:
        """Names of the tensors in a module, relative to it, by path."""
        found: dict[str, set[str]] = defaultdict(set)
        for name in self.channels.tensors:
            for ancestor in ancestors(name.rpartition('.')[0]):
                found[ancestor].add(name[len(ancestor) + 1 :] if ancestor else name)
        return {path: frozenset(names) for path, names in found.items()}

    @cached_property
    def first(self) -> frozenset[str]:
        """Paths of modules with a layer that reads the network's input."""
        return frozenset(
            path
            for name, axes in self.channels.tensors.items()
            for role, channels in zip(axes.roles, axes.channels, strict=True)
            if role == IN and channels is not None and np.isin(channels, self.channels.inputs).any()
            for path in ancestors(name.rpartition('.')[0])
        )

    def to_bytes(self) -> bytes:
        """Return the structure as compressed JSON."""
        channels = self.channels
        plain = {
            'tensors': {
                name: [axes.shape, axes.roles, [_runs(c) for c in axes.channels], axes.bounds, axes.dilation, axes.groups]
                for name, axes in channels.tensors.items()
            },
            'inputs': _runs(channels.inputs),
            'outputs': _runs(channels.outputs),
            'ops': {path: [[o.kind, o.kernel, o.stride, o.dilation] for o in ops] for path, ops in channels.ops.items()},
            'scales': channels.scales,
            'opaque': channels.opaque,
            'kinds': self.kinds,
            'sites': self.sites,
            'values': self.values,
            'relations': {
                'ties': channels.ties.tolist(),
                **{kind: _labels_of(channels.tensors, kind) for kind in LABELS},
            },
        }
        return zlib.compress(json.dumps(plain, separators=(',', ':')).encode(), 9)

    @classmethod
    def from_bytes(cls, data: bytes, origin: str = 'structure', budget: Budget | None = None) -> Structure:
        """Read what :meth:`to_bytes` returned.

        Parameters
        ----------
        data
            The structure as compressed JSON.
        origin
            Name of the file in errors.
        budget
            Memory that it may take; None for the whole limit.

        Raises
        ------
        SupernetFileError
            If it is damaged, or takes more memory than the budget allows.
        """
        budget = budget or Budget(origin, SupernetFileError)
        try:
            plain = parse_compressed(data, budget)
            check(plain)
            budget.spend(8 * _numbers(plain))
            relations = plain.get('relations', {})
            labels = {kind: relations.get(kind, {}) for kind in LABELS}
            tensors = {
                name: _axes(*entry, labels={kind: each.get(name) for kind, each in labels.items()})
                for name, entry in plain['tensors'].items()
            }
            channels = Channels(
                tensors,
                _array(plain['inputs']),
                _array(plain['outputs']),
                {path: [Op(*op) for op in ops] for path, ops in plain['ops'].items()},
                plain['scales'],
                plain['opaque'],
                ties=np.array(relations.get('ties', [[], [], []]), dtype=int).reshape(3, -1),
            )
            sites = {path: (label, dict(names)) for path, (label, names) in plain['sites'].items()}
            return cls(channels, plain['kinds'], sites, plain['values'])
        except SupernetFileError:
            raise
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise SupernetFileError(f'{origin} has a structure that this version does not understand ({error}).') from error


def structure_of(model: nn.Module, shape: tuple[int, ...]) -> Structure:
    """Find the structure of a network by one run without data.

    Parameters
    ----------
    model
        A mutated model space, or any network.
    shape
        Shape of its input, batch first.

    Raises
    ------
    TransferError
        If the network does not run on such an input, or a layer has no channels or may choose to have none; the message
        names the module.
    """
    for name, tensor in model.named_parameters():
        if not tensor.numel():
            raise TransferError(f'{name} has shape {tuple(tensor.shape)}: a layer without channels cannot be mapped.')
    for path, widths in choices.widths(model).items():
        if 0 in widths:
            raise TransferError(f'{path} may choose a width of 0: a layer without channels cannot be mapped.')
    alphas = {id(choice.alpha) for choice in choices.choices(model).values()}
    skip = frozenset(name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in alphas)
    with state_kept(model), every_path(model):
        channels = trace_channels(model, shape, skip)
    kinds = {path: kind for path, module in model.named_modules() if (kind := choices.kind_of(module))}
    sites, values = choices.sites(model)
    return Structure(channels, kinds, sites, values)


def guess_shape(model: nn.Module, image_shape: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    """Return the shape of an input of ``model``: ``image_shape`` (channels, pixels) where known, else by its first layer."""
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    first = next((p for p in (*layers, *model.parameters()) if p.dim() in (2, 4)), None)
    if first is None:
        raise TransferError(f'{type(model).__name__} has no convolution and no linear layer; there is nothing to map.')
    image_size = image_shape[1] or 32
    if first.dim() == 2 and not image_shape[1]:
        return (2, first.shape[1])
    return (2, image_shape[0] or first.shape[1], image_size, image_size)


def _by_parent(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the last parts of dotted names by what stands before them."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parent, _, local = name.rpartition('.')
        groups[parent].append(local)
    return groups


def ancestors(path: str) -> list[str]:
    """Return the path, its parent, and so on to the root ''."""
    found = [path]
    while path:
        path = path.rpartition('.')[0]
        found.append(path)
    return found


def _runs(channels: np.ndarray | None) -> Any:
    """Return channels as plain data: None, start and length of a run, or all numbers; two dimensions as a list of rows."""
    if channels is None:
        return None
    if channels.ndim == 2:
        return [_runs(row) for row in channels]
    if len(channels) and np.array_equal(channels, np.arange(channels[0], channels[0] + len(channels))):
        return {'start': int(channels[0]), 'length': len(channels)}
    return {'channels': channels.tolist()}


def _numbers(plain: Any) -> int:
    """Return how many numbers of channels the arrays of a structure hold that are given by start and length."""
    found, level = 0, [plain]
    while level:
        found += sum(each['length'] for each in level if isinstance(each, dict) and type(each.get('length')) is int)
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
        level = [item for item in level if isinstance(item, dict | list)]
    return found


def _array(plain: Any) -> np.ndarray:
    if isinstance(plain, list):
        return np.stack([_array(row) for row in plain])
    if 'start' in plain:
        if not 0 <= plain['start'] < _MOST or not 0 <= plain['length'] < _MOST:
            raise ValueError(f'channels {plain}')
        return np.arange(plain['start'], plain['start'] + plain['length'])
    channels = np.array(plain['channels'], dtype=int)
    if channels.ndim != 1 or (channels.size and not 0 <= channels.min() <= channels.max() < _MOST):
        raise ValueError('channels out of their range')
    return channels


def _labels_of(tensors: dict[str, Axes], kind: str) -> dict[str, Any]:
    """Return one kind of labels of all tensors that have some, axis by axis, as plain data."""
    found = {name: getattr(axes, kind) for name, axes in tensors.items()}
    return {
        name: [_runs(label) for label in labels]
        for name, labels in found.items()
        if any(label is not None for label in labels)
    }


def _axes(shape: Any, roles: Any, channels: Any, bounds: Any, dilation: Any, groups: int, *, labels: dict[str, Any]) -> Axes:
    arrays = {'channels': channels, **{kind: each or [] for kind, each in labels.items()}}
    arrays = {kind: tuple(None if each is None else _array(each) for each in axes) for kind, axes in arrays.items()}
    return Axes(
        tuple(shape), tuple(roles), bounds=tuple(map(tuple, bounds)), dilation=tuple(dilation), groups=groups, **arrays
    )
