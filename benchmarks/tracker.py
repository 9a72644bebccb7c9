"""Does a sweep notice its tracker? `python -m benchmarks.tracker`; a quarter of an hour.

The same sweep runs beside a real MLflow server in each of several states. The server is well, down,
stopped half-way, or behind a proxy that forwards every request and answers every third with 500. The
states take turns, several rounds. Afterwards `sweep sync` has to make the view complete.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from benchmarks.machine import RESULTS, describe
from benchmarks.view import server
from sweep.ledger.ledger import Ledger
from sweep.views.mlflow.client import Experiment
from sweep.views.reading import Reading

ROUNDS = 3
STUDY: dict[str, Any] = {
    "task": {
        "data": "digits",
        "model": "wrn-10-1",
        "epochs": 20,
        "batch_size": 32,
        "train_size": 200,
        "evaluate_every": 4,
    },
    "arms": {"dense": {"policy": {"name": "dense"}}, "fixed": {"policy": {"name": "fixed", "ratio": 0.3}}},
    "confirm": {"seeds": 14},
    "analysis": {"baseline": "dense", "endpoints": [1.0]},
    "resources": {"cpus": 1, "workers": 2, "commit_share": 1},
}
CLOSED = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


@contextmanager
def proxy(uri: str, failing: int = 3) -> Generator[str]:
    """Forward to a server; answer one of every so many requests with 500 after forwarding it."""
    host, count, lock = urlsplit(uri).netloc, [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(host, timeout=60)
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            with lock:
                count[0] += 1
                lost = count[0] % failing == 0
            self.send_response(500 if lost else answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    between = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{between.server_port}"
    between.shutdown()
    between.server_close()


def run(study: Path, store: Path, uri: str) -> dict[str, float]:
    """Return the seconds of the command, and those until its last run had finished."""
    command = [sys.executable, "-m", "sweep", "run", str(study), "--store", str(store), "--mlflow-uri", uri]
    with (store.parent / "log.txt").open("a") as log:
        began = time.time()
        subprocess.run(command, check=True, stdout=log, stderr=log)
        ended = time.time()
    last = max(path.stat().st_mtime for path in store.glob("*/runs/*/outcome.json"))
    return {"whole": ended - began, "trained": last - began}


def complete(uri: str, store: Path, name: str) -> bool:
    """Say whether `sweep sync` ends well and MLflow then has every run."""
    subprocess.run(
        [sys.executable, "-m", "sweep", "sync", f"{name}.yaml", "--store", str(store), "--mlflow-uri", uri],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    ledger = Ledger(str(store), name, print)
    experiment = Experiment(uri, name, ledger.store.where(), None)
    experiment.open()
    return {key.removeprefix("run ") for key in experiment.runs if key.startswith("run ")} == set(
        Reading(ledger).runs
    )


def measure(way: str, folder: Path) -> dict[str, float]:
    """Measure one sweep beside a tracker in one state."""
    study, store = folder / f"{way}.yaml", folder / "store"
    study.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    store.mkdir()
    with server(folder) as uri:
        match way:
            case "down":
                found = run(study, store, CLOSED)
            case "500":
                with proxy(uri) as unsure:
                    found = run(study, store, unsure)
            case "stopped-half-way":
                found = _stopped(study, store, folder)
            case "none":
                found = run(study, store, "none")
            case _:
                found = run(study, store, uri)
        assert complete(uri, store, way), f"{way}: the view is not complete"
    return found


def _stopped(study: Path, store: Path, folder: Path) -> dict[str, float]:
    """Run a server that is killed when half the runs have finished."""
    other = folder / "other"
    other.mkdir()
    with server(other) as uri:
        process = next(
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if str(other) in (path / "cmdline").read_bytes().decode(errors="replace")
        )

        def stop() -> None:
            while len(list(store.glob("*/runs/*/outcome.json"))) < STUDY["confirm"]["seeds"]:
                time.sleep(0.5)
            os.kill(process, signal.SIGTERM)

        threading.Thread(target=stop, daemon=True).start()
        return run(study, store, uri)


def main() -> None:
    """Measure in turn, print, keep."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = options.parse_args().rounds
    ways = ("well", "down", "stopped-half-way", "500", "none")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            with tempfile.TemporaryDirectory() as place:
                found[way].append(measure(way, Path(place)))
            print(
                f"{way}: {found[way][-1]['whole']:.1f} s, trained after {found[way][-1]['trained']:.1f} s",
                flush=True,
            )
    ratios = {
        way: {
            part: statistics.median(
                it[part] / well[part] for it, well in zip(found[way], found["well"], strict=True)
            )
            for part in ("whole", "trained")
        }
        for way in ways
    }
    print(json.dumps(ratios, indent=1))
    (RESULTS / "tracker.json").write_text(
        json.dumps({"seconds": found, "beside_well": ratios, "machine": describe("mlflow", "ray")}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
