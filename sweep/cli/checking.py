"""The commands `status`, `doctor` and `seal`: how far a study is, and whether its files are as they were."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from sweep.cli.options import JsonOption, StoreOption, StudyArgument, begun_ledger_of, ledger_of, reading_of
from sweep.cli.output import DEFAULT_STORE, command_for, errors, print_json, say, show
from sweep.cli.screen import arms_table, console, failures_table, time_left
from sweep.errors import DamagedLedger, NothingBegun
from sweep.format import counted
from sweep.gains.progress import overview
from sweep.ledger.findings import Finding
from sweep.ledger.fresh import with_fresh_seeds
from sweep.ledger.gpu_time import gpu_hours
from sweep.ledger.lease import holder, was_handed_in
from sweep.ledger.ledger import Ledger, orphans
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.study import find, load
from trainer.exits import INFRASTRUCTURE
from trainer.models import own
from trainer.plain import one_line
from trainer.run_folder import DamagedRun
from trainer.terminal import Terminal

WATCH_SECONDS = 5.0
FEW = 6
"""The most runs that a line of `status` lists."""


def status(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="wait until it is begun; show it every 5 seconds until it is done"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a study is: arms, gains so far, failures with their logs. Works while it runs."""
    with errors(study, store):
        out = console()
        if watch:
            _wait_until_begun(study, store)
        while not _show_status(study, store, out, as_json) and watch:
            time.sleep(WATCH_SECONDS)
            if out.is_terminal and not as_json:
                out.clear()


def _wait_until_begun(given: str, store: str) -> None:
    """Wait for a study that a batch job will begin."""
    ledger = ledger_of(given, store)
    if ledger.declared() is None:
        say(f"{NothingBegun(ledger.store.where())} Waiting until it is begun.")
    while ledger.declared() is None:
        time.sleep(WATCH_SECONDS)


def _show_status(given: str, store: str, out: Terminal, as_json: bool) -> bool:
    """Show a study's state once; return whether the study is complete."""
    ledger = begun_ledger_of(given, store)
    state = ledger.state(by_index=True)
    study, plan, failures = state.study, state.plan, state.failures
    view = overview(plan, forecast(Plan(study, {}, {}), 1).runs, {})
    driver, taken = holder(ledger.store), Counter(ledger.taken().values())
    outside = sum(not claim.holder["lease"] for claim in ledger.claims().values())
    hours = gpu_hours(ledger)
    if as_json:
        values = {"study": study.name, "complete": plan.complete, "driver": driver, "outside": outside}
        values = {**values, "taken": taken, "failures": failures, "damaged": ledger.damaged}
        values = {**values, "gpu_hours": hours and hours.values}
        print_json({**values, "orphans": orphans(ledger, plan), **asdict(view)})
        return plan.complete
    lines = [f"{view.done}/{counted(view.total, 'run')} done, {len(failures)} failed"]
    lines += [f"{counted(runs, 'run')} taken over from {name}" for name, runs in taken.items()]
    if driver:
        lines.append(f"driven by process {driver['pid']} on {driver['host']} since {driver['since']}")
        if now := driver["now"]:
            running, slots = counted(now["running"], "run"), counted(now["slots"], "slot")
            lines.append(f"{running} under way on {slots}; {time_left(view, now['slots'])}")
            kept_away: dict[str, str] = now.get("kept_away", {})
            lines += [f"node {name} gets no work: {reason}" for name, reason in kept_away.items()]
    elif not plan.complete and not outside:
        packages = dict.fromkeys(own.package_of(task.model) or "" for task in study.own_models)
        allowing = [word for package in packages for word in (own.OPTION, package)]
        command = "submit" if was_handed_in(ledger.store) else "run"
        lines.append(
            f"no process works on it now. To go on: {command_for(command, given, store, *allowing)}"
        )
    if hours:
        more = "; to go on, raise resources.gpu_hours" if hours.spent and not plan.complete else ""
        lines.append(f"{hours}{more}")
    if outside:
        lines.append(f"{counted(outside, 'run')} being trained outside of a sweep")
    if strays := orphans(ledger, plan):
        runs, why = counted(len(strays), "run"), command_for("doctor", given, store)
        lines.append(f"{runs} that no candidate has, and that count nowhere: {_listed(strays)}. Why: {why}")
    lines += ledger.damaged.values()
    out.print(arms_table(view, study.analysis.endpoints))
    out.print("\n".join(map(one_line, lines)))
    if failures:
        out.print(failures_table(failures))
    return plan.complete


def _listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def doctor(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    published: Annotated[
        str | None,
        typer.Option("--seal", metavar="SEAL", help="also compare the study with a seal that was published"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file of a study, say what is damaged, and repair what can be made again."""
    from sweep.ledger.doctor import examine  # Optuna comes with it
    from sweep.views.seal import parts_of

    with errors(study, store):
        ledger, parts = ledger_of(study, store), parts_of(published) if published else None
        findings = examine(load(find(study)), ledger)
        if parts:
            findings += _against_seal(ledger, *parts)
        if as_json:
            print_json([asdict(finding) for finding in findings])
        else:
            for finding in findings:
                state = "repaired" if finding.repaired else "damaged"
                show(one_line(f"{state}: {finding.file}: {finding.what}"))
            if not findings:
                show("every file is whole.")
        if not all(finding.repaired for finding in findings):
            raise typer.Exit(INFRASTRUCTURE)


def _against_seal(ledger: Ledger, declaration: str, results: str | None) -> list[Finding]:
    """A finding for each part of a study that a published seal says otherwise."""
    from sweep.views.reading import Reading
    from sweep.views.seal import differences

    try:
        differing = differences(Reading(ledger), declaration, results)
    except (DamagedLedger, DamagedRun) as error:
        differing = [f"the seal cannot be compared: {error}"]
    if not differing:
        say("the seal fits.")
    return [Finding(ledger.store.where(), what, False) for what in differing]


def seal(study: StudyArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Print a line to publish, which later shows whether declaration or results were changed."""
    from sweep.views.seal import seal_before, seal_of

    with errors(study, store):
        ledger = ledger_of(study, store)
        if ledger.declared() is None:
            fresh, lines = with_fresh_seeds(ledger, load(find(study)), None)
            for line in lines:
                say(line)
            found = seal_before(fresh)
        else:
            found = seal_of(reading_of(begun_ledger_of(study, store)))
        if as_json:
            print_json({"seal": found.line, **asdict(found)})
            return
        show(found.line)
        say(f"declaration {found.declaration}")
        grew = f", which grew {counted(found.growth, 'time')}" if found.growth else ""
        say(f"  of the study {found.study}{grew}")
        if found.results is None:
            say("no run has finished, so that the declaration alone is sealed.")
            return
        say(f"results {found.results}")
        runs, looks = counted(found.runs, "finished run"), counted(found.looks, "look")
        say(f"  of {runs} and {counted(found.generations, 'generation')}; {looks} recorded")
