"""Measure what showing a sweep in MLflow costs beside Ray's stock callback: `python -m benchmarks.view`.

Both sides talk to one real MLflow server over HTTP, in turn, each to its own experiment. The stock
callback sends result by result, as Tune would call it; our view reads the ledger. Then a ledger grows
run by run under a view that follows it: how long until MLflow has what was kept?
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.large import make, study
from benchmarks.machine import RESULTS, describe
from sweep.ledger.ledger import Ledger
from sweep.study import Candidate, Study
from sweep.views.mlflow.client import Experiment
from sweep.views.mlflow.following import follow
from sweep.views.mlflow.server import free_port, serving
from sweep.views.mlflow.view import View
from trainer.rows import EpochRow, from_parquet, json_ready

ARMS, SEEDS, EPOCHS, STOCK_RESULTS, ROUNDS = 2, 6, 200, 40, 3
REQUIRED = 20.0


@contextmanager
def server(folder: Path) -> Generator[str]:
    """An MLflow server on loopback."""
    port, artifacts = free_port(0), str(folder / "artifacts")
    with serving(f"sqlite:///{folder}/mlflow.db", artifacts, port, folder / "server.log"):
        yield f"http://127.0.0.1:{port}"


def stock(uri: str, rows: list[EpochRow], name: str) -> float:
    """Return the points per second of the callback, result by result."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name=name)
    callback.setup()
    trial: Any = type("Trial", (), {"config": {"seed": 1}})()
    callback.log_trial_start(trial)
    sent, began = 0, time.perf_counter()
    for row in rows:
        numbers = {
            key: value
            for key, value in json_ready(row).items()
            if isinstance(value, (int, float)) and key != "epoch"
        }
        callback.log_trial_result(row.epoch, trial, {**numbers, "training_iteration": row.epoch})
        sent += len(numbers)
    return sent / (time.perf_counter() - began)


def ours(uri: str, ledger: Ledger, name: str) -> float:
    """Return the points per second of a view that is built from nothing, with everything that it writes."""
    experiment = Experiment(uri, name, ledger.store.where(), None)
    view = View(ledger, experiment, print)
    began = time.perf_counter()
    view.update(live=False)
    return experiment.points / (time.perf_counter() - began)


def behind(uri: str, whole: Path, folder: Path, made: Study) -> list[float]:
    """Return the seconds from a run's outcome in the ledger until the view has its last epoch."""
    growing = folder / "growing"
    (growing / made.name / "runs").mkdir(parents=True)
    shutil.copy(whole / made.name / "study.json", growing / made.name)
    ledger = Ledger(str(growing), made.name, print)
    view = View(ledger, Experiment(uri, "growing", ledger.store.where(), None), print)
    stop, seen = threading.Event(), dict[str, float]()

    def update(live: bool) -> int:
        wrote = view.update(live=live)
        for key, run in view.experiment.runs.items():
            if run.tags.get("epochs_sent"):
                seen.setdefault(key, time.perf_counter())
        return wrote

    follower = threading.Thread(target=follow, args=(update, lambda: not stop.is_set(), print, time.sleep))
    follower.start()
    kept: dict[str, float] = {}
    for arm in made.arms:
        for seed in made.arms[arm].seeds:
            run_id = made.run(Candidate(arm, arm, {}), "confirm", seed).run_id
            shutil.copytree(whole / made.name / "runs" / run_id, growing / made.name / "runs" / f".{run_id}")
            (growing / made.name / "runs" / f".{run_id}").rename(growing / made.name / "runs" / run_id)
            kept[f"run {run_id}"] = time.perf_counter()
            time.sleep(3)
    stop.set()
    follower.join()
    return [seen[key] - moment for key, moment in kept.items()]


def main() -> None:
    """Measure in turn, print, keep."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = study(ARMS, SEEDS, EPOCHS)
        make(folder, made)
        ledger = Ledger(str(folder), made.name, print)
        first = next(iter(sorted((folder / made.name / "runs").iterdir())))
        rows = from_parquet(EpochRow, (first / "epochs.parquet").read_bytes())[:STOCK_RESULTS]
        with server(folder) as uri:
            rates: dict[str, list[float]] = {"stock": [], "ours": []}
            ours(uri, ledger, "warming")
            for turn in range(ROUNDS):
                rates["stock"].append(stock(uri, rows, f"stock-{turn}"))
                rates["ours"].append(ours(uri, ledger, f"ours-{turn}"))
                print(
                    ", ".join(f"{name} {found[-1]:,.0f} points/s" for name, found in rates.items()),
                    flush=True,
                )
            lags = behind(uri, folder, folder, made)
    ratio = statistics.median(
        ours / stock for ours, stock in zip(rates["ours"], rates["stock"], strict=True)
    )
    print(
        f"ratio {ratio:.1f};"
        f" seconds behind the ledger: median {statistics.median(lags):.1f}, most {max(lags):.1f}"
    )
    found = {
        "points_per_second": rates,
        "ratio": ratio,
        "seconds_behind": lags,
        "machine": describe("mlflow", "ray"),
    }
    (RESULTS / "view.json").write_text(json.dumps(found, indent=1) + "\n")
    assert ratio >= REQUIRED, f"the ratio is {ratio:.1f}; {REQUIRED:g} is required"


if __name__ == "__main__":
    main()
