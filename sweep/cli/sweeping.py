"""`sweep plan | run | status | doctor STUDY`. The commands that show what came of it stand in `view_commands`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sweep.cli.options import (
    DEFAULT_STORE,
    DONE,
    FAILED,
    INFRASTRUCTURE,
    AddressOption,
    DataOption,
    JsonOption,
    MlflowOption,
    StoreOption,
    StudyArgument,
    again,
    app,
    errors,
    leave,
    other,
    place_of,
    print_json,
    say,
)
from sweep.cli.screen import Screen, arms_table, console, failures_table
from sweep.errors import RejectStudy
from sweep.estimate.planned import Planned, shown_plan
from sweep.format import duration
from sweep.gains.comparisons import first_place
from sweep.gains.looks import accepted_looks, looks_at
from sweep.gains.progress import overview
from sweep.ledger.lease import Lease, holder
from sweep.ledger.ledger import Ledger
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.study import files as studies
from sweep.study.study import Study
from sweep.views.mlflow.following import NONE, PATIENCE_SECONDS, STOPPED_SECONDS, Follower, shown_uri, uri_of

WATCH_SECONDS = 5.0


@app.command()
def plan(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    ray_address: AddressOption = None,
    data_dir: DataOption = Path("data"),
    slots: Annotated[
        int | None, typer.Option(min=1, help="runs at once; asked of the cluster by default")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="estimate by what was measured on this GPU, or part of its name, until there are runs to measure by",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What `run` would do: runs, epochs, hours, what the comparison can detect. Touches nothing."""
    with errors():
        found = studies.load(studies.find(study))
        ledger = Ledger(place_of(store), found.name, say)
        planned = Planned.of(found, ledger, slots or _slots(found, ray_address), data_dir.absolute(), gpu)
        if as_json:
            print_json(asdict(planned))
        else:
            console().print(shown_plan(found, planned), highlight=False)


@app.command()
def run(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    ray_address: AddressOption = None,
    data_dir: DataOption = Path("data"),
    slots: Annotated[
        int | None, typer.Option(min=1, help="at most so many runs at once; as many as fit by default")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="accept that the study grew since it was begun")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="the same as plan")] = False,
    mlflow_uri: MlflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study to its end, or go on with it. The same command again continues; there is nothing else to know."""
    if dry_run:
        plan(study, store, ray_address, data_dir, slots, as_json=as_json)
        return
    with errors():
        if ray_address and ray_address.startswith("ray://"):
            raise RejectStudy(
                [
                    f"--ray-address {ray_address}: the driver has to run on a node of the cluster; give its GCS address, host:6379, or auto."
                ]
            )
        found = studies.load(studies.find(study))
        if slots:
            workers = min(slots, found.resources.workers or slots)
            found.resources = replace(found.resources, workers=workers)
        uri, at = (
            uri_of(mlflow_uri, place_of(store)),
            f" --mlflow-uri {shown_uri(mlflow_uri)}" if mlflow_uri else "",
        )
        hint = f"To bring it up to date: {other('sync', study, store)}{at}"
        beside = None if uri == NONE else partial(Follower, place=place_of(store), uri=uri, hint=hint)
        told, received, where = _drive(
            found, place_of(store), ray_address, data_dir.absolute(), extend, as_json, beside
        )
        code, last = _ending(told, received, study, store)
        say(
            f"{last} Results: {where}. Next: {other('report', study, store)} and {other('ui', study, store)}"
            if code == DONE
            else last
        )
        raise typer.Exit(code)


def _drive(
    study: Study,
    place: str,
    address: str | None,
    data_dir: Path,
    extend: bool,
    as_json: bool,
    beside: Callable[[Ledger], Follower] | None,
) -> tuple[Plan, signal.Signals | None, str]:
    """Work on a study as its one driver: the plan as it is then, the signal that ended it early, and where the results are."""
    if not address:
        os.environ.setdefault(
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
        )  # before Ray is imported: a cluster of our own stays on loopback
    from sweep.cluster.driver import Driver
    from sweep.errors import AbortSweep  # Ray takes a second to import

    with Screen(study.analysis.endpoints) as screen:
        ledger = Ledger(place, study.name, screen.say)
        lease = Lease(ledger.store, screen.say)
        lease.acquire()
        follower, patience = None, PATIENCE_SECONDS
        try:
            ledger.check(study, extend=True)
            ledger.load()
            looks = accepted_looks(ledger, study)
            ledger.check(study, extend)  # only now: it advises --extend, which must then work
            plan = Plan(study, ledger.results, ledger.proposals())
            for look in looks:
                ledger.look(look.pairs, look.arms)
            ledger.declare(
                study, extend, sum(n for (phase, _), n in plan.finished.items() if phase == "confirm")
            )
            ledger.failures()  # which to strike out when they finish
            for run_id, reason in ledger.damaged.items():
                plan.damage(run_id, reason)
                screen.say(reason)
            if seen := max((first_place(study, arm, looks) for arm in study.arms), default=0):
                screen.say(
                    f"the first {seen} seeds were seen before the others were added; gains are of those others alone."
                )
            expected = forecast(Plan(study, {}, {}), 1).runs
            screen.say(
                f"study {study.name}: {plan.finished.total()} of {expected.total()} runs are done, in {ledger.store.where()}"
            )

            def show(driver: Driver) -> None:
                screen.show(lambda: (overview(plan, expected, driver.epochs, looks), driver.slots))

            driver = Driver(plan, ledger, lease, data_dir=data_dir, say=screen.say, show=show)
            if not plan.complete:
                follower = beside(ledger) if beside else None
                try:
                    driver.drive(address)
                except AbortSweep as error:
                    leave(f"{error}\nTo continue: {again()}", INFRASTRUCTURE)
                finally:
                    patience = STOPPED_SECONDS if driver.received else PATIENCE_SECONDS
                    ledger.write_index()
        finally:
            lease.release()
            if follower:
                follower.finish(patience)
    view = overview(plan, expected, {}, looks)
    if as_json:
        print_json(
            {"study": study.name, "store": ledger.store.where(), "complete": plan.complete, **asdict(view)}
        )
    else:
        console().print(arms_table(view, study.analysis.endpoints), highlight=False)
    return plan, driver.received, ledger.store.where()


def _ending(plan: Plan, received: signal.Signals | None, study: str, store: str) -> tuple[int, str]:
    """The exit code, which comes from the plan, and what to do next."""
    if plan.complete:
        return DONE, f"done: {plan.finished.total()} runs."
    if received:
        return 128 + received, f"stopped by {received.name}. To continue: {again()}"
    assert plan.failed, "the plan is over, and neither complete nor failed"
    damaged = any(failure.damaged for failure in plan.failed.values())
    told = f"{len(plan.failed)} runs failed. Why: {other('status', study, store)}"
    if damaged:
        return (
            INFRASTRUCTURE,
            f"{told}\nSome files are damaged. To mend what can be mended: {other('doctor', study, store)}",
        )
    return FAILED, f"{told}\nTo try them again: {again()}"


@app.command()
def status(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[
        bool, typer.Option("--watch", help="again every few seconds, until it is done")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """How far a study is, from its ledger alone: arms, gains so far, failures with their logs. Works while it runs."""
    with errors():
        out = console()
        while True:
            complete = _show_status(study, store, out, as_json)
            if not watch or complete:
                return
            time.sleep(WATCH_SECONDS)
            if out.is_terminal and not as_json:
                out.clear()


def _show_status(given: str, store: str, out: Console, as_json: bool) -> bool:
    name = studies.find(given).stem
    ledger = Ledger(place_of(store), name, say)
    declared = ledger.declared()
    if declared is None:
        raise RejectStudy(
            [f"{ledger.store.where()} holds no study yet. To begin it: {other('run', given, store)}"]
        )
    study = studies.from_declared(name, declared)
    ledger.load(keep=False)
    plan, looks = Plan(study, ledger.results, ledger.proposals()), looks_at(ledger, study)
    view = overview(plan, forecast(Plan(study, {}, {}), 1).runs, {}, looks)
    driver, failures = holder(ledger.store), ledger.failures()
    if as_json:
        state = {
            "study": name,
            "complete": plan.complete,
            "driver": driver,
            "failures": failures,
            "damaged": ledger.damaged,
        }
        print_json({**state, **asdict(view)})
        return plan.complete
    lines = [f"{view.done}/{view.total} runs done, {len(failures)} failed"]
    if driver:
        lines.append(f"driven by process {driver['pid']} on {driver['host']} since {driver['since']}")
        if now := driver["now"]:
            left = view.seconds_left / max(now["slots"], 1) if view.seconds_left is not None else None
            lines.append(f"{now['running']} under way on {now['slots']} slots; about {duration(left)} left")
    elif not plan.complete:
        lines.append(f"nobody drives it now. To go on: {other('run', given, store)}")
    lines += ledger.damaged.values()
    out.print(arms_table(view, study.analysis.endpoints), highlight=False)
    out.print("\n".join(lines), highlight=False, markup=False)
    if failures:
        out.print(failures_table(failures), highlight=False)
    return plan.complete


@app.command()
def doctor(study: StudyArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Verify every file of a study, say what is damaged, and repair what can be rebuilt."""
    from sweep.ledger.doctor import examine

    with errors():
        found = studies.load(studies.find(study))
        findings = examine(found, Ledger(place_of(store), found.name, say))
        if as_json:
            print_json([asdict(finding) for finding in findings])
        else:
            for finding in findings:
                print(f"{'repaired' if finding.repaired else 'damaged'}: {finding.file}: {finding.what}")
            if not findings:
                print("every file is whole.")
        if not all(finding.repaired for finding in findings):
            raise typer.Exit(INFRASTRUCTURE)


def _slots(study: Study, address: str | None) -> int:
    if not address:
        cores = len(os.sched_getaffinity(0)) // study.resources.cpus
        return max(1, min(cores, study.resources.workers or cores))
    from sweep.cluster.nodes import Cluster
    from sweep.errors import AbortSweep

    try:
        with Cluster(address, study.resources) as cluster:
            return max(1, cluster.slots(set()))
    except AbortSweep as error:
        leave(str(error), INFRASTRUCTURE)


def main() -> None:
    """The command."""
    app()
