"""What MLflow's runs carry besides points: tags, notes, parameters, times and a file of rates.

Everything here is computed from the ledger. `view` sends it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

import pyarrow as pa

from sweep.gains.rows import Compared
from sweep.planning.values import Cohort
from sweep.views.mlflow.client import NAME
from sweep.views.mlflow.page import GROUP, NOTE_TAG
from sweep.views.mlflow.points import Point
from sweep.views.reading import STATES, Reading, RunFiles
from trainer.run_folder import DamagedRun
from trainer.tables import Table

STATUS = {
    "completed": "FINISHED",
    "collapsed": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "unfinished": "KILLED",
}
"""MLflow's status for each state of a run that is not under way. The tag `outcome` has the exact state."""
"""The states that a parent counts, each in a tag."""
VERSIONS = ("node", "device", "threads", "torch", "code", "commit")
"""What a run's tags say of its last attempt."""


def parent_key(reading: Reading, cohort: Cohort) -> str:
    """The key of a cohort's parent run."""
    key = f"cohort {cohort.phase} {cohort.candidate.name} {len(cohort.runs)}"
    # a study that grew may have another baseline, or more comparisons to correct for
    return f"{key} {reading.declared['hash']}" if cohort.phase == "confirm" else key


def parent_name(cohort: Cohort) -> str:
    """The name of a cohort's parent run."""
    seeds = len(cohort.runs)
    return f"{cohort.candidate.name} ({cohort.phase}, {seeds} seed{'s' if seeds > 1 else ''})"


def first_parent_tags(reading: Reading, cohort: Cohort) -> dict[str, str]:
    """The tags that a parent is made with. They never change."""
    kind = {"kind": cohort.phase, "phase": cohort.phase}
    return {**kind, **_names(reading, cohort), "seeds": str(len(cohort.runs))}


def parent_tags(
    reading: Reading,
    cohort: Cohort,
    runs: Sequence[RunFiles],
    figures: Sequence[Point],
    compared: Sequence[Compared],
) -> dict[str, str]:
    """The tags of a parent that may change. Those that say which epochs were sent are not among them."""
    states = [run.state for run in runs]
    tags = {
        "role": reading.study.arms[cohort.candidate.arm].role,
        GROUP: shown_as(reading, cohort),
        "figures": content_hash(repr(figures)),
        NOTE_TAG: note(reading, cohort, compared),
    }
    return tags | {state: str(states.count(state)) for state in STATES}


def seed_tags(run: RunFiles, name: str, parent_id: str) -> dict[str, str]:
    """The tags of a seed's run that follow from the study."""
    return {
        "kind": "run",
        "phase": run.cohort.phase,
        **_names(run.reading, run.cohort),
        NAME: name,
        GROUP: shown_as(run.reading, run.cohort),
        "run_id": run.run_id,
        "place": str(run.place),
        "mlflow.parentRunId": parent_id,
    }


def attempt_tags(run: RunFiles) -> dict[str, str]:
    """How many attempts a run had, and what the last one ran on."""
    last: dict[str, Any] = run.attempts[-1] if run.attempts else {}
    return {"attempts": str(run.tries), **{name: str(last.get(name, "unknown")) for name in VERSIONS}}


def settings(run: RunFiles) -> dict[str, Any]:
    """The parameters of a run: its task and its policy."""
    spec = run.spec
    task = {
        f"task.{key}": json.dumps(asdict(value)) if isinstance(value, Table) else value
        for key, value in vars(spec.task).items()
    }
    policy = {f"policy.{key}": value for key, value in spec.policy.settings.items()}
    return {**task, "policy": spec.policy.name, **policy}


def _names(reading: Reading, cohort: Cohort) -> dict[str, str]:
    """The names of a cohort's arm and candidate, and of its task where the study lists tasks."""
    arm, task = cohort.candidate.arm, reading.study.arms[cohort.candidate.arm].task
    return {"arm": arm, "candidate": cohort.candidate.name, **({"task": task} if task else {})}


def shown_as(reading: Reading, cohort: Cohort) -> str:
    """The name of the group in which MLflow's page shows a cohort."""
    candidate, arm_role = cohort.candidate, reading.study.arms[cohort.candidate.arm].role
    only_finalist = cohort.phase == "confirm" and reading.study.arms[candidate.arm].finalists == 1
    name = candidate.arm if only_finalist else candidate.name
    return name if arm_role == "family" or cohort.phase == "search" else f"{name} ({arm_role})"


def content_hash(content: str) -> str:
    """A short hash. Kept in a tag, it says which content was sent last."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def note(reading: Reading, cohort: Cohort, compared: Sequence[Compared]) -> str:
    """A cohort in words: its settings, and its gains so far."""
    candidate = cohort.candidate
    lines = [
        f"Arm `{candidate.arm}`, {cohort.phase}, averages over {len(cohort.runs)} seeds; "
        "the seeds are the runs below."
    ]
    if candidate.values:
        values = ", ".join(f"`{key}` = {value}" for key, value in candidate.values.items())
        lines.append(f"Searched, or as matched: {values}.")
    for row in compared:
        over_baseline = row.reference_arm == reading.study.arms[row.arm].baseline
        is_own = row.candidate == candidate.name
        if is_own and (over_baseline or row.role == "family") and row.gain is not None:
            lines.append(_gain_line(row, row.gain))
    return "\n\n".join(lines)


def _gain_line(row: Compared, gain: float) -> str:
    """The gain of a comparison in words."""
    tested = f", p = {row.p_holm:.3g} after Holm" if row.p_holm is not None else ""
    return (
        f"At r = {row.keep_ratio:g}: gain {100 * gain:+.2f} points over {row.reference_arm}, "
        f"{row.pairs} pairs{tested}; {row.state}."
    )


def rates_by_site(table: pa.Table) -> str:
    """The nonzero rates as CSV: a line for each evaluated epoch, a column for each activation site."""
    epochs, rates = table["epoch"].to_pylist(), table["nonzero_rate_by_site"].to_pylist()
    rows = [[epoch, *sites] for epoch, sites in zip(epochs, rates, strict=True) if sites]
    sites = max((len(row) - 1 for row in rows), default=0)
    header = ",".join(["epoch", *(f"site_{i + 1}" for i in range(sites))])
    return "\n".join([header, *(",".join(map(repr, row)) for row in rows)]) + "\n"


def started_ms(run: RunFiles) -> int | None:
    """When a run's first attempt started; None where there was none."""
    return _milliseconds(run.attempts[0]["started_at"]) if run.attempts else None


def ended_ms(run: RunFiles) -> int | None:
    """When a run's outcome was written; None where there is no outcome, or where its file is damaged."""
    with suppress(DamagedRun):  # the ledger has reported it already
        return _milliseconds(run.ended_at) if run.ended_at else None
    return None


def _milliseconds(moment: str) -> int:
    """An ISO 8601 time as milliseconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
