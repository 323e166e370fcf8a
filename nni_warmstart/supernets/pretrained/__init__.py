"""Pretrained networks by name: one module for each scheme, such as ``torchvision:``."""
