"""What a study declares in its ledger, and whether a changed study only adds to that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sweep.study import Study
from sweep.study.contents import Contents
from trainer.settings import written
from trainer.store import digest, seal


def declaration(study: Study, extensions: list[dict[str, Any]], declared_at: str | None = None) -> bytes:
    """The content of study.json. `declared_at` is left out where a ledger is too old to say it.

    The names of arms and tasks are listed beside the identity, in the order of the file: sealing sorts keys.
    """
    identity: dict[str, Any] = {"identity": study.identity, "hash": identity_hash(study)}
    identity["arms"] = list(study.contents.arms)
    if study.contents.tasks:
        identity["tasks"] = list(study.contents.tasks)
    if study.taken:
        identity["taken_seeds"] = sorted(study.taken)
    if declared_at:
        identity["declared_at"] = declared_at
    return seal({**identity, **notes(study), "extensions": extensions})


def notes(study: Study) -> dict[str, Any]:
    """What a study says beside its identity, and may say differently at any time."""
    published = study.contents.published
    return {
        "description": study.contents.description,
        **({"published": written(published)} if published else {}),
    }


def identity_hash(study: Study) -> str:
    """The hash of everything that decides what is measured and compared."""
    return _hash(study.identity, sorted(study.taken))


def hash_of(declared: dict[str, Any]) -> str:
    """The hash of what a study.json declares; its field `hash` must say the same."""
    return _hash(declared["identity"], declared.get("taken_seeds", []))


def _hash(identity: dict[str, Any], taken_seeds: list[int]) -> str:
    taken = {"taken_seeds": taken_seeds} if taken_seeds else {}
    return digest(seal({**identity, **taken}))[:16]


def check_hash(declared: dict[str, Any]) -> None:
    """Raise ValueError where a study.json declares something else than its hash says."""
    if (found := hash_of(declared)) != (said := declared.get("hash")):
        raise ValueError(f"what it declares has the hash {found}, and it says {said}")


def earlier(extensions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the study was each time before it grew, oldest first. Older ledgers do not keep it."""
    return [extension["before"] for extension in extensions if "before" in extension]


def declared_since(declared: dict[str, Any]) -> datetime | None:
    """When a study was declared as it is now, or grew to it; None where its ledger is too old to say."""
    extensions = declared["extensions"]
    at = extensions[-1]["at"] if extensions else declared.get("declared_at")
    return datetime.fromisoformat(at) if at else None


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings with their dotted keys, below `key`."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from flat(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line for every key that differs between two identities of a study."""
    old, new = dict(flat(before)), dict(flat(after))
    return [_change(key, old, new) for key in _differing(old, new)]


def growth(before: dict[str, Any], after: dict[str, Any]) -> list[bool]:
    """Whether each line of `changes` is one that only adds to the study."""
    old, new = dict(flat(before)), dict(flat(after))
    return [_grows(key, before, after, old, new) for key in _differing(old, new)]


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The keys whose values differ: those of `old` first, then the new ones."""
    keys = [*old, *(key for key in new if key not in old)]
    return [key for key in keys if key not in old or key not in new or old[key] != new[key]]


def _change(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    match key in old, key in new:
        case True, True:
            return f"{key}: {old[key]} -> {new[key]}"
        case True, False:
            return f"{key}: {old[key]} is gone"
        case _:
            return f"{key}: {new[key]} is new"


_MORE = re.compile(r"confirm\.seeds|search\.(?:replicates|budget|finalists)|arms\.[^.]+\.budget")


def _grows(
    key: str, before: dict[str, Any], after: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> bool:
    if key.startswith("arms.") and key.split(".")[1] not in before["arms"]:
        return True
    if _MORE.fullmatch(key):
        # a study has one search where it does not say, and an arm without a budget has the search's
        old, new = ({"search.replicates": 1, **keys} for keys in (old, new))
        default = "search.budget" if key.startswith("arms.") else key
        was, now = (keys.get(key) or keys.get(default) for keys in (old, new))
        return isinstance(was, int) and isinstance(now, int) and now > was
    return key == "analysis.family" and set(_family(before)) <= set(_family(after))


def _family(identity: dict[str, Any]) -> list[str]:
    return Contents.read(identity).family
