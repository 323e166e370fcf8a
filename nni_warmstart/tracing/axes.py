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
    pieces
        Piece of each index where operators cut the channels of an axis apart, numbered in the order of execution; None for
        an axis in one piece. Channels of different pieces cannot stand for one another.
    norms
        Group of each index where means are taken over channels, numbered in the same way; None where none are.
    strands
        Strand of each index where some layer makes several units of a channel; None for an axis without such channels.
    """

    shape: tuple[int, ...]
    roles: tuple[str, ...]
    channels: tuple[np.ndarray | None, ...]
    bounds: tuple[tuple[int, ...], ...]
    dilation: tuple[int, ...] = ()
    groups: int = 1
    pieces: tuple[np.ndarray | None, ...] = ()
    norms: tuple[np.ndarray | None, ...] = ()
    strands: tuple[np.ndarray | None, ...] = ()

    def held(self, axis: int) -> np.ndarray | None:
        """Return the strand of each index of an axis, which is the channel where that has one; None without a role."""
        strand = self.strands[axis] if self.strands else None
        return self.channels[axis] if strand is None else strand


def count_pieces(axes: Axes, axis: int) -> int:
    """Return the number of pieces into which operators cut the channels of an axis."""
    return _count(axes.pieces, axis)


def count_norms(axes: Axes, axis: int) -> int:
    """Return the number of groups in which means are taken over the channels of an axis."""
    return _count(axes.norms, axis)


def _count(labels: tuple[np.ndarray | None, ...], axis: int) -> int:
    label = labels[axis] if axis < len(labels) else None
    return 1 if label is None else int(label.max()) + 1


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
        and those of its parameters that are in ``tensors`` are not to be mapped. So are parameters of other modules that the
        operator read, which are named here too.
    ties
        Strand, strand tied to it, and kind of the tie (see :mod:`nni_warmstart.tracing.relations`), shape ``(3, n)``.
    """

    tensors: dict[str, Axes]
    inputs: np.ndarray
    outputs: np.ndarray
    ops: dict[str, list[Op]]
    scales: dict[str, float]
    opaque: dict[str, str] = field(default_factory=dict)
    keeps: frozenset[str] = frozenset()
    ties: np.ndarray = field(default_factory=lambda: np.zeros((3, 0), int))

    def of_outputs(self, role: str) -> list[str]:
        """Return the tensors whose first axis of a role, :data:`OUT` or :data:`IN`, is that of the outputs."""
        first = {name: axes.channels[axes.roles.index(role)] for name, axes in self.tensors.items() if role in axes.roles}
        return [name for name, channels in first.items() if channels is not None and np.array_equal(channels, self.outputs)]
