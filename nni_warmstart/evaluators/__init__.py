"""Training of networks and supernets: Lightning modules, data modules, trainers, checkpoints."""
