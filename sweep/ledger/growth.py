"""What a study declares in its ledger, and whether a changed one only adds to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sweep.study import Study
from sweep.study.contents import Contents
from trainer.store import digest, seal


def declaration(study: Study, extensions: list[dict[str, Any]]) -> bytes:
    """The content of study.json. The names of arms and tasks stand apart: sealing sorts keys, and people wrote them in an order."""
    identity = {"identity": study.identity, "hash": identity_hash(study), "arms": list(study.contents.arms)}
    if study.contents.tasks:
        identity["tasks"] = list(study.contents.tasks)
    return seal({**identity, "description": study.contents.description, "extensions": extensions})


def identity_hash(study: Study) -> str:
    """Of everything that decides what is measured and compared."""
    return digest(seal(study.identity))[:16]


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted keys."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from flat(part, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Every key that differs, as a line."""
    old, new = dict(flat(before)), dict(flat(after))
    return [_change(key, old, new) for key in _differing(old, new)]


def growth(before: dict[str, Any], after: dict[str, Any]) -> list[bool]:
    """For each of `changes`, whether it only adds to the study."""
    old, new = dict(flat(before)), dict(flat(after))
    return [_grows(key, before, after, old, new) for key in _differing(old, new)]


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        key
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key, old) != new.get(key, new)
    ]


def _change(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    match key in old, key in new:
        case True, True:
            return f"{key}: {old[key]} -> {new[key]}"
        case True, False:
            return f"{key}: {old[key]} is gone"
        case _:
            return f"{key}: {new[key]} is new"


_MORE = re.compile(r"confirm\.seeds|search\.budget|search\.finalists|arms\.[^.]+\.budget")


def _grows(
    key: str, before: dict[str, Any], after: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> bool:
    if key.startswith("arms.") and key.split(".")[1] not in before["arms"]:
        return True
    if _MORE.fullmatch(key):
        budget = (
            "search.budget" if key.startswith("arms.") else key
        )  # an arm that names none has the search's
        was, now = (it.get(key) or it.get(budget) for it in (old, new))
        return isinstance(was, int) and isinstance(now, int) and now > was
    return key == "analysis.family" and set(_family(before)) <= set(_family(after))


def _family(identity: dict[str, Any]) -> list[str]:
    return Contents.read(identity).family
