"""Channels as plain data: which indices of which axes of a network's tensors coincide."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

OUT, IN, NEITHER = 'out', 'in', ''
"""Roles of a parameter's axis: its indices are output channels, input channels, or neither (kernel, heads, positions)."""


@dataclass(frozen=True)
class Axes:
    """Channels of one tensor.

    Attributes
    ----------
    shape
        Shape of the tensor.
    roles
        'out', 'in' or '' for each axis.
    channels
        Number of the channel at each index, for each axis with a role: equal numbers are one channel, within a tensor and
        between tensors. The input axis of a grouped convolution has a row per group.
    bounds
        Indices at which a mutable width or kernel may end, for each axis.
    dilation
        Spacing of the taps of a convolution's kernel, in pixels.
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
    """Weighted, pooling or zeroing operator that ran: its kind, kernel, stride and dilation (of the first dimension)."""

    kind: str
    kernel: int = 1
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class Channels:
    """Channels, operators and scales of a network, as one run of it shows them.

    Attributes
    ----------
    tensors
        Parameters and buffers that took part, in the order of execution.
    inputs, outputs
        Channels of the images and of the logits.
    ops
        Path of a module -> operators that ran in it and not in one of its children.
    scales
        Path of a module -> image size of its output divided by that of its input; 1 for modules without images.
    keeps
        Paths of modules that map one tensor to one of the same shape; known of a network that was run, not of a file.
    opaque
        Path of a module that ran an operator whose channels are not known -> the reason; its outputs count as new channels,
        and those of its parameters that are in ``tensors`` are not to be mapped.
    """

    tensors: dict[str, Axes]
    inputs: np.ndarray
    outputs: np.ndarray
    ops: dict[str, list[Op]]
    scales: dict[str, float]
    opaque: dict[str, str] = field(default_factory=dict)
    keeps: frozenset[str] = frozenset()
