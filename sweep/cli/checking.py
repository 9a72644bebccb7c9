"""The commands `status` and `doctor`: how far a study is, and whether its files are whole."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from sweep.cli.options import JsonOption, StoreOption, StudyArgument, begun_ledger_of, ledger_of
from sweep.cli.output import DEFAULT_STORE, command_for, errors, print_json, show
from sweep.cli.screen import arms_table, console, failures_table, time_left
from sweep.format import counted
from sweep.gains.progress import overview
from sweep.ledger.lease import holder
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.study import find, load
from trainer.exits import INFRASTRUCTURE
from trainer.models import own
from trainer.plain import one_line
from trainer.terminal import Terminal

WATCH_SECONDS = 5.0


def status(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[
        bool, typer.Option("--watch", help="show it again every 5 seconds, until the study is done")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a study is: arms, gains so far, failures with their logs. Works while it runs."""
    with errors(study, store):
        out = console()
        while True:
            complete = _show_status(study, store, out, as_json)
            if not watch or complete:
                return
            time.sleep(WATCH_SECONDS)
            if out.is_terminal and not as_json:
                out.clear()


def _show_status(given: str, store: str, out: Terminal, as_json: bool) -> bool:
    """Show a study's state once; return whether the study is complete."""
    ledger = begun_ledger_of(given, store)
    state = ledger.state()
    study, plan, failures = state.study, state.plan, state.failures
    view = overview(plan, forecast(Plan(study, {}, {}), 1).runs, {})
    driver, taken = holder(ledger.store), Counter(ledger.taken().values())
    outside = sum(not claim.holder["lease"] for claim in ledger.claims().values())
    if as_json:
        values = {"study": study.name, "complete": plan.complete, "driver": driver, "outside": outside}
        values = {**values, "taken": taken, "failures": failures, "damaged": ledger.damaged}
        print_json({**values, **asdict(view)})
        return plan.complete
    lines = [f"{view.done}/{counted(view.total, 'run')} done, {len(failures)} failed"]
    lines += [f"{counted(runs, 'run')} taken over from {name}" for name, runs in taken.items()]
    if driver:
        lines.append(f"driven by process {driver['pid']} on {driver['host']} since {driver['since']}")
        if now := driver["now"]:
            running, slots = counted(now["running"], "run"), counted(now["slots"], "slot")
            lines.append(f"{running} under way on {slots}; {time_left(view, now['slots'])}")
    elif not plan.complete and not outside:
        packages = dict.fromkeys(own.package_of(task.model) or "" for task in study.own_models)
        allowing = [word for package in packages for word in (own.OPTION, package)]
        lines.append(f"no process works on it now. To go on: {command_for('run', given, store, *allowing)}")
    if outside:
        lines.append(f"{counted(outside, 'run')} being trained outside of a sweep")
    lines += ledger.damaged.values()
    out.print(arms_table(view, study.analysis.endpoints))
    out.print("\n".join(map(one_line, lines)))
    if failures:
        out.print(failures_table(failures))
    return plan.complete


def doctor(study: StudyArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Check every file of a study, say what is damaged, and repair what can be made again."""
    from sweep.ledger.doctor import examine  # Optuna comes with it

    with errors(study, store):
        findings = examine(load(find(study)), ledger_of(study, store))
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
