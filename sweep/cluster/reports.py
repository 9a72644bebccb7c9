"""The reports of an attempt as text, which Tune passes from its actor to the driver."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from sweep.planning.values import Result
from trainer.reports import KINDS, Ended, Report


def to_json(report: Report, node: str) -> str:
    """A report from a node as text, which Tune passes on unchanged."""
    return json.dumps({"state": report.state, **asdict(replace(report, node=node))})


def from_json(text: str) -> Report:
    """The inverse of `to_json`."""
    values: dict[str, Any] = json.loads(text)
    kind = KINDS[values.pop("state")]
    if kind is Ended:
        values["result"] = Result(**values["result"])
    return kind(**values)
