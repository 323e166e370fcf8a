"""Head 'random': the target's own classifier, as it was initialised."""

from __future__ import annotations

from .base import Head

HEAD = Head()
