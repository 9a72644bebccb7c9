"""The JSON schema of a study, search_spaces/schema.json. Editors use it to check and complete a study."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from sweep.study.contents import DECLARED_ELSEWHERE, Contents
from trainer.data import DATASETS, OWN
from trainer.images import Images
from trainer.policies import POLICIES
from trainer.settings import Filled, Within, default_of, descriptions, settings_of, written
from trainer.spec import Task
from trainer.tables import Table

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}
BOUNDS = ("exclusiveMinimum", "minimum", "exclusiveMaximum", "maximum")
"""The ends of a `Within`, in the order of its fields."""


def schema() -> str:
    """The text of search_spaces/schema.json."""
    study = _object(Contents)
    parts = study["properties"]
    arm = parts["arms"]["additionalProperties"]["properties"]
    policies = sorted({key for cls in POLICIES.values() for key in settings_of(cls)})
    arm["policy"] |= {
        "properties": {"name": {"enum": list(POLICIES)}, **{key: {} for key in policies}},
        "additionalProperties": False,
        "required": ["name"],
    }
    task: dict[str, Any] = {key: {} for key in settings_of(Task) if key not in DECLARED_ELSEWHERE}
    own_data = {
        "type": "object",
        "properties": {key: {} for key in (*settings_of(Table), *settings_of(Images), "choice")},
        "additionalProperties": False,
    }
    task["data"] = {
        "anyOf": [{"enum": list(DATASETS)}, own_data],
        "description": f"the name of a data set. {OWN}",
    }
    for owner in (parts["task"], parts["tasks"]["additionalProperties"], arm["task"]):
        owner |= {"properties": task, "additionalProperties": False}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **study}, indent=2) + "\n"


def _object(cls: type) -> dict[str, Any]:
    """The schema of a dataclass."""
    properties: dict[str, Any] = {key: _value(annotation) for key, annotation in settings_of(cls).items()}
    for key, value in properties.items():
        if (default := default_of(cls, key)) is not dataclasses.MISSING:
            value["default"] = written(default)
        if key in descriptions(cls):
            value["description"] = descriptions(cls)[key]
    return {
        "type": "object",
        "description": inspect.getdoc(cls),
        "properties": properties,
        "additionalProperties": False,
        "required": [key for key, value in properties.items() if "default" not in value],
    }


def _value(annotation: Any) -> dict[str, Any]:
    """The schema of a setting's type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        value = _value(args[0])
        for check in args[1:]:
            if isinstance(check, Within):
                bounds = zip(BOUNDS, dataclasses.astuple(check), strict=True)
                value |= {key: bound for key, bound in bounds if bound is not None}
            elif isinstance(check, Filled):
                value["minItems" if value["type"] == "array" else "minProperties"] = check.at_least
        return value
    if origin in (Union, types.UnionType):
        return {"anyOf": [_value(option) for option in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is list:
        return {"type": "array", "items": _value(args[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(args[1])}
    if dataclasses.is_dataclass(annotation):
        return _object(cast("type", annotation))
    return {} if annotation is Any else {"type": TYPES[annotation]}
