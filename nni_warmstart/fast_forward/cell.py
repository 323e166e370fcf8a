"""Plan for NNI's cell, that of the hub's DARTS, ENAS, NASNet, PNAS and Amoeba spaces."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..nni_adapter.mixed import DifferentiableMixedCell, edges_of_cell, preprocess_cell_inputs
from .chains import State
from .layout import channels_last, takes_any_order
from .nodes import Node


class CellPlan:
    """Forward of a cell, with channels last in memory.

    Parameters
    ----------
    cell
        Cell of a supernet of DARTS or GumbelDARTS.
    restores
        Whether outputs have the order in memory that NNI's forward gives them.
    """

    name = 'cell'

    def __init__(self, cell: DifferentiableMixedCell, restores: bool) -> None:
        self._cell: Any = cell
        self._nodes = [Node(edges) for edges in edges_of_cell(cell)]
        self._restores = restores or not _known(cell.postprocessor)
        self._keeps_order = _known(cell.preprocessor)
        self.misfit = 'all candidates of a node give zeros' if any(node.is_zero for node in self._nodes) else ''

    def __call__(self, *inputs: Any) -> Any:
        cell = self._cell
        given = preprocess_cell_inputs(cell.num_predecessors, *inputs)
        if self._keeps_order:
            given = [channels_last(x) for x in given]
        states = [State(channels_last(x)) for x in cell.preprocessor(given)]
        for node in self._nodes:
            states.append(node(states))
        output = torch.cat([state.value for state in states[cell.num_predecessors :]], cell.concat_dim)
        return cell.postprocessor(output.contiguous() if self._restores else output, given)


def _known(processor: Any) -> bool:
    return isinstance(processor, nn.Module) and takes_any_order(processor)
