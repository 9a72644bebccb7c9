"""An experiment of MLflow that follows a ledger: parent runs, and the runs of single seeds below them.

The experiment can be deleted and built again. What is in it depends on the ledger alone, not on when or
how often this ran. Which parents there are is in `parents`, what the tags and notes say in `labels`, and the
metric points in `points`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from sweep.gains.comparisons import keep_ratio_matters
from sweep.gains.rows import Compared
from sweep.ledger.ledger import Ledger
from sweep.views.mlflow.client import EPOCH_ZERO_MS, Experiment, TrackedRun
from sweep.views.mlflow.labels import (
    STATUS,
    attempt_tags,
    content_hash,
    ended_ms,
    first_parent_tags,
    parent_key,
    parent_name,
    parent_settings,
    parent_tags,
    rates_by_site,
    seed_tags,
    settings,
    shown_as,
    started_ms,
)
from sweep.views.mlflow.page import NOTE_TAG, curves_page, gains_page, link, search_page, view_tags
from sweep.views.mlflow.parents import Parent, parents
from sweep.views.mlflow.points import (
    Point,
    cohort_points,
    curves,
    final_points,
    gain_points,
    looks_of,
    run_points,
    scored,
    search_points,
    shared_epochs,
)
from sweep.views.reading import Reading, RunFiles
from trainer.run_folder import DamagedRun

SITES = "nonzero_rate_by_site.csv"
"""The file of a run's rates, among its artifacts in MLflow."""


class View:
    """A ledger and the experiment that shows it. `update` may be called as often as one likes."""

    def __init__(self, ledger: Ledger, experiment: Experiment, say: Callable[[str], None]) -> None:
        self.ledger, self.experiment, self.say = ledger, experiment, say
        self._reported: set[str] = set()
        """Damage that the user was told about."""

    def update(
        self, *, live: bool, report: Callable[[Reading, Sequence[Compared]], tuple[str, str]] | None = None
    ) -> int:
        """Write what is missing; return the number of writes.

        `live` says that a driver is at work. `report` makes the report's page and the experiment's note.
        """
        with self.experiment.errors():
            before = self.experiment.writes
            reading = Reading(self.ledger)
            for reason in self.ledger.damaged.values():
                self._tell_once(reason)
            if not self.experiment.id or not live:
                self.experiment.open()
            compared: Sequence[Compared] = []
            with self._readable():
                compared = reading.compare() if report or _has_scored_cohort(reading) else []
                if report:
                    self._report(reading, report(reading, compared))
            looks = looks_of(reading, compared)
            keys = {"report"}
            for parent in parents(reading):
                keys |= self._cohort(parent, compared, looks, live)
            # parents of cohorts that have grown since, and runs that are no longer in the ledger
            for key in sorted(self.experiment.runs.keys() - keys):
                self.experiment.delete(key)
            return self.experiment.writes - before

    @contextmanager
    def _readable(self) -> Generator[None]:
        """Report damaged files once, and leave out what needs them."""
        try:
            yield
        except DamagedRun as error:
            self._tell_once(str(error))

    def _tell_once(self, damage: str) -> None:
        if damage not in self._reported:
            self.say(f"{damage} What needs it is left out of MLflow.")
        self._reported.add(damage)

    def _cohort(
        self, parent: Parent, compared: Sequence[Compared], looks: Sequence[Sequence[Compared]], live: bool
    ) -> set[str]:
        """Write a parent and the runs below it; return their keys."""
        key, runs = parent_key(parent), parent.runs
        tracked = self._tracked(key, parent)
        keys = {key, *(self._seed(run, parent, tracked.id, live) for run in parent.below)}
        figures = list(final_points(parent, looks))
        tags = parent_tags(parent, figures, compared)
        points = figures if tracked.tags.get("figures") != tags["figures"] else []
        with self._readable():
            curve_points, curve_tags = self._curves(parent, tracked)
            points, tags = points + curve_points, tags | curve_tags
        # equal candidates share runs, and a run has one parent
        names = {cohort.candidate.name for cohort in parent.cohorts}
        if sharing := sorted({run.cohort.candidate.name for run in runs} - names):
            tags["shared_with"] = ", ".join(sharing)
        self._send(tracked, points, {} if tracked.params else parent_settings(parent), tags)
        self._parent_status(parent, tracked, live)
        return keys

    def _tracked(self, key: str, parent: Parent) -> TrackedRun:
        """A parent's run in MLflow, made where there is none. It starts with the first run below it."""
        started: int | None = None
        if key not in self.experiment.runs:
            starts = [started_ms(run) for run in parent.below]
            started = min((start for start in starts if start), default=None)
        return self.experiment.ensure(key, parent_name(parent), started, first_parent_tags(parent))

    def _parent_status(self, parent: Parent, tracked: TrackedRun, live: bool) -> None:
        if parent.is_complete:
            is_news = tracked.status != "FINISHED"
            ended = max((ended_ms(run) or 0 for run in parent.runs), default=0) if is_news else None
            self.experiment.status(tracked, "FINISHED", ended)
        elif live:
            self.experiment.status(tracked, "RUNNING", None)
        else:
            failed = any(run.state == "failed" for run in parent.runs)
            self.experiment.status(tracked, "FAILED" if failed else "KILLED", None)

    def _seed(self, run: RunFiles, parent: Parent, parent_id: str, live: bool) -> str:
        """Write one seed's run below its parent; return its key."""
        key, name = f"run {run.run_id}", f"{run.cohort.candidate.name} seed {run.seed}"
        # all tags each time: the run moves when an equal candidate appears that stands before this one
        tags = seed_tags(run, name, parent, parent_id)
        tracked = self.experiment.runs.get(key) or self.experiment.ensure(key, name, started_ms(run), tags)
        tags["outcome"] = run.state
        if run.state == "failed":
            tags["reason"] = run.reading.plan.queue.failed[run.run_id].reason
        elif "reason" in tracked.tags:
            tags["reason"] = ""
        points = list[Point]()
        with self._readable():
            points, epoch_tags = self._epochs(run, tracked)
            tags |= epoch_tags
            if tracked.tags.get("attempts") != str(run.tries):
                tags |= attempt_tags(run)
        if parent.stands_for == "search" and (score := list(search_points(run.reading, [run]))):
            tags["figures"] = content_hash(repr(score))
            points = points + score if tracked.tags.get("figures") != tags["figures"] else points
        params = {} if tracked.params else {**settings(run), "seed": run.seed}
        self._send(tracked, points, params, tags)
        status = "RUNNING" if live and run.state == "unfinished" else STATUS[run.state]
        self.experiment.status(tracked, status, ended_ms(run) if status != tracked.status else None)
        return key

    def _epochs(self, run: RunFiles, tracked: TrackedRun) -> tuple[list[Point], dict[str, str]]:
        """The points that were not sent yet, and the tags that record what was sent.

        The file of rates is sent here, once, when the run has ended.
        """
        sent, points, tags = int(tracked.tags.get("epochs_sent", 0)), list[Point](), dict[str, str]()
        needs_rates = bool(run.result) and "sites" not in tracked.tags
        table = run.epochs() if needs_rates or run.committed > sent else None
        if table is None:
            return points, tags
        if table.num_rows > sent:
            points, tags["epochs_sent"] = list(run_points(table, sent)), str(table.num_rows)
        if needs_rates:
            self.experiment.text(tracked, SITES, rates_by_site(table))
            tags["sites"] = SITES
        return points, tags

    def _send(
        self, run: TrackedRun, points: Iterable[Point], params: dict[str, Any], tags: dict[str, str]
    ) -> None:
        """Send points, parameters and tags, without infinite points.

        MLflow would store an infinity as the largest finite number. The tag `not_sent` names each metric
        with infinite points, and the first step of one.
        """
        earlier = [part for part in run.tags.get("not_sent", "").split("; ") if part]
        left_out = dict(part.split(" ", 1) for part in earlier)
        finite = list[Point]()
        for point in points:
            if math.isinf(point.value):
                left_out.setdefault(point.key, f"is {point.value} at step {point.step}")
            else:
                finite.append(point)
        if left_out:
            tags = tags | {"not_sent": "; ".join(f"{key} {left_out[key]}" for key in sorted(left_out))}
        self.experiment.send(run, finite, params, tags)

    def _curves(self, parent: Parent, tracked: TrackedRun) -> tuple[list[Point], dict[str, str]]:
        """The seed averages and paired gains that were not sent yet, and the tags that record them.

        An epoch has them once all seeds have that epoch.
        """
        if not parent.averaged:
            return [], {}
        sent = int(tracked.tags.get("epochs_sent", 0))
        gains_sent = int(tracked.tags.get("gain_epochs_sent", 0))
        shared = shared_epochs(parent.averaged)
        paired = min(shared, shared_epochs(parent.paired_with)) if parent.paired_with else 0
        if shared <= sent and paired <= gains_sent:
            return [], {}
        own, size = curves(parent.averaged, shared), parent.runs_in_a_pair
        points, tags = list(cohort_points(own, sent, size)), {"epochs_sent": str(max(sent, own.epochs))}
        if paired > gains_sent:
            with self._readable():
                over = curves(parent.paired_with, min(paired, own.epochs))
                points += gain_points(own, over, gains_sent, parent.arm.overlap, size)
                tags["gain_epochs_sent"] = str(max(gains_sent, over.epochs))
        return points, tags

    def _report(self, reading: Reading, page_and_note: tuple[str, str]) -> None:
        """Write the report's page as a run of its own, and the experiment's note, links and saved views."""
        page, note = page_and_note
        run = self.experiment.ensure("report", "report", None, {"kind": "report"})
        if run.tags.get("page") != content_hash(page):
            self.experiment.text(run, "report.html", page)
            about = "The whole study on one page: open report.html under Artifacts."
            self.experiment.send(run, tags={"page": content_hash(page), NOTE_TAG: about})
        self.experiment.status(run, "FINISHED", None)
        found = parents(reading)
        groups = dict.fromkeys(shown_as(parent) for parent in found if parent.phase == "confirm")
        kind = "run" if any(parent.stands_for == "search" for parent in found) else "search"
        pages = {
            "Gains": gains_page(list(groups), reading.study.analysis.endpoints[1:]),
            "Curves": curves_page(keep_ratio_matters(reading.study)),
            "Search": search_page(kind, scored(reading)[1:]),
        }
        of_report = f"#/experiments/{self.experiment.id}/runs/{run.id}/artifacts/report.html"
        links = {"Report": f"{of_report}?workflowType=machine_learning"}
        links |= {name: link("", self.experiment.id, page).lstrip("/") for name, page in pages.items()}
        line = " · ".join(f"[{name}]({target})" for name, target in links.items())
        tags = {NOTE_TAG: note.replace("\n\n", f"\n\n{line}\n\n", 1), "study_hash": reading.declared["hash"]}
        self.experiment.tag(tags | view_tags(pages.values(), EPOCH_ZERO_MS))


def _has_scored_cohort(reading: Reading) -> bool:
    """Whether all runs of some confirmed candidate have a score."""
    return any(
        cohort.phase == "confirm" and not any(map(math.isnan, cohort.scores)) for cohort in reading.cohorts
    )
