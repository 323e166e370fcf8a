"""Rules for single operators: how each changes or joins the channels of its tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .axes import IN, OUT, Op
from .dispatch import NO_AXIS, ChannelTracer, Parameter, Untraceable, aten, is_constant, rule, units_of


@rule('clone', 'detach', 'alias', '_to_copy', 'contiguous', 'lift_fresh', 'dropout', 'hardswish', 'hardswish_', 'silu',
       'silu_', 'mish', 'mish_', 'elu', 'elu_', 'celu', 'celu_', 'gelu', 'hardtanh', 'hardtanh_', 'hardsigmoid',
       'hardsigmoid_', 'leaky_relu', 'leaky_relu_', 'relu', 'relu_', 'softplus', 'hardshrink', 'softshrink',
       'rrelu_with_noise', 'threshold', 'threshold_', 'log_sigmoid_forward')  # fmt: skip
def _same(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    return units_of(args[0])


@rule('_softmax', '_log_softmax')
def _softmax(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    if isinstance(units, Tensor):
        mode.cut_into_indices(units, args[1] % units.dim())  # copies of a channel would share its probability
    return units


rule('_prelu_kernel')(ChannelTracer.pointwise)


@rule('glu')
def _glu(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    gated, gate = units_of(args[0]).chunk(2, args[1] if len(args) > 1 else -1)
    mode.cut(units_of(args[0]), [gated, gate])
    mode.join(gated, gate)
    return gated


@rule('zeros_like', 'ones_like', 'full_like', 'empty_like')
def _like(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    return Parameter(units.name, units.axes, units.units, mask=True) if isinstance(units, Parameter) else None


@rule('new_zeros', 'new_ones', 'new_full', 'new_empty', 'new_empty_strided', 'bernoulli', 'size', 'sym_size')
def _constants(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    return None


@rule('fill_', 'zero_', 'copy_')
def _filled(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    other = units_of(args[1]) if len(args) > 1 else None
    if units is None and other is not None:
        raise Untraceable('an activation is written into another tensor in place')
    if isinstance(units, Tensor) and isinstance(other, Tensor):  # a part of it goes on with new values
        mode.join(units, other.expand(units.shape))
    return units


@rule('view', '_unsafe_view', 'reshape')
def _view(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    if isinstance(units, Tensor):
        return units.reshape(output.shape)
    left = list(zip(units.axes, units.units, strict=True))
    found = []
    for size in output.shape:
        while left and len(left[0][1]) == 1 != size:
            left.pop(0)
        if left and len(left[0][1]) == size:
            found.append(left.pop(0))
        elif size == 1:
            found.append((NO_AXIS, range(-1, 0)))
        else:
            break
    if len(found) < output.dim() or any(len(ids) > 1 for _, ids in left):
        raise Untraceable(f'{units.name} is cut or repeated by operator {func}')
    return Parameter(units.name, tuple(axis for axis, _ in found), tuple(ids for _, ids in found), units.mask)


@rule('t', 'transpose', 'permute', 'numpy_T')
def _permuted(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    if isinstance(units, Tensor):
        return func(units, *args[1:], **kwargs)
    order = func(torch.empty(tuple(range(1, len(units.units) + 1)), device='meta'), *args[1:], **kwargs).shape
    dims = [size - 1 for size in order]
    return Parameter(units.name, tuple(units.axes[d] for d in dims), tuple(units.units[d] for d in dims), units.mask)


@rule('slice')
def _slice(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    if isinstance(units, Tensor):
        part = func(units, *args[1:], **kwargs)
        mode.cut(units, [part])
        return part
    dim = args[1] if len(args) > 1 else 0
    size = len(units.units[dim])
    start, end, step = slice(*args[2:5]).indices(size) if len(args) > 2 else (0, size, 1)
    if units.mask:
        bounds = mode.bounds.setdefault(units.name, {}).setdefault(units.axes[dim], set())
        bounds.update({start, end} - {0, size})
    cut = tuple(ids[start:end:step] if each == dim else ids for each, ids in enumerate(units.units))
    if not units.mask:
        mode.cut(torch.tensor(units.units[dim]), [torch.tensor(cut[dim])])
    return Parameter(units.name, units.axes, cut, units.mask)


@rule('expand')
def _expanded(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    if isinstance(units, Tensor) or units.mask:
        return _moved(mode, func, args, kwargs, output)
    added = output.dim() - len(units.units)
    return Parameter(units.name, (NO_AXIS,) * added + units.axes, (range(-1, 0),) * added + units.units)


@rule('unsqueeze', 'squeeze', 'select', 'split', 'split_with_sizes', 'unbind', 'chunk', 'narrow', 'flip', 'roll',
       'repeat', 'index_select', 'index', 'movedim', 'pixel_shuffle', 'pixel_unshuffle', 'channel_shuffle',
       'native_channel_shuffle')  # fmt: skip
def _moved(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    if isinstance(units, Parameter):
        if units.mask:
            return None
        if isinstance(output, Tensor) and output.numel() == args[0].numel():
            return _view(mode, func, args, kwargs, output)
        raise Untraceable(f'{units.name} is cut or repeated by operator {func}')
    try:
        moved = func(units, *args[1:], **kwargs)
    except (RuntimeError, NotImplementedError) as error:
        raise Untraceable(f'operator {func} picks channels by numbers that depend on the data') from error
    parts = list(moved) if isinstance(moved, list | tuple) else [moved]
    mode.cut(units, parts)
    return parts if isinstance(moved, list | tuple) else moved


@rule('cat', 'stack')
def _cat(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    tensors, dim = args[0], args[1] if len(args) > 1 else kwargs.get('dim', 0)
    if any(isinstance(units_of(each), Parameter) for each in tensors):
        raise Untraceable('parameters are concatenated')
    tensors = [each for each in tensors if each.numel()]
    dims = tensors[0].dim()
    dim %= dims + (func.overloadpacket is aten.stack)
    parts = [
        each._units if units_of(each) is not None else torch.full((1,) * dims, -1).expand(each.shape) for each in tensors
    ]
    for other in range(dims):
        kept = func.overloadpacket is aten.stack or other != dim
        if kept and all(part.size(other) == 1 or part.stride(other) == 0 for part in parts):
            parts = [part.narrow(other, 0, 1) for part in parts]
    return func(parts, dim).expand(output.shape)


@rule('constant_pad_nd', 'reflection_pad2d', 'replication_pad2d', 'pad')
def _padded(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units, padding = units_of(args[0]), args[1]
    if isinstance(units, Parameter):
        raise Untraceable(f'{units.name} is padded')
    for index in range(len(padding) // 2):
        dim = units.dim() - 1 - index
        size = output.size(dim)
        if size == units.size(dim):
            continue
        if is_constant(units, dim):
            units = units.narrow(dim, 0, 1).expand(*units.shape[:dim], size, *units.shape[dim + 1 :])
        else:
            pair = [0] * (2 * index) + list(padding[2 * index : 2 * index + 2])
            units = torch.nn.functional.pad(units, pair, value=-1)
    return units


_OF_COPIES = frozenset({aten.amax, aten.amin, aten.max, aten.min})
"""Reductions that give the same of some copies as of each once; means do of equally many copies of all channels."""


@rule('mean', 'sum', 'amax', 'amin', 'norm', 'var', 'std', 'logsumexp', 'prod', 'linalg_vector_norm', 'argmax', 'max', 'min')
def _reduced(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = units_of(args[0])
    if isinstance(units, Parameter):
        raise Untraceable(f'{units.name} is reduced by operator {func}')
    first = output[0] if isinstance(output, list | tuple) else output
    position = 2 if func.overloadpacket in (aten.norm, aten.linalg_vector_norm) else 1
    dims = args[position] if len(args) > position else kwargs.get('dim')
    if dims is None or dims == []:
        return None
    dims = sorted({dim % units.dim() for dim in ([dims] if isinstance(dims, int) else dims)})
    varying = [dim for dim in range(units.dim()) if not is_constant(units, dim)]
    of_all = bool(varying) and set(varying) <= set(dims)
    for dim in {*varying} & {*dims}:
        if of_all and func.overloadpacket is aten.mean:
            mode.average([units.movedim(dim, 0).reshape(units.size(dim), -1)[:, 0]])
        elif func.overloadpacket not in _OF_COPIES:
            mode.cut_into_indices(units, dim)  # a sum of copies is not that of the channels
    if of_all:
        return None  # a sum over the channels themselves: none are left
    for dim in reversed(dims):
        if dim in varying:
            made = mode.renewed(units.amax(dim, keepdim=True))  # -1 (no unit) is the smallest
            mode.join(units, made)
            units = made
        else:
            units = units.narrow(dim, 0, 1)
    return units.reshape(first.shape)


@rule('avg_pool1d', 'avg_pool2d', 'avg_pool3d', 'max_pool2d', 'max_pool2d_with_indices', 'max_pool3d_with_indices',
       '_adaptive_avg_pool2d', '_adaptive_avg_pool3d', 'adaptive_avg_pool1d', 'adaptive_avg_pool2d', 'adaptive_max_pool2d',
       'upsample_nearest2d', 'upsample_bilinear2d', '_upsample_nearest_exact2d', 'upsample_bicubic2d',
       '_upsample_bilinear2d_aa', 'lp_pool2d')  # fmt: skip
def _pooled(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    first = output[0] if isinstance(output, list | tuple) else output
    name = func.overloadpacket.__name__
    if 'adaptive' not in name and 'upsample' not in name:
        stride = args[2] if len(args) > 2 and args[2] else args[1]
        mode.ran(Op('max_pool' if 'max' in name else 'avg_pool', _one(args[1]), _one(stride)))
    dim = first.dim() - (int(name[name.index('d') - 1]) if 'upsample' not in name and 'adaptive' not in name else 2) - 1
    dim = 1 if first.dim() > 2 else max(dim, 0)
    channels = _windowed(mode, units_of(args[0]), dim)
    return channels.view(*[1] * dim, -1, *[1] * (first.dim() - dim - 1)).expand(first.shape)


def _windowed(mode: ChannelTracer, units: Any, dim: int) -> Tensor:
    """Return the channels along ``dim``; note those along later dimensions, where windows join neighbours (LRN, ECA)."""
    for each in range(dim + 1, units.dim()):
        mode.cut_into_indices(units, each)
    return mode.along(units, dim)


@rule('convolution')
def _convolution(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    x, weight, bias, stride, _, dilation, transposed, _, groups = args
    kernel = units_of(weight)
    if not isinstance(kernel, Parameter):
        raise Untraceable('a convolution has a kernel that is no parameter')
    channels = None if units_of(x) is None else _windowed(mode, units_of(x), 1)
    mode.convolutions[kernel.name] = (tuple(dilation), groups)
    mode.ran(Op('depthwise' if 1 < groups == x.shape[1] else 'conv', weight.shape[-1], _one(stride), _one(dilation)))
    makes, reads = (1, 0) if transposed else (0, 1)
    if groups == 1:
        made = mode.use(kernel, makes, OUT)
        mode.use(kernel, reads, IN, channels)
    elif groups == x.shape[1] == output.shape[1] and not transposed:
        made = mode.use(kernel, 0, OUT)
        if channels is not None:
            mode.join(made, channels)
    elif transposed:
        raise Untraceable(f'{kernel.name} is the kernel of a transposed convolution in {groups} groups')
    else:
        made = mode.use(kernel, 0, OUT)
        mode.use(kernel, 1, IN)
        reads = mode.new(x.shape[1]) if channels is None else channels
        mode.cut_unevenly(reads.chunk(groups))
        if kernel.name in mode.reads:
            mode.join(mode.reads[kernel.name], reads)
        mode.reads[kernel.name] = reads
    if isinstance(units_of(bias), Parameter):
        mode.use(units_of(bias), 0, OUT, made)
    return made.view(1, -1, *[1] * (output.dim() - 2)).expand(output.shape)


@rule('addmm', 'mm', 'matmul', 'linear')
def _linear(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    bias, x, weight = args if func.overloadpacket is aten.addmm else (None, *args[:2])
    if func.overloadpacket is aten.linear:
        raise Untraceable('a linear layer of an unknown form')
    matrix = units_of(weight)
    if not isinstance(matrix, Parameter) or isinstance(units_of(x), Parameter):
        raise Untraceable(_ATTENTION)
    mode.ran(Op('linear'))
    mode.use(matrix, 0, IN, mode.along(units_of(x), -1) if units_of(x) is not None else None)
    made = mode.use(matrix, 1, OUT)
    if isinstance(units_of(bias), Parameter):
        mode.use(units_of(bias), 0, OUT, made)
    return made.expand(output.shape)


_ATTENTION = 'activations are multiplied with each other (attention)'


@rule('bmm')
def _products(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    left, right = map(units_of, args)
    if isinstance(left, Parameter) or isinstance(right, Parameter):
        raise Untraceable('activations are multiplied in batches with a parameter')
    if not (left is None or is_constant(left, 2)) or not (right is None or is_constant(right, 1)):
        mode.lose(_ATTENTION, *args)
        return None
    rows, columns = (None if each is None else each.narrow(dim, 0, 1) for each, dim in ((left, 2), (right, 1)))
    if rows is not None and columns is not None:
        raise Untraceable('channels are multiplied with each other')
    made = rows if columns is None else columns
    return None if made is None else made.expand(output.shape)


@rule('_scaled_dot_product_flash_attention', '_scaled_dot_product_flash_attention_for_cpu',
       '_scaled_dot_product_efficient_attention', '_scaled_dot_product_cudnn_attention',
       '_scaled_dot_product_fused_attention_overrideable', '_scaled_dot_product_attention_math')  # fmt: skip
def _attention(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    values = units_of(args[2])
    if not isinstance(values, Tensor) or not is_constant(values, -2):
        raise Untraceable(_ATTENTION)
    mode.lose(_ATTENTION, *args[:2])
    return [values.narrow(-2, 0, 1).expand(output[0].shape)]


@rule('native_batch_norm', '_native_batch_norm_legit', '_native_batch_norm_legit_no_training', 'cudnn_batch_norm',
       '_batch_norm_with_update', '_batch_norm_no_update', 'batch_norm', 'native_group_norm', 'instance_norm')  # fmt: skip
def _normalised(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units = mode.apart_along(units_of(args[0]), 1)
    channels = mode.along(units, 1)
    if func.overloadpacket is aten.native_group_norm:
        mode.average(channels.chunk(args[6]))
    for parameter in map(units_of, args[1:5]):
        if isinstance(parameter, Parameter):
            mode.use(parameter, 0, OUT, channels)
    return [units]


@rule('native_layer_norm', 'layer_norm', '_fused_rms_norm', 'rms_norm')
def _layer_norm(mode: ChannelTracer, func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    units, dims = units_of(args[0]), len(args[1])
    for parameter in map(units_of, args[2:4]):
        if isinstance(parameter, Parameter):
            for dim in range(dims):
                if not is_constant(units, units.dim() - dims + dim):
                    units = mode.apart_along(units, units.dim() - dims + dim)
                    mode.use(parameter, dim, OUT, mode.along(units, units.dim() - dims + dim))
    for dim in range(units.dim() - dims, units.dim()):
        if not is_constant(units, dim):
            mode.average([mode.along(units, dim)])
    return [units]


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)
