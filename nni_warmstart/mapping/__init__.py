"""Tensors of one network from those of another: couplings of channels, candidates and blocks."""
