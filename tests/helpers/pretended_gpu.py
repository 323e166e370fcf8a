"""A GPU that is not there: what was sent to it must not meet what was not, as on a real one; all is computed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CPU, GPU = torch.device('cpu'), torch.device('cuda')
MEET = ('_has_compatible_shallow_copy_type', 'copy_', '__getitem__', '__setitem__', '__set__', 'type_as', 'to')
"""What takes tensors of two devices on a real one, too."""


def is_there(x: Any) -> bool:
    return isinstance(x, Tensor) and hasattr(x.untyped_storage(), 'is_there')


class PretendedGPU(TorchFunctionMode):
    """Raises what torch raises where tensors of two devices meet, or one of the GPU meets NumPy."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, '__name__', ''), dict(kwargs or {})
        if name == '__get__' and getattr(function, '__self__', None) is Tensor.device:
            return GPU if is_there(args[0]) else CPU
        if name in ('numpy', '__array__') and is_there(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")
        given = args[0] if name == '__deepcopy__' else (args, kwargs)  # the other argument holds all that was copied before
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        there = [is_there(tensor) for tensor in tensors]
        alone = [tensor for tensor, far in zip(tensors, there, strict=True) if not far and tensor.dim()]
        if any(there) and alone and name not in MEET:
            raise RuntimeError(f'Expected all tensors to be on the same device, but {name} found cuda:0 and cpu!')
        device = CPU if name == 'cpu' else kwargs.get('device')
        if name in ('to', 'type_as'):
            device = next((each for each in map(_device, (*args[1:], *kwargs.values())) if each is not None), None)
            args = tuple(CPU if isinstance(each, torch.device) or each == 'cuda' else each for each in args)
        if kwargs.get('device') is not None:
            kwargs['device'] = CPU
        result = function(*args, **kwargs)
        if device is None:
            far = there[0] if name in MEET and there else any(there)
        else:
            far = torch.device(device) == GPU
            if isinstance(result, Tensor) and is_there(result) != far:
                result = result.clone()  # the copy that the other device has
        if far and name not in ('copy_', '__set__'):
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    leaf.untyped_storage().is_there = True  # pyright: ignore[reportAttributeAccessIssue]
        return result


def _device(x: Any) -> torch.device | None:
    if isinstance(x, Tensor):
        return GPU if is_there(x) else CPU
    return torch.device(x) if isinstance(x, str | torch.device) else None
