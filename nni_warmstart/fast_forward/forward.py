"""FastForward: a supernet whose cells and choices run by plans for a while."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from ..utils.modules import forward_exchanged
from .layout import channels_last, is_known
from .plans import Plan, convolutions, mixed_modules, plan_of, watched

_logger = logging.getLogger(__name__)


class FastForward:
    """Plans of a supernet, applied as forwards of instances: modules, parameters and names stay as they are.

    Parameters
    ----------
    model
        Supernet.

    Attributes
    ----------
    misfits
        Name of a module -> reason why it runs by NNI's forward.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._is_applied = model, False
        found = list(mixed_modules(model))
        self._plans: list[tuple[str, nn.Module, Plan]] = []
        self.misfits: dict[str, str] = {}
        self._any_order = _around_takes_any_order(model, {id(module) for _, module in found})
        for name, module in found:
            plan = plan_of(module, restores=not self._any_order)
            if plan is None or plan.misfit:
                self.misfits[name] = '' if plan is None else plan.misfit
            else:
                self._plans.append((name, module, plan))
        if self._any_order:
            modules = dict(model.named_modules())
            self._plans += [(name, modules[name], plan) for name, plan in convolutions(model)]

    @property
    def fits(self) -> bool:
        """Whether any module has a plan."""
        return bool(self._plans)

    @property
    def why_not(self) -> str:
        """Why no module has a plan, with the name of the first one."""
        name, why = next(iter(self.misfits.items()), ('', 'it has no cells and no choices of layers'))
        return f'{name or type(self._model).__name__}: {why}'

    def summary(self) -> list[str]:
        """Return a line for each kind of module: the plan that it has, or why it has none."""
        modules = dict(self._model.named_modules())
        kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, module, plan in self._plans:
            kinds[type(module).__name__, f'run by the plan {plan.name!r}'].append(name)
        for name, why in self.misfits.items():
            kinds[type(modules[name]).__name__, f"run by NNI's forward: {why}"].append(name)
        return [
            f'{names[0] or "the model"}{f" and {len(names) - 1} more" if len(names) > 1 else ""} ({kind}): {what}'
            for (kind, what), names in kinds.items()
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run cells and choices by their plans. Those with hooks inside run by NNI's forward."""
        if self._is_applied:
            yield
            return
        with ExitStack() as exchanged:
            self._is_applied = True
            exchanged.callback(setattr, self, '_is_applied', False)
            changed = 0
            for name, module, plan in self._plans:
                why = watched(module)
                if not why:
                    exchanged.enter_context(forward_exchanged(module, plan))
                    changed += 1
                elif name not in self.misfits:
                    self.misfits[name] = why
                    _logger.info("%s runs by NNI's forward while %s.", name or 'The model', why)
            if self._any_order and changed and 'forward' not in vars(self._model):
                exchanged.enter_context(forward_exchanged(self._model, _with_channels_last(self._model.forward)))
            yield


def _with_channels_last(forward: Any) -> Any:
    def converted(*inputs: Any, **named: Any) -> Any:
        return forward(*map(channels_last, inputs), **named)

    return converted


def _around_takes_any_order(model: nn.Module, planned: set[int]) -> bool:
    """Check whether what is around cells and choices takes any order in memory."""
    if id(model) in planned:
        return True
    parts = (_around_takes_any_order(part, planned) for part in model.children())
    return is_known(model) and all(parts)
