"""Time the report and the export of a large study, 2,000 runs of 500 epochs: `python -m benchmarks.large`.

It takes some minutes and 600 MB of disk. The ledger is made up, file by file as a sweep would leave it.
The commands that read it are the real ones, each in its own process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import describe
from sweep.ledger.growth import declaration
from sweep.study import Candidate, Study
from sweep.study.contents import Contents
from trainer.rows import EndpointRow, EpochRow, schema
from trainer.store import digest, seal

RESULTS = Path(__file__).parent / "results" / "large.json"
ARMS, SEEDS, EPOCHS, SITES, IMAGES = 20, 100, 500, 25, 10_000
LIMIT_SECONDS, LIMIT_BYTES = 60.0, 1e9


def study(arms: int, seeds: int, epochs: int) -> Study:
    """A study of fixed arms alone: every run is a confirmation run, which the report says most about."""
    fixed: dict[str, Any] = {
        f"fixed-{i}": {"policy": {"name": "fixed", "ratio": (i + 1) / (arms + 1)}} for i in range(arms - 1)
    }
    values: dict[str, Any] = {
        "task": {"data": "cifar10", "model": "wrn-28-4", "epochs": epochs},
        "arms": {"dense": {"policy": {"name": "dense"}}, **fixed},
        "confirm": {"seeds": seeds},
        "analysis": {"baseline": "dense", "curve": [0.5, 0.25]},
    }
    return Study("large", Contents.read(values))


def make(folder: Path, study: Study) -> None:
    """Write the ledger of a finished study."""
    root, rng = folder / study.name, np.random.default_rng(1)
    root.mkdir(parents=True)
    (root / "study.json").write_bytes(declaration(study, []))
    for arm in study.arms:
        for seed in study.arms[arm].seeds:
            spec = study.run(Candidate(arm, arm, {}), "confirm", seed)
            run = root / "runs" / spec.run_id
            (run / "attempt-1").mkdir(parents=True)
            tables = {
                "epochs": _epochs(spec.run_id, spec.task.epochs, rng),
                "endpoints": _endpoints(spec.run_id, spec.task.endpoints, rng),
            }
            files: dict[str, Any] = {}
            for kind, data in tables.items():
                name = f"attempt-1/{kind}-{spec.task.epochs}-{digest(data)[:16]}.parquet"
                files[kind] = {"name": name, "bytes": len(data), "sha256": digest(data)}
                (run / name).write_bytes(data)
                (run / f"{kind}.parquet").write_bytes(data)
            now = datetime.now(UTC).isoformat()
            ran_on = {
                "code": "made up",
                "commit": "none",
                "torch": "none",
                "device": "none",
                "device_name": "none",
                "threads": 1,
            }
            (run / "spec.json").write_text(spec.to_json())
            (run / "attempt-1" / "attempt.json").write_bytes(
                seal({**ran_on, "node": "none", "started_at": now})
            )
            outcome = {
                "outcome": "completed",
                "epochs": spec.task.epochs,
                "collapsed": False,
                "attempt": 1,
                "files": files,
            }
            (run / "outcome.json").write_bytes(seal({**outcome, "run_id": spec.run_id, "written_at": now}))


def _epochs(run_id: str, epochs: int, rng: np.random.Generator) -> bytes:
    numbers = np.arange(1, epochs + 1)
    height = 0.87 + rng.normal(0, 0.004)
    accuracy = height * (1 - np.exp(-numbers / 40)) + rng.normal(0, 0.002, epochs)
    known: dict[str, Any] = {
        "run_id": [run_id] * epochs,
        "epoch": numbers,
        "reset": numbers % 96 == 0,
        "cycle": numbers // 96,
        "nonzero_rate_by_site": pa.FixedSizeListArray.from_arrays(rng.random(epochs * SITES), SITES).cast(
            schema(EpochRow).field("nonzero_rate_by_site").type
        ),
        "ended_at": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=int(n)) for n in numbers],
        "validation_accuracy": pa.nulls(epochs, pa.float64()),
        "dense_validation_accuracy": pa.nulls(epochs, pa.float64()),
        # a fixed ratio moves no connections
        **{it: pa.nulls(epochs, pa.int64()) for it in ("connections", "active_neurons", "parameters")},
    }
    columns = [known.get(name, accuracy) for name in schema(EpochRow).names]
    return _parquet(
        pa.table(
            [pa.array(it) if not isinstance(it, pa.Array) else it for it in columns], schema=schema(EpochRow)
        )
    )


def _endpoints(run_id: str, ratios: tuple[float, ...], rng: np.random.Generator) -> bytes:
    rows: list[dict[str, Any]] = []
    for ratio in ratios:
        correct = rng.random(IMAGES) < 0.87 * ratio**0.05 + rng.normal(0, 0.003)
        accuracy, bits = float(correct.mean()), np.packbits(correct).tobytes()
        own = {"run_id": run_id, "split": "test", "keep_ratio": ratio, "images": IMAGES}
        rows.append({**own, "accuracy": accuracy, "loss": 0.5, "correct": bits})
    return _parquet(pa.Table.from_pylist(rows, schema=schema(EndpointRow)))


def _parquet(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def measure(command: list[str]) -> dict[str, float]:
    """A command's wall time and the most memory it held."""
    code = "import resource, subprocess, sys; "
    code += f"c = subprocess.run({command!r}, stdout=subprocess.DEVNULL).returncode; "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(c)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return {"seconds": time.perf_counter() - began, "bytes": 1024 * int(done.stdout)}


def main() -> None:
    """Make the ledger, measure, print, keep."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--arms", type=int, default=ARMS)
    options.add_argument("--seeds", type=int, default=SEEDS)
    options.add_argument("--epochs", type=int, default=EPOCHS)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        began = time.perf_counter()
        make(folder, study(given.arms, given.seeds, given.epochs))
        print(
            f"{given.arms * given.seeds:,} runs x {given.epochs} epochs"
            f" made up in {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        sweep, where = [sys.executable, "-m", "sweep"], ["large.yaml", "--store", str(folder)]
        found: dict[str, Any] = {}
        for name, more in {
            "report": ["--to", str(folder / "page.html")],
            "export": ["--to", str(folder / "out")],
        }.items():
            found[name] = measure([*sweep, name, *where, *more])
            print(f"{name}: {found[name]['seconds']:.1f} s, {found[name]['bytes'] / 1e6:.0f} MB", flush=True)
        found["page_bytes"] = (folder / "page.html").stat().st_size
        found["export_bytes"] = sum(path.stat().st_size for path in (folder / "out").iterdir())
    whole = {
        "runs": given.arms * given.seeds,
        "epochs": given.epochs,
        **found,
        "machine": describe("pyarrow", "matplotlib"),
    }
    RESULTS.write_text(json.dumps(whole, indent=1) + "\n")
    assert all(
        found[name]["seconds"] < LIMIT_SECONDS and found[name]["bytes"] < LIMIT_BYTES
        for name in ("report", "export")
    ), "a limit was missed"


if __name__ == "__main__":
    main()
