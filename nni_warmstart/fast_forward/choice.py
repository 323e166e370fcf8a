"""Plan for a ``LayerChoice`` outside of cells."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..nni_adapter.mixed import edge_of_choice, plain_choice
from .chains import State
from .layout import is_channels_last
from .nodes import Node


class ChoicePlan:
    """Forward of one choice, in the order in memory that its input has.

    Parameters
    ----------
    choice
        Choice of a supernet of DARTS or GumbelDARTS.
    restores
        Whether the output has the order in memory that NNI's forward gives it.
    """

    name = 'choice'

    def __init__(self, choice: nn.Module, restores: bool) -> None:
        self._choice: Any = choice
        self._restores = restores
        self.misfit = '' if plain_choice(choice) else 'it is not mixed as in DARTS'
        if not self.misfit:
            self._node = Node([edge_of_choice(choice)])
            if self._node.is_zero:
                self.misfit = 'all candidates give zeros'

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and not named:
            output = self._node([State(inputs[0])]).value
            return (
                output.contiguous()
                if self._restores and not is_channels_last(inputs[0]) and is_channels_last(output)
                else output
            )
        return type(self._choice).forward(self._choice, *inputs, **named)
