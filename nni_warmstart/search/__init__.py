"""The warm-started strategies of NNI, and what happens in an epoch of a search."""
