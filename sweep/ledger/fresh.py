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
from trainer.store import unseal


def with_fresh_seeds(
    ledger: Ledger, study: Study, declared: dict[str, Any] | None
) -> tuple[Study, list[str]]:
    """The study without confirmation seeds that other studies have had, and what to say about it.

    `declared` is what its ledger was begun with. Such a study keeps the seeds that it has; only what it
    grows by is looked at.
    """
    taken, own = set[int](), set[int]()
    if declared is not None:
        taken = set(declared.get("taken_seeds", ()))
        if declared["identity"] == study.identity:
            return study.without(taken), []
        own = _seeds(from_declared(study.name, declared))
    chosen, lines = set(study.confirm.include), list[str]()
    studies = dict(_other_studies(ledger, study))
    wanted = _seeds(study.without(taken)) - own
    for name, others in studies.items():
        if not_fresh := wanted & others & chosen:
            listed = ", ".join(map(str, sorted(not_fresh)))
            lines.append(f"seeds that were chosen by number are not fresh, {name} has had them: {listed}.")
        if drawn := wanted & others - chosen:
            lines.append(_had(name, len(drawn), study))
    if any(wanted & others - chosen for others in studies.values()):
        # the seeds of all of them: what is drawn instead must be fresh too
        taken |= set[int]().union(*studies.values()) - own - chosen
    return study.without(taken), lines


def _had(name: str, seeds: int, study: Study) -> str:
    """What to say of another study that has had so many of a study's seeds."""
    line = f"{name} has had {counted(seeds, 'confirmation seed')}: others are drawn instead."
    if any(arm.searched for arm in study.arms.values()):
        line += (
            f" The searches are not new: where arms are alike they pick what those of {name} picked. "
            "Another `seed` in the study gives it searches of its own."
        )
    return line


def _seeds(study: Study) -> set[int]:
    return set[int]().union(*study.confirm_pools.values())


def _other_studies(ledger: Ledger, study: Study) -> Iterator[tuple[str, set[int]]]:
    """The other studies of the store that share a data set with this one, with their seeds."""
    for name in ledger.home.folders():
        if name == study.name:
            continue
        try:
            data = ledger.home.read(f"{name}/study.json")
            if b'"identity"' not in data:
                # an export may lie in the store too, and has a study.json of its own
                continue
            other = from_declared(name, unseal(data))
            if set(map(str, other.data)) & set(map(str, study.data)):
                yield name, _seeds(other)
        except FileNotFoundError:
            continue
        except (RejectStudy, ValueError, KeyError) as error:
            ledger.say(f"{name} cannot be read, so that its seeds are not known here: {error}")
