"""Ways to initialise the classifier of a warm supernet."""
