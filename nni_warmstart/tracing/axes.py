"""Channels as plain data: which indices of which axes of a network's tensors coincide."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

OUT, IN, NEITHER = 'out', 'in', ''
"""What an axis of a parameter is: it makes channels, it reads them, or it is none (kernel, heads, positions)."""


@dataclass(frozen=True)
class Axes:
    """Channels of one tensor.

    Attributes
    ----------
    shape
        Its shape.
    roles
        Per axis 'out', 'in' or ''.
    channels
        Per axis with a role the channel of each index: equal numbers coincide, within a tensor and between tensors. What a
        grouped convolution reads has a row per group.
    bounds
        Per axis the indices at which a mutable width or kernel may end.
    dilation
        Distance of the taps of a convolution's kernel, in pixels.
    groups
        Groups of a convolution, 1 for everything else; a depthwise one has as many as channels.
    """

    shape: tuple[int, ...]
    roles: tuple[str, ...]
    channels: tuple[np.ndarray | None, ...]
    bounds: tuple[tuple[int, ...], ...]
    dilation: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class Op:
    """One weighted, pooling or zeroing operator that ran: its kind, kernel, stride and dilation (of the first dimension)."""

    kind: str
    kernel: int = 1
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class Channels:
    """What one run of a network shows.

    Attributes
    ----------
    tensors
        Parameters and buffers that took part, in the order of execution.
    inputs, outputs
        Channels of the images and of the logits.
    ops
        Path of a module -> what ran in it and not in one of its children.
    scales
        Path of a module -> side of its output divided by the side of its input; 1 where it has no sides.
    keeps
        Paths of modules that make one tensor of one of the same shape; of a network that was run, not of a file.
    opaque
        Path of a module that ran an operator whose channels are not known -> why; what it makes counts as new channels, and
        those of its parameters that are in ``tensors`` are not to be mapped.
    """

    tensors: dict[str, Axes]
    inputs: np.ndarray
    outputs: np.ndarray
    ops: dict[str, list[Op]]
    scales: dict[str, float]
    opaque: dict[str, str] = field(default_factory=dict)
    keeps: frozenset[str] = frozenset()
