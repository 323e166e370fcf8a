"""Plan for the cell of NAS-Bench-201."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..nni_adapter.mixed import NasBench201Cell, edge_of_choice, plain_choice
from .chains import State
from .layout import channels_last
from .nodes import Node


class NasBench201Plan:
    """Forward of a cell in which every node has an edge from each earlier one, with channels last in memory.

    Parameters
    ----------
    cell
        Cell of a supernet of DARTS or GumbelDARTS.
    restores
        Whether the output has the order in memory that NNI's forward gives it.
    """

    name = 'NAS-Bench-201'

    def __init__(self, cell: NasBench201Cell, restores: bool) -> None:
        layers: Any = cell.layers
        self._restores, self._nodes = restores, []
        self.misfit = ''
        if not all(plain_choice(choice) for layer in layers for choice in layer):
            self.misfit = 'its choices are not mixed as in DARTS'
            return
        self._nodes = [Node([edge_of_choice(choice, i) for i, choice in enumerate(layer)]) for layer in layers]
        if any(node.is_zero for node in self._nodes):
            self.misfit = 'all candidates of a node give zeros'

    def __call__(self, x: Tensor) -> Tensor:
        states = [State(channels_last(x))]
        for node in self._nodes:
            states.append(node(states))
        output = states[-1].value
        return output.contiguous() if self._restores else output
