"""Optimal transport between labelled datasets: sketches, distances, label couplings."""
