"""Batch norm of its own for every dataset that a supernet is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .mapping.batchnorm import batch_norms


class NormBank(nn.Module):
    """Scales, shifts and running statistics of a model's batch norms, once per dataset (Bilen & Vedaldi, arXiv 1701.07275).

    Parameters
    ----------
    model
        Whose batch norms are multiplied; every dataset starts with a copy of them.
    datasets
        Names.
    """

    def __init__(self, model: nn.Module, datasets: Sequence[str]) -> None:
        super().__init__()
        norms = set(batch_norms(model))
        self.places = [
            (f'{path}.{name}', tensor)
            for path, module in model.named_modules()
            if module in norms
            for name, tensor in module.state_dict(keep_vars=True).items()
        ]
        self.names = list(datasets)
        self.own = nn.ModuleList(_Tensors([tensor for _, tensor in self.places]) for _ in datasets)

    def run(self, model: nn.Module, dataset: str, *inputs: Any) -> Any:
        """Output of ``model`` with the batch norms of one dataset."""
        tensors: Any = self.own[self.names.index(dataset)]
        names = (name for name, _ in self.places)
        return functional_call(model, dict(zip(names, tensors.in_order(), strict=True)), inputs)

    def merge(self) -> None:
        """Give the model's own batch norms the mean over the datasets."""
        with torch.no_grad():
            for k, (_, tensor) in enumerate(self.places):
                values = [tensors.in_order()[k].double() for tensors in self.own]  # pyright: ignore[reportCallIssue]
                tensor.copy_(torch.stack(values).mean(0))


class _Tensors(nn.Module):
    """Copies of parameters and buffers, by their place in a list."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.names = [str(k) for k in range(len(tensors))]
        for name, tensor in zip(self.names, tensors, strict=True):
            value = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def in_order(self) -> list[Tensor]:
        return [getattr(self, name) for name in self.names]
