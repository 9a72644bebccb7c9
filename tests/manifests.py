"""The manifests of docker/kubernetes/, and the pods that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "docker" / "kubernetes"


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


def pods(within: Any) -> Iterator[dict[str, Any]]:
    """Yield each pod template in a manifest as a pod."""
    if isinstance(within, dict) and within.keys() == {"metadata", "spec"}:
        yield {"apiVersion": "v1", "kind": "Pod", **within}
    elif isinstance(within, dict | list):
        for part in within.values() if isinstance(within, dict) else within:
            yield from pods(part)
