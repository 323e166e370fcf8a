"""Runs described by YAML files: search, pretrain, retrain, search and retrain as one, and the folders that they leave."""
