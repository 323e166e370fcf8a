"""Tracing: find out which tensors of a network share their channels, by running it once without data."""
