"""Names and figures for people: labels of arms, settings in short, intervals, verdicts in a word."""

from __future__ import annotations

from typing import Any, Protocol

from sweep.format import points
from sweep.gains.rows import Compared
from sweep.views.report.confirmed import Confirmed
from sweep.views.report.findings import Comparison, Findings


class Labelled(Protocol):
    """A row about one finalist of an arm."""

    @property
    def arm(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def candidate(self) -> str | None: ...
    @property
    def finalists(self) -> int: ...


def label(row: Labelled) -> str:
    """A finalist's name for people: its arm's name, or its own where the arm has several finalists."""
    return row.arm if row.finalists == 1 else row.candidate or f"{row.arm} (finalist {row.rank})"


def at(findings: Findings, ratio: float) -> str:
    """The keep ratio of a figure in words; nothing where keep ratios do not matter."""
    return f" at r = {ratio:g}" if findings.keep_ratio_matters else ""


def short_settings(settings: dict[str, Any]) -> str:
    """Settings in short: names without the part before the dot, and files by their name."""

    def short(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3g}"
        return str(value["file"]) if isinstance(value, dict) else str(value)

    return ", ".join(f"{setting.partition('.')[2]} {short(value)}" for setting, value in settings.items())


def interval(low: float | None, high: float | None) -> str:
    """An interval in points."""
    return "-" if low is None else f"[{points(low)}, {points(high)}]"


def shown_interval(row: Compared) -> str:
    """The interval that stands beside a gain: the family's for what is tested, else its own."""
    low, high = (row.family_low, row.family_high) if row.role == "family" else (row.ci_low, row.ci_high)
    return all_alike(row) if low is not None and low == high else interval(low, high)


def all_alike(row: Compared) -> str:
    """What to say instead of an interval without width: it would look like certainty."""
    one = "search" if row.unit == "search" else "seed"
    return f"no {one} differed" if row.equal == row.pairs else f"every {one} differed by the same"


def amount(share: float) -> str:
    """A share in points, in words: 1 point, 2.5 points."""
    return f"{100 * share:g} point" + ("" if share == 0.01 else "s")


def percent(value: float | None, digits: int = 2) -> str:
    """A share in percent."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def units(row: Compared) -> str:
    """The word for the pairs of a comparison."""
    return "searches" if row.unit == "search" else "seeds"


def within_margin(row: Compared) -> bool:
    """Whether the family's interval lies within the margin."""
    low, high, margin = row.family_low, row.family_high, row.margin
    if low is None or high is None or margin is None:
        return False
    return -margin < low and high < margin


def holm_alone(row: Comparison) -> bool:
    """Whether the corrected p-value finds a gain although the family's interval holds 0."""
    if row.verdict not in ("better", "worse") or row.family_low is None or row.family_high is None:
        return False
    return row.family_low <= 0 <= row.family_high


def verdict_word(row: Comparison) -> str:
    """The verdict on a tested comparison in a word or two."""
    if row.verdict is None:
        return "incomplete"
    if row.verdict in ("better", "worse") and within_margin(row):
        return f"{row.verdict}, within the margin"
    return row.verdict


def failure_rate(arm: Confirmed) -> str:
    """The share of an arm's runs that failed, with its exact limits; empty where no run failed."""
    if not arm.failed or arm.failure_rate is None:
        return ""
    limits = f"[{percent(arm.failure_low, 1)}, {percent(arm.failure_high, 1)}]"
    return f"{arm.failed} of {arm.finished}: {percent(arm.failure_rate, 1)} % {limits}"
