"""The commands `plan` and `run`: what a study would do, and doing it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sweep.cli.notify import Tell, address, notifying
from sweep.cli.observer import Observer
from sweep.cli.options import (
    AddressOption,
    CodeOption,
    DataOption,
    ExtendOption,
    JsonOption,
    MlflowOption,
    StoreOption,
    StudyArgument,
    WorkersOption,
    place_of,
)
from sweep.cli.output import (
    DEFAULT_STORE,
    command_for,
    errors,
    leave,
    print_json,
    say,
    this_command,
    with_tracker,
)
from sweep.cli.planned_text import shown_plan
from sweep.cli.screen import Screen, arms_table, console
from sweep.cluster import in_job, prepare
from sweep.cluster.signals import Signals
from sweep.errors import AbortSweep, RejectStudy
from sweep.estimate.planned import Planned
from sweep.format import counted
from sweep.gains.progress import overview
from sweep.ledger.fresh import with_fresh_seeds
from sweep.ledger.gpu_time import GpuHours
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import GREW, grew_after_look, look_before_growth
from sweep.ledger.shared import Shared
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.study import Phase, Study, find, load
from sweep.views.mlflow.address import NONE, uri_of
from sweep.views.mlflow.following import FINISHED_WAIT_SECONDS, STOPPED_WAIT_SECONDS, Follower
from trainer import data, models
from trainer.exits import DONE, FAILED, INFRASTRUCTURE
from trainer.models import own
from trainer.store import StoreError


def plan(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    ray_address: AddressOption = None,
    data_dir: DataOption = Path("data"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="plan for so many runs at once; by default, as many as fit")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="estimate the time for this GPU (a part of its name is enough), until runs have finished",
        ),
    ] = None,
    pilot: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="say what the pairs of this other study of the store, by its name and as far as it has "
            "been run, mean for the number of pairs here",
        ),
    ] = None,
    allow_code: CodeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what `run` would do: runs, epochs, hours, and the gains it can detect. Changes nothing."""
    with errors(study, store):
        own.allow(allow_code or [])
        loaded = load(find(study))
        ledger = Ledger(place_of(store), loaded.name, say)
        other = None if pilot is None else Ledger(place_of(store), Path(pilot).stem, say)
        slots = workers or _slots(loaded, ray_address)
        planned = Planned.of(loaded, ledger, slots, data_dir.absolute(), gpu, other)
        if as_json:
            print_json(asdict(planned))
        else:
            console().print(shown_plan(loaded, planned))


def run(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    ray_address: AddressOption = None,
    data_dir: DataOption = Path("data"),
    workers: WorkersOption = None,
    extend: ExtendOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="run nothing: the same as `sweep plan`")
    ] = False,
    mlflow_uri: MlflowOption = None,
    allow_code: CodeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study to its end. If it is stopped, the same command goes on with it."""
    if dry_run:
        plan(study, store, ray_address, data_dir, workers, allow_code=allow_code, as_json=as_json)
        return
    signals = Signals()
    signals.listen()
    with errors(study, store):
        _refuse_client_address(ray_address)
        own.allow(allow_code or [])
        url, loaded = address(), load(find(study), to_run=True)
        if loaded.own_models:
            _try_models(loaded)
        if workers:
            most = min(workers, loaded.resources.workers or workers)
            loaded.resources = replace(loaded.resources, workers=most)
        place = place_of(store)
        uri = uri_of(mlflow_uri, place)
        hint = f"To bring it up to date: {with_tracker(command_for('sync', study, store), mlflow_uri)}"
        follow = None if uri == NONE else partial(Follower, place=place, uri=uri, hint=hint)
        with Screen(loaded.analysis.endpoints) as screen, notifying(url, screen.say) as tell:
            ledger = Ledger(place, loaded.name, screen.say)
            driven = _drive(loaded, ledger, screen, signals, ray_address, data_dir, extend, follow, tell)
        _show(loaded, driven, as_json)
        code, message = _ending(driven, study, store)
        say(message)
        raise typer.Exit(code)


def _refuse_client_address(address: str | None) -> None:
    """Refuse to be a client of a cluster: the driver, which writes the ledger, has to run in it."""
    if address and address.startswith("ray://"):
        reason = "the driver has to run on a node of the cluster; give its GCS address, host:6379, or auto."
        raise RejectStudy([f"--ray-address {address}: {reason}"])


def _try_models(study: Study) -> None:
    """Build every model of one's own, so that one which does not work is told before anything starts."""
    import torch  # it takes seconds

    from trainer import process

    process.prepare()
    for task in study.own_models:
        facts = data.facts(task.data)
        models.build(task, facts.image, facts.classes, torch.Generator())


@dataclass(frozen=True)
class Driven:
    """A study after its driver has ended."""

    ledger: Ledger
    plan: Plan
    expected: Counter[tuple[Phase, str]]
    """The number of runs in all, by phase and arm."""
    received: signal.Signals | None
    """The signal that ended it early, if one did."""
    gpu_hours: GpuHours | None
    """None where runs take no GPU."""


def _drive(
    study: Study,
    ledger: Ledger,
    screen: Screen,
    signals: Signals,
    address: str | None,
    data_dir: Path,
    extend: bool,
    follow: Callable[[Ledger], Follower] | None,
    tell: Tell,
) -> Driven:
    """Work on a study as its one driver. `follow` starts the process that keeps MLflow up to date.

    `tell` is given each event of which somebody elsewhere is told.
    """
    prepare(address)
    from sweep.cluster.driver import Driver  # Ray takes a second to import
    from sweep.cluster.nodes import reach

    if address and (extend or ledger.declared() is None):
        # a command that the cluster refuses leaves no study behind, and none that has grown
        try:
            reach(address)
        except AbortSweep as error:
            _give_up(error)
    lease = Lease(ledger.store, screen.say, handed_in=in_job())
    lease.acquire()
    follower, patience = None, FINISHED_WAIT_SECONDS
    try:
        plan = begin(study, ledger, extend)
        shared = Shared(ledger, plan.study)
        shared.advance(plan)
        expected = forecast(Plan(plan.study, {}, {}), 1).runs
        done, where = plan.finished.total(), ledger.store.where()
        screen.say(f"study {study.name}: {done} of {counted(expected.total(), 'run')} done, in {where}")

        observer = Observer(plan, expected.total(), tell, time.monotonic())

        def show(driver: Driver) -> None:
            observer.look(driver.epochs, driver.gpu_clock.hours, time.monotonic())
            screen.show(lambda: (overview(plan, expected, driver.epochs), driver.slots))

        driver = Driver(
            plan, ledger, lease, shared, signals, data_dir=data_dir.absolute(), say=screen.say, show=show
        )
        if not plan.complete and not driver.gpu_clock.spent:
            follower = follow(ledger) if follow else None
            try:
                driver.drive(address)
                observer.end(driver.gpu_clock.hours, time.monotonic())
            except (AbortSweep, StoreError) as error:
                observer.once("failed", str(error))
                _give_up(error)
            finally:
                patience = STOPPED_WAIT_SECONDS if signals.received else FINISHED_WAIT_SECONDS
                # a driver that has lost the study knows less than its successor
                if not lease.lost.is_set():
                    # it is only a summary, and what went wrong before it has to be told
                    with suppress(StoreError):
                        ledger.write_index()
                        driver.gpu_clock.write()
    finally:
        lease.release()
        if follower:
            follower.finish(patience)
    return Driven(ledger, plan, expected, signals.received, driver.gpu_clock.hours)


def _give_up(error: Exception) -> NoReturn:
    leave(f"{error}\nTo continue: {this_command()}", INFRASTRUCTURE)


def begin(study: Study, ledger: Ledger, extend: bool) -> Plan:
    """Begin the ledger, continue it, or let it grow; return the plan.

    ChangedStudy is raised where the ledger was begun with another study.
    """
    ledger.check(study, extend)
    ledger.load()
    study, lines = with_fresh_seeds(ledger, study, ledger.declared())
    if grown := grew_after_look(ledger, study):
        lines.append(GREW[grown])
    if look := look_before_growth(ledger, study):
        ledger.look(look.pairs, look.arms)
    ledger.declare(study, extend)
    plan = Plan(study, ledger.results, ledger.proposals())
    # read, so that the ledger can remove a failure when its run finishes
    ledger.failures()
    for run_id, reason in ledger.damaged.items():
        plan.queue.damage(run_id, reason)
        lines.append(reason)
    if what := ledger.misquotation():
        lines.append(f"{ledger.store.where('index.json')} {what}")
    for line in lines:
        ledger.say(line)
    return plan


def _show(study: Study, driven: Driven, as_json: bool) -> None:
    """Print how far the study is now."""
    view = overview(driven.plan, driven.expected, {})
    if as_json:
        state = {"study": study.name, "store": driven.ledger.store.where(), "complete": driven.plan.complete}
        hours = driven.gpu_hours and driven.gpu_hours.values
        print_json({**state, "gpu_hours": hours, **asdict(view)})
    else:
        console().print(arms_table(view, study.analysis.endpoints))


def _ending(driven: Driven, study: str, store: str) -> tuple[int, str]:
    """The exit code, and a message that says what to do next."""
    plan, failed = driven.plan, driven.plan.queue.failed
    if plan.complete:
        early = " It ended early, at a look at which every comparison was decided." if plan.decided else ""
        report, ui = command_for("report", study, store), command_for("ui", study, store)
        runs, where = counted(plan.finished.total(), "run"), driven.ledger.store.where()
        return DONE, f"done: {runs}.{early} Results: {where}. Next: {report} and {ui}"
    if driven.received:
        return 128 + driven.received, f"stopped by {driven.received.name}. To continue: {this_command()}"
    if driven.gpu_hours and driven.gpu_hours.spent:
        done = f"{counted(plan.finished.total(), 'run')} of {driven.expected.total():,} done"
        next_step = f"raise resources.gpu_hours and run the same command: {this_command()}"
        return FAILED, f"{driven.gpu_hours}: {done}; {next_step}"
    assert failed, "the plan is over, and neither complete nor failed"
    why = f"{counted(len(failed), 'run')} failed. Why: {command_for('status', study, store)}"
    if any(failure.damaged for failure in failed.values()):
        repair = (
            f"Some files are damaged. To repair what can be repaired: {command_for('doctor', study, store)}"
        )
        return INFRASTRUCTURE, f"{why}\n{repair}"
    return FAILED, f"{why}\nTo try again: {this_command()}"


def _slots(study: Study, address: str | None) -> int:
    """How many runs fit at once, on this machine or on a cluster."""
    if not address:
        cores = len(os.sched_getaffinity(0)) // study.resources.cpus
        return max(1, min(cores, study.resources.workers or cores))
    prepare(address)
    from sweep.cluster.nodes import Cluster

    try:
        with Cluster(address, study.resources) as cluster:
            return max(1, cluster.room())
    except AbortSweep as error:
        leave(str(error), INFRASTRUCTURE)
