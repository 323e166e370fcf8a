"""Head 'copy': the source's classifier, for classes of the same names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...errors import TransferError
from ...supernets.supernet import Supernet
from ..classes import classifier_rows, has_classes_of
from ..report import TensorOrigin
from .base import Head, head_tensors


def check_copied(source: Supernet, target: nn.Module, head_name: str | None, origins: dict[str, TensorOrigin]) -> None:
    """Raise an error for a source without a classifier, or with other rows than the target's.

    Raises
    ------
    TransferError
        If the classifiers differ; the message names both shapes.
    """
    source_state, target_state = source.state_dict(), target.state_dict()
    for name in head_tensors(head_name):
        if name not in target_state:
            continue
        origin = origins[name]
        if origin.how == 'fresh' and origin.by and name in source_state:
            raise TransferError(f"head 'copy' cannot take over {name} of {source.name!r}: {origin.by}; use head='ridge'.")
        if origin.how == 'fresh' or len(source_state[origin.source or name]) != len(target_state[name]):
            raise TransferError(
                f"head 'copy' needs equal classifiers: {name} has shape "
                f'{tuple(source_state[name].shape) if name in source_state else None} in {source.name!r} and '
                f"{tuple(target_state[name].shape)} in the target; use head='ridge'."
            )


def has_classes(source: Supernet, rows: dict[str, int], same: bool, names: Sequence[str]) -> bool:
    """Check whether a source's classifier has the target's tensors, and classes of these names or as many."""
    state = source.state_dict()
    if not all(name in state for name in rows):
        return False
    counts = {*classifier_rows(source, ()).values()} or {len(state[name]) for name in rows}
    return not rows or has_classes_of(source, max(counts), names, max(rows.values()))


HEAD = Head(is_inherited=True, suits=has_classes, check_inherited=check_copied)
