"""Adapter to NNI's private attributes, used nowhere else: choices, paths, mutation, freezing, model spaces, trials."""

# NNI 3.0 (nas/strategy/oneshot.py) puts placeholders in the place of its one-shot strategies where nni.nas.oneshot, which
# imports nni.nas.strategy, is imported before it: a circle, taken for a missing torch
import nni.nas.strategy  # noqa: F401
