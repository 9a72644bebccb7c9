"""Every file of a study, verified. What is damaged is named; what can be made again from the rest is made again or set aside for that.

The same work gives the same numbers, so a damaged file of a run is put under a name ending in `.damaged`, and the next `sweep run` makes
it anew. Only what was chosen (the study, the proposals) cannot simply be trained again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sweep.errors import NothingBegun
from sweep.ledger.growth import declaration, identity_hash
from sweep.ledger.lease import SILENT_SECONDS, Lease
from sweep.ledger.ledger import Ledger, generation_file
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.work import Proposal
from sweep.study.arms import Candidate
from sweep.study.contents import Values
from sweep.study.files import from_declared
from sweep.study.study import Study
from trainer.run_folder import DamagedRun, RunFolder
from trainer.settings import SpecError
from trainer.spec import RunSpec
from trainer.store import Store, digest, unseal

ASIDE = ".damaged"


@dataclass(frozen=True)
class Finding:
    """A file that was not what it should be, and whether the study can go on now."""

    file: str
    what: str
    repaired: bool


def examine(study: Study, ledger: Ledger, wait_seconds: float = SILENT_SECONDS) -> list[Finding]:
    """Everything that is wrong, after repair. It drives the study meanwhile; Held where somebody else does."""
    if not any(re.match(r"study\.json|runs/|generations/", name) for name in ledger.store.names()):
        raise NothingBegun(ledger.store.where())
    leases = [name for name in ledger.store.names("lease") if _unsealed(ledger.store, name) is None]
    lease = Lease(ledger.store, ledger.say)
    lease.acquire(wait_seconds)
    try:
        return [
            *(Finding(ledger.store.where(name), "nobody renewed it; taken over.", True) for name in leases),
            *_examine(study, ledger),
        ]
    finally:
        lease.release()


def _examine(study: Study, ledger: Ledger) -> Iterator[Finding]:
    yield from _summaries(ledger)
    study, extended, told = _declaration(study, ledger)
    yield from told
    if all(finding.repaired for finding in told):
        specs, told = _proposals(study, ledger, extended)
        yield from told
        for run_id in _folders(ledger):
            yield from _run(ledger, run_id, specs.get(run_id))
        ledger.load()  # makes the index anew where it does not fit


def _summaries(ledger: Ledger) -> Iterator[Finding]:
    """Index and failures: all of it is known otherwise, or of no use any more."""
    for name in ledger.store.names():
        if re.match(r"index\.json|failures/", name) and _unsealed(ledger.store, name) is None:
            ledger.store.delete(name)
            yield Finding(
                ledger.store.where(name), "says nothing that is not known otherwise; removed.", True
            )


def _declaration(study: Study, ledger: Ledger) -> tuple[Study, bool, list[Finding]]:
    """The study that the files are of, and whether it was extended: the one declared, whatever the one that is given has become."""
    if body := _unsealed(ledger.store, "study.json"):
        return from_declared(study.name, body), bool(body["extensions"]), []
    where = ledger.store.where("study.json")
    made_for = {
        body["study"]
        for name in ledger.store.names("generations")
        if (body := _unsealed(ledger.store, name))
    }
    if made_for != {identity_hash(study)}:
        return (
            study,
            False,
            [Finding(where, "nothing here proves which study this was. Restore it from a backup.", False)],
        )
    ledger.store.write("study.json", declaration(study, []))
    return (
        study,
        False,
        [Finding(where, "the proposals here were made for the very study you gave; written anew.", True)],
    )


def _proposals(study: Study, ledger: Ledger, extended: bool) -> tuple[dict[str, RunSpec], list[Finding]]:
    """The specs of all runs the study has so far. A damaged generation is proposed again, and believed where its runs are here."""
    names, here = ledger.store.names("generations"), set(_folders(ledger))
    whole = {name: body for name in names if (body := _unsealed(ledger.store, name))}
    damaged = {name for name in names if name not in whole}
    ledger.load(keep=False)
    plan = Plan(
        study,
        ledger.results,
        {(body["arm"], body["generation"]): body["candidates"] for body in whole.values()},
    )
    findings: list[Finding] = []
    while again := next((due for due in plan.due() if generation_file(due) in damaged), None):
        values, name = propose(study, again), generation_file(again)
        damaged.discard(name)
        where = ledger.store.where(name)
        if not _believed(study, again, [plan.filled(again.arm, it) for it in values], here, extended):
            findings.append(
                Finding(
                    where,
                    "proposed again, its runs are not the ones that are here. Restore it from a backup.",
                    False,
                )
            )
            continue
        ledger.store.delete(name)
        plan.propose(again.arm, again.generation, ledger.record(study, again, values))
        findings.append(
            Finding(where, "proposed again; its runs are the ones that are here. Written anew.", True)
        )
    findings += [
        Finding(
            ledger.store.where(n), "what it was proposed from is missing. Restore it from a backup.", False
        )
        for n in sorted(damaged)
    ]
    return {spec.run_id: spec for spec in _specs(study, plan)}, findings


def _believed(study: Study, due: Proposal, values: list[Values], here: set[str], extended: bool) -> bool:
    """Whether these are the candidates that were lost. Some may not have been begun; but then the same study has to have proposed them,
    since a budget that grew changes how many there are."""
    first = study.search_seeds[0]
    begun = [study.run(Candidate(due.arm, "", it), "search", first).run_id in here for it in values]
    return all(begun) or (any(begun) and not extended)


def _specs(study: Study, plan: Plan) -> Iterator[RunSpec]:
    for arm in study.arms:
        for candidate, scores in plan.searched(arm):
            yield from (study.run(candidate, "search", seed) for seed in study.search_seeds[: len(scores)])
        for candidate in plan.finalists(arm):
            yield from (study.run(candidate, "confirm", seed) for seed in study.arms[arm].seeds)


def _run(ledger: Ledger, run_id: str, known: RunSpec | None) -> Iterator[Finding]:
    """One run's folder."""
    store, said = ledger.runs, list[str]()
    try:
        spec = RunSpec.from_json(store.read(f"{run_id}/spec.json").decode())
        if spec.run_id != run_id:
            raise ValueError
    except (SpecError, ValueError, FileNotFoundError):
        where = store.where(f"{run_id}/spec.json")
        if not known:
            yield Finding(
                where,
                "no candidate that is known has this run. Mend the rest first, or move its folder away.",
                False,
            )
            return
        store.write(f"{run_id}/spec.json", known.to_json().encode())
        yield Finding(where, "written anew from the study.", True)
        spec = known
    folder = RunFolder(store, spec, said.append)
    try:
        if outcome := folder.outcome():
            folder.tidy(outcome)
    except DamagedRun as error:
        yield _set_aside(
            store, f"{run_id}/outcome.json", re.split(" Nothing was deleted| Move ", str(error))[0]
        )
    for line in said:
        yield Finding(
            line.removeprefix("missing or altered: ").split(". It was ")[0],
            "written anew from its copy.",
            True,
        )
    for name in store.names(run_id):
        if not name.endswith(ASIDE) and not _sound(store, name):
            yield _set_aside(store, name, "its content does not fit its hash.")


def _sound(store: Store, name: str) -> bool:
    data = store.read(name)
    if match := re.search(r"-([0-9a-f]{16})\.(pt|parquet)$", name):
        return digest(data)[:16] == match[1]
    return not name.endswith("/attempt.json") or _unsealed(store, name) is not None


def _set_aside(store: Store, name: str, why: str) -> Finding:
    store.write(f"{name}{ASIDE}", store.read(name))
    store.delete(name)
    return Finding(
        store.where(name),
        f"{why} Put aside as {name.rsplit('/', 1)[-1]}{ASIDE}; the next `sweep run` makes anew what it needs.",
        True,
    )


def _folders(ledger: Ledger) -> list[str]:
    return list(dict.fromkeys(name.split("/")[0] for name in ledger.runs.names()))


def _unsealed(store: Store, name: str) -> dict[str, Any] | None:
    try:
        return unseal(store.read(name))
    except (ValueError, FileNotFoundError, json.JSONDecodeError):
        return None
