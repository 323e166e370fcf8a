"""Files, random generators, metrics, plots: nothing of NNI."""
