"""Gradients by phase: the step of the alphas computes none of weights, the step of the weights none of alphas.

NNI's DARTS computes all gradients in both, and throws half of them away: those of weights before the step of the weights,
those of alphas before the next step of the alphas. Without them weights, alphas and states of optimizers are the same to the
bit. Where somebody may look at the other gradients, all are computed as in NNI; see :func:`looks_at_all`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

_logger = logging.getLogger(__name__)

Phase = Literal['alphas', 'weights']

PHASES: tuple[Phase, ...] = ('alphas', 'weights')


class Phases(Callback):
    """Lets each phase of a step compute its own gradients only."""

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.gradients'

    def __init__(self) -> None:
        self._alphas: list[nn.Parameter] = []
        self._weights: list[nn.Parameter] = []
        self._restricted: frozenset[Phase] | None = None  # not known before the first step
        self._differentiates = False
        self._omits = False
        self._accumulates = False
        self._earlier: Sequence[Tensor | None] = ()  # accumulated gradients in the checkpoint to resume from

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._alphas = pl_module.arch_parameters()
        known = {id(alpha) for alpha in self._alphas}
        self._weights = [parameter for parameter in pl_module.parameters() if id(parameter) not in known]
        self._restricted, self._differentiates = None, False
        self._accumulates = bool(accumulating(pl_module))
        for parameter, gradient in zip(self._parameters, self._earlier, strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter)
        self._earlier = ()

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return self._alphas + self._weights

    def state_dict(self) -> dict[str, Any]:
        return {'gradients': [parameter.grad for parameter in self._parameters]} if self._accumulates else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier = state_dict['gradients']

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

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notice in the first step whether gradients of parameters are computed within the context, for a penalty, say."""
        if self._restricted is not None:
            yield
            return

        def notice(_: Tensor) -> None:
            self._differentiates = True

        handles = [parameter.register_hook(notice) for parameter in self._parameters if parameter.requires_grad]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def look(self, pl_module: Any, loss: Tensor) -> None:
        """Decide from the loss of the first step, which computes all gradients, what the following steps can omit."""
        if self._restricted is None:
            if self._differentiates:
                why = f'{type(pl_module.training_module).__name__}.training_step computes gradients itself'
                why_not = dict.fromkeys(PHASES, why)
            else:
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
    if own := _own(module, 'on_after_backward') or _hook_of(trainer.callbacks):
        return dict.fromkeys(PHASES, f'{own} may change them')
    found: dict[Phase, str] = {}
    if own := accumulating(pl_module):
        found['alphas'] = f'{own} may accumulate them'
    if own := next(filter(None, (_own(module, name) for name in ('configure_gradient_clipping', 'optimizer_step'))), ''):
        found['weights'] = f'{own} may read them'
    if _has_node(loss, '_ProxylessFunctionBackward'):
        # NNI runs all other paths in the backward of a choice, which changes their batch-norm statistics
        found['weights'] = 'Proxyless runs its other paths for the gradients of alphas'
        if not all(alpha.requires_grad for alpha in pl_module.arch_parameters()):
            found['alphas'] = 'Proxyless has frozen alphas'
    return found


def accumulating(pl_module: Any) -> str:
    """Return the name of what may keep gradients of one step for the next one; '' for nothing."""
    return _own(pl_module.training_module, 'optimizer_zero_grad') or _own_zero_grad(pl_module.trainer.optimizers)


def _hook_of(callbacks: Iterable[Callback]) -> str:
    """Return the name of a hook of a callback that may change gradients; '' for none."""
    hooks = 'on_after_backward', 'on_before_optimizer_step'
    return next((f'{type(each).__name__}.{hook}' for each in callbacks for hook in hooks if is_overridden(hook, each)), '')


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
