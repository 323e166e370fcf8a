"""Files, random generators, metrics and plots, without NNI."""
