"""The command line ``nni-warmstart``."""

from .common import quiet
from .main import main

__all__ = ['main', 'quiet']
