"""Supernets that are kept, ranked and chosen."""
