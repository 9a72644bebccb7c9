"""What a study may hold, for editors: the JSON schema in search_spaces/schema.json."""

from __future__ import annotations

import json
from typing import Any

from sweep.study.contents import DECLARED_ELSEWHERE, Contents
from trainer.data import DATASETS, OWN
from trainer.policies import POLICIES
from trainer.settings import settings_of
from trainer.spec import Task
from trainer.tables import Table


def schema() -> str:
    """The JSON schema of a study, for editors."""
    whole = Contents.model_json_schema()
    definitions = whole["$defs"]
    policies = sorted({key for cls in POLICIES.values() for key in settings_of(cls)})
    definitions["Arm"]["properties"]["policy"] = {
        "type": "object",
        "properties": {"name": {"enum": list(POLICIES)}, **{key: {} for key in policies}},
        "additionalProperties": False,
        "required": ["name"],
        "description": "the policy's name and settings, each a value, {low, high, log, step} or {choice}",
    }
    task: dict[str, Any] = {key: {} for key in settings_of(Task) if key not in DECLARED_ELSEWHERE}
    own = {
        "type": "object",
        "properties": {key: {} for key in (*settings_of(Table), "choice")},
        "additionalProperties": False,
    }
    task["data"] = {
        "anyOf": [{"enum": list(DATASETS)}, own],
        "description": f"the name of a data set. {OWN}",
    }
    for owner in (
        whole["properties"]["task"],
        definitions["Arm"]["properties"]["task"],
        whole["properties"]["tasks"]["additionalProperties"],
    ):
        owner |= {"properties": task, "additionalProperties": False}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}, indent=2) + "\n"
