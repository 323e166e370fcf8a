"""Second derivatives: torch's fused kernels have the first only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Compute attention by plain operations within the context, and recurrent layers of ``model`` without cuDNN.

    Parameters
    ----------
    model
        Network whose loss is to be differentiated twice.
    """
    with ExitStack() as kernels:
        kernels.enter_context(_plain_attention())
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            kernels.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def _plain_attention() -> Any:
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # torch before 2.3
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False, enable_math=True)
    return sdpa_kernel(SDPBackend.MATH)
