"""Drop path: candidate ops are dropped at random while a supernet is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..nni_adapter.choices import sites


def drop_paths(model: nn.Module, probability: Callable[[], float]) -> list[RemovableHandle]:
    """Set the outputs of candidate ops to zero at random, image by image, in training mode; scale the others accordingly.

    Ops without weights are never dropped, as in DARTS (Larsson, Maire & Shakhnarovich, *FractalNet*, ICLR 2017).

    Parameters
    ----------
    model
        A supernet.
    probability
        Function that returns the probability in [0, 1); it is called in every forward pass, so that it can grow.

    Returns
    -------
    list of torch.utils.hooks.RemovableHandle
        Handles whose removal ends it.
    """

    def drop(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        p = probability()
        if not module.training or p == 0:
            return output
        kept = torch.rand(len(output), *[1] * (output.ndim - 1), device=output.device) >= p
        return output * kept / (1 - p)

    found, _ = sites(model)
    ops = [model.get_submodule(f'{path}.{child}') for path, (_, names) in found.items() for child in names.values()]
    return [op.register_forward_hook(drop) for op in ops if next(op.parameters(), None) is not None]
