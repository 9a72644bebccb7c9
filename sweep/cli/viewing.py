"""The commands `report`, `export`, `ui` and `sync`: they show a study's results, from its ledger alone.

They write one thing into the ledger: that comparisons were seen. A study that grows after that is tested by
other rules.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import (
    JsonOption,
    MlflowOption,
    StoreOption,
    StudyArgument,
    begun_ledger_of,
    place_of,
    reading_of,
)
from sweep.cli.output import (
    DEFAULT_STORE,
    command_for,
    errors,
    leave,
    print_json,
    say,
    show,
    with_tracker,
)
from sweep.cli.secret_file import first_line
from sweep.format import counted
from sweep.views.mlflow import open_view
from sweep.views.mlflow.address import artifacts_of, public_uri, uri_of
from trainer import stopping
from trainer.exits import INFRASTRUCTURE
from trainer.store import StoreError, open_store

PORT = 5000
"""The port of MLflow's server where none is given."""


def report(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="the page's file; by default STORE/STUDY-report.html"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the gains as a table, and write one HTML page with everything, pictures too."""
    from sweep.views.destination import check_file
    from sweep.views.report.page import Report, page
    from sweep.views.report.words import markdown

    with errors(study, store):
        if to:
            check_file(to)
        ledger = begun_ledger_of(study, store)
        study_report = Report.of(reading_of(ledger))
        if as_json:
            print_json(study_report.findings.as_json())
        else:
            show(markdown(study_report.findings))
        home = Path() if "://" in store else Path(place_of(store))
        file = to or home / f"{ledger.study}-report.html"
        try:
            open_store(file.absolute().parent).write(file.name, page(study_report).encode())
        except StoreError as error:
            leave(f"{error} Give --to FILE to write the page elsewhere.", INFRASTRUCTURE)
        say(f"the whole page: {file}")


def export(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="the folder for the tables")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write Parquet tables, what their columns mean, and a notebook that computes the report again."""
    from sweep.views.export import files
    from sweep.views.report.page import Report

    with errors(study, store):
        reading = reading_of(begun_ledger_of(study, store))
        findings = Report.of(reading).findings

        def progress(table: str, done: int) -> None:
            say(f"{table}: {counted(done, 'row')} so far")

        rows = files.export(reading, findings, to.absolute(), progress)
        if as_json:
            print_json({"to": str(to), "rows": rows})
            return
        for table, count in rows.items():
            show(f"{to / table}.parquet  {counted(count, 'row')}")
        say(f"what the columns mean: {to / 'README.md'}")
        say(f"a notebook that computes the report again: {to / 'significance.ipynb'}")


def ui(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    mlflow_uri: MlflowOption = None,
    port: Annotated[int, typer.Option(help="the port of MLflow's server; 0 takes any free one")] = PORT,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file",
            metavar="FILE",
            help="ask for the password on the first line of this file; any user name will do",
        ),
    ] = None,
) -> None:
    """Open MLflow on a study's gains. A server runs here until Ctrl-C, unless --mlflow-uri names one."""
    from sweep.views.mlflow.following import catch_up
    from sweep.views.mlflow.page import SEARCH, gains_page, link
    from sweep.views.mlflow.server import free_port

    with errors(study, store):
        place, password = place_of(store), password_file and first_line(password_file, "--password-file")
        uri, ledger = uri_of(mlflow_uri, place), begun_ledger_of(study, store)
        view = open_view(ledger, place, uri, say)
        say("bringing MLflow up to date with the ledger ...")
        experiment = view.experiment
        if not catch_up(view, say):
            advice = f"Give --mlflow-uri, or see what is wrong with {experiment.where}"
            leave(f"MLflow does not answer. {advice}", INFRASTRUCTURE)
        confirming = any(run.tags.get("phase") == "confirm" for run in experiment.runs.values())
        first = gains_page() if confirming else SEARCH
        if not confirming:
            say("the confirmation has not begun, so there are no gains yet: this shows the search so far.")
        if uri.startswith("http"):
            _open(link(public_uri(uri), experiment.id, first))
            return
        free = free_port(port)
        if port and free != port:
            say(f"port {port} is taken; MLflow runs on port {free}.")
        address = link(f"http://127.0.0.1:{free}", experiment.id, first)
        _serve(uri, artifacts_of(uri, place, ledger.study) or "", free, address, password)


def _serve(uri: str, artifacts: str, port: int, address: str, password: str | None) -> None:
    """Run MLflow's server, and open an address of it, until Ctrl-C."""
    from sweep.views.mlflow.server import serving

    # whichever signal ends this command, the server has to end with it
    stopping.catch(signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        tempfile.NamedTemporaryFile() as log,
        serving(uri, artifacts, port, Path(log.name), password) as server,
    ):
        _open(address)
        say("Ctrl-C ends it.")
        server.wait()


def sync(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    mlflow_uri: MlflowOption = None,
    following: Annotated[
        bool, typer.Option("--follow", help="go on until no `sweep run` works on the study")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring MLflow up to date with a study, or fill an empty one. `run` does this while it works."""
    from sweep.views.mlflow.following import catch_up, keep_up

    with errors(study, store):
        ledger, place = begun_ledger_of(study, store), place_of(store)
        view = open_view(ledger, place, uri_of(mlflow_uri, place), say)
        experiment = view.experiment
        up_to_date = keep_up(view, say) if following else catch_up(view, say)
        if not up_to_date:
            # with --follow, the `sweep run` that started this command tells the user what to do
            if following:
                raise typer.Exit(INFRASTRUCTURE)
            command = with_tracker(command_for("sync", study, store), mlflow_uri)
            leave(f"MLflow is not up to date. Once it answers again: {command}", INFRASTRUCTURE)
        if as_json:
            counts = {"runs": len(experiment.runs), "points_sent": experiment.points}
            print_json({"uri": experiment.where, "experiment": experiment.id, **counts})
        elif not following:
            runs, points = counted(len(experiment.runs), "run"), counted(experiment.points, "metric point")
            show(f"MLflow has {runs} for {ledger.store.where()}. Sent now: {points}.")


def _open(url: str) -> None:
    """Print a link, and open it in a browser where there is a display."""
    print(url, flush=True)
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
