"""All heads by name; a new one is a file beside this one and a line here."""

from __future__ import annotations

from . import copied, fresh, optimal_transport, prototype, ridge
from .base import Head

HEADS: dict[str, Head] = {
    'ridge': ridge.HEAD,
    'ot': optimal_transport.HEAD,
    'prototype': prototype.HEAD,
    'random': fresh.HEAD,
    'copy': copied.HEAD,
}
"""Heads by name."""
