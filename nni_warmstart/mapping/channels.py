"""Which tensors of a network share their channels, found by running it once on the meta device.

Every index of every parameter's axis is a *unit*. While the network runs, each activation carries for every one of its numbers
the unit that it belongs to; wherever an operator forces two units to coincide (a sum, a batch norm, a depthwise convolution, a
reader and what it reads), they are joined. Data movement (views, slices, concatenations, channel shuffles) moves the units
along. Nothing here knows NNI.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import TransferError

aten: Any = torch.ops.aten
OUT, IN, NEITHER = 'out', 'in', ''
"""What an axis of a parameter is: it makes channels, it reads them, or it is none (kernel, heads, positions)."""


@dataclass(frozen=True)
class Axes:
    """Channels of one tensor.

    Attributes
    ----------
    shape
        Its shape.
    roles
        Per axis 'out', 'in' or ''.
    channels
        Per axis with a role the channel of each index: equal numbers coincide, within a tensor and between tensors. What a
        grouped convolution reads has a row per group.
    bounds
        Per axis the indices at which a mutable width or kernel may end.
    dilation
        Distance of the taps of a convolution's kernel, in pixels.
    groups
        Groups of a convolution, 1 for everything else; a depthwise one has as many as channels.
    """

    shape: tuple[int, ...]
    roles: tuple[str, ...]
    channels: tuple[np.ndarray | None, ...]
    bounds: tuple[tuple[int, ...], ...]
    dilation: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class Op:
    """One weighted, pooling or zeroing operator that ran: its kind, kernel, stride and dilation (of the first dimension)."""

    kind: str
    kernel: int = 1
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class Channels:
    """What one run of a network shows.

    Attributes
    ----------
    tensors
        Parameters and buffers that took part, in the order of execution.
    inputs, outputs
        Channels of the pictures and of the logits.
    ops
        Path of a module -> what ran in it and not in one of its children.
    scales
        Path of a module -> side of its output divided by the side of its input; 1 where it has no sides.
    """

    tensors: dict[str, Axes]
    inputs: np.ndarray
    outputs: np.ndarray
    ops: dict[str, list[Op]]
    scales: dict[str, float]


def trace(model: nn.Module, shape: tuple[int, ...], skip: frozenset[str] = frozenset()) -> Channels:
    """Run ``model`` once on the meta device and find its channels.

    Parameters
    ----------
    model
        Any network; it is left as it is, and nothing is computed.
    shape
        Of its input, batch first: ``(n, channels, height, width)`` or ``(n, features)``.
    skip
        Names of parameters that have no channels (alphas).

    Raises
    ------
    TransferError
        If the network does not run on such an input, or runs an operator whose channels are not known; the module is named.
    """
    state = dict(model.state_dict(keep_vars=True))
    first: dict[int, Tensor] = {}
    stand_ins: dict[str, Tensor] = {}
    mode = _Follow()
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue  # integer buffers may be used as indices
        if id(tensor) not in first:
            first[id(tensor)] = torch.empty_like(tensor, device='meta', requires_grad=False)
            if name not in skip:
                first[id(tensor)]._units = mode.parameter(name, tuple(tensor.shape))  # type: ignore[attr-defined]
        stand_ins[name] = first[id(tensor)]
    x = torch.empty(shape, device='meta')
    ids = mode.new(shape[1])
    x._units = ids.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)  # type: ignore[attr-defined]
    modes = [(module, module.training) for module in model.modules()]
    names = {id(module): name for name, module in model.named_modules()}
    try:
        model.eval()
        with torch.no_grad(), _watching(names, mode), mode:
            output = torch.func.functional_call(model, stand_ins, (x,))
    except Untraceable as error:
        raise TransferError(f'{_place(model, mode)} cannot be mapped: {error}.') from error
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, NotImplementedError) as error:
        raise TransferError(
            f'{_place(model, mode)} does not run on an input of shape {tuple(shape)} without data '
            f'({" ".join(str(error).split())[:200]}).'
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    return mode.result(ids, output)


class Untraceable(Exception):
    """An operator whose channels are not known."""


def _place(model: nn.Module, mode: _Follow) -> str:
    path = mode.stack[-1] if mode.stack else ''
    module = model.get_submodule(path) if path else model
    return f'module {path!r} ({type(module).__name__})' if path else type(model).__name__


@contextmanager
def _watching(names: dict[int, str], mode: _Follow) -> Iterator[None]:
    """Tell ``mode`` which module runs, and what it makes of the sides of its input."""

    def before(module: nn.Module, inputs: Any) -> None:
        if id(module) in names:
            mode.stack.append(names[id(module)])
            mode.sides.append(_side(inputs))

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        if id(module) in names:
            path, side, made = mode.stack.pop(), mode.sides.pop(), _side(output)
            if side and made:
                mode.scales.setdefault(path, made / side)

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _side(tensors: Any) -> int:
    """Side of the last picture in a nest of tensors, 0 for none."""
    while isinstance(tensors, list | tuple):
        if not tensors:
            return 0
        tensors = tensors[-1]
    return tensors.shape[-1] if isinstance(tensors, Tensor) and tensors.dim() >= 3 else 0


@dataclass
class _Parameter:
    """A parameter, or what was cut from it: the units of each of its axes."""

    name: str
    axes: tuple[int, ...]  # axis of the parameter that each axis here is
    units: tuple[Tensor, ...]
    mask: bool = False  # zeros and ones of the same shape, by which NNI mixes widths and kernels


class _Follow(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.joined: list[tuple[Tensor, Tensor]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.roles: dict[str, dict[int, str]] = {}
        self.own: dict[str, tuple[Tensor, ...]] = {}
        self.bounds: dict[str, dict[int, set[int]]] = {}
        self.convolutions: dict[str, tuple[tuple[int, ...], int]] = {}
        self.reads: dict[str, Tensor] = {}
        self.stack: list[str] = []
        self.sides: list[int] = []
        self.ops: dict[str, list[Op]] = {}
        self.scales: dict[str, float] = {}

    # units

    def new(self, count: int) -> Tensor:
        self.count += count
        return torch.arange(self.count - count, self.count)

    def parameter(self, name: str, shape: tuple[int, ...]) -> _Parameter:
        self.shapes[name] = shape
        self.own[name] = tuple(self.new(size) for size in shape)
        return _Parameter(name, tuple(range(len(shape))), self.own[name])

    def join(self, left: Tensor, right: Tensor) -> None:
        left, right = torch.broadcast_tensors(left, right)
        for dim in range(left.dim()):  # what is constant in both is looked at once
            if left.size(dim) > 1 and left.stride(dim) == 0 and right.stride(dim) == 0:
                left, right = left.narrow(dim, 0, 1), right.narrow(dim, 0, 1)
        left, right = left.reshape(-1), right.reshape(-1)
        known = (left >= 0) & (right >= 0) & (left != right)
        if known.any():
            self.joined.append((left[known], right[known]))

    def along(self, ids: Tensor, dim: int) -> Tensor:
        """Units along one dimension; whatever varies over the others is joined."""
        dim %= ids.dim()
        moved = ids.movedim(dim, 0)
        base = moved[(slice(None), *[0] * (ids.dim() - 1))]
        self.join(base.view(-1, *[1] * (ids.dim() - 1)), moved)
        return base

    def use(self, parameter: _Parameter, dim: int, role: str, ids: Tensor | None = None) -> Tensor:
        """Mark an axis of a parameter as made of channels, joined with ``ids``; returns its units."""
        units = parameter.units[dim]
        self.roles.setdefault(parameter.name, {})[parameter.axes[dim]] = role
        if ids is not None:
            if len(ids) != len(units):
                raise Untraceable(f'{parameter.name} has {len(units)} channels where {len(ids)} are read')
            self.join(units, ids)
        return units

    # operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if packet in _SAME_SHAPE and isinstance(args[0], Tensor) and args[0].is_meta:  # torch's own shapes take long
            output = torch.empty(_shape(args), dtype=args[0].dtype, device='meta')
        elif packet in _BATCH_NORMS and args[0].is_meta:
            output = (torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0))
        else:
            output = func(*args, **(kwargs or {}))
        self.follow(func, args, kwargs or {}, output)
        return output

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not any(_units(each) is not None for arg in args for each in (arg if isinstance(arg, list | tuple) else [arg])):
            return
        rule = _RULES.get(func.overloadpacket)
        if rule is not None:
            units = rule(self, func, args, kwargs, output)
        elif torch.Tag.pointwise in func.tags:
            units = self.pointwise(args, output)
            if func.overloadpacket is aten.mul and len(args) == 2 and isinstance(args[1], int | float) and args[1] == 0:
                self.ran(Op('zero'))
        else:
            raise Untraceable(f'the channels of operator {func} are not known')
        outputs = output if isinstance(output, list | tuple) else [output]
        for tensor, each in zip(outputs, units if isinstance(units, list) else [units], strict=False):
            if isinstance(tensor, Tensor) and each is not None:
                tensor._units = _flat(each) if isinstance(each, Tensor) else each  # type: ignore[attr-defined]

    def ran(self, op: Op) -> None:
        self.ops.setdefault(self.stack[-1] if self.stack else '', []).append(op)

    def pointwise(self, args: tuple[Any, ...], output: Tensor) -> Any:
        found = [units for units in map(_units, args) if units is not None]
        pictures = [units for units in found if isinstance(units, Tensor)]
        parameters = [units for units in found if isinstance(units, _Parameter)]
        if not pictures:
            weights = [each for each in parameters if not each.mask] or parameters[:1]
            if len({each.name for each in weights}) > 1:
                raise Untraceable(f'{" and ".join(each.name for each in weights)} are combined to one weight')
            return weights[0]
        result = pictures[0].expand(output.shape)
        for other in pictures[1:]:
            other = other.expand(output.shape)
            self.join(result, other)
            if (result < 0).any():
                result = torch.where(result < 0, other, result)
        for parameter in parameters:
            offset = output.dim() - len(parameter.units)
            for dim, units in enumerate(parameter.units):
                if len(units) > 1 and not _constant(result, dim + offset):
                    self.use(parameter, dim, OUT, self.along(result, dim + offset))
        return result

    # the result

    def result(self, inputs: Tensor, output: Any) -> Channels:
        while isinstance(output, list | tuple) and output:
            output = output[0]
        ids = _units(output)
        outputs = self.along(ids, -1) if isinstance(ids, Tensor) and ids.dim() else torch.zeros(0, dtype=torch.long)
        number = self.numbers()
        tensors = {}
        for name, roles in self.roles.items():
            dims = range(len(self.shapes[name]))
            dilation, groups = self.convolutions.get(name, ((), 1))
            units = {dim: self.own[name][dim] for dim in roles}
            if name in self.reads:
                units[1] = self.reads[name].view(groups, -1)
            tensors[name] = Axes(
                self.shapes[name],
                tuple(roles.get(dim, NEITHER) for dim in dims),
                tuple(number[units[dim].numpy()] if dim in roles else None for dim in dims),
                tuple(tuple(sorted(self.bounds.get(name, {}).get(dim, ()))) for dim in dims),
                dilation,
                groups,
            )
        return Channels(tensors, number[inputs.numpy()], number[outputs[outputs >= 0].numpy()], self.ops, self.scales)

    def numbers(self) -> np.ndarray:
        """Unit -> channel; channels are numbered in the order of execution."""
        left = torch.cat([a for a, _ in self.joined]).numpy() if self.joined else np.zeros(0, int)
        right = torch.cat([b for _, b in self.joined]).numpy() if self.joined else np.zeros(0, int)
        graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(self.count, self.count))
        _, label = connected_components(graph, directed=False)
        order = [self.own[name][dim].numpy() for name, roles in self.roles.items() for dim in roles]
        everything = label[np.concatenate([*order, np.arange(self.count)])]
        _, where = np.unique(everything, return_index=True)
        rank = np.empty(len(where), int)
        rank[np.argsort(where)] = np.arange(len(where))
        return rank[label]


_SAME_SHAPE = frozenset({aten.relu, aten.add, aten.mul})
_BATCH_NORMS = frozenset({aten.native_batch_norm, aten._native_batch_norm_legit_no_training})


def _shape(args: tuple[Any, ...]) -> torch.Size:
    shapes = [arg.shape for arg in args[:2] if isinstance(arg, Tensor)]
    return shapes[0] if len(shapes) == 1 or shapes[0] == shapes[1] else torch.broadcast_shapes(*shapes)


def _units(value: Any) -> Any:
    return getattr(value, '_units', None) if isinstance(value, Tensor) else None


def _constant(ids: Tensor, dim: int) -> bool:
    return ids.size(dim) == 1 or ids.stride(dim) == 0 or bool((ids == ids.narrow(dim, 0, 1)).all())


def _flat(ids: Tensor) -> Tensor:
    """The same units, with every dimension along which they are constant expanded from one."""
    shape = ids.shape
    for dim in range(ids.dim()):
        if ids.size(dim) > 1 and ids.stride(dim) != 0 and _constant(ids, dim):
            ids = ids.narrow(dim, 0, 1)
        elif ids.stride(dim) == 0 and ids.size(dim) > 1:
            ids = ids.narrow(dim, 0, 1)
    return ids.expand(shape)


Rule = Callable[[_Follow, Any, tuple[Any, ...], dict[str, Any], Any], Any]
_RULES: dict[Any, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            packet = getattr(aten, name, None)
            if packet is not None:
                _RULES[packet] = rule
        return rule

    return register


@_rule('clone', 'detach', 'alias', '_to_copy', 'contiguous', 'lift_fresh', 'dropout', '_softmax', '_log_softmax',
       'hardswish', 'hardswish_', 'silu', 'silu_', 'mish', 'mish_', 'elu', 'elu_', 'celu', 'celu_', 'gelu', 'hardtanh',
       'hardtanh_', 'hardsigmoid', 'hardsigmoid_', 'leaky_relu', 'leaky_relu_', 'relu', 'relu_', 'softplus', 'hardshrink',
       'softshrink', 'rrelu_with_noise', 'threshold', 'threshold_', 'log_sigmoid_forward')  # fmt: skip
def _same(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    return _units(args[0])


@_rule('zeros_like', 'ones_like', 'full_like', 'empty_like')
def _like(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = _units(args[0])
    return _Parameter(units.name, units.axes, units.units, mask=True) if isinstance(units, _Parameter) else None


@_rule('new_zeros', 'new_ones', 'new_full', 'new_empty', 'new_empty_strided', 'bernoulli', 'size', 'sym_size')
def _constants(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    return None


@_rule('fill_', 'zero_', 'copy_')
def _filled(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    mine = _units(args[0])
    other = _units(args[1]) if len(args) > 1 else None
    if mine is None and other is not None:
        raise Untraceable('an activation is written into another tensor in place')
    return mine


@_rule('view', '_unsafe_view', 'reshape')
def _view(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = _units(args[0])
    if isinstance(units, Tensor):
        return units.reshape(output.shape)
    kept = [dim for dim, ids in enumerate(units.units) if len(ids) > 1]
    wide = [dim for dim, size in enumerate(output.shape) if size > 1]
    if [len(units.units[dim]) for dim in kept] != [output.shape[dim] for dim in wide]:
        raise Untraceable(f'{units.name} is reshaped from {tuple(args[0].shape)} to {tuple(output.shape)}')
    at = dict(zip(wide, kept, strict=True))
    unit = [units.units[at[dim]] if dim in at else torch.full((1,), -1) for dim in range(output.dim())]
    return _Parameter(units.name, tuple(at.get(dim, -1) for dim in range(output.dim())), tuple(unit), units.mask)


@_rule('t', 'transpose', 'permute', 'numpy_T')
def _permuted(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = _units(args[0])
    if isinstance(units, Tensor):
        return func(units, *args[1:], **kwargs)
    order = func(torch.empty(tuple(range(1, len(units.units) + 1)), device='meta'), *args[1:], **kwargs).shape
    dims = [size - 1 for size in order]
    return _Parameter(units.name, tuple(units.axes[d] for d in dims), tuple(units.units[d] for d in dims), units.mask)


@_rule('slice')
def _slice(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = _units(args[0])
    if isinstance(units, Tensor):
        return func(units, *args[1:], **kwargs)
    dim = args[1] if len(args) > 1 else 0
    size = len(units.units[dim])
    start, end, step = slice(*args[2:5]).indices(size) if len(args) > 2 else (0, size, 1)
    if units.mask:
        bounds = mode.bounds.setdefault(units.name, {}).setdefault(units.axes[dim], set())
        bounds.update({start, end} - {0, size})
    cut = tuple(ids[start:end:step] if each == dim else ids for each, ids in enumerate(units.units))
    return _Parameter(units.name, units.axes, cut, units.mask)


@_rule('expand', 'unsqueeze', 'squeeze', 'select', 'split', 'split_with_sizes', 'unbind', 'chunk', 'narrow', 'flip', 'roll',
       'repeat', 'index_select', 'index', 'movedim', 'pixel_shuffle', 'pixel_unshuffle')  # fmt: skip
def _moved(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = _units(args[0])
    if isinstance(units, _Parameter):
        if units.mask:
            return None
        if isinstance(output, Tensor) and output.numel() == args[0].numel():
            return _view(mode, func, args, kwargs, output)
        raise Untraceable(f'{units.name} is taken apart by operator {func}')
    try:
        moved = func(units, *args[1:], **kwargs)
    except (RuntimeError, NotImplementedError) as error:
        raise Untraceable(f'operator {func} picks channels by numbers that depend on the data') from error
    return list(moved) if isinstance(moved, list | tuple) else moved


@_rule('cat', 'stack')
def _cat(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    tensors, dim = args[0], args[1] if len(args) > 1 else kwargs.get('dim', 0)
    if any(isinstance(_units(each), _Parameter) for each in tensors):
        raise Untraceable('parameters are concatenated')
    tensors = [each for each in tensors if each.numel()]
    dims = tensors[0].dim()
    dim %= dims + (func.overloadpacket is aten.stack)
    parts = [each._units if _units(each) is not None else torch.full((1,) * dims, -1).expand(each.shape) for each in tensors]
    for other in range(dims):
        if (func.overloadpacket is aten.stack or other != dim) and all(p.size(other) == 1 or p.stride(other) == 0 for p in parts):
            parts = [part.narrow(other, 0, 1) for part in parts]
    return func(parts, dim).expand(output.shape)


@_rule('constant_pad_nd', 'reflection_pad2d', 'replication_pad2d', 'pad')
def _padded(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units, padding = _units(args[0]), args[1]
    if isinstance(units, _Parameter):
        raise Untraceable(f'{units.name} is padded')
    for index in range(len(padding) // 2):
        dim = units.dim() - 1 - index
        size = output.size(dim)
        if size == units.size(dim):
            continue
        if _constant(units, dim):
            units = units.narrow(dim, 0, 1).expand(*units.shape[:dim], size, *units.shape[dim + 1 :])
        else:
            pair = [0] * (2 * index) + list(padding[2 * index : 2 * index + 2])
            units = torch.nn.functional.pad(units, pair, value=-1)
    return units


@_rule('mean', 'sum', 'amax', 'amin', 'norm', 'var', 'std', 'logsumexp', 'prod', 'linalg_vector_norm', 'argmax', 'max', 'min')
def _reduced(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = _units(args[0])
    if isinstance(units, _Parameter):
        raise Untraceable(f'{units.name} is reduced by operator {func}')
    first = output[0] if isinstance(output, list | tuple) else output
    position = 2 if func.overloadpacket in (aten.norm, aten.linalg_vector_norm) else 1
    dims = args[position] if len(args) > position else kwargs.get('dim')
    if dims is None or dims == []:
        return None
    dims = sorted({dim % units.dim() for dim in ([dims] if isinstance(dims, int) else dims)})
    varying = [dim for dim in range(units.dim()) if not _constant(units, dim)]
    if varying and set(varying) <= set(dims):
        return None  # a sum over the channels themselves: what is left has none
    for dim in reversed(dims):
        if dim in varying:
            mode.join(units, units.narrow(dim, 0, 1))
            known = units.amax(dim, keepdim=True)  # -1 (nothing there) is the smallest
            units = known
        else:
            units = units.narrow(dim, 0, 1)
    return units.reshape(first.shape)


@_rule('avg_pool1d', 'avg_pool2d', 'avg_pool3d', 'max_pool2d', 'max_pool2d_with_indices', 'max_pool3d_with_indices',
       '_adaptive_avg_pool2d', '_adaptive_avg_pool3d', 'adaptive_avg_pool1d', 'adaptive_avg_pool2d', 'adaptive_max_pool2d',
       'upsample_nearest2d', 'upsample_bilinear2d', '_upsample_nearest_exact2d', 'upsample_bicubic2d',
       '_upsample_bilinear2d_aa', 'lp_pool2d')  # fmt: skip
def _pooled(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    first = output[0] if isinstance(output, list | tuple) else output
    name = func.overloadpacket.__name__
    if 'adaptive' not in name and 'upsample' not in name:
        stride = args[2] if len(args) > 2 and args[2] else args[1]
        mode.ran(Op('max_pool' if 'max' in name else 'avg_pool', _one(args[1]), _one(stride)))
    dim = first.dim() - (int(name[name.index('d') - 1]) if 'upsample' not in name and 'adaptive' not in name else 2) - 1
    dim = 1 if first.dim() > 2 else max(dim, 0)
    channels = mode.along(_units(args[0]), dim)
    return channels.view(*[1] * dim, -1, *[1] * (first.dim() - dim - 1)).expand(first.shape)


@_rule('convolution')
def _convolution(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    x, weight, bias, stride, _, dilation, transposed, _, groups = args
    kernel = _units(weight)
    if not isinstance(kernel, _Parameter):
        raise Untraceable('a convolution has a kernel that is no parameter')
    channels = mode.along(_units(x), 1) if _units(x) is not None else None
    mode.convolutions[kernel.name] = (tuple(dilation), groups)
    mode.ran(Op('depthwise' if 1 < groups == x.shape[1] else 'conv', weight.shape[-1], _one(stride), _one(dilation)))
    makes, reads = (1, 0) if transposed else (0, 1)
    if groups == 1:
        made = mode.use(kernel, makes, OUT)
        mode.use(kernel, reads, IN, channels)
    elif groups == x.shape[1] == output.shape[1] and not transposed:
        made = mode.use(kernel, 0, OUT, channels)
    elif transposed:
        raise Untraceable(f'{kernel.name} is the kernel of a transposed convolution in {groups} groups')
    else:
        made = mode.use(kernel, 0, OUT)
        mode.use(kernel, 1, IN)
        reads = mode.new(x.shape[1]) if channels is None else channels
        if kernel.name in mode.reads:
            mode.join(mode.reads[kernel.name], reads)
        mode.reads[kernel.name] = reads
    if isinstance(_units(bias), _Parameter):
        mode.use(_units(bias), 0, OUT, made)
    return made.view(1, -1, *[1] * (output.dim() - 2)).expand(output.shape)


@_rule('addmm', 'mm', 'matmul', 'linear')
def _linear(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    bias, x, weight = args if func.overloadpacket is aten.addmm else (None, *args[:2])
    if func.overloadpacket is aten.linear:
        raise Untraceable('a linear layer of an unknown form')
    matrix = _units(weight)
    if not isinstance(matrix, _Parameter) or isinstance(_units(x), _Parameter):
        raise Untraceable('activations are multiplied with each other (attention)')
    mode.ran(Op('linear'))
    mode.use(matrix, 0, IN, mode.along(_units(x), -1) if _units(x) is not None else None)
    made = mode.use(matrix, 1, OUT)
    if isinstance(_units(bias), _Parameter):
        mode.use(_units(bias), 0, OUT, made)
    return made.expand(output.shape)


@_rule('native_batch_norm', '_native_batch_norm_legit', '_native_batch_norm_legit_no_training', 'cudnn_batch_norm',
       '_batch_norm_with_update', '_batch_norm_no_update', 'batch_norm', 'native_group_norm', 'instance_norm')  # fmt: skip
def _normalised(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = _units(args[0])
    for parameter in map(_units, args[1:5]):
        if isinstance(parameter, _Parameter):
            mode.use(parameter, 0, OUT, mode.along(units, 1))
    return [units]


@_rule('native_layer_norm', 'layer_norm', '_fused_rms_norm', 'rms_norm')
def _layer_norm(mode: _Follow, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units, dims = _units(args[0]), len(args[1])
    for parameter in map(_units, args[2:4]):
        if isinstance(parameter, _Parameter):
            for dim in range(dims):
                if not _constant(units, units.dim() - dims + dim):
                    mode.use(parameter, dim, OUT, mode.along(units, units.dim() - dims + dim))
    return [units]


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)
