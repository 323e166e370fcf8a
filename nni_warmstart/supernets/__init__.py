"""Trained supernets and networks as data: files, validation, features."""
