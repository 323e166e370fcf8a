"""The target's own classifier, randomly initialised as it is."""

from __future__ import annotations

from .base import Head

HEAD = Head()
