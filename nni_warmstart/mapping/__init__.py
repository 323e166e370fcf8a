"""Mapping of one network's tensors onto another network by couplings of channels, candidates and blocks."""
