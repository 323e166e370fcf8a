"""Runs as YAML files describe them: search, pretrain, retrain, and the folders that they leave."""
