"""`sweep sync | report | export | ui STUDY`: what came of a study, from its ledger alone, which they only read.

(One thing is written: that a comparison was seen. Seeds that are added afterwards are tested alone.)
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.options import (
    DEFAULT_STORE,
    INFRASTRUCTURE,
    JsonOption,
    MlflowOption,
    StoreOption,
    StudyArgument,
    app,
    errors,
    leave,
    other,
    place_of,
    print_json,
    say,
)
from sweep.errors import RejectStudy
from sweep.ledger.lease import holder
from sweep.ledger.ledger import Ledger
from sweep.study import files as studies
from sweep.views.mlflow.following import NONE, artifacts_of, follow, uri_of
from trainer.store import open_store

if TYPE_CHECKING:
    from sweep.gains.comparisons import Compared
    from sweep.views.mlflow.view import View
    from sweep.views.reading import Reading

PORT = 5000
START_SECONDS = 120.0

ON_THE_LAST_PASS = ("scipy.special", "matplotlib.pyplot")
"""What the report needs. Imported while the runs train, it keeps nobody waiting at the end."""


@app.command()
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
    with errors():
        ledger, uri = _ledger(study, store), uri_of(mlflow_uri, place_of(store))
        view = _view(ledger, place_of(store), uri)
        at_work = (lambda: holder(ledger.store) is not None) if following else (lambda: False)
        update = _updating(view)

        def and_get_ready(live: bool) -> int:
            wrote = update(live)
            for name in ON_THE_LAST_PASS:
                import_module(name)
            return wrote

        if not follow(and_get_ready if following else update, at_work, say, time.sleep):
            if following:
                raise typer.Exit(INFRASTRUCTURE)  # the sweep that it ran beside says what to do
            at = f" --mlflow-uri {view.experiment.where}" if mlflow_uri else ""
            leave(
                f"MLflow is not up to date. Once it answers again: {other('sync', study, store)}{at}",
                INFRASTRUCTURE,
            )
        experiment = view.experiment
        if as_json:
            print_json(
                {
                    "uri": experiment.where,
                    "experiment": experiment.id,
                    "runs": len(experiment.runs),
                    "points_sent": experiment.points,
                }
            )
        elif not following:
            print(
                f"{len(experiment.runs)} runs of MLflow show {ledger.store.where()}; {experiment.points} metric points were sent."
            )


@app.command()
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
    from sweep.views.export.files import strict
    from sweep.views.reading import Reading
    from sweep.views.report.page import Report, page
    from sweep.views.report.words import markdown

    with errors():
        ledger = _ledger(study, store)
        found = Report.of(Reading(ledger))
        if as_json:
            print_json(strict(found.numbers))
        else:
            print(markdown(found.numbers))
        home = Path() if "://" in store else Path(place_of(store))
        file = to or home / f"{ledger.study}-report.html"
        open_store(file.absolute().parent).write(file.name, page(found).encode())
        say(f"the whole page: {file}")


@app.command()
def export(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="where the tables go")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Tidy Parquet, a data dictionary, and a notebook that computes the report anew."""
    from sweep.views.export import files as exports
    from sweep.views.reading import Reading
    from sweep.views.report.page import Report

    with errors():
        reading = Reading(_ledger(study, store))
        compared = reading.compare()
        numbers = Report.of(reading, compared).numbers
        rows = exports.export(
            reading,
            numbers,
            compared,
            to.absolute(),
            lambda table, done: say(f"{table}: {done:,} rows so far"),
        )
        if as_json:
            print_json({"to": str(to), "rows": rows})
        else:
            print("\n".join(f"{to / table}.parquet  {count:,} rows" for table, count in rows.items()))
            say(f"the columns: {to / 'README.md'}; the report anew: {to / 'significance.ipynb'}")


@app.command()
def ui(
    study: StudyArgument,
    store: StoreOption = DEFAULT_STORE,
    mlflow_uri: MlflowOption = None,
    port: Annotated[int, typer.Option(help="0 takes any that is free")] = PORT,
) -> None:
    """Open MLflow on a study's gains: starts its server on this machine (or uses the one given), until Ctrl-C."""
    from sweep.views.mlflow.page import link
    from sweep.views.mlflow.view import SEARCH, gains_page

    with errors():
        ledger, uri = _ledger(study, store), uri_of(mlflow_uri, place_of(store))
        view = _view(ledger, place_of(store), uri)
        say("bringing MLflow up to date with the ledger ...")
        if not follow(_updating(view), lambda: False, say, time.sleep):
            leave(
                f"MLflow does not answer. Give --mlflow-uri, or see what is wrong with {view.experiment.where}",
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
        chosen = _free(port)
        if port and chosen != port:
            say(f"port {port} is taken; here it is another.")
        with (
            tempfile.TemporaryFile("w+") as told,
            _server(uri, artifacts_of(uri, place_of(store), ledger.study) or "", chosen, told) as server,
        ):
            try:
                _wait_for(server, chosen, told)
                _open(link(f"http://127.0.0.1:{chosen}", view.experiment.id, first))
                say("Ctrl-C ends it.")
                server.wait()
            except KeyboardInterrupt:
                pass
            finally:
                server.terminate()
                server.wait()


def _ledger(study: str, store: str) -> Ledger:
    ledger = Ledger(place_of(store), studies.find(study).stem, say)
    if ledger.declared() is None:
        raise RejectStudy(
            [f"{ledger.store.where()} holds no study yet. To begin it: {other('run', study, store)}"]
        )
    return ledger


def _view(ledger: Ledger, place: str, uri: str) -> View:
    from sweep.views.mlflow.client import Experiment
    from sweep.views.mlflow.view import View

    if uri == NONE:
        raise RejectStudy([f"--mlflow-uri {NONE}: then there is no MLflow to show anything in."])
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return View(
        ledger,
        Experiment(uri, ledger.study, ledger.store.where(), artifacts_of(uri, place, ledger.study)),
        say,
    )


def _updating(view: View) -> Callable[[bool], int]:
    """The report is drawn once nobody waits for the next run any more: it takes seconds, and a sweep has a use for them."""
    from sweep.views.report.page import page_and_note

    drawn: dict[str, tuple[str, str]] = {}

    def report(reading: Reading, compared: Sequence[Compared]) -> tuple[str, str]:
        stands = repr(
            (reading.declared, sorted(reading.plan.results), reading.failures, reading.looks, compared)
        )
        if stands not in drawn:  # the last update is made twice, to see that nothing is left
            drawn.clear()
            drawn[stands] = page_and_note(reading, compared)
        return drawn[stands]

    return lambda again: view.update(
        live=holder(view.ledger.store) is not None, report=None if again else report
    )


def _free(port: int) -> int:
    """This port, or any other where it is taken."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise AssertionError("some port is always free")


def _server(uri: str, artifacts: str, port: int, told: IO[str]) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    more = ["--artifacts-destination", artifacts, "--workers", "1"]
    # the address in the environment, where a password in it is not on show
    quiet = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # a session of its own, so that Ctrl-C reaches it through us, once
    return subprocess.Popen(
        [*command, *more], env={**os.environ, **quiet}, stdout=told, stderr=told, start_new_session=True
    )


def _wait_for(server: subprocess.Popen[Any], port: int, told: IO[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            told.seek(0)
            leave(f"{told.read()}\nthe MLflow server ended with code {server.returncode}.", INFRASTRUCTURE)
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    leave(f"the MLflow server did not answer within {START_SECONDS:g} s.", INFRASTRUCTURE)


def _open(url: str) -> None:
    """Show the link, and open it where there is a display to open it on."""
    print(url, flush=True)
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
