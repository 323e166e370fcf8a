"""Supernets shipped with the package."""
