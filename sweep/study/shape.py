"""What pydantic finds wrong with the shape of a study, in this project's words: the key, what it must be, what it is, the nearest one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import ValidationError

from sweep.study.contents import Analysis, Arm, Confirm, Contents, Match, Part, Resources, Search
from sweep.study.document import Place, Problem
from trainer.settings import nearest

_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length}; it has {actual_length}.",
}
"""pydantic's kinds of error in this project's words."""
_KINDS = {dict: "mapping", list: "list", str: "text"}


def shape_problems(
    error: ValidationError, within: Place = (), takes: type[Part] | None = None
) -> Iterator[Problem]:
    """What pydantic found, in this project's words."""
    for found in error.errors():
        place, kind, given = (*within, *found["loc"]), found["type"], found["input"]
        owner, model = ("a searched setting", takes) if takes else _taker(place)
        shown = repr(given) if len(repr(given)) <= 60 else f"a long {_KINDS[type(given)]}"
        if kind == "extra_forbidden":
            legal = list(model.model_fields)
            yield (
                place,
                f"no such setting.{nearest(str(place[-1]), legal)}\n    {owner} takes: {', '.join(legal)}.",
            )
        elif kind == "missing":
            yield place, f"is missing; {owner} needs it."
        elif "choice" in place[len(within) : -2]:  # one error for each type that a choice may have
            yield place[:-1], f"must be a finite number, a text, true or false; it is {shown}."
        else:
            words = _WORDS[kind].format_map(found.get("ctx", {}))
            yield (
                place,
                words if kind == "too_short" else f"{words}; it is {shown}.{_hint(kind, given, words)}",
            )


def _hint(kind: str, given: object, words: str) -> str:
    if isinstance(given, str) and kind == "literal_error":
        return nearest(given, re.findall(r"'([^']+)'", words))
    if (
        isinstance(given, str)
        and kind in ("int_type", "float_type")
        and re.fullmatch(r"[-+.0-9eE]*[0-9]", given)
    ):
        return " Write it without quotes."
    return (
        f" Write it as {given:.0f}."
        if isinstance(given, float) and kind == "int_type" and given.is_integer()
        else ""
    )


def _taker(place: Place) -> tuple[str, type[Part]]:
    """Who takes the key at a place, and what it is."""
    parts: dict[str, type[Part]] = {
        "search": Search,
        "confirm": Confirm,
        "analysis": Analysis,
        "resources": Resources,
    }
    match place:
        case ("arms", _, _):
            return "an arm", Arm
        case ("arms", _, "match", _):
            return "match", Match
        case (str(part), _) if part in parts:
            return part, parts[part]
        case _:
            return "a study", Contents
