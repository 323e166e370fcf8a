"""What the model of an evaluator reads: the evaluator may normalise or reshape what the loader gives, before its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden

from ..nni_adapter.oneshot import has_nnis
from ..utils.modules import modes_kept
from .loaders import pairs, through


class _Reached(Exception):
    """Ends a forward pass where it reaches the model."""

    def __init__(self, inputs: tuple[Any, ...]) -> None:
        self.inputs = inputs


def reads_after_set_up(training_module: Any) -> bool:
    """Check whether an evaluator makes the input of its model by a ``forward`` that its own ``setup`` may prepare."""
    return _has_own_forward(training_module) and is_overridden('setup', training_module, LightningModule)


def _has_own_forward(training_module: Any) -> bool:
    return has_nnis(training_module, 'validation_step') and not has_nnis(training_module, 'forward')


def reader_of(training_module: Any) -> Callable[[Any], Any] | None:
    """Return what makes the input of the model of an evaluator from that of the evaluator; None where both are the same.

    Parameters
    ----------
    training_module
        Module of the evaluator, whose model is set. Its ``forward`` is run in evaluation mode, up to the model.
    """
    if not _has_own_forward(training_module):
        return None

    def stop(module: Any, inputs: tuple[Any, ...]) -> None:
        raise _Reached(inputs)

    def read(x: Any) -> Any:
        handle = training_module.model.register_forward_pre_hook(stop)
        try:
            with modes_kept(training_module), torch.no_grad():
                training_module.eval()(x)
        except _Reached as reached:
            return reached.inputs[0] if len(reached.inputs) == 1 else x
        finally:
            handle.remove()
        return x

    return read


def as_model_reads(loader: Any, training_module: Any) -> Any:
    """Return a loader of the same samples, as the model of an evaluator reads them.

    Parameters
    ----------
    loader
        Gives batches ``(inputs, labels)``.
    training_module
        As in :func:`reader_of`.
    """
    read = reader_of(training_module)
    if read is None:
        return loader

    def read_inputs(batch: Any) -> Any:
        ((inputs, labels),) = pairs([batch])
        return read(inputs), labels

    return through(loader, read_inputs)
