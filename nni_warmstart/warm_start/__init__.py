"""Warm start of a target from a source: weights, alphas, classifier."""
