"""Classifier of a network: finding it, resizing it, and its features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TransferError
from ..utils.inputs import to_device
from .choices import choices
from .model_spaces import CLASS_ARGUMENTS, parameters_of


def find_head(model: nn.Module, x: Tensor | None = None) -> str:
    """Return the name of the classifier: the linear layer whose output is the model's output.

    Parameters
    ----------
    model
        Supernet.
    x
        Batch of inputs to run the model on; None takes the last linear layer in the order of construction.

    Raises
    ------
    TransferError
        If the output is not that of a linear layer.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if x is None:
        if linears:
            return list(linears)[-1]
        raise TransferError(f'{type(model).__name__} has no linear layer to be its classifier.')
    # Run the model, and compare the output of every linear layer with the model's.
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    hooks = [module.register_forward_hook(keep(name)) for name, module in linears.items()]
    was_training = model.training
    try:
        with torch.no_grad():
            result = model.eval()(x)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    for name, output in outputs.items():
        if output is result or (isinstance(result, Tensor) and output.data_ptr() == result.data_ptr()):
            return name
    raise TransferError(
        f'no linear layer of {type(model).__name__} gives its output, so its classifier cannot be found; '
        "end the model with nn.Linear, or use head='random'."
    )


def resize_head(model: nn.Module, num_classes: int, name: str | None = None) -> None:
    """Give a model space's classifier another number of rows, freshly initialised; keep one that has this number already.

    Parameters
    ----------
    model
        Model space, mutated or not; its recorded argument for the number of classes is updated.
    num_classes
        Number of rows.
    name
        Name of the classifier; None for the last linear layer in the order of construction.

    Raises
    ------
    TransferError
        If there is no such linear layer, or its width is searched.
    """
    name = name or find_head(model)
    modules = dict(model.named_modules())
    old = modules.get(name)
    if not isinstance(old, nn.Linear):
        linears = ', '.join(key for key, module in modules.items() if isinstance(module, nn.Linear))
        raise TransferError(f'classifier {name!r} is no linear layer of {type(model).__name__}; it has {linears or "none"}.')
    if old.out_features == num_classes:
        return
    if choices(old):
        raise TransferError(
            f'the classifier {name!r} of {type(model).__name__} is part of the search and has {old.out_features} rows; make '
            f'the space with {num_classes} classes.'
        )
    new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None).to(old.weight.device, old.weight.dtype)
    modules[name.rpartition('.')[0]]._modules[name.rpartition('.')[2]] = new
    made_with = getattr(model, 'trace_kwargs', {})
    made_with.update({key: num_classes for key in CLASS_ARGUMENTS if key in parameters_of(type(model))})


def features_of(
    model: nn.Module, head_name: str, batches: Iterable[Any], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Return the inputs of the classifier and the classes, shapes ``(n, d)`` and ``(n,)``, in evaluation mode."""
    collected: list[Tensor] = []
    hook = model.get_submodule(head_name).register_forward_pre_hook(lambda _m, inputs: collected.append(inputs[0].detach()))
    was_training = model.training
    model.eval()
    labels: list[Tensor] = []
    try:
        with torch.no_grad():
            for x, y in batches:
                model(to_device(x, device))
                labels.append(y)
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(collected), torch.cat(labels).to(device)
