"""Guards against the collapse of DARTS: a cap on parameter-free operations, and a stop when the alphas' curvature grows.

Differentiable search tends to end in architectures of skip connections and pooling. The cap is taken from P-DARTS (Chen et
al., ICCV 2019), the early stop from RobustDARTS (Zela et al., *Understanding and Robustifying Differentiable Architecture
Search*, ICLR 2020): generalisation breaks down when the dominant eigenvalue of the Hessian of the validation loss with
respect to the alphas grows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nni_adapter.architectures import cell_of, operations

CAP = 2
"""Largest number of parameter-free operations in a cell that is exported after a warm start, as for skips in P-DARTS."""

WINDOW = 5
"""Epochs over which eigenvalues are averaged, as in RobustDARTS."""

GROWTH = 4 / 3
"""Growth of the averaged eigenvalue from one window to the next at which a search stops; RobustDARTS has a ratio of 0.75."""


def capped(model: nn.Module, sample: dict[str, Any], cap: int) -> dict[str, Any]:
    """Limit ``sample`` to at most ``cap`` parameter-free operations in each cell.

    The parameter-free operations with the largest probabilities stay; the others are replaced by the most probable
    operation with parameters. A choice without such a candidate is not changed.

    Parameters
    ----------
    model
        The supernet.
    sample
        Exported architecture.
    cap
        Largest number of operations per cell; choices of a cell share their label up to the last slash, apart from the
        prefix of the space.
    """
    free: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for label, options in operations(model, sample).items():
        if options[sample[label]].parameter_free:
            others = [(option.probability, name) for name, option in options.items() if not option.parameter_free]
            if others:
                cell = cell_of(model, label)
                free[cell].append((options[sample[label]].probability, label, max(others)[1]))
    result = dict(sample)
    for members in free.values():
        for _, label, other in sorted(members, reverse=True)[cap:]:
            result[label] = other
    return result


def without_zeros(model: nn.Module, sample: dict[str, Any]) -> dict[str, Any]:
    """Replace the zero operation in ``sample`` by the most probable other operation.

    This follows DARTS (Liu et al., ICLR 2019, section 2.4): the logit of the zero operation is undetermined, since it only
    scales the mixture, which batch norm undoes. Parameters as in :func:`capped`.
    """
    result = dict(sample)
    for label, options in operations(model, sample).items():
        others = [(option.probability, name) for name, option in options.items() if not option.zero]
        if options[sample[label]].zero and others:
            result[label] = max(others)[1]
    return result


def dominant_eigenvalue(loss: Callable[[], Tensor], alphas: Sequence[nn.Parameter], *, steps: int = 20) -> float:
    r"""Return the eigenvalue of largest absolute value of the Hessian :math:`\nabla^2_\alpha L`, by power iteration.

    Parameters
    ----------
    loss
        Function that computes :math:`L`, twice differentiable in the alphas.
    alphas
        Architecture parameters.
    steps
        Number of iterations, each a product of the Hessian with a vector.
    """
    gradient = _flat(torch.autograd.grad(loss(), alphas, create_graph=True, materialize_grads=True))
    own = torch.Generator().manual_seed(0)  # the global generator is not used
    vector = torch.randn(len(gradient), generator=own).to(gradient)
    value = 0.0
    for _ in range(steps):
        vector = vector / vector.norm().clamp_min(1e-12)
        product = _flat(torch.autograd.grad(gradient @ vector, alphas, retain_graph=True, materialize_grads=True))
        value = float(vector @ product)
        vector = product
    return value


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def collapsing(eigenvalues: Sequence[float]) -> bool:
    """Check whether the mean of the last :data:`WINDOW` eigenvalues exceeds :data:`GROWTH` times that of those before."""
    if len(eigenvalues) < 2 * WINDOW:
        return False
    now, before = eigenvalues[-WINDOW:], eigenvalues[-2 * WINDOW : -WINDOW]
    return sum(map(abs, now)) > GROWTH * sum(map(abs, before))
