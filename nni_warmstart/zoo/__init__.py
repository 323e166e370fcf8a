"""Zoo of supernets: storage, ranking and choice."""
