"""Separate batch norms for every dataset that a supernet is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..nni_adapter.batchnorm import batch_norms


class NormBank(nn.Module):
    """Scales, shifts and running statistics of a model's batch norms, once per dataset (Bilen & Vedaldi, arXiv 1701.07275).

    Parameters
    ----------
    model
        Model whose batch norms are copied for every dataset.
    datasets
        Names of the datasets.
    """

    def __init__(self, model: nn.Module, datasets: Sequence[str]) -> None:
        super().__init__()
        norms = set(batch_norms(model))
        tensors = {
            f'{path}.{name}': tensor
            for path, module in model.named_modules()
            if module in norms
            for own in (module.named_parameters, module.named_buffers)
            for name, tensor in own(recurse=False)  # NNI's mixed batch norms have alphas in a child module
        }
        self.places = list(tensors)
        self.names = list(datasets)
        self.own = nn.ModuleList(_Tensors(list(tensors.values())) for _ in datasets)

    def tensors(self, dataset: str) -> dict[str, Tensor]:
        """Return the tensors of one dataset, by their names in the model."""
        own: Any = self.own[self.names.index(dataset)]
        return dict(zip(self.places, own.in_order(), strict=True))

    def run(self, model: nn.Module, dataset: str, *inputs: Any) -> Any:
        """Return the output of ``model`` with the batch norms of one dataset."""
        return functional_call(model, self.tensors(dataset), inputs)

    def merge(self, model: nn.Module) -> None:
        """Give the batch norms of ``model`` the mean over the datasets."""
        state, each = model.state_dict(), [self.tensors(name) for name in self.names]
        for place in self.places:
            state[place].copy_(torch.stack([tensors[place].detach().double() for tensors in each]).mean(0))


class _Tensors(nn.Module):
    """Copies of parameters and buffers, by their index in a list."""

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
