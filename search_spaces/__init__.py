"""Model spaces for images of 16 to 64 pixels, with any width, depth, input channels and stem stride."""

from .darts import DartsSpace
from .nasbench201 import NasBench201Space

SPACES = {'nasbench201': NasBench201Space, 'darts': DartsSpace}
"""Spaces by the name used in ``search.yml`` and in a supernet's card."""

__all__ = ['SPACES', 'DartsSpace', 'NasBench201Space']
