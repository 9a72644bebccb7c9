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
from sweep.study import Candidate, ResolvedArm
from sweep.views.markdown import code, escaped
from sweep.views.mlflow.client import NAME
from sweep.views.mlflow.page import GROUP, NOTE_TAG
from sweep.views.mlflow.parents import Parent
from sweep.views.mlflow.points import Point, interval_of, rows_of
from sweep.views.reading import STATES, RunFiles
from trainer.images import Images
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


MEANING = 2
"""The version of what a confirmation's points mean; since 2 gains are in points. MLflow changes no point.

It is in the keys of their parents, so that parents of another version are deleted, and made anew."""


def parent_key(parent: Parent) -> str:
    """The key of a parent run. Another key makes another run, with points of its own."""
    if parent.stands_for == "search":
        # a search that is given more candidates ends later, and may find a better one
        return f"search {parent.arm.name} {parent.arm.budget}"
    of = (
        f"cohort {parent.phase} {parent.candidate.name} {len(parent.runs)}"
        if parent.candidate
        else (
            f"arm {parent.arm.method} finalist {parent.rank + 1} "
            f"{parent.searches} searches {parent.arm.contents.confirm.seeds}"
        )
    )
    # a study that grew may have another baseline, or more comparisons to correct for
    more = f" {parent.reading.declared['hash']} v{MEANING}" if parent.phase == "confirm" else ""
    return f"{of}{more}"


def parent_name(parent: Parent) -> str:
    """The name of a parent run."""
    if parent.stands_for == "search":
        return f"{parent.arm.method}, search {parent.arm.replicate}"
    if parent.candidate:
        return f"{parent.candidate.name} ({parent.phase}, {counted(len(parent.runs), 'seed')})"
    return f"{_finalist(parent)} (confirm, {counted(parent.searches, 'search')})"


def counted(number: int, noun: str) -> str:
    """A number of things in words."""
    plural = "es" if noun.endswith("h") else "s"
    return f"{number} {noun}{plural if number != 1 else ''}"


def first_parent_tags(parent: Parent) -> dict[str, str]:
    """The tags that a parent is made with. They never change."""
    tags = {"kind": parent.phase, "phase": parent.phase, **_arm_tags(parent.arm)}
    if parent.candidate:
        return {**tags, **_candidate_tags(parent, parent.candidate), "seeds": str(len(parent.runs))}
    if parent.stands_for == "search":
        return {**tags, "search": str(parent.arm.replicate), "seeds": "1"}
    return {**tags, "searches": str(parent.searches), "seeds": str(parent.arm.contents.confirm.seeds)}


def parent_tags(parent: Parent, figures: Sequence[Point], compared: Sequence[Compared]) -> dict[str, str]:
    """The tags of a parent that may change. Those that say which epochs were sent are not among them."""
    states = [run.state for run in parent.runs]
    tags = {
        "role": parent.arm.role,
        GROUP: shown_as(parent),
        "figures": content_hash(repr(figures)),
        NOTE_TAG: note(parent, compared),
    }
    if not parent.candidate:
        tags["candidates"] = ", ".join(cohort.candidate.name for cohort in parent.cohorts)
    for suffix, row in rows_of(parent, compared):
        if row.role == "family":
            tags[f"verdict{suffix}"] = row.verdict or "not yet"
    return tags | {state: str(states.count(state)) for state in STATES}


def seed_tags(run: RunFiles, name: str, parent: Parent, parent_id: str) -> dict[str, str]:
    """The tags of a seed's run that follow from the study."""
    return {
        "kind": "run",
        "phase": run.cohort.phase,
        **_arm_tags(parent.arm),
        **_candidate_tags(parent, run.cohort.candidate),
        NAME: name,
        GROUP: shown_as(parent),
        "run_id": run.run_id,
        "place": str(run.place),
        "mlflow.parentRunId": parent_id,
    }


def attempt_tags(run: RunFiles) -> dict[str, str]:
    """How many attempts a run had, and what the last one ran on."""
    last: dict[str, Any] = run.attempts[-1] if run.attempts else {}
    versions = {name: str(last.get(name, "unknown")) for name in VERSIONS}
    versions |= {"own_code": last["own_code"]} if "own_code" in last else {}
    return {"attempts": str(run.tries), **versions}


def parent_settings(parent: Parent) -> dict[str, Any]:
    """The parameters of a parent: settings that all its runs share, and how many runs it is over."""
    shared = settings(parent.runs[0])
    if parent.candidate:
        return {**shared, "seeds": len(parent.runs)}
    for setting in parent.cohorts[0].candidate.values:
        shared.pop(setting, None)
    if parent.stands_for == "search":
        return shared
    return {**shared, "seeds": parent.arm.contents.confirm.seeds, "searches": parent.searches}


def settings(run: RunFiles) -> dict[str, Any]:
    """The parameters of a run: its task and its policy."""
    spec = run.spec
    task = {
        f"task.{key}": json.dumps(asdict(value)) if isinstance(value, Table | Images) else value
        for key, value in vars(spec.task).items()
    }
    policy = {f"policy.{key}": value for key, value in spec.policy.settings.items()}
    return {**task, "policy": spec.policy.name, **policy}


def _arm_tags(arm: ResolvedArm) -> dict[str, str]:
    """The name of an arm, whatever the search, and of its task where the study lists tasks."""
    return {"arm": arm.method, **({"task": arm.task} if arm.task else {})}


def _candidate_tags(parent: Parent, candidate: Candidate) -> dict[str, str]:
    """The name of a candidate; where it matters, its search and the endpoints that it was picked for."""
    tags, search = {"candidate": candidate.name}, parent.reading.study.search
    if search.replicates > 1:
        tags["search"] = str(parent.reading.study.arms[candidate.arm].replicate)
    if parent.phase == "confirm" and (search.replicates > 1 or search.objective == "each"):
        tags["picked_for"] = _picked_for(parent, candidate)
    return tags


def _picked_for(parent: Parent, candidate: Candidate) -> str:
    """The endpoints that a finalist was picked for."""
    plan, ratios = parent.reading.plan, parent.reading.study.analysis.endpoints
    own = [ratio for ratio in ratios if any(candidate is it for it, _ in plan.picked(candidate.arm, ratio))]
    return ", ".join(f"r = {ratio:g}" for ratio in own)


def _finalist(parent: Parent) -> str:
    """The name of an arm over all searches, with the rank of its finalists where there are several."""
    rank = f", finalist {parent.rank + 1}" if parent.arm.finalists > 1 else ""
    return f"{parent.arm.method}{rank}"


def shown_as(parent: Parent) -> str:
    """The name of the group in which MLflow's page shows a parent and the runs below it."""
    if parent.stands_for == "search":
        return parent_name(parent)
    only_finalist = parent.phase == "confirm" and parent.arm.finalists == 1
    name = parent.candidate.name if parent.candidate and not only_finalist else _finalist(parent)
    return name if parent.arm.role == "family" or parent.phase == "search" else f"{name} ({parent.arm.role})"


def content_hash(content: str) -> str:
    """A short hash. Kept in a tag, it says which content was sent last."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def note(parent: Parent, compared: Sequence[Compared]) -> str:
    """A parent in words: what it stands for, its settings, and its gains so far."""
    lines = [_about(parent)]
    if parent.candidate and parent.candidate.values:
        values = ", ".join(
            f"{code(key)} = {escaped(str(value))}" for key, value in parent.candidate.values.items()
        )
        lines.append(f"{_origin(parent, parent.candidate)}: {values}.")
    for _, row in rows_of(parent, compared):
        if row.gain is not None:
            lines.append(_gain_line(row, row.gain))
    return "\n\n".join(lines)


def _about(parent: Parent) -> str:
    """What a parent stands for, and what its averages are over."""
    arm = f"Arm {code(parent.arm.method)}"
    seeds = counted(parent.arm.contents.confirm.seeds, "seed")
    match parent.stands_for:
        case "search":
            return (
                f"{arm}, search {parent.arm.replicate}. Its candidates are the runs below, one seed each; "
                "`validation_score` is what it compares them by."
            )
        case "candidate":
            runs = counted(len(parent.runs), "seed")
            return f"{arm}, {parent.phase}, averages over {runs}; the seeds are the runs below."
        case "arm":
            head = f"{arm}, confirm, {counted(parent.searches, 'search')}."
            if not parent.arm.is_drawn:
                return f"{head} It is not searched, and has {seeds} beside each of them; the runs are below."
            first = parent.reading.study.analysis.endpoints[0]
            return (
                f"{head} Every search picks settings of its own and confirms them with {seeds}; the runs "
                "are below. Each endpoint has the figures of the finalists picked for it. "
                f"The curves are averages over those for r = {first:g}."
            )


def _origin(parent: Parent, candidate: Candidate) -> str:
    """Where a candidate's settings come from."""
    if parent.phase == "search":
        return "Tried in the search, with what it takes from another arm"
    if not parent.arm.is_drawn:
        return "As matched"
    each = parent.reading.study.search.objective == "each"
    return "Picked by one search" + (f" for {_picked_for(parent, candidate)}" if each else "")


def _gain_line(row: Compared, gain: float) -> str:
    """The gain of a comparison in words."""
    unit = "search" if row.unit == "search" else "pair"
    pairs = f"better in {row.better} of {counted(row.pairs, unit)}"
    if row.equal:
        pairs += f" and equal in {row.equal}"
    over = f"over {escaped(row.reference_arm)}, {pairs}"
    line = f"At r = {row.keep_ratio:g}: gain {100 * gain:+.2f} points {over}"
    low, high = interval_of(row)
    if low is None or high is None:
        return f"{line}; {row.state}."
    whose = "interval of the family" if row.role == "family" else "interval"
    line = f"{line}; {whose} {100 * low:+.2f} to {100 * high:+.2f}"
    if row.p_holm is None:
        return f"{line}; {row.state}."
    return f"{line}, p = {row.p_holm:.3g} after Holm. Verdict: {row.verdict}."


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
