"""A study as MLflow shows it: a parent per cohort with seed averages and gains, its seeds below, the report beside. Follows the ledger.

It can be thrown away and built again: what is in MLflow depends on the ledger alone, not on when or how often this ran.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sweep.gains.comparisons import keep_ratios
from sweep.gains.rows import Compared
from sweep.ledger.ledger import Ledger
from sweep.planning.work import Cohort
from sweep.views.mlflow.client import EPOCH_ZERO_MS, NAME, Experiment, TrackedRun
from sweep.views.mlflow.page import GROUP, NOTE_TAG, SEARCH, curves_page, gains_page, link, view_tags
from sweep.views.mlflow.points import (
    Point,
    baseline_runs,
    cohort_points,
    curves,
    final_points,
    gain_points,
    run_points,
    shared_epochs,
)
from sweep.views.reading import Reading, RunFiles
from trainer.run_folder import DamagedRun
from trainer.tables import Table

STATUS = {
    "completed": "FINISHED",
    "collapsed": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "unfinished": "KILLED",
}
"""MLflow has no word for a result that is not a number; the tag `outcome` has the exact one."""
VERSIONS = ("node", "device", "threads", "torch", "code", "commit")
SITES = "nonzero_rate_by_site.csv"


class View:
    """Brings an experiment up to date with a ledger, as often as it is asked to."""

    def __init__(self, ledger: Ledger, experiment: Experiment, say: Callable[[str], None]) -> None:
        self.ledger, self.experiment, self.say = ledger, experiment, say
        self._told: set[str] = set()

    def update(
        self, *, live: bool, report: Callable[[Reading, Sequence[Compared]], tuple[str, str]] | None = None
    ) -> int:
        """Write what is missing; how many writes that took. `live` says that a driver is at work, `report` makes the page and the note."""
        with self.experiment.errors():
            before = self.experiment.writes
            reading = Reading(self.ledger)
            if not self.experiment.id or not live:
                self.experiment.open()
            begun = [
                cohort
                for cohort in reading.cohorts
                if any(reading.runs[run_id].begun for run_id in cohort.runs)
            ]
            compared: Sequence[Compared] = []
            with self._readable():
                compared = reading.compare() if report or _something_is_whole(reading) else []
                if report:
                    self._report(reading, report(reading, compared))
            keys = {"report"}
            for cohort in begun:
                keys |= self._cohort(reading, cohort, compared, live)
            for key in sorted(self.experiment.runs.keys() - keys):
                self.experiment.delete(
                    key
                )  # what a cohort was before it grew, or what is no longer in the ledger
            return self.experiment.writes - before

    @contextmanager
    def _readable(self) -> Generator[None]:
        """Damaged files are told of once; what needs them is left out."""
        try:
            yield
        except DamagedRun as error:
            if str(error) not in self._told:
                self.say(f"{error} What needs it is left out of MLflow.")
            self._told.add(str(error))

    def _cohort(
        self, reading: Reading, cohort: Cohort, compared: Sequence[Compared], live: bool
    ) -> set[str]:
        """A parent and its children; their keys."""
        name, n = cohort.candidate.name, len(cohort.runs)
        runs = [reading.runs[run_id] for run_id in cohort.runs]
        own = [run for run in runs if run.begun and run.cohort is cohort]
        key = f"cohort {cohort.phase} {name} {n}"
        if cohort.phase == "confirm":
            key += f" {reading.declared['hash']}"  # a study that grew may have another baseline, or more comparisons to correct for
        started = (
            min((it for run in own for it in [_started(run)] if it), default=None)
            if key not in self.experiment.runs
            else None
        )
        tags = {"kind": cohort.phase, "phase": cohort.phase, **_whose(reading, cohort), "seeds": str(n)}
        parent = self.experiment.ensure(
            key, f"{name} ({cohort.phase}, {n} seed{'s' if n > 1 else ''})", started, tags
        )
        keys = {key, *(self._child(run, parent, live) for run in own)}
        states, figures = [run.state for run in runs], list(final_points(reading, cohort, compared))
        tags = {
            "role": _role(reading, cohort),
            GROUP: _shown_as(reading, cohort),
            "figures": _mark(repr(figures)),
            NOTE_TAG: _note(reading, cohort, compared),
        }
        tags |= {
            state: str(states.count(state))
            for state in ("completed", "diverged", "collapsed", "failed", "unfinished")
        }
        points = figures if parent.tags.get("figures") != tags["figures"] else []
        with self._readable():
            curve_points, curve_tags = self._curves(reading, cohort, runs, parent)
            points, tags = points + curve_points, tags | curve_tags
        if shared := sorted({run.cohort.candidate.name for run in runs if run.cohort is not cohort}):
            tags["shared_with"] = ", ".join(shared)  # equal candidates share runs, and a run has one parent
        self._send(parent, points, {} if parent.params else {**_settings(runs[0]), "seeds": n}, tags)
        if all(run.result for run in runs):
            self.experiment.status(
                parent,
                "FINISHED",
                max((_ended(run) or 0 for run in runs), default=0) if parent.status != "FINISHED" else None,
            )
        else:
            self.experiment.status(
                parent, "RUNNING" if live else "FAILED" if "failed" in states else "KILLED", None
            )
        return keys

    def _child(self, run: RunFiles, parent: TrackedRun, live: bool) -> str:
        key, cohort = f"run {run.run_id}", run.cohort
        name = f"{cohort.candidate.name} seed {run.seed}"
        # all of them again: a candidate that comes later may be equal to this one and stand before it
        tags = {"kind": "run", "phase": cohort.phase, **_whose(run.reading, cohort), NAME: name}
        tags |= {
            GROUP: _shown_as(run.reading, cohort),
            "run_id": run.run_id,
            "place": str(run.place),
            "mlflow.parentRunId": parent.id,
        }
        tracked = self.experiment.runs.get(key) or self.experiment.ensure(key, name, _started(run), tags)
        sent, points = int(tracked.tags.get("epochs_sent", 0)), list[Point]()
        tags["outcome"] = run.state
        if run.state == "failed" or "reason" in tracked.tags:
            tags["reason"] = (
                run.reading.plan.queue.failed[run.run_id].reason if run.state == "failed" else ""
            )
        with self._readable():
            ended = run.result and "sites" not in tracked.tags
            table = run.epochs() if ended or run.committed > sent else None
            if table is not None and table.num_rows > sent:
                points, tags["epochs_sent"] = list(run_points(table, sent)), str(table.num_rows)
            if table is not None and ended:
                self.experiment.text(tracked, SITES, _sites(table))
                tags["sites"] = SITES
            if tracked.tags.get("attempts") != str(run.tries):
                tags |= {
                    "attempts": str(run.tries),
                    **{name: str((run.attempts or [{}])[-1].get(name, "unknown")) for name in VERSIONS},
                }
        self._send(tracked, points, {} if tracked.params else {**_settings(run), "seed": run.seed}, tags)
        status = "RUNNING" if live and run.state == "unfinished" else STATUS[run.state]
        self.experiment.status(tracked, status, _ended(run) if status != tracked.status else None)
        return key

    def _send(
        self, run: TrackedRun, points: Iterable[Point], params: dict[str, Any], tags: dict[str, str]
    ) -> None:
        """All but infinities, which MLflow would keep as the largest number there is: a tag says from which step on they were left out."""
        kept, lost = (
            list[Point](),
            dict(part.split(" ", 1) for part in run.tags.get("not_sent", "").split("; ") if part),
        )
        for point in points:
            if math.isinf(point.value):
                lost.setdefault(point.key, f"is {point.value} at step {point.step}")
            else:
                kept.append(point)
        self.experiment.send(
            run,
            kept,
            params,
            tags | ({"not_sent": "; ".join(f"{key} {lost[key]}" for key in sorted(lost))} if lost else {}),
        )

    def _curves(
        self, reading: Reading, cohort: Cohort, runs: Sequence[RunFiles], parent: TrackedRun
    ) -> tuple[list[Point], dict[str, str]]:
        """The seed averages of the epochs that all seeds have and that are not there yet; the paired gains likewise."""
        shared, sent = shared_epochs(runs), int(parent.tags.get("epochs_sent", 0))
        base, gained = (
            [reading.runs[it] for it in baseline_runs(reading, cohort)],
            int(parent.tags.get("gain_epochs_sent", 0)),
        )
        both = min(shared, shared_epochs(base)) if base else 0
        if shared <= sent and both <= gained:
            return [], {}
        own = curves(runs, shared)
        points, tags = list(cohort_points(own, sent)), {"epochs_sent": str(max(sent, own.epochs))}
        if both > gained:
            with self._readable():
                over = curves(base, min(both, own.epochs))
                points += gain_points(own, over, gained, reading.study.arms[cohort.candidate.arm].overlap)
                tags["gain_epochs_sent"] = str(max(gained, over.epochs))
        return points, tags

    def _report(self, reading: Reading, made: tuple[str, str]) -> None:
        page, note = made
        run = self.experiment.ensure("report", "report", None, {"kind": "report"})
        if run.tags.get("page") != _mark(page):
            self.experiment.text(run, "report.html", page)
            about = "The whole study on one page: open report.html under Artifacts."
            self.experiment.send(run, tags={"page": _mark(page), NOTE_TAG: about})
        self.experiment.status(run, "FINISHED", None)
        groups = [_shown_as(reading, it) for it in reading.cohorts if it.phase == "confirm"]
        study = reading.study
        pages = {
            "Gains": gains_page(groups, study.analysis.endpoints[1:]),
            "Curves": curves_page(keep_ratios(study)),
            "Search": SEARCH,
        }
        links = {
            "Report": f"#/experiments/{self.experiment.id}/runs/{run.id}/artifacts/report.html?workflowType=machine_learning"
        }
        links |= {name: link("", self.experiment.id, page).lstrip("/") for name, page in pages.items()}
        told = " · ".join(f"[{name}]({at})" for name, at in links.items())
        views = view_tags(pages.values(), EPOCH_ZERO_MS)
        self.experiment.tag(
            {
                NOTE_TAG: note.replace("\n\n", f"\n\n{told}\n\n", 1),
                "study_hash": reading.declared["hash"],
                **views,
            }
        )


def _something_is_whole(reading: Reading) -> bool:
    return any(it.phase == "confirm" and not any(map(math.isnan, it.scores)) for it in reading.cohorts)


def _settings(run: RunFiles) -> dict[str, Any]:
    spec = run.spec
    task = {
        f"task.{key}": json.dumps(asdict(it)) if isinstance(it, Table) else it
        for key, it in vars(spec.task).items()
    }
    return {
        **task,
        "policy": spec.policy.name,
        **{f"policy.{key}": value for key, value in spec.policy.settings.items()},
    }


def _whose(reading: Reading, cohort: Cohort) -> dict[str, str]:
    """The tags that say what a run belongs to; the task only where the study lists some."""
    arm, task = cohort.candidate.arm, reading.study.arms[cohort.candidate.arm].task
    return {"arm": arm, "candidate": cohort.candidate.name, **({"task": task} if task else {})}


def _shown_as(reading: Reading, cohort: Cohort) -> str:
    candidate, role = cohort.candidate, _role(reading, cohort)
    name = (
        candidate.arm
        if cohort.phase == "confirm" and reading.study.arms[candidate.arm].finalists == 1
        else candidate.name
    )
    return name if role == "family" or cohort.phase == "search" else f"{name} ({role})"


def _role(reading: Reading, cohort: Cohort) -> str:
    study, arm = reading.study, cohort.candidate.arm
    return (
        "baseline"
        if arm in study.baselines
        else "family"
        if arm in study.family
        else "repeat"
        if study.arms[arm].repeats
        else "control"
    )


def _mark(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _note(reading: Reading, cohort: Cohort, compared: Sequence[Compared]) -> str:
    """A cohort in words."""
    lines = [
        f"Arm `{cohort.candidate.arm}`, {cohort.phase}, averages over {len(cohort.runs)} seeds; the seeds are the runs below."
    ]
    if cohort.candidate.values:
        lines.append(
            "Searched, or as matched: "
            + ", ".join(f"`{key}` = {value}" for key, value in cohort.candidate.values.items())
            + "."
        )
    for row in compared:
        primary = row.reference_arm == reading.study.arms[row.arm].baseline
        if (
            row.candidate == cohort.candidate.name
            and (primary or row.role == "family")
            and row.gain is not None
        ):
            tested = f", p = {row.p_holm:.3g} after Holm" if row.p_holm is not None else ""
            what = f"gain {100 * row.gain:+.2f} points over {row.reference_arm}, {row.pairs} pairs{tested}; {row.state}"
            lines.append(f"At r = {row.keep_ratio:g}: {what}.")
    return "\n\n".join(lines)


def _sites(table: Any) -> str:
    """The rates site by site, an epoch a line; epochs without an evaluation are left out."""
    rows = [
        (e, rates)
        for e, rates in zip(
            table["epoch"].to_pylist(), table["nonzero_rate_by_site"].to_pylist(), strict=True
        )
        if rates
    ]
    width = max((len(rates) for _, rates in rows), default=0)
    return (
        "\n".join(
            [
                ",".join(["epoch", *(f"site_{i + 1}" for i in range(width))]),
                *(",".join(map(repr, [e, *r])) for e, r in rows),
            ]
        )
        + "\n"
    )


def _started(run: RunFiles) -> int | None:
    return _ms(run.attempts[0]["started_at"]) if run.attempts else None


def _ended(run: RunFiles) -> int | None:
    with suppress(DamagedRun):  # the ledger has told of it
        return _ms(run.ended_at) if run.ended_at else None
    return None


def _ms(when: str) -> int:
    return int(datetime.fromisoformat(when).timestamp() * 1000)
