"""The command `ready`: what could be trained now, for `python -m trainer` on a machine without Ray."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sweep.cli.options import StoreOption, StudyArgument, place_of
from sweep.cli.output import DEFAULT_STORE, command_for, errors, say
from sweep.cli.running import begin
from sweep.errors import Held
from sweep.format import counted
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.ledger.shared import Shared
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.study import Study, find, load
from trainer.claims import BEAT_SECONDS, SILENT_SECONDS, Watch
from trainer.orders import Order


def ready(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="accept more searches, seeds, budget, finalists or arms than before"),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="while others train what could start, wait for more")
    ] = False,
) -> None:
    """Print a line of JSON for each run that could start now, for `python -m trainer --from-stdin`."""
    with errors(study, store):
        loaded, tell = load(find(study)), say
        while True:
            ledger = Ledger(place_of(store), loaded.name, tell)
            plan, driven = _plan(loaded, ledger, extend)
            taken = trained_now(ledger)
            orders: list[Order] = []
            while run := plan.queue.next(0.0):
                if run.run_id not in taken:
                    orders.append(Order(run.spec, keep_weights=run.phase == "confirm"))
            if orders or plan.complete or not (wait and (taken or driven)):
                break
            tell("Others train what could start. Waiting for more.")
            # from now on the same would be said again and again
            tell = _nothing
            time.sleep(BEAT_SECONDS)
        for order in orders:
            print(order.to_json())
        say(_said(plan, len(orders), len(taken), command_for("report", study, store)))


def _plan(study: Study, ledger: Ledger, extend: bool) -> tuple[Plan, bool]:
    """The plan with every generation that can be proposed, and whether somebody else drives the study.

    Beside a driver it is the plan as the ledger has it: the driver proposes.
    """
    lease = Lease(ledger.store, ledger.say)
    try:
        lease.acquire()
    except Held as error:
        ledger.check(study, extend=False)
        ledger.say(f"{error} Nothing new is proposed here.")
        return ledger.state().plan, True
    try:
        plan = begin(study, ledger, extend)
        Shared(ledger, plan.study).advance(plan)
    finally:
        lease.release()
    return plan, False


def trained_now(ledger: Ledger) -> set[str]:
    """The runs that somebody trains now. It waits for signs of life from other machines."""
    claims = ledger.claims()
    taken = {run_id for run_id, claim in claims.items() if claim.is_here}
    unknown, watch = claims.keys() - taken, Watch()
    if unknown:
        machines = counted(len(unknown), "run")
        ledger.say(
            f"{machines} may be trained on other machines. Waiting up to {SILENT_SECONDS:.0f} s for them."
        )
    while unknown:
        for run_id in sorted(unknown):
            is_free = watch.look(ledger.runs, claims[run_id])
            if is_free is not None:
                unknown.remove(run_id)
                taken |= set() if is_free else {run_id}
        time.sleep(1 if unknown else 0)
    return taken


def _said(plan: Plan, ready: int, taken: int, report: str) -> str:
    """What to say of a study: how far it is, or what to do next."""
    if plan.complete:
        return f"complete: {counted(plan.finished.total(), 'run')}. Next: {report}"
    total = forecast(Plan(plan.study, {}, {}), 1).runs.total()
    return (
        f"{counted(ready, 'run')} ready, {taken} being trained now, "
        f"{plan.finished.total()} of {counted(total, 'run')} done."
    )


def _nothing(_: str) -> None:
    pass
