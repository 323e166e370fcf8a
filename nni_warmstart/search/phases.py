"""Gradients by phase: the step of the alphas computes none of weights, the step of the weights none of alphas.

NNI's DARTS computes all gradients in both, and throws half of them away: those of weights before the step of the weights,
those of alphas before the next step of the alphas. Without them weights, alphas and states of optimizers are the same to the
bit. Where somebody may look at the other gradients, all are computed as in NNI; see :func:`looks_at_all`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

_logger = logging.getLogger(__name__)

Phase = Literal['alphas', 'weights']

PHASES: tuple[Phase, ...] = ('alphas', 'weights')


class Phases(Callback):
    """Lets each phase of a step compute its own gradients only."""

    def __init__(self) -> None:
        self._alphas: list[nn.Parameter] = []
        self._weights: list[nn.Parameter] = []
        self._restricted: frozenset[Phase] | None = None  # not known before the first step
        self._omits = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._alphas = pl_module.arch_parameters()
        known = {id(alpha) for alpha in self._alphas}
        self._weights = [parameter for parameter in pl_module.parameters() if id(parameter) not in known]
        self._restricted = None

    @contextmanager
    def gradients(self, phase: Phase) -> Iterator[None]:
        """Compute the gradients of one phase only, as far as nobody looks at the others."""
        if self._restricted is None or phase not in self._restricted:
            yield
            return
        with frozen(self._weights if phase == 'alphas' else self._alphas) as omitted:
            self._omits = omitted > 0
            try:
                yield
            finally:
                self._omits = False

    def look(self, pl_module: Any, loss: Tensor) -> None:
        """Decide from the loss of the first step, which computes all gradients, what the following steps can omit."""
        if self._restricted is None:
            why_not = looks_at_all(pl_module, loss)
            self._restricted = frozenset(phase for phase in PHASES if phase not in why_not)
            for phase, why in why_not.items():
                _logger.info('The step of the %s computes all gradients, as in NNI: %s.', phase, why)

    def with_gradient(self, loss: Tensor) -> Tensor:
        """Return a loss that can be differentiated, also where it depends on parameters of the other phase only."""
        return loss.detach().requires_grad_() if self._omits and not loss.requires_grad else loss


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[int]:
    """Compute no gradients of some parameters, and hide the ones that they have; restored at the end.

    Parameters that do not require gradients anyway stay as they are. The context gives the number of the others.
    """
    changed = [(parameter, parameter.grad) for parameter in parameters if parameter.requires_grad]
    try:
        for parameter, _ in changed:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield len(changed)
    finally:
        for parameter, gradient in changed:
            parameter.requires_grad_(True)
            parameter.grad = gradient


def looks_at_all(pl_module: Any, loss: Tensor) -> dict[Phase, str]:
    """Return the phases whose step may depend on gradients of the other kind of parameters, with the reason.

    Parameters
    ----------
    pl_module
        One-shot module.
    loss
        Loss of a step with all gradients.
    """
    module, trainer = pl_module.training_module, pl_module.trainer
    if trainer.world_size > 1:
        why = 'devices wait for the gradients of all parameters'
        return dict.fromkeys(PHASES, why)
    if _has_node(loss, 'CheckpointFunctionBackward'):
        why = 'reentrant gradient checkpointing needs inputs with gradients'
        return dict.fromkeys(PHASES, why)
    found: dict[Phase, str] = {}
    if own := _own(module, 'optimizer_zero_grad') or _own_zero_grad(trainer.optimizers):
        found['alphas'] = f'{own} may accumulate them'
    if own := next(filter(None, (_own(module, name) for name in ('configure_gradient_clipping', 'optimizer_step'))), ''):
        found['weights'] = f'{own} may read them'
    if _has_node(loss, '_ProxylessFunctionBackward'):
        # NNI runs all other paths in the backward of a choice, which changes their batch-norm statistics
        found['weights'] = 'Proxyless runs its other paths for the gradients of alphas'
        if not all(alpha.requires_grad for alpha in pl_module.arch_parameters()):
            found['alphas'] = 'Proxyless has frozen alphas'
    return found


def _own(module: Any, method: str) -> str:
    """Return the name of a user's own version of a method of Lightning; '' for none."""
    own = method in vars(module) or getattr(type(module), method) is not getattr(LightningModule, method)
    return f'{type(module).__name__}.{method}' if own else ''


def _own_zero_grad(optimizers: Iterable[Optimizer]) -> str:
    kinds = [type(optimizer) for optimizer in optimizers if type(optimizer).zero_grad is not Optimizer.zero_grad]
    return f'{kinds[0].__name__}.zero_grad' if kinds else ''


def _has_node(loss: Tensor, name: str) -> bool:
    """Check whether the graph of a loss has a node of this name."""
    seen, left = set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            if node.name() == name:
                return True
            seen.add(node)
            left += [parent for parent, _ in node.next_functions]
    return False
