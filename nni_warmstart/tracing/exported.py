"""Programs of torch.export as modules with layers: an exported network has operators in the place of its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from ..errors import TransferError

aten = torch.ops.aten


def with_layers(program: ExportedProgram) -> nn.Module:
    """Return the network of a program, with the layers and the names of the network that was exported.

    Convolutions of images, batch norms, linear layers and dropout become modules, with the weights of the program; all
    other operators stay as they are.

    Parameters
    ----------
    program
        Result of ``torch.export.export`` or ``torch.export.load``, of one input and one output.

    Raises
    ------
    TransferError
        If the program has more inputs or outputs than one.
    """
    exported: Any = program.module()
    graph, parts, copies = fx.Graph(), dict[str, Any](), dict[fx.Node, fx.Node]()

    def copied(node: fx.Node) -> fx.Node:
        if node.op == 'get_attr' and node not in copies:  # a tensor that is not in a layer
            parts[str(node.target)] = _attribute(exported, node)
            copies[node] = graph.get_attr(str(node.target))
        return copies[node]

    for node in exported.graph.nodes:
        if node.op == 'get_attr' or (node.op == 'call_module' and not node.users):  # the latter check the shape of the input
            continue
        layer = _layer(exported, node)
        if node.op == 'output':
            graph.output(copied(_only(node.all_input_nodes, 'outputs')))
        elif layer is None:
            copies[node] = graph.node_copy(node, copied)
        else:
            path = _path(node)
            while path in parts and not _same(parts[path], layer):
                path += '_'
            parts.setdefault(path, layer)
            copies[node] = graph.call_module(path, (copied(node.args[0]),))
    _only([node for node in graph.nodes if node.op == 'placeholder'], 'inputs')
    for path, tensor in program.state_dict.items():
        parent, _, name = path.rpartition('.')
        if name == 'num_batches_tracked' and isinstance(parts.get(parent), nn.BatchNorm1d | nn.BatchNorm2d):
            parts[parent].num_batches_tracked = tensor
    return fx.GraphModule(parts, graph, 'Exported').eval()


def _only(nodes: list[fx.Node], what: str) -> fx.Node:
    if len(nodes) != 1:
        raise TransferError(f'the exported program has {len(nodes)} {what}; a source takes images and gives scores.')
    return nodes[0]


def _layer(exported: nn.Module, node: fx.Node) -> nn.Module | None:
    """Return the layer that an operator was; None if it was none."""
    make = _LAYERS.get(getattr(node.target, 'overloadpacket', None)) if node.op == 'call_function' else None
    return None if make is None else make(_Call(exported, node))


class _Call:
    """Arguments of an operator by name, tensors in the place of the nodes that name them, and dimensions of its input."""

    def __init__(self, exported: nn.Module, node: fx.Node) -> None:
        schema: Any = node.target
        self.named: dict[str, Any] = {}
        self.dimensions: int = cast(Any, node.args[0]).meta['val'].dim()
        for position, argument in enumerate(schema._schema.arguments):
            default = argument.default_value if argument.has_default_value() else None
            value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name, default)
            is_tensor = isinstance(value, fx.Node) and value.op == 'get_attr'
            self.named[argument.name] = _attribute(exported, value) if is_tensor else value

    def __getitem__(self, name: str) -> Any:
        return self.named.get(name)


def _attribute(exported: nn.Module, node: Any) -> Any:
    value: Any = exported
    for name in str(node.target).split('.'):
        value = getattr(value, name)
    return value


def _path(node: fx.Node) -> str:
    """Return the path of the layer that an operator was: that of its weight."""
    for argument in node.args[1:]:
        if isinstance(argument, fx.Node) and argument.op == 'get_attr':
            parent, _, name = str(argument.target).rpartition('.')
            return parent if parent and name in ('weight', 'running_mean') else str(argument.target)
    return node.name


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and getattr(one, 'weight', None) is getattr(other, 'weight', None)


def _convolution(call: _Call) -> nn.Module | None:
    weight, padding = call['weight'], call['padding']
    if not isinstance(weight, Tensor) or weight.dim() != 4 or call['transposed']:
        return None
    groups = call['groups']
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], _pair(weight.shape[2:]), _pair(call['stride']),
        padding if isinstance(padding, str) else _pair(padding), _pair(call['dilation']), groups, device='meta',
    )  # fmt: skip
    return _filled(layer, call)


def _batch_norm(call: _Call) -> nn.Module | None:
    if call['running_mean'] is None:
        return None
    norm = nn.BatchNorm2d if call.dimensions == 4 else nn.BatchNorm1d
    layer = norm(len(call['running_mean']), call['eps'], call['momentum'])
    layer.running_mean, layer.running_var = call['running_mean'], call['running_var']
    return _filled(layer, call)


def _linear(call: _Call) -> nn.Module | None:
    weight = call['weight']
    if not isinstance(weight, Tensor):
        return None
    return _filled(nn.Linear(weight.shape[1], weight.shape[0], device='meta'), call)


def _dropout(call: _Call) -> nn.Module:
    return nn.Dropout(call['p'])


def _filled(layer: Any, call: _Call) -> nn.Module:
    layer.weight, layer.bias = call['weight'], call['bias']
    return layer


def _pair(numbers: Any) -> tuple[int, int]:
    return numbers[0], numbers[-1]


_LAYERS: dict[Any, Callable[[_Call], nn.Module | None]] = {
    aten.conv2d: _convolution,
    aten.convolution: _convolution,
    aten.batch_norm: _batch_norm,
    aten.linear: _linear,
    aten.dropout: _dropout,
    aten.dropout_: _dropout,
}
"""Operator -> function that makes the layer; None for what cannot be one."""
