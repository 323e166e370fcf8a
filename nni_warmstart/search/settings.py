"""SearchSettings: what a strategy adds to the training of NNI's one-shot module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of a search beyond those of NNI's one-shot module; see :class:`~nni_warmstart.WarmStartDARTS`.

    Attributes
    ----------
    average
        Epochs over which the weights that are validated, tested and kept are averaged; 0 for the last ones.
    refit_head
        Whether the averaged weights are judged with a share of a classifier that is fitted to their features.
    one_path
        Whether every step trains a single path, as in Proxyless, so that the trained classifier stays behind its features.
    paced
        Whether the rate of the alphas is set by the number of steps.
    parameter_free_cap
        Operations without parameters that an exported architecture may have in a cell; None for no cap.
    stop_on_eigenvalue
        Whether the search stops when the curvature of the alphas' loss grows.
    """

    average: float = 0.0
    refit_head: bool = False
    one_path: bool = False
    paced: bool = False
    parameter_free_cap: int | None = None
    stop_on_eigenvalue: bool = False
