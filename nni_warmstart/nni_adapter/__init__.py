"""The one door to NNI's private attributes: choices, paths, mutation, freezing, model spaces, trials."""
