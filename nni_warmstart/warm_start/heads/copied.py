"""Head 'copy': the source's classifier, for equal classes only."""

from __future__ import annotations

from torch import nn

from ...errors import TransferError
from ...supernets.supernet import Supernet
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
        if origin.how == 'fresh' or len(source_state[origin.source or name]) != len(target_state[name]):
            raise TransferError(
                f"head 'copy' needs equal classifiers: {name} has shape "
                f'{tuple(source_state[name].shape) if name in source_state else None} in {source.name!r} and '
                f"{tuple(target_state[name].shape)} in the target; use head='ridge'."
            )


def has_equal_rows(source: Supernet, rows: dict[str, int], same: bool) -> bool:
    """Check whether a source's classifier has as many rows as the target's."""
    state = source.state_dict()
    return all(name in state and len(state[name]) == count for name, count in rows.items())


HEAD = Head(is_inherited=True, suits=has_equal_rows, check_inherited=check_copied)
