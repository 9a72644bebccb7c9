"""The check of every file of a study: it names what is damaged, and repairs what follows from other files.

The same work gives the same numbers. So a damaged file of a run is put aside under a name that ends in
`.damaged`, and the next `sweep run` makes it anew. Only what was chosen (the study, the proposals) cannot
be trained again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sweep.errors import NothingBegun
from sweep.ledger.fresh import with_fresh_seeds
from sweep.ledger.growth import declaration, identity_hash
from sweep.ledger.lease import SILENT_SECONDS, Lease
from sweep.ledger.ledger import Ledger, generation_file
from sweep.ledger.shapes import content
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Proposal
from sweep.study import Candidate, Study, Values, from_declared
from trainer.run_folder import DamagedRun, RunFolder
from trainer.sealed import AttemptRecord, Sign, checked
from trainer.settings import SpecError
from trainer.spec import RunSpec
from trainer.store import Refused, Store, digest, unseal

ASIDE = ".damaged"
_SHAPES: dict[str, type] = {"attempt.json": AttemptRecord, "claim.json": Sign}


@dataclass(frozen=True)
class Finding:
    """A file that was not what it should be, and whether the study can go on now."""

    file: str
    what: str
    repaired: bool


def examine(study: Study, ledger: Ledger, wait_seconds: float = SILENT_SECONDS) -> list[Finding]:
    """Repair what can be repaired, and return everything that was wrong.

    The doctor holds the study's lease meanwhile. It raises Held where another driver has it.
    """
    if not any(re.match(r"study\.json|runs/|generations/", name) for name in ledger.store.names()):
        raise NothingBegun(ledger.store.where())
    leases = [name for name in ledger.store.names("lease") if _content(ledger.store, name) is None]
    lease = Lease(ledger.store, ledger.say)
    lease.acquire(wait_seconds)
    try:
        return [
            *(
                Finding(ledger.store.where(name), "is damaged, and nobody renewed it; taken over.", True)
                for name in leases
            ),
            *_findings(study, ledger),
        ]
    finally:
        lease.release()


def _findings(study: Study, ledger: Ledger) -> Iterator[Finding]:
    yield from _damaged_summaries(ledger)
    study, extended, findings = _declared_study(study, ledger)
    yield from findings
    if all(finding.repaired for finding in findings):
        specs, findings = _proposals(study, ledger, extended)
        yield from findings
        claims = ledger.claims()
        for claim in claims.values():
            ledger.say(f"{claim} Its files are not examined.")
        for run_id in (run_id for run_id in _folders(ledger) if run_id not in claims):
            try:
                yield from _run_folder(ledger, run_id, specs.get(run_id))
            except Refused as error:
                yield Finding(ledger.runs.where(run_id), str(error), False)
        ledger.load()  # makes the index anew where it does not fit


def _damaged_summaries(ledger: Ledger) -> Iterator[Finding]:
    """Remove a damaged index, failures and records of where runs came from: no result needs them."""
    for name in ledger.store.names():
        if re.match(r"index\.json|failures/|taken/", name) and _content(ledger.store, name) is None:
            ledger.store.delete(name)
            yield Finding(ledger.store.where(name), "is damaged; removed, for no result needs it.", True)


def _declared_study(study: Study, ledger: Ledger) -> tuple[Study, bool, list[Finding]]:
    """The study that the files belong to, and whether it was extended.

    It is the study that study.json declares, however the given one was changed since. Where study.json is
    damaged, the given study is declared anew if all proposals were made for it.
    """
    if body := _content(ledger.store, "study.json"):
        return from_declared(study.name, body), bool(body["extensions"]), []
    where = ledger.store.where("study.json")
    study, _ = with_fresh_seeds(ledger, study, None)
    proposed_for = {
        body["study"] for name in ledger.store.names("generations") if (body := _content(ledger.store, name))
    }
    if proposed_for != {identity_hash(study)}:
        what = "nothing here proves which study this was. Restore it from a backup."
        return study, False, [Finding(where, what, False)]
    ledger.store.write("study.json", declaration(study, []))
    what = "written anew: the proposals here were made for the study that you gave."
    return study, False, [Finding(where, what, True)]


def _proposals(study: Study, ledger: Ledger, extended: bool) -> tuple[dict[str, RunSpec], list[Finding]]:
    """The specs of all runs that the study has so far, and what was wrong with its generations.

    A damaged generation is proposed again, and accepted where the candidates' runs are in the store.
    """
    names, run_ids = ledger.store.names("generations"), set(_folders(ledger))
    readable = {name: body for name in names if (body := _content(ledger.store, name))}
    damaged = {name for name in names if name not in readable}
    ledger.load(keep=False)
    generations = {(body["arm"], body["generation"]): body["candidates"] for body in readable.values()}
    plan = Plan(study, ledger.results, generations)
    findings: list[Finding] = []
    while due := next((due for due in plan.due() if generation_file(due) in damaged), None):
        name, proposed = generation_file(due), propose(study, due)
        damaged.discard(name)
        where = ledger.store.where(name)
        filled = [plan.filled(due.arm, values) for values in proposed]
        if not _are_the_lost_ones(study, due, filled, run_ids, extended):
            what = "the candidates that are proposed now are not those of the runs here. "
            findings.append(Finding(where, f"{what}Restore it from a backup.", False))
            continue
        ledger.store.delete(name)
        plan.propose(due.arm, due.generation, ledger.record(study, due, proposed))
        what = "written anew: the candidates that are proposed now are those of the runs here."
        findings.append(Finding(where, what, True))
    for name in sorted(damaged):
        what = "the scores that it was proposed from are missing. Restore it from a backup."
        findings.append(Finding(ledger.store.where(name), what, False))
    return {spec.run_id: spec for spec in _specs(study, plan)}, findings


def _are_the_lost_ones(
    study: Study, due: Proposal, proposed: list[Values], run_ids: set[str], extended: bool
) -> bool:
    """Whether the proposed candidates are those of the damaged generation.

    Some may have no run yet. That is accepted only where the study was not extended: a larger budget changes
    how many candidates a generation has.
    """
    first = study.arms[due.arm].search_seeds[0]
    begun = [
        study.run(Candidate(due.arm, "", values), "search", first).run_id in run_ids for values in proposed
    ]
    return all(begun) or (any(begun) and not extended)


def _specs(study: Study, plan: Plan) -> Iterator[RunSpec]:
    """Every run that the plan has given to a candidate so far, and every run of the confirmation."""
    for arm in study.arms:
        for candidate, scores in plan.searched(arm):
            seeds = study.arms[arm].search_seeds[: len(scores)]
            yield from (study.run(candidate, "search", seed) for seed in seeds)
        for candidate in plan.finalists(arm):
            yield from (study.run(candidate, "confirm", seed) for seed in study.arms[arm].seeds)


def _run_folder(ledger: Ledger, run_id: str, planned: RunSpec | None) -> Iterator[Finding]:
    """Check one run's folder. `planned` is the run's spec; None where the plan has no such run."""
    store = ledger.runs
    spec = _spec_of(store, run_id)
    if spec is None:
        where = store.where(f"{run_id}/spec.json")
        if planned is None:
            what = "no known candidate has this run. Mend the rest first, or move its folder away."
            yield Finding(where, what, False)
            return
        store.write(f"{run_id}/spec.json", planned.to_json().encode())
        yield Finding(where, "written anew from the study.", True)
        spec = planned
    messages = list[str]()
    folder = RunFolder(store, spec, messages.append)
    try:
        if outcome := folder.outcome():
            folder.tidy(outcome)
    except DamagedRun as error:
        why = re.split(" Nothing was deleted| Move ", str(error))[0]
        yield _set_aside(store, f"{run_id}/outcome.json", why)
    for message in messages:
        file = message.removeprefix("missing or altered: ").split(". It was ")[0]
        yield Finding(file, "written anew from its copy.", True)
    for name in store.names(run_id):
        if not name.endswith(ASIDE) and not _sound(store, name):
            yield _set_aside(
                store, name, "its content does not fit its hash, or is no content of such a file."
            )


def _spec_of(store: Store, run_id: str) -> RunSpec | None:
    """The spec in a run's folder; None where it is missing, damaged or another run's."""
    try:
        spec = RunSpec.from_json(store.read(f"{run_id}/spec.json").decode())
    except (SpecError, ValueError, FileNotFoundError):
        return None
    return spec if spec.run_id == run_id else None


def _sound(store: Store, name: str) -> bool:
    """Whether a file's content fits the hash in its name or, in sealed files, the hash inside."""
    data, shape = store.read(name), _SHAPES.get(name.rsplit("/", 1)[-1])
    if match := re.search(r"-([0-9a-f]{16})\.(pt|parquet)$", name):
        return digest(data)[:16] == match[1]
    try:
        return shape is None or bool(checked(unseal(data), shape))
    except ValueError:
        return False


def _set_aside(store: Store, name: str, why: str) -> Finding:
    store.write(f"{name}{ASIDE}", store.read(name))
    store.delete(name)
    aside = name.rsplit("/", 1)[-1] + ASIDE
    what = f"{why} Put aside as {aside}; the next `sweep run` makes anew what it needs."
    return Finding(store.where(name), what, True)


def _folders(ledger: Ledger) -> list[str]:
    """The run ids of all run folders."""
    return list(dict.fromkeys(name.split("/")[0] for name in ledger.runs.names()))


def _content(store: Store, name: str) -> dict[str, Any] | None:
    """The content of a study's sealed file; None where it is missing or damaged."""
    try:
        return content(store, name)
    except (ValueError, FileNotFoundError):
        return None
