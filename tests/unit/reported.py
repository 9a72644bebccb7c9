"""The findings of played studies, as far as sentences and tables need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweep.gains.across import across
from sweep.gains.rows import Compared
from sweep.study import Study
from sweep.views.report.findings import Findings, shown


def findings_of(it: Study, rows: Sequence[Compared], **more: Any) -> Findings:
    """Return what words and tables are made of; `more` replaces parts of it."""
    parts: dict[str, Any] = {
        "study": it,
        "hash": "0",
        "store": "",
        "complete": True,
        "decided": False,
        "runs": {},
        "gpu_hours": None,
        "taken": {},
        "looks": [],
        "grew_after_look": "",
        "extensions": [],
        "arms": [],
        "comparisons": shown(it, rows),
        "across": across(it, rows),
        "earlier": [],
        "search": [],
        "tuning": [],
        "replication": [],
        "failures": {},
        "versions": [],
        "mixed": [],
    }
    return Findings(**{**parts, **more})
