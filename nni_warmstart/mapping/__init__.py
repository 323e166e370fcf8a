"""From one supernet to another: weights, alphas, classifier and batch-norm statistics."""
