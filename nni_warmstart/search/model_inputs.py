"""What the model of an evaluator reads: the evaluator may normalise or reshape what the loader gives, before its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden

from ..errors import TransferError
from ..nni_adapter.oneshot import has_nnis
from ..utils.inputs import size_of
from ..utils.modules import modes_kept
from .loaders import pairs, through


class _Reached(Exception):
    """Ends a forward pass where it reaches the model."""

    def __init__(self, inputs: list[Any]) -> None:
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
        Module of the evaluator, whose model is set. Its ``forward`` is run in evaluation mode, up to the model. What is
        returned raises a :class:`TransferError` unless that calls the model as a whole, on one input.
    """
    if not _has_own_forward(training_module):
        return None

    def stop(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _Reached([each for each in (*arguments, *named.values()) if size_of(each)])  # the others are options

    def read(x: Any) -> Any:
        handle = training_module.model.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with modes_kept(training_module), torch.no_grad():
                training_module.eval()(x)
            does = 'does not call the model as a whole'
        except _Reached as reached:
            if len(reached.inputs) == 1:
                return reached.inputs[0]
            does = f'calls the model on {len(reached.inputs)} inputs'
        finally:
            handle.remove()
        raise TransferError(
            f'{type(training_module).__name__}.forward {does}, so that it is not known what the model reads; have it call '
            'self.model on one tensor, or prepare images in the dataset.'
        )

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
