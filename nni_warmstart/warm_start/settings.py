"""TransferSettings: the settings of a warm start, checked once when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import TransferError
from ..utils.checks import Expected, Range, check
from .heads.registry import HEADS

KEEP = 0.8
"""Share of the weights of a supernet that a target inherits."""


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """Settings of a warm start: arguments of :func:`~nni_warmstart.transfer`, by the same names.

    Raises
    ------
    TransferError
        If one is out of its range; the message gives its name, its value and the range.
    """

    head: str = 'ridge'
    alpha: str | float = 'transfer'
    keep: float | None = None
    noise: float = 1e-3
    untraceable: str = 'error'
    seed: int = 0
    max_samples: int = 4096
    device: torch.device | str = 'cpu'
    heads: Mapping[str, tuple[int, int]] | None = None
    class_names: Sequence[str] | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise TransferError(f'head = {self.head!r} is unknown; choose one of {", ".join(HEADS)}.')
        if self.untraceable not in ('error', 'fresh'):
            raise TransferError(f"untraceable = {self.untraceable!r} is unknown; choose 'error' or 'fresh'.")
        if not isinstance(self.alpha, str):
            _check_number('alpha', self.alpha, 1.0)
        elif self.alpha not in ('transfer', 'reset'):
            raise TransferError(f"alpha = {self.alpha!r} is unknown; give 'transfer', 'reset' or a number from 0 to 1.")
        if self.class_names is not None and not _is_texts(self.class_names):
            raise TransferError(f'class_names = {self.class_names!r}, but it must be a list of text, one for each class.')
        if self.keep is not None:
            _check_number('keep', self.keep, 1.0)
        _check_number('noise', self.noise, math.inf)
        check(self.seed, 'seed', Expected(int, Range(0)), TransferError)
        check(self.max_samples, 'max_samples', Expected(int, Range(1)), TransferError)
        try:
            torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise TransferError(f"device = {self.device!r} is unknown; give 'cpu', 'cuda', 'cuda:1' ...") from error

    @property
    def kept(self) -> float:
        """Share of the inherited weights, in [0, 1]."""
        return KEEP if self.keep is None else self.keep

    @property
    def strength(self) -> float:
        """Share of the inherited alphas, in [0, 1]."""
        return {'transfer': 1.0, 'reset': 0.0}[self.alpha] if isinstance(self.alpha, str) else float(self.alpha)


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _check_number(name: str, value: object, highest: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= highest or math.isinf(value):
        wanted = 'from 0 to 1' if highest == 1 else '0 or more'
        raise TransferError(f'{name} = {value}, but it must be {wanted}.')
