"""`sweep plan | run STUDY`: what a study would do, and doing it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import (
    AddressOption,
    DataOption,
    JsonOption,
    MlflowOption,
    StoreOption,
    StudyArgument,
    place_of,
)
from sweep.cli.output import DEFAULT_STORE, again, errors, leave, other, print_json, say
from sweep.cli.screen import Screen, arms_table, console
from sweep.cluster import prepare
from sweep.errors import AbortSweep, RejectStudy
from sweep.estimate.planned import Planned, shown_plan
from sweep.gains.progress import overview
from sweep.gains.seeds import first_place, refuse_what_cannot_reject
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import looks_at
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.planning.work import Look
from sweep.study import Study, find, load
from sweep.study.arms import Phase
from sweep.views.mlflow.address import NONE, shown_uri, uri_of
from sweep.views.mlflow.following import PATIENCE_SECONDS, STOPPED_SECONDS, Follower
from trainer.exits import DONE, FAILED, INFRASTRUCTURE


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
    with errors(study, store):
        found = load(find(study))
        ledger = Ledger(place_of(store), found.name, say)
        planned = Planned.of(found, ledger, slots or _slots(found, ray_address), data_dir.absolute(), gpu)
        if as_json:
            print_json(asdict(planned))
        else:
            console().print(shown_plan(found, planned), highlight=False)


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
    with errors(study, store):
        _refuse_client_address(ray_address)
        found = load(find(study))
        if slots:
            workers = min(slots, found.resources.workers or slots)
            found.resources = replace(found.resources, workers=workers)
        place = place_of(store)
        uri, at = uri_of(mlflow_uri, place), f" --mlflow-uri {shown_uri(mlflow_uri)}" if mlflow_uri else ""
        hint = f"To bring it up to date: {other('sync', study, store)}{at}"
        beside = None if uri == NONE else partial(Follower, place=place, uri=uri, hint=hint)
        with Screen(found.analysis.endpoints) as screen:
            driven = _drive(
                found, Ledger(place, found.name, screen.say), screen, ray_address, data_dir, extend, beside
            )
        _show(found, driven, as_json)
        code, last = _ending(driven, study, store)
        if code == DONE:
            where, report, ui = (
                driven.ledger.store.where(),
                other("report", study, store),
                other("ui", study, store),
            )
            last = f"{last} Results: {where}. Next: {report} and {ui}"
        say(last)
        raise typer.Exit(code)


def _refuse_client_address(address: str | None) -> None:
    """A client of a cluster would move the ledger's writer out of it."""
    if address and address.startswith("ray://"):
        reason = "the driver has to run on a node of the cluster; give its GCS address, host:6379, or auto."
        raise RejectStudy([f"--ray-address {address}: {reason}"])


@dataclass(frozen=True)
class Driven:
    """A study after its driver has ended."""

    ledger: Ledger
    plan: Plan
    looks: list[Look]
    expected: Counter[tuple[Phase, str]]
    """How many runs there are in all, by phase and arm."""
    received: signal.Signals | None
    """The signal that ended it early."""


def _drive(
    study: Study,
    ledger: Ledger,
    screen: Screen,
    address: str | None,
    data_dir: Path,
    extend: bool,
    beside: Callable[[Ledger], Follower] | None,
) -> Driven:
    """Work on a study as its one driver; `beside` starts what keeps MLflow up to date meanwhile."""
    prepare(address)
    from sweep.cluster.driver import Driver  # Ray takes a second to import

    lease = Lease(ledger.store, screen.say)
    lease.acquire()
    follower, patience = None, PATIENCE_SECONDS
    try:
        plan, looks = _begin(study, ledger, extend)
        expected = forecast(Plan(study, {}, {}), 1).runs
        done, where = plan.finished.total(), ledger.store.where()
        screen.say(f"study {study.name}: {done} of {expected.total()} runs are done, in {where}")

        def show(driver: Driver) -> None:
            screen.show(lambda: (overview(plan, expected, driver.epochs, looks), driver.slots))

        driver = Driver(plan, ledger, lease, data_dir=data_dir.absolute(), say=screen.say, show=show)
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
    return Driven(ledger, plan, looks, expected, driver.received)


def _begin(study: Study, ledger: Ledger, extend: bool) -> tuple[Plan, list[Look]]:
    """The plan and the looks so far. The ledger is begun with this study, or grows with it, or refuses it."""
    ledger.check(study, extend=True)
    ledger.load()
    looks = looks_at(ledger, study)
    refuse_what_cannot_reject(study, looks)
    ledger.check(study, extend)  # only now: it advises --extend, which must then work
    plan = Plan(study, ledger.results, ledger.proposals())
    for look in looks.seen:
        ledger.look(look.pairs, look.arms)
    ledger.declare(study, extend, sum(n for (phase, _), n in plan.finished.items() if phase == "confirm"))
    ledger.failures()  # which to strike out when they finish
    for run_id, reason in ledger.damaged.items():
        plan.queue.damage(run_id, reason)
        ledger.say(reason)
    if seen := max((first_place(study, arm, looks.seen) for arm in study.arms), default=0):
        ledger.say(
            f"the first {seen} seeds were seen before the others were added; gains are of those others alone."
        )
    return plan, looks.seen


def _show(study: Study, driven: Driven, as_json: bool) -> None:
    view = overview(driven.plan, driven.expected, {}, driven.looks)
    if as_json:
        state = {"study": study.name, "store": driven.ledger.store.where(), "complete": driven.plan.complete}
        print_json({**state, **asdict(view)})
    else:
        console().print(arms_table(view, study.analysis.endpoints), highlight=False)


def _ending(driven: Driven, study: str, store: str) -> tuple[int, str]:
    """The exit code, which comes from the plan, and what to do next."""
    plan, failed = driven.plan, driven.plan.queue.failed
    if plan.complete:
        return DONE, f"done: {plan.finished.total()} runs."
    if driven.received:
        return 128 + driven.received, f"stopped by {driven.received.name}. To continue: {again()}"
    assert failed, "the plan is over, and neither complete nor failed"
    why = f"{len(failed)} runs failed. Why: {other('status', study, store)}"
    if any(failure.damaged for failure in failed.values()):
        mend = f"Some files are damaged. To mend what can be mended: {other('doctor', study, store)}"
        return INFRASTRUCTURE, f"{why}\n{mend}"
    return FAILED, f"{why}\nTo try them again: {again()}"


def _slots(study: Study, address: str | None) -> int:
    """How many runs go on at once, here or on a cluster."""
    if not address:
        cores = len(os.sched_getaffinity(0)) // study.resources.cpus
        return max(1, min(cores, study.resources.workers or cores))
    prepare(address)
    from sweep.cluster.nodes import Cluster

    try:
        with Cluster(address, study.resources) as cluster:
            return max(1, cluster.slots(set()))
    except AbortSweep as error:
        leave(str(error), INFRASTRUCTURE)
