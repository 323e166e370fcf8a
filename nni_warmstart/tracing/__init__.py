"""Which tensors of a network share their channels, found by running it once without data."""
