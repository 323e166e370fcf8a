"""Layers of a network in the order of execution, with the gates and shortcuts beside them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from ..tracing.axes import IN, OUT, Axes
from ..tracing.structure import Structure, ancestors

_LONGEST = 4  # layers that a shortcut passes


@dataclass(frozen=True)
class Layer:
    """Layer of a network: a convolution or linear layer, and the batch norm after it.

    Attributes
    ----------
    path, norm
        Paths of the layer, and of the batch norm after it ('' for none).
    kind
        'full', 'depthwise' or 'N groups' for convolutions, 'linear' for linear layers.
    widths
        Numbers of output channels that it may have, in increasing order: one, unless the width is searched.
    kernels
        Sizes of its kernel (pixels), likewise.
    stride
        Stride of a convolution.
    made, read
        Channels that it makes and reads, as keys.
    gate
        Paths of the two layers of a squeeze-and-excite gate on its output; empty for none.
    side, passed
        Layer on the shortcut that is added to its output (None for none), and the number of layers that this passes.
    shortcut
        Activation that made what is added to its output; '' for none, or where it is not known.
    """

    path: str
    kind: str
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    stride: int
    made: bytes
    read: bytes
    norm: str = ''
    gate: tuple[str, ...] = ()
    side: Layer | None = None
    passed: int = 0
    shortcut: str = ''

    @property
    def width(self) -> int:
        """The largest number of output channels."""
        return self.widths[-1]


def layers_of(structure: Structure) -> list[Layer]:
    """Return the layers of a network in the order of execution; gates and shortcuts are told with the layers beside them."""
    found: list[Layer] = []
    for name, axes in structure.channels.tensors.items():
        path, _, local = name.rpartition('.')
        made = axes.channels[axes.roles.index(OUT)] if OUT in axes.roles else None
        if made is None:
            continue
        if len(axes.shape) > 1 and local == 'weight':
            found.append(_layer(path, axes, structure))
        elif local == 'running_mean' and found and found[-1].made == made.tobytes() and not found[-1].norm:
            found[-1] = replace(found[-1], norm=path)
    return _with_shortcuts(_with_gates(found), structure)


def is_residual(run: list[Layer]) -> bool:
    """Check whether the input of some layers is added to their output, as it is or after a layer beside them."""
    if len(run) > 1 and run[-1].side is not None and run[-1].passed == len(run):
        return True
    return len(run) > 1 and run[0].read == run[-1].made and any(layer.kind != 'depthwise' for layer in run)


def residual_runs(layers: list[Layer]) -> dict[int, int]:
    """Return the end of the shortest residual block that begins at each layer, by its number."""
    found: dict[int, int] = {}
    for i in range(len(layers)):
        ends = [j for j in range(i + 2, min(i + 6, len(layers)) + 1) if is_residual(layers[i:j])]
        if ends:
            found[i] = ends[0]
    return found


def _layer(path: str, axes: Axes, structure: Structure) -> Layer:
    made, spatial, ops = axes.channels[axes.roles.index(OUT)], len(axes.shape) > 2, structure.channels.ops.get(path, [])
    read = axes.channels[axes.roles.index(IN)] if IN in axes.roles else None
    assert made is not None
    kind = ('depthwise' if axes.groups == axes.shape[0] else f'{axes.groups} groups') if axes.groups > 1 else 'full'
    size = axes.shape[-1] if spatial else 1
    kernels = {size - 2 * bound for bound in (axes.bounds[-1] if spatial else ()) if 2 * bound < size}  # cut on both sides
    return Layer(
        path, kind if spatial else 'linear', (*sorted({*axes.bounds[0]} - {axes.shape[0]}), axes.shape[0]),
        (*sorted(kernels), size), ops[0].stride if ops else 1, made.tobytes(), (made if read is None else read).tobytes(),
    )  # fmt: skip


def _with_gates(layers: list[Layer]) -> list[Layer]:
    """Move the pairs of layers that only scale the channels of a layer before them to that layer."""
    found: list[Layer] = []
    i = 0
    while i < len(layers):
        pair = layers[i : i + 2]
        owner = next((k for k in reversed(range(len(found))) if found[k].made == pair[0].read), None)
        closed = len(pair) == 2 and pair[0].read == pair[1].made and pair[0].made == pair[1].read != pair[0].read
        plain = all(each.kernels == (1,) and not each.norm for each in pair)
        if closed and plain and owner is not None:
            found[owner] = replace(found[owner], gate=(pair[0].path, pair[1].path))
            i += 2
        else:
            found.append(layers[i])
            i += 1
    return found


def _with_shortcuts(layers: list[Layer], structure: Structure) -> list[Layer]:
    """Move layers on shortcuts, which run directly after or before the layers that they pass, to the last of these."""
    found = list(layers)
    for layer in layers:
        if layer.kind != 'full' or layer.read == layer.made or in_a_choice(structure, layer.path):
            continue
        at = next(i for i, each in enumerate(found) if each.path == layer.path)
        after = (found[i:at] for i in range(at - 2, max(at - _LONGEST, 0) - 1, -1))
        before = (found[at + 1 : i] for i in range(at + 3, min(at + 2 + _LONGEST, len(found) + 1)))
        passed = next((run for run in (*after, *before) if _passes(layer, run)), None)
        if passed is not None and not any(in_a_choice(structure, each.path) for each in passed):
            end = found.index(passed[-1])
            found[end] = replace(passed[-1], side=found[at], passed=len(passed))
            del found[at]
    return found


def _passes(layer: Layer, run: list[Layer]) -> bool:
    chained = all(a.made == b.read for a, b in itertools.pairwise(run))
    return chained and run[0].read == layer.read and run[-1].made == layer.made


def in_a_choice(structure: Structure, path: str) -> bool:
    """Check whether a module is part of a candidate."""
    return any(each in structure.sites for each in ancestors(path))
