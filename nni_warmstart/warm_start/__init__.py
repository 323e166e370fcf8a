"""What a target inherits from a source: weights, alphas, classifier."""
