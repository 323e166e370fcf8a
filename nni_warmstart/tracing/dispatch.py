"""A dispatch mode that follows channels through every operator of one run, by the rules for single operators in .rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .axes import NEITHER, OUT, Axes, Channels, Op
from .relations import Relations, compact, components, labelled, signatures, strands

aten: Any = torch.ops.aten

NO_AXIS = -1
"""Axis number of a dimension of size one that a view has inserted."""


class Untraceable(Exception):
    """An operator whose channels are not known."""


@dataclass
class Parameter:
    """Units of each axis of a parameter, or of a slice of it."""

    name: str
    axes: tuple[int, ...]  # the parameter's axis behind each axis of the slice
    units: tuple[range, ...]
    mask: bool = False  # zeros and ones of the same shape, by which NNI mixes widths and kernels


class ChannelTracer(TorchDispatchMode):
    """Assigns units to tensors and joins those that an operator forces to coincide; see :mod:`nni_warmstart.tracing.tracer`.

    :meth:`result` turns the joined units into channels at the end of the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.sizes_of_homes: list[int] = []
        self.relations = Relations()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.roles: dict[str, dict[int, str]] = {}
        self.own: dict[str, tuple[range, ...]] = {}
        self.bounds: dict[str, dict[int, set[int]]] = {}
        self.convolutions: dict[str, tuple[tuple[int, ...], int]] = {}
        self.reads: dict[str, Tensor] = {}
        self.stack: list[str] = []
        self.sizes: list[int] = []
        self.ops: dict[str, list[Op]] = {}
        self.scales: dict[str, float] = {}
        self.opaque: dict[str, str] = {}
        self.keeps: set[str] = set()
        self.inputs: frozenset[int] = frozenset()
        self.constant: set[str] = set()

    # units

    def new(self, count: int) -> Tensor:
        return _tensor(self.reserve(count))

    def reserve(self, count: int) -> range:
        self.sizes_of_homes.append(count)
        self.count += count
        return range(self.count - count, self.count)

    def parameter(self, name: str, shape: tuple[int, ...]) -> Parameter:
        self.shapes[name] = shape
        self.own[name] = tuple(self.reserve(size) for size in shape)
        return Parameter(name, tuple(range(len(shape))), self.own[name])

    def join(self, left: Tensor, right: Tensor) -> None:
        """Tie the units of two activations, which are broadcast."""
        left, right = (each.reshape(-1) for each in _broadcast(left, right))
        different = left != right
        if different.any():
            self.relations.tie(_copied(left[different]), _copied(right[different]))

    def apart(self, ids: Tensor, other: Tensor) -> Tensor:
        """Return units of what becomes of an activation by values of another: new ones where a unit meets several."""
        shape = torch.broadcast_shapes(ids.shape, other.shape)
        ids, other = _broadcast(ids, other)
        if torch.equal(ids, other):
            return ids.expand(shape)
        pairs, index = torch.stack([ids.reshape(-1), other.reshape(-1)]).unique(dim=1, return_inverse=True)
        if pairs.shape[1] == len(pairs[0].unique()):
            return ids.expand(shape)
        made = torch.where(pairs[0] < 0, pairs[0], self.new(pairs.shape[1]))
        self.join(made, pairs[0])
        return made[index].view(ids.shape).expand(shape)

    def apart_along(self, ids: Tensor, dim: int) -> Tensor:
        """Return units of what becomes of an activation by other factors at each index of a dimension."""
        dim %= ids.dim()
        return self.apart(ids, torch.arange(ids.size(dim)).view(-1, *[1] * (ids.dim() - dim - 1)))

    def renewed(self, ids: Tensor) -> Tensor:
        """Return new units in the place of others."""
        narrow = _narrowed(flattened(ids))
        units, index = narrow.unique(return_inverse=True)
        made = torch.where(units < 0, units, self.new(len(units)))
        return made[index].view(narrow.shape).expand(ids.shape)

    def cut(self, ids: Tensor, pieces: Sequence[Tensor]) -> None:
        """Note that an activation is cut into pieces, unless each has all of its channels, and equally often."""
        whole = len(_distinct(ids))
        proper = [level for piece in pieces for level in _levels(piece) if 0 < len(level) < whole]
        if proper:
            self.relations.cuts.append(proper)

    def cut_unevenly(self, groups: Sequence[Tensor]) -> None:
        """Note that channels occur more often than others in a group."""
        uneven = [level for group in groups for level in _levels(group)[1:]]
        if uneven:
            self.relations.cuts.append(uneven)

    def average(self, groups: Sequence[Tensor]) -> None:
        """Note that means are taken over groups of channels."""
        self.relations.norms.append([level for group in groups for level in _levels(group)])

    def cut_into_indices(self, ids: Tensor, dim: int) -> None:
        """Note that the channels along a dimension cannot stand for one another."""
        if not is_constant(ids, dim):
            self.cut(ids, ids.unbind(dim))

    def along(self, ids: Tensor, dim: int) -> Tensor:
        """Return the units along one dimension, after joining those that differ along the others."""
        dim %= ids.dim()
        moved = ids.movedim(dim, 0)
        base = moved[(slice(None), *[0] * (ids.dim() - 1))]
        if any(size > 1 and step for size, step in zip(moved.shape[1:], moved.stride()[1:], strict=True)):
            self.join(base.view(-1, *[1] * (ids.dim() - 1)), moved)
        return base

    def use(self, parameter: Parameter, dim: int, role: str, ids: Tensor | None = None) -> Tensor:
        """Mark an axis of a parameter as made of channels, join these with ``ids``, and return their units."""
        units = _tensor(parameter.units[dim])
        if parameter.axes[dim] != NO_AXIS:
            self.roles.setdefault(parameter.name, {})[parameter.axes[dim]] = role
        if ids is not None:
            if len(ids) != len(units):
                raise Untraceable(f'{parameter.name} has {len(units)} channels where {len(ids)} are read')
            self.relations.read(_copied(units), _copied(ids))
        return units

    def lose(self, reason: str, *values: Any) -> None:
        """Note that tensors entered an unknown operator, so that parameters among them and channels in a grid are lost."""
        place = self.stack[-1] if self.stack else ''
        self.opaque.setdefault(place, reason)
        for units in map(units_of, values):
            if isinstance(units, Parameter):
                if not units.mask and not (place and units.name.startswith(f'{place}.')):
                    self.opaque.setdefault(units.name, reason)
            elif units is not None and sum(not is_constant(units, dim) for dim in range(units.dim())) > 1:
                self.relations.cuts.append([np.array([unit]) for unit in _distinct(units)])

    # operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if packet in _SAME_SHAPE and isinstance(args[0], Tensor) and args[0].is_meta:  # torch's meta kernels are slow
            output = torch.empty(_shape(args), dtype=args[0].dtype, device='meta')
        elif packet in _BATCH_NORMS and args[0].is_meta:
            output = (torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0))
        else:
            output = func(*args, **(kwargs or {}))
            _keep_values(func, args, kwargs or {}, output)
        self.follow(func, args, kwargs or {}, output)
        return output

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not any(units_of(each) is not None for arg in args for each in (arg if isinstance(arg, list | tuple) else [arg])):
            return
        try:
            units = self.rule(func)(self, func, args, kwargs, output)
        except (Untraceable, AttributeError, TypeError, IndexError, ValueError, RuntimeError) as error:
            reason = str(error) if isinstance(error, Untraceable) else f'the channels of operator {func} are not known here'
            self.lose(reason, *(each for arg in args for each in (arg if isinstance(arg, list | tuple) else [arg])))
            units = self.unknown(output)
        outputs = output if isinstance(output, list | tuple) else [output]
        for tensor, each in zip(outputs, units if isinstance(units, list) else [units], strict=False):
            if isinstance(tensor, Tensor) and each is not None:
                tensor._units = flattened(each) if isinstance(each, Tensor) else each  # type: ignore[attr-defined]

    def rule(self, func: Any) -> Rule:
        if func.overloadpacket in RULES:
            return RULES[func.overloadpacket]
        if torch.Tag.pointwise in func.tags:
            return ChannelTracer.pointwise
        raise Untraceable(f'the channels of operator {func} are not known')

    def unknown(self, output: Any) -> Any:
        """Return new channels for the outputs of an unknown operator."""
        if isinstance(output, list | tuple):
            return [self.unknown(each) for each in output]
        if not isinstance(output, Tensor) or output.dim() < 2:
            return None
        dim = output.dim() - 1 if output.dim() == 3 else 1
        shape = [1] * output.dim()
        shape[dim] = -1
        return self.new(output.shape[dim]).view(shape).expand(output.shape)

    def ran(self, op: Op) -> None:
        self.ops.setdefault(self.stack[-1] if self.stack else '', []).append(op)

    def pointwise(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Any:
        if images_into_constants(func, args):
            raise Untraceable('an activation is added in place to a tensor without channels')
        if func.overloadpacket is aten.mul and len(args) == 2 and isinstance(args[1], int | float) and args[1] == 0:
            self.ran(Op('zero'))
        found = [units for units in map(units_of, args) if units is not None]
        images = [units for units in found if isinstance(units, Tensor)]
        parameters = [units for units in found if isinstance(units, Parameter)]
        if not images:
            weights = [each for each in parameters if not each.mask] or parameters[:1]
            if len({each.name for each in weights}) > 1:
                raise Untraceable(f'{" and ".join(each.name for each in weights)} are combined to one weight')
            return weights[0]
        several = [units for units in images if not is_single(units)]
        images = several or images  # a gate of one channel applies to all of the others, whichever they are
        result = images[0].expand(output.shape)
        for other in images[1:]:
            other = other.expand(output.shape)
            self.join(result, other)
            result = self.apart(result, other)
            if (_narrowed(result) < 0).any():
                result = torch.where(result < 0, other, result)
        for parameter in parameters:
            self.roles.setdefault(parameter.name, {})  # a scalar for all channels has no axis of channels, but took part
            offset = output.dim() - len(parameter.units)
            for dim, units in enumerate(parameter.units):
                if len(units) > 1 and not is_constant(result, dim + offset):
                    if parameter.name in self.constant:
                        self.place(result, dim + offset)
                    result = self.apart_along(result, dim + offset)
                    self.use(parameter, dim, OUT, self.along(result, dim + offset))
        for values in (_values_of(each) for each in args if units_of(each) is None):
            if values is not None:
                for dim in (dim for dim in range(values.dim()) if not (values == values.narrow(dim, 0, 1)).all()):
                    self.place(result, dim + output.dim() - values.dim())
        return result

    def place(self, ids: Tensor, dim: int) -> None:
        """Note that each channel along a dimension meets a constant of its place; those of images have such in any space."""
        if not self.inputs.issuperset(_distinct(ids).tolist()):
            self.cut_into_indices(ids, dim)

    # the result

    def result(self, inputs: Tensor, output: Any) -> Channels:
        while isinstance(output, list | tuple) and output:
            output = output[0]
        ids = units_of(output)
        outputs = self.along(ids, -1) if isinstance(ids, Tensor) and ids.dim() else torch.zeros(0, dtype=torch.long)
        number = self.numbers()
        home = np.repeat(np.arange(len(self.sizes_of_homes)), self.sizes_of_homes)
        found = strands(number, home, self.relations)
        cut, normed = (signatures(found.of, each) for each in self.relations.partitions(found.of))
        tensors = {}
        for name, roles in self.roles.items():
            dims = range(len(self.shapes[name]))
            dilation, groups = self.convolutions.get(name, ((), 1))
            units = {dim: np.asarray(self.own[name][dim]) for dim in roles}
            if name in self.reads:
                units[1] = self.reads[name].view(groups, -1).numpy()
            channels = {dim: number[each] for dim, each in units.items()}
            held = {dim: found.of[each] for dim, each in units.items()}
            tensors[name] = Axes(
                self.shapes[name],
                tuple(roles.get(dim, NEITHER) for dim in dims),
                tuple(channels.get(dim) for dim in dims),
                tuple(tuple(sorted(self.bounds.get(name, {}).get(dim, ()))) for dim in dims),
                dilation,
                groups,
                tuple(labelled(cut, held[dim]) if dim in held else None for dim in dims),
                tuple(labelled(normed, held[dim], least=1) if dim in held else None for dim in dims),
                tuple(held[dim] if dim in held and found.split[channels[dim]].any() else None for dim in dims),
            )
        tensors, ties = compact(tensors, found)
        return Channels(
            tensors,
            number[inputs.numpy()],
            number[outputs[outputs >= 0].numpy()],
            self.ops,
            self.scales,
            self.opaque,
            frozenset(self.keeps),
            ties,
        )

    def numbers(self) -> np.ndarray:
        """Return the channel of every unit, numbered in the order of execution."""
        label = components(self.count, self.relations.joined())
        order = [np.asarray(self.own[name][dim], np.int32) for name, roles in self.roles.items() for dim in roles]
        order += [reads.numpy().astype(np.int32) for reads in self.reads.values()]
        seen = label[np.concatenate([*order, np.zeros(0, np.int32)])]
        number = int(label.max(initial=-1)) + 1
        first = np.full(number, len(seen))
        first[seen[::-1]] = np.arange(len(seen))[::-1]  # numpy keeps the last of several assignments: the first place
        rank = np.empty(number, int)
        rank[np.argsort(first, kind='stable')] = np.arange(number)
        return rank[label]


def _copied(units: Tensor) -> np.ndarray:
    return units.numpy().astype(np.int32)  # a copy: kept tensors would take far more memory


def _distinct(ids: Tensor) -> np.ndarray:
    """Return the units in a tensor, each once."""
    units = np.unique(_narrowed(ids).numpy())
    return units[units >= 0].astype(np.int32)


def _levels(ids: Tensor) -> list[np.ndarray]:
    """Return the units that occur in a tensor once or more, then those of them that occur more often than others."""
    units, counts = np.unique(_narrowed(ids).numpy(), return_counts=True)
    counts[units < 0] = 0
    return [units[counts >= count].astype(np.int32) for count in np.unique(counts[counts > 0])]


def images_into_constants(func: Any, args: tuple[Any, ...]) -> bool:
    """Check whether an operator changes a tensor without channels in place by one that has some."""
    in_place = func.overloadpacket.__name__.endswith('_') and not func.overloadpacket.__name__.endswith('__')
    return in_place and units_of(args[0]) is None and any(isinstance(units_of(each), Tensor) for each in args[1:])


def _tensor(units: range) -> Tensor:
    return torch.arange(units.start, units.stop, units.step)


_SAME_SHAPE = frozenset({aten.relu, aten.add, aten.mul})

_BATCH_NORMS = frozenset({aten.native_batch_norm, aten._native_batch_norm_legit_no_training})


def _shape(args: tuple[Any, ...]) -> torch.Size:
    shapes = [arg.shape for arg in args[:2] if isinstance(arg, Tensor)]
    return shapes[0] if len(shapes) == 1 or shapes[0] == shapes[1] else torch.broadcast_shapes(*shapes)


def units_of(value: Any) -> Any:
    return getattr(value, '_units', None) if isinstance(value, Tensor) else None


def _values_of(value: Any) -> Tensor | None:
    """Return the values of a constant: a tensor with data, or one on the meta device that was made of such a tensor."""
    if not isinstance(value, Tensor):
        return None
    return getattr(value, '_data_kept', None) if value.is_meta else value


def _keep_values(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Keep the values of a constant that an operator of constants makes on the meta device."""
    if not isinstance(output, Tensor) or not output.is_meta or output.numel() < 2:
        return
    values = _values_of(args[0]) if args else None
    if func._schema.is_mutable:
        made = None
    elif func.overloadpacket in _RANGES:
        made = func(*args, **{**kwargs, 'device': 'cpu'})
    elif values is not None and not any(isinstance(each, Tensor) for each in args[1:]):
        made = values if func.overloadpacket is aten._to_copy else func(values, *args[1:], **kwargs)
    else:
        return
    output._data_kept = None if made is None or made.is_meta else made  # type: ignore[attr-defined]


_RANGES = frozenset({aten.arange, aten.linspace})


def is_constant(ids: Tensor, dim: int) -> bool:
    if ids.size(dim) == 1 or ids.stride(dim) == 0:
        return True
    ids = _narrowed(ids)
    return bool((ids == ids.narrow(dim, 0, 1)).all())


def _narrowed(ids: Tensor) -> Tensor:
    """Return units with size one along every dimension that was expanded: images may be large."""
    for dim in range(ids.dim()):
        if ids.size(dim) > 1 and ids.stride(dim) == 0:
            ids = ids.narrow(dim, 0, 1)
    return ids


def _broadcast(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return units of equal shapes, of size one along every dimension that is constant in both."""
    left, right = torch.broadcast_tensors(left, right)
    for dim in range(left.dim()):
        if left.size(dim) > 1 and left.stride(dim) == 0 and right.stride(dim) == 0:
            left, right = left.narrow(dim, 0, 1), right.narrow(dim, 0, 1)
    return left, right


def is_single(ids: Tensor) -> bool:
    """Check whether a tensor has one channel in all."""
    return all(is_constant(ids, dim) for dim in range(ids.dim()))


def flattened(ids: Tensor) -> Tensor:
    """Return the same units, with every dimension along which they are constant expanded from size one."""
    shape = ids.shape
    for dim in range(ids.dim()):
        if ids.size(dim) > 1 and is_constant(ids, dim):
            ids = ids.narrow(dim, 0, 1)
    return ids.expand(shape)


Rule = Callable[[ChannelTracer, Any, tuple[Any, ...], dict[str, Any], Any], Any]

RULES: dict[Any, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            packet = getattr(aten, name, None)
            if packet is not None:
                RULES[packet] = rule
        return rule

    return register
