"""Scripts of a report: uPlot, which draws the curves, and the few lines that tell it what; the page lets no other run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from markupsafe import Markup


def scripts() -> list[Markup]:
    """Return the content of the elements ``<script>``, in their order: uPlot 1.6.32 (its licence is beside it), and ours."""
    return [_text('uplot/uPlot.iife.min.js'), _text('charts.js')]


def style() -> Markup:
    """Return the style sheet of uPlot."""
    return _text('uplot/uPlot.min.css')


def policy(allowed: Sequence[str]) -> str:
    """Return the content security policy of a page: scripts by their hashes, images within the page, and nothing else."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in allowed)
    hashes = ' '.join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def _text(name: str) -> Markup:
    return Markup(resources.files('nni_warmstart.report').joinpath(name).read_text('utf-8').strip())
