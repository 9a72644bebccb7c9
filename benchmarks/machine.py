"""What a benchmark says of the machine it ran on, and where its figures are kept."""

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
    return {**process.describe(torch.device("cpu")), "system": platform.platform(), "python": platform.python_version(), **versions}
