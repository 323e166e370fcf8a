"""SearchSettings: settings that a strategy adds to the training of NNI's one-shot module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of a search beyond those of NNI's one-shot module; see :class:`~nni_warmstart.WarmStartDARTS`.

    Attributes
    ----------
    average
        Number of epochs over which weights are averaged for validation, test and export; 0 for no averaging.
    refit_head
        Whether averaged weights are evaluated with a share of a classifier that is fitted to their features.
    one_path
        Whether every step trains a single path, as in Proxyless, so that the trained classifier lags behind its features.
    paced
        Whether the learning rate of the alphas depends on the number of steps.
    parameter_free_cap
        Largest number of operations without parameters in a cell of an exported architecture; None for no cap.
    residual_cells
        Whether exported cells of NAS-Bench-201 are in residual form; None decides by the number of training images.
    stop_on_eigenvalue
        Whether the search stops when the curvature of the alphas' loss grows.
    fast
        Whether cells and choices run by plans.
    fast_asked
        Whether the user has asked for it.
    """

    average: float = 0.0
    refit_head: bool = False
    one_path: bool = False
    paced: bool = False
    parameter_free_cap: int | None = None
    residual_cells: bool | None = False
    stop_on_eigenvalue: bool = False
    fast: bool = False
    fast_asked: bool = False
