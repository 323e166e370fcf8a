"""Mixed modules of NNI's DARTS and GumbelDARTS as plain data: edges, their candidates, alphas and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from nni.nas.hub.pytorch import nasbench201, nasnet
from nni.nas.hub.pytorch.modules.nasbench201 import NasBench201Cell
from nni.nas.nn.pytorch.cell import preprocess_cell_inputs
from nni.nas.oneshot.pytorch.supermodule._expression_utils import weighted_sum
from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedCell, DifferentiableMixedLayer
from nni.nas.oneshot.pytorch.supermodule.operation import MixedBatchNorm2d, MixedConv2d, MixedOperation
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    'DifferentiableMixedCell',
    'DifferentiableMixedLayer',
    'NasBench201Cell',
    'preprocess_cell_inputs',
    'weighted_sum',
]


@dataclass(frozen=True)
class Edge:
    """Candidates between two nodes.

    Attributes
    ----------
    source
        Index of the node that the edge leaves.
    candidates
        Modules, in the order of the alphas. NNI's cell has one more alpha, for leaving the edge out.
    owner, label
        Module that holds the alphas, and their name in it; None if it holds one parameter only.
    """

    source: int
    candidates: tuple[nn.Module, ...]
    owner: nn.Module
    label: str | None = None

    def weights(self) -> Tensor:
        """Return the weights of the candidates as NNI computes them, with the noise of GumbelDARTS, shape ``(n,)``."""
        owner: Any = self.owner
        alpha = owner._arch_alpha if self.label is None else owner._arch_alpha[self.label]
        return owner._softmax(alpha)


def edge_of_choice(choice: nn.Module, source: int = 0) -> Edge:
    """Return the edge of a ``LayerChoice``."""
    layer: Any = choice
    return Edge(source, tuple(layer[name] for name in layer.names), choice)


def edges_of_cell(cell: DifferentiableMixedCell) -> list[list[Edge]]:
    """Return the edges that enter each node of NNI's cell, in the order in which NNI computes them."""
    nodes = []
    for node, edges in enumerate(cast(Any, cell.ops), start=cell.num_predecessors):
        ends = [edges[source] for source in range(node)]
        nodes.append([Edge(s, tuple(ops.values()), cell, f'{cell.label}/{node}_{s}') for s, ops in enumerate(ends)])
    return nodes


def plain_choice(module: nn.Module) -> bool:
    """Check whether a module is NNI's differentiable ``LayerChoice``, without changes by a subclass."""
    return type(module) is DifferentiableMixedLayer


def links(module: nn.Module) -> Sequence[nn.Module] | None:
    """Return the modules that a candidate of NNI's hub calls one after another; None for modules of another kind."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return list(module)
    if type(module) in (nasbench201.ReLUConvBN, nasbench201.SepConv):
        return [cast(nn.Module, module.op)]
    if type(module) is nasbench201.Pooling:
        return [cast(nn.Module, part) for part in (module.preprocess, module.op) if part is not None]
    return None


def gives_zeros(module: nn.Module) -> bool:
    """Check whether a module is a zero operation of NNI's hub."""
    return type(module) in (nasbench201.Zero, nasnet.Zero)


def fixed(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Check whether a module is an ordinary layer of this kind, or NNI's mixed one of it without anything to choose."""
    mixed = {nn.Conv2d: MixedConv2d, nn.BatchNorm2d: MixedBatchNorm2d}
    if isinstance(module, MixedOperation):
        return type(module) is mixed.get(kind) and not module.mutable_arguments
    return type(module) is kind


class Convolution(NamedTuple):
    """Arguments of ``torch.nn.functional.conv2d`` in a forward."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def convolution_of(layer: nn.Module, x: Tensor) -> Convolution | None:
    """Return the convolution of a layer, whose widths and kernels may be searched; None for layers that pad otherwise."""
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != 'zeros' or isinstance(layer.padding, str):
        return None
    if fixed(layer, nn.Conv2d):
        return Convolution(layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    if type(layer) is not MixedConv2d:
        return None
    arguments = {name: layer.forward_argument(name) for name in layer.argument_list}
    stride, dilation = (layer._to_tuple(arguments[name]) for name in ('stride', 'dilation'))
    if isinstance(stride[0], dict) or isinstance(dilation[0], dict):
        return None  # NNI raises an error
    found = layer._freeze_weight_impl(**{name: arguments[name] for name in _SEARCHED})
    searched = isinstance(arguments['kernel_size'], dict)
    padding = layer._to_tuple(layer.padding if searched else arguments['padding'])
    groups = arguments['groups']
    if isinstance(groups, dict):
        groups = x.shape[1] // int(found['in_channels_per_group'])
    return Convolution(found['weight'], found['bias'], stride, padding, dilation, groups)


_SEARCHED = ('in_channels', 'out_channels', 'kernel_size', 'groups')


def momentum_of(norm: _BatchNorm) -> float | None:
    """Return the momentum with which a batch norm updates its statistics; NNI's ignores its attribute."""
    return norm.init_arguments['momentum'] if isinstance(norm, MixedBatchNorm2d) else norm.momentum


def counts_batches(norm: nn.BatchNorm2d) -> bool:
    """Check whether a batch norm counts its batches; NNI's does not."""
    return not isinstance(norm, MixedBatchNorm2d)
