"""Values as text: durations, points and probabilities for people, strict JSON for machines."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any


def duration(seconds: float | None) -> str:
    """A time as text for people: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def points(value: float | None, digits: int = 2) -> str:
    """A share as text, in points and with its sign."""
    if value is None:
        return "-"
    if math.isfinite(value):
        return f"{100 * value:+.{digits}f}"
    return "+∞" if value > 0 else "-∞"


def probability(value: float | None) -> str:
    """A p-value as text, with three digits."""
    return "-" if value is None else f"{value:.3g}"


def plain_json(value: Any) -> Any:
    """A value for strict JSON, which has no infinity and no NaN: they become "inf", "-inf" and null."""
    if isinstance(value, dict):
        return {key: plain_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def now() -> str:
    """The present time as text, for records."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def rounded_hours(hours: float) -> str:
    """Hours without digits that mean nothing."""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
