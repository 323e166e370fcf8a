"""Warm-started strategies of NNI, and the callbacks of a search."""
