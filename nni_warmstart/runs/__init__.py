"""Runs described by YAML files: search, pretrain, retrain, and the folders that they leave."""
