"""Added blocks of a deeper target, initialised as the identity where that is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..tracing.axes import OUT
from ..tracing.structure import Structure
from ..utils.modules import modes_kept


def start_as_identity(
    model: nn.Module, paths: list[str], structure: Structure, shape: tuple[int, ...]
) -> dict[str, list[str]]:
    """Make blocks return their input, by setting the end of their residual branches to zero.

    The affine parameters of norms whose channels the block shares with the rest of the network are set to zero, or else the
    layers with such output channels (cf. zero-initialised residual branches, Goyal et al., arXiv 1706.02677). Each block is
    then run; one that still changes its input is restored.

    Parameters
    ----------
    model
        Network, changed in place.
    paths
        Blocks to try.
    structure
        Structure of ``model``.
    shape
        Shape of its input, batch first.

    Returns
    -------
    dict
        Path of a block that is the identity now -> names of the tensors that were zeroed.
    """
    paths = [path for path in paths if path in structure.channels.keeps]
    if not paths:
        return {}
    inputs = _inputs(model, paths, shape)
    parameters = dict(model.named_parameters())
    identities: dict[str, list[str]] = {}
    for path in paths:
        if path not in inputs:
            continue
        for names in _endings(structure, path):
            saved = {name: parameters[name].detach().clone() for name in names if name in parameters}
            with torch.no_grad():
                for name in saved:
                    parameters[name].zero_()
                same = _is_identity(model.get_submodule(path), inputs[path])
                for name, value in () if same else saved.items():
                    parameters[name].copy_(value)
            if saved and same:
                identities[path] = list(saved)
                break
    return identities


def _endings(structure: Structure, path: str) -> list[list[str]]:
    """Return the tensors of a block whose output channels occur outside it too: those of norms, then layers' and norms'."""
    tensors = structure.channels.tensors
    parts = [
        c.ravel()
        for name, axes in tensors.items()
        if not name.startswith(f'{path}.')
        for c in axes.channels
        if c is not None
    ]
    outside = np.unique(np.concatenate(parts))
    norms, layers = [], []
    for name, axes in tensors.items():
        if name.startswith(f'{path}.') and OUT in axes.roles:
            made = axes.channels[axes.roles.index(OUT)]
            if made is not None and np.isin(made, outside).all():
                (norms if len(axes.shape) == 1 else layers).append(name)
    return [norms, layers + norms]


def _inputs(model: nn.Module, paths: list[str], shape: tuple[int, ...]) -> dict[str, tuple[Any, ...]]:
    """Return the inputs of each block when the model runs on noise."""
    found: dict[str, tuple[Any, ...]] = {}

    def keeper(path: str) -> Any:
        def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.setdefault(path, inputs)

        return keep

    handles = [model.get_submodule(path).register_forward_pre_hook(keeper(path)) for path in paths]
    like = next(model.parameters())
    try:
        _run(model, (torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like),))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _run(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    with modes_kept(module), torch.no_grad():
        return module.eval()(*inputs)


def _is_identity(block: nn.Module, inputs: tuple[Any, ...]) -> bool:
    output = _run(block, inputs)
    if len(inputs) != 1 or not isinstance(output, Tensor) or output.shape != inputs[0].shape:
        return False
    return bool(torch.allclose(output, inputs[0], rtol=1e-5, atol=1e-6 * float(inputs[0].abs().max())))
