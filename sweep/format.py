"""Numbers as text for people: durations, points and probabilities."""

from __future__ import annotations

import math


def duration(seconds: float | None) -> str:
    """A time for people: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
