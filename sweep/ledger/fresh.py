"""Confirmation seeds that no other study of the store has had.

Pools of seeds follow from a study's `seed` alone, and most studies say 1. Whoever has seen how some seeds
turn out in one study, and then declares another one, would test on seeds that are no longer fresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweep.errors import RejectStudy
from sweep.format import counted
from sweep.ledger.ledger import Ledger
from sweep.study import Study, from_declared


def with_fresh_seeds(
    ledger: Ledger, study: Study, declared: dict[str, Any] | None
) -> tuple[Study, list[str]]:
    """The study without confirmation seeds that other studies have had, and what to say about it.

    `declared` is what its ledger was begun with. Such a study keeps the seeds that it has; only what it
    grows by is looked at. A new study that is another one under a new name has the seeds of that one.
    """
    taken, own = set[int](), set[int]()
    if declared is not None:
        taken = set(declared.get("taken_seeds", ()))
        if declared["identity"] == study.identity:
            return study.without(taken), []
        own = _seeds(from_declared(study.name, declared))
    elif same := next((name for name, other in ledger.others.items() if _is_same(study, other)), None):
        line = (
            f"{same} declares the same: this is one study under two names, with one result. "
            "Another `seed` gives it searches, seeds and runs of its own."
        )
        return study.without(ledger.others[same].get("taken_seeds", ())), [line]
    chosen, lines = set(study.confirm.include), list[str]()
    studies = dict(_other_studies(ledger, study))
    wanted = _seeds(study.without(taken)) - own
    for name, others in studies.items():
        if not_fresh := wanted & others & chosen:
            listed = ", ".join(map(str, sorted(not_fresh)))
            lines.append(
                f"seeds that were chosen by number are not fresh, the study {name} has had them: {listed}."
            )
        if drawn := wanted & others - chosen:
            lines.append(_had(name, len(drawn), study))
    if any(wanted & others - chosen for others in studies.values()):
        # the seeds of all of them: what is drawn instead must be fresh too
        taken |= set[int]().union(*studies.values()) - own - chosen
    return study.without(taken), lines


def _had(name: str, seeds: int, study: Study) -> str:
    """What to say of another study that has had so many of a study's seeds."""
    line = f"the study {name} has had {counted(seeds, 'confirmation seed')}: others are drawn instead."
    if any(arm.searched for arm in study.arms.values()):
        line += (
            f" The searches are not new: where arms are alike they pick what those of {name} picked. "
            "Another `seed` in the study gives it searches of its own."
        )
    return line


def _seeds(study: Study) -> set[int]:
    return set[int]().union(*study.confirm_pools.values())


def _is_same(study: Study, other: dict[str, Any]) -> bool:
    """Whether another study declared the same, before it had any run.

    One that grew did not, and of one that is too old to say when it was declared nothing is known.
    """
    return other["identity"] == study.identity and not other["extensions"] and "declared_at" in other


def _other_studies(ledger: Ledger, study: Study) -> Iterator[tuple[str, set[int]]]:
    """The other studies of the store that share a data set with this one, with their seeds."""
    for name, declared in ledger.others.items():
        try:
            other = from_declared(name, declared)
            if set(map(str, other.data)) & set(map(str, study.data)):
                yield name, _seeds(other)
        except (RejectStudy, ValueError, KeyError) as error:
            ledger.say(f"{name} cannot be read, so that its seeds are not known here: {error}")
