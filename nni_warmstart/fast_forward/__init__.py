"""The mixed forward of NNI in less time, with the same mathematics: plans for cells and for choices."""
