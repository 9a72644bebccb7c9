"""What a study may hold, for editors: the JSON schema in search_spaces/schema.json."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from sweep.study.contents import DECLARED_ELSEWHERE, Contents
from trainer.data import DATASETS, OWN
from trainer.policies import POLICIES
from trainer.settings import Filled, Within, default_of, descriptions, settings_of, written
from trainer.spec import Task
from trainer.tables import Table

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}
BOUNDS = ("exclusiveMinimum", "minimum", "exclusiveMaximum", "maximum")
"""The ends of a `Within`, in the order of its fields."""


def schema() -> str:
    """The JSON schema of a study, for editors."""
    whole = _object(Contents)
    arm = whole["properties"]["arms"]["additionalProperties"]["properties"]
    policies = sorted({key for cls in POLICIES.values() for key in settings_of(cls)})
    arm["policy"] |= {
        "properties": {"name": {"enum": list(POLICIES)}, **{key: {} for key in policies}},
        "additionalProperties": False,
        "required": ["name"],
    }
    task: dict[str, Any] = {key: {} for key in settings_of(Task) if key not in DECLARED_ELSEWHERE}
    own = {
        "type": "object",
        "properties": {key: {} for key in (*settings_of(Table), "choice")},
        "additionalProperties": False,
    }
    named = {"enum": list(DATASETS)}
    task["data"] = {"anyOf": [named, own], "description": f"the name of a data set. {OWN}"}
    tasks = whole["properties"]["tasks"]["additionalProperties"]
    for owner in (whole["properties"]["task"], arm["task"], tasks):
        owner |= {"properties": task, "additionalProperties": False}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}, indent=2) + "\n"


def _object(cls: type) -> dict[str, Any]:
    """The schema of a dataclass."""
    properties: dict[str, Any] = {key: _value(annotation) for key, annotation in settings_of(cls).items()}
    for key, it in properties.items():
        if (default := default_of(cls, key)) is not dataclasses.MISSING:
            it["default"] = written(default)
        if key in descriptions(cls):
            it["description"] = descriptions(cls)[key]
    return {
        "type": "object",
        "description": inspect.getdoc(cls),
        "properties": properties,
        "additionalProperties": False,
        "required": [key for key, it in properties.items() if "default" not in it],
    }


def _value(annotation: Any) -> dict[str, Any]:
    """The schema of a setting's type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found = _value(args[0])
        for check in args[1:]:
            if isinstance(check, Within):
                bounds = zip(BOUNDS, dataclasses.astuple(check), strict=True)
                found |= {key: bound for key, bound in bounds if bound is not None}
            elif isinstance(check, Filled):
                found["minItems" if found["type"] == "array" else "minProperties"] = check.at_least
        return found
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
