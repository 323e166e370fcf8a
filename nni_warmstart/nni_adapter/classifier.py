"""Classifier of a network: finding it, resizing it, its weights, and its features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import TransferError
from ..utils.inputs import to_device
from ..utils.modules import modes_kept
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
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.append((name, output))

    with _watched(model, *(module.register_forward_hook(keep(name)) for name, module in linears.items())) as run:
        result = run(x)
    for name, output in outputs:
        if _is_same(output, result):
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


@torch.no_grad()
def write_head(head: nn.Linear, weight: Tensor, bias: Tensor | None) -> bool:
    """Give a classifier other weights in place; return False, and change nothing, if it cannot have them.

    Weights that a layer computes from others are set through these, which spectral norm, unlike weight norm, does not allow.

    Parameters
    ----------
    head
        Linear layer.
    weight, bias
        Its new weights; None for a layer without a bias.
    """
    if 'weight' in head._parameters:
        head.weight.copy_(weight)
    elif not parametrize.is_parametrized(head, 'weight') or not _assigned(head, weight):
        return False
    if bias is not None:
        head.bias.copy_(bias)
    return True


def _assigned(head: nn.Linear, weight: Tensor) -> bool:
    """Set the tensors that a weight is computed from, or none of them if they do not give this weight."""
    own = [*head.parameters(), *head.buffers()]
    before = [tensor.clone() for tensor in own]
    with modes_kept(head):
        head.eval()  # spectral norm changes with every look in training
        try:
            head.weight = weight
            if torch.allclose(head.weight, weight, rtol=1e-2, atol=1e-3 * float(weight.abs().max())):
                return True
        except (NotImplementedError, RuntimeError, ValueError, TypeError):  # it has no inverse, or not for this weight
            pass
    for tensor, value in zip(own, before, strict=True):
        tensor.copy_(value)
    return False


def features_of(
    model: nn.Module, head_name: str, batches: Iterable[Any], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Return the inputs of the classifier and the classes, shapes ``(n, d)`` and ``(n,)``, in evaluation mode.

    Of a classifier that a model calls several times (on early features, say), it is the call that gives the output.
    """
    collected: list[Tensor] = []
    labels: list[Tensor] = []
    with _reading(model, head_name) as read:
        for x, y in batches:
            collected.append(read(to_device(x, device)).detach())
            labels.append(y)
    return torch.cat(collected), torch.cat(labels).to(device)


def dropout_before(model: nn.Module, head_name: str, inputs: Any) -> float:
    """Return the probability with which dropout directly in front of the classifier zeroes a feature; 0 without any.

    Parameters
    ----------
    model
        Network, which runs once in evaluation mode if it has dropout at all.
    head_name
        Path of its classifier.
    inputs
        Some inputs.
    """
    dropped: list[tuple[float, Tensor]] = []  # outputs stay alive, so that no other tensor gets their memory

    def keep(module: Any, _: Any, output: Tensor) -> None:
        dropped.append((float(module.p), output))

    layers = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if not layers:
        return 0.0
    with _reading(model, head_name, *(module.register_forward_hook(keep) for module in layers)) as read:
        x = read(inputs)
    return max((p for p, output in dropped if output.data_ptr() == x.data_ptr()), default=0.0)


def _is_same(output: Tensor, result: Any) -> bool:
    return output is result or (isinstance(result, Tensor) and output.data_ptr() == result.data_ptr())


@contextmanager
def _reading(model: nn.Module, head_name: str, *hooks: Any) -> Iterator[Callable[[Any], Tensor]]:
    """Run a model in evaluation mode, and return what its classifier reads in the call that gives the output."""
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        calls.append((next(iter((*arguments, *named.values()))), output))

    hook = model.get_submodule(head_name).register_forward_hook(keep, with_kwargs=True)
    with _watched(model, hook, *hooks) as run:

        def read(x: Any) -> Tensor:
            calls.clear()
            result = run(x)
            giving = [inputs for inputs, output in calls if _is_same(output, result)]
            return giving[0] if giving else calls[-1][0]

        yield read


@contextmanager
def _watched(model: nn.Module, *hooks: Any) -> Iterator[Callable[[Any], Any]]:
    """Run a model in evaluation mode while it has hooks, which are removed at the end."""
    try:
        with modes_kept(model), torch.no_grad():
            yield model.eval()
    finally:
        for hook in hooks:
            hook.remove()
