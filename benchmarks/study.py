"""The study that `benchmarks.sweep` measures, and its two cores.

Both sides start from it, so it needs no Ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sweep.study import Candidate
from sweep.study import files as studies
from trainer.spec import RunSpec

CORES = 2
TASK: dict[str, Any] = {"data": "digits", "model": "wrn-10-1", "epochs": 10, "batch_size": 128}
QUICK: dict[str, Any] = {**TASK, "epochs": 2, "train_size": 128}
ARMS: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "fixed": {"policy": {"name": "fixed", "ratio": 0.3}},
}


def write(path: Path, task: dict[str, Any], seeds: int) -> None:
    """Write a study of two fixed arms with `seeds` runs each."""
    study = {
        "task": task,
        "arms": ARMS,
        "confirm": {"seeds": seeds},
        "analysis": {"baseline": "dense", "family": ["fixed"], "endpoints": [1.0]},
        "resources": {"cpus": 1, "workers": CORES},
    }
    path.write_text(yaml.safe_dump(study, sort_keys=False))


def specs(path: Path) -> dict[str, list[RunSpec]]:
    """Every run of the study, by arm."""
    study = studies.load(path)
    return {
        arm: [study.run(Candidate(arm, arm, {}), "confirm", seed) for seed in study.arms[arm].seeds]
        for arm in study.arms
    }
