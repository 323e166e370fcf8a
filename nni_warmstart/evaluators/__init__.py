"""What trains a network or a supernet: Lightning modules, data modules, trainers, checkpoints."""
