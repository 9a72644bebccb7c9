"""How large is the image, and how long do building it and the quickstart in it take?

It wants what `tests/image` wants: root, buildah, mmdebstrap, crun, and room in /var/tmp.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe
from tests.image.engine import Engine

PARTS = ("nvidia", "torch", "triton", "ray")


def size(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """Return what an action returns, and its seconds."""
    began = time.monotonic()
    return action(), round(time.monotonic() - began, 1)


def main() -> None:
    """Build the image, run the quickstart in it up to its report, print the figures and keep them."""
    with Engine() as engine:
        _, base_seconds = timed(engine.base)
        image, build_seconds = timed(engine.build)
        work = engine.folder / "work"
        work.mkdir()
        os.chown(work, 1000, 1000)
        (packages,) = image.files.glob("opt/pairsweep/lib/python3.*/site-packages")
        parts = {name: size(packages / name) for name in PARTS}
        _, quickstart_seconds = timed(lambda: image(work, "sweep", "run", "quickstart", seconds=3000))
        _, report_seconds = timed(lambda: image(work, "sweep", "report", "quickstart"))
        values = {
            "machine": describe("ray", "triton"),
            "base_seconds": base_seconds,
            "build_seconds": build_seconds,
            "bytes": {"all": size(image.files), **parts},
            "quickstart_runs": len(list(work.glob("results/quickstart/runs/*/outcome.json"))),
            "quickstart_seconds": quickstart_seconds,
            "report_seconds": report_seconds,
            "report_bytes": (work / "results" / "quickstart-report.html").stat().st_size,
        }
    print(json.dumps(values, indent=1))
    (RESULTS / "image.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
