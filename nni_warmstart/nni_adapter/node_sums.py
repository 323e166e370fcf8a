"""Sums over candidates in a supernet, of which a frozen network keeps a few: nodes of cells, and choices on their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from nni.nas.hub.pytorch.nasnet import CellPostprocessor
from nni.nas.nn.pytorch import Repeat
from nni.nas.nn.pytorch.cell import _DefaultPostprocessor
from torch import Tensor, nn

from .mixed import DifferentiableMixedCell, DifferentiableMixedLayer, NasBench201Cell

_JOINING = (CellPostprocessor, _DefaultPostprocessor)


@dataclass(frozen=True)
class NodeSum:
    """One sum.

    Attributes
    ----------
    ops
        Paths of the frozen network's modules that are added, in the order of execution.
    modules
        Paths of the supernet's modules whose outputs make up the sum.
    part, parts
        Which of how many equal parts of the channels of their outputs is the sum.
    """

    ops: tuple[str, ...]
    modules: tuple[str, ...]
    part: int = 0
    parts: int = 1

    def of(self, output: Any) -> Tensor:
        """Return the part of the output of one of ``modules``; cells of the hub hand on the cell before as well."""
        whole: Tensor = output if isinstance(output, Tensor) else output[-1]
        return whole.chunk(self.parts, 1)[self.part]


def renaming(supernet: nn.Module) -> Callable[[str], str]:
    """Return the function from names in a supernet to those in its frozen networks, which have no ``blocks`` of repeats."""
    repeats = [f'{path}.blocks.' for path, module in supernet.named_modules() if isinstance(module, Repeat)]
    repeats.sort(key=len, reverse=True)

    def renamed(name: str) -> str:
        for prefix in filter(name.startswith, repeats):
            name = prefix.removesuffix('blocks.') + name.removeprefix(prefix)
        return name

    return renamed


def node_sums(supernet: nn.Module) -> list[NodeSum]:
    """Return the sums of a supernet of DARTS or GumbelDARTS, and the layers beside them, in no particular order.

    Cells are those of NAS-Bench-201, and NNI's where their output is the nodes side by side. Layers beside them are linear
    ones, and convolutions with a norm in a ``Sequential``, such as those that preprocess the inputs of a cell.
    """
    renamed, found, mixing = renaming(supernet), list[NodeSum](), list[str]()
    for path, module in supernet.named_modules():
        if path.startswith(tuple(mixing)):
            continue
        if isinstance(module, NasBench201Cell):
            mixing.append(f'{path}.layers.'.lstrip('.'))
            for node, edges in enumerate(cast(Any, module.layers)):
                paths = tuple(f'{mixing[-1]}{node}.{edge}' for edge in range(len(edges)))
                found.append(NodeSum(tuple(map(renamed, paths)), paths))
        elif isinstance(module, DifferentiableMixedCell):
            mixing.append(f'{path}.ops.'.lstrip('.'))
            for node in range(module.num_nodes) if isinstance(module.postprocessor, _JOINING) else ():
                ops = tuple(f'{renamed(mixing[-1])}{node}.{number}' for number in range(module.num_ops_per_node))
                found.append(NodeSum(ops, (path,), node, module.num_nodes))
        elif isinstance(module, DifferentiableMixedLayer):
            mixing.append(f'{path}.')
            found.append(NodeSum((renamed(path),), (path,)))
        elif isinstance(module, nn.Linear) or _ends_with_norm(module):
            found.append(NodeSum((renamed(path),), (path,)))
    return found


def _ends_with_norm(module: nn.Module) -> bool:
    layers = list(module)[-2:] if isinstance(module, nn.Sequential) else []
    return [isinstance(*each) for each in zip(layers, (nn.Conv2d, nn.BatchNorm2d), strict=False)] == [True, True]
