"""Describe the machine that a benchmark ran on, and say where its figures are kept."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from trainer import process

RESULTS = Path(__file__).parent / "results"


def describe(*packages: str) -> dict[str, str | int]:
    """The machine, the commit, and the versions of Python, torch and what else mattered."""
    versions = {name: version(name) for name in packages}
    ran_on = {key: value for key, value in process.describe(torch.device("cpu")).items() if key != "node"}
    return {**ran_on, "system": platform.platform(), "python": platform.python_version(), **versions}
