"""Residual form of exported cells: shortcuts into the output, operations with parameters on all other edges.

In a cell of NAS-Bench-201 the output is the sum of what comes from all nodes before it, as in a residual block (He et al.,
*Deep Residual Learning for Image Recognition*, CVPR 2016). The alphas of a supernet say little about where a shortcut helps
the network that is trained alone: they prefer operations without parameters anywhere, since these make the supernet learn
fast. So here the places of the shortcuts are given, and the alphas choose the operations on the other edges. With few images
networks do not gain by it: operations without parameters anywhere keep them from overfitting (benchmarks/NOTES.md).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..nni_adapter.architectures import Option, operations
from ..nni_adapter.mixed import NasBench201Cell

SHORTCUTS = 2
"""Number of nodes, from the input of the cell on, that have a shortcut into its output."""

MANY = 5000
"""Number of images that train the weights from which on cells are residual by default. Networks trained on 1,000 images lose
by it, those trained on 50,000 gain; this is in between."""


def residual(model: nn.Module, sample: dict[str, Any]) -> dict[str, Any]:
    """Return an architecture with its cells of NAS-Bench-201 in residual form; all other choices are as in ``sample``.

    The edges from the first :data:`SHORTCUTS` nodes to the output are identities, all others the most probable operations
    with parameters. An edge without such candidates is not changed. Parameters as in
    :func:`~nni_warmstart.search.collapse.capped`.
    """
    result, options = dict(sample), operations(model, sample)
    for cell in model.modules():
        if isinstance(cell, NasBench201Cell):
            for node, edges in enumerate(cell.layers, start=1):
                for source, choice in enumerate(edges):  # pyright: ignore[reportArgumentType]  (a ModuleList)
                    label = str(getattr(choice, 'label', ''))
                    shortcut = node == len(cell.layers) and source < SHORTCUTS
                    found = _most_probable(options.get(label, {}), identity=shortcut)
                    if found:
                        result[label] = found
    return result


def _most_probable(options: dict[str, Option], *, identity: bool) -> str:
    """Return the name of the most probable identity, or else operation with parameters; '' without one."""
    fitting = {
        name: option.probability
        for name, option in options.items()
        if (option.identity if identity else not option.parameter_free)
    }
    return max(fitting, key=lambda name: fitting[name], default='')
