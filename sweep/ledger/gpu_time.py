"""The GPU time that the runs of a study have taken, over all sessions of `sweep run`, and its budget.

It is kept in gpu-hours.json in the study's folder. A run takes its share of a GPU (`resources.gpus`) for as
long as an attempt at it is under way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sweep.ledger.ledger import Ledger
from sweep.ledger.shapes import content
from sweep.study import Study
from trainer.store import seal

FILE = "gpu-hours.json"


@dataclass(frozen=True)
class GpuHours:
    """The GPU-hours of a study."""

    used: float
    budget: float | None
    """The most that may be used (`resources.gpu_hours` of the last session); None without a budget."""

    @property
    def spent(self) -> bool:
        """Whether nothing of the budget is left."""
        return self.budget is not None and self.used >= self.budget

    @property
    def values(self) -> dict[str, Any]:
        """The GPU-hours as JSON values."""
        return {**asdict(self), "spent": self.spent}

    def __str__(self) -> str:
        if self.budget is None:
            return f"{self.used:,.3g} GPU-hours used"
        if self.spent:
            return f"The budget of {self.budget:g} GPU-hours is spent ({self.used:,.3g} used)"
        return f"{self.used:,.3g} of {self.budget:g} GPU-hours used"


def gpu_hours(ledger: Ledger) -> GpuHours | None:
    """The GPU-hours that a ledger has recorded; None where there are none, or where they are damaged."""
    try:
        body = content(ledger.store, FILE)
    except FileNotFoundError:
        return None
    except ValueError as error:
        where = ledger.store.where(FILE)
        ledger.say(f"damaged: {where} ({error}). The GPU time of the finished runs is counted instead.")
        return None
    return GpuHours(body["used"], body["budget"])


def used_before(ledger: Ledger, study: Study) -> float:
    """The GPU-hours that were used so far: those recorded, or those of the finished runs without a record.

    The results have to be loaded.
    """
    if recorded := gpu_hours(ledger):
        return recorded.used
    taken = ledger.taken()
    trained = (result.seconds for run_id, result in ledger.results.items() if run_id not in taken)
    return study.resources.gpus * sum(trained) / 3600


class GpuClock:
    """A driver's count of the GPU time that its attempts take."""

    def __init__(self, ledger: Ledger, study: Study, now: float) -> None:
        self.ledger, self.share = ledger, study.resources.gpus
        self.budget = study.resources.gpu_hours
        self._used = used_before(ledger, study) if self.share else 0.0
        self._counted_at = now

    @property
    def hours(self) -> GpuHours | None:
        """The GPU-hours so far; None where runs take no GPU."""
        return GpuHours(self._used, self.budget) if self.share else None

    @property
    def spent(self) -> bool:
        """Whether nothing of the budget is left."""
        return self.hours is not None and self.hours.spent

    def count(self, attempts: int, now: float) -> None:
        """Add the time since the last call, in which so many attempts were under way."""
        self._used += self.share * attempts * (now - self._counted_at) / 3600
        self._counted_at = now

    def write(self) -> None:
        """Record the GPU-hours so far."""
        if self.hours:
            self.ledger.store.write(FILE, seal(asdict(self.hours)))
