"""Optimal transport between labelled datasets: sketches, distances, couplings of classes."""
