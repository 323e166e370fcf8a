"""What the model of an evaluator reads: the evaluator may normalise or reshape what the loader gives, before its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..nni_adapter.oneshot import has_nnis
from ..utils.modules import modes_kept
from .loaders import changed


class _Reached(Exception):
    """Ends a forward pass where it reaches the model."""

    def __init__(self, inputs: tuple[Any, ...]) -> None:
        self.inputs = inputs


def reader_of(training_module: Any) -> Callable[[Any], Any] | None:
    """Return what makes the input of the model of an evaluator from that of the evaluator; None where both are the same.

    Parameters
    ----------
    training_module
        Module of the evaluator, whose model is set. Its ``forward`` is run in evaluation mode, up to the model.
    """
    if has_nnis(training_module, 'forward') or not has_nnis(training_module, 'validation_step'):
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
        Gives batches ``(inputs, labels)``; what is no loader of torch stays as it is.
    training_module
        As in :func:`reader_of`.
    """
    read = reader_of(training_module)
    if read is None or not isinstance(loader, DataLoader):
        return loader
    collate = loader.collate_fn

    def collate_and_read(samples: Any) -> Any:
        inputs, labels = collate(samples)
        return read(inputs), labels

    # workers would have to have a copy of the model
    return changed(loader, collate_fn=collate_and_read, num_workers=0, persistent_workers=False, prefetch_factor=None)
