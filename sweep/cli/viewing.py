"""`sweep report | export | ui | sync STUDY`: what came of a study, from its ledger alone, which they only read.

(One thing is written: that a comparison was seen. Seeds that are added afterwards are tested alone.)
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import JsonOption, MlflowOption, StoreOption, StudyArgument, ledger_of, place_of
from sweep.cli.output import DEFAULT_STORE, errors, leave, other, print_json, say
from sweep.views.mlflow import open_view
from sweep.views.mlflow.address import artifacts_of, uri_of
from trainer.exits import INFRASTRUCTURE
from trainer.store import open_store

PORT = 5000


def report(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="the page; STORE/STUDY-report.html by default"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The gains as a table on stdout, and everything with pictures as one HTML page."""
    from sweep.views.reading import Reading
    from sweep.views.report.page import Report, page
    from sweep.views.report.words import markdown

    with errors(study, store):
        ledger = ledger_of(study, store)
        found = Report.of(Reading(ledger))
        if as_json:
            print_json(found.findings.as_json())
        else:
            print(markdown(found.findings))
        home = Path() if "://" in store else Path(place_of(store))
        file = to or home / f"{ledger.study}-report.html"
        open_store(file.absolute().parent).write(file.name, page(found).encode())
        say(f"the whole page: {file}")


def export(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="where the tables go")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Tidy Parquet, a data dictionary, and a notebook that computes the report anew."""
    from sweep.views.export import files
    from sweep.views.reading import Reading
    from sweep.views.report.page import Report

    with errors(study, store):
        reading = Reading(ledger_of(study, store))
        found = Report.of(reading).findings
        rows = files.export(
            reading, found, to.absolute(), lambda table, done: say(f"{table}: {done:,} rows so far")
        )
        if as_json:
            print_json({"to": str(to), "rows": rows})
        else:
            print("\n".join(f"{to / table}.parquet  {count:,} rows" for table, count in rows.items()))
            say(f"the columns: {to / 'README.md'}; the report anew: {to / 'significance.ipynb'}")


def ui(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    mlflow_uri: MlflowOption = None,
    port: Annotated[int, typer.Option(help="0 takes any that is free")] = PORT,
) -> None:
    """Open MLflow on a study's gains: starts its server on this machine (or uses the one given), until Ctrl-C."""
    from sweep.views.mlflow.following import catch_up
    from sweep.views.mlflow.page import SEARCH, gains_page, link
    from sweep.views.mlflow.server import free_port, serving

    with errors(study, store):
        place = place_of(store)
        uri, ledger = uri_of(mlflow_uri, place), ledger_of(study, store)
        ledger.begun()
        view = open_view(ledger, place, uri, say)
        say("bringing MLflow up to date with the ledger ...")
        if not catch_up(view, say):
            where = view.experiment.where
            leave(
                f"MLflow does not answer. Give --mlflow-uri, or see what is wrong with {where}",
                INFRASTRUCTURE,
            )
        begun = any(run.tags.get("phase") == "confirm" for run in view.experiment.runs.values())
        first = gains_page() if begun else SEARCH
        if not begun:
            say("nothing is confirmed yet, so there are no gains: this is the search so far.")
        if uri.startswith("http"):
            _open(link(uri, view.experiment.id, first))
            return
        for number in (signal.SIGINT, signal.SIGTERM):  # whichever way it is ended, the server ends with it
            signal.signal(number, signal.default_int_handler)
        chosen = free_port(port)
        if port and chosen != port:
            say(f"port {port} is taken; here it is another.")
        artifacts = artifacts_of(uri, place, ledger.study) or ""
        with tempfile.NamedTemporaryFile() as log:
            try:
                with serving(uri, artifacts, chosen, Path(log.name)) as server:
                    _open(link(f"http://127.0.0.1:{chosen}", view.experiment.id, first))
                    say("Ctrl-C ends it.")
                    server.wait()
            except KeyboardInterrupt:
                pass


def sync(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    mlflow_uri: MlflowOption = None,
    following: Annotated[
        bool, typer.Option("--follow", help="go on until no sweep drives the study any more")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring MLflow up to date with the ledger; from nothing, if need be. `run` does this by itself while it works."""
    from sweep.views.mlflow.following import catch_up, keep_up

    with errors(study, store):
        ledger, place = ledger_of(study, store), place_of(store)
        ledger.begun()
        view = open_view(ledger, place, uri_of(mlflow_uri, place), say)
        experiment = view.experiment
        if not (keep_up if following else catch_up)(view, say):
            if following:
                raise typer.Exit(INFRASTRUCTURE)  # the sweep that it ran beside says what to do
            at = f" --mlflow-uri {experiment.where}" if mlflow_uri else ""
            again = f"{other('sync', study, store)}{at}"
            leave(f"MLflow is not up to date. Once it answers again: {again}", INFRASTRUCTURE)
        if as_json:
            counts = {"runs": len(experiment.runs), "points_sent": experiment.points}
            print_json({"uri": experiment.where, "experiment": experiment.id, **counts})
        elif not following:
            where = ledger.store.where()
            print(
                f"{len(experiment.runs)} runs of MLflow show {where}; {experiment.points} metric points were sent."
            )


def _open(url: str) -> None:
    """Show the link, and open it where there is a display to open it on."""
    print(url, flush=True)
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
