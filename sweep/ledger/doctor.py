"""The check of every file of a study: it names what is damaged, and repairs what follows from other files.

The same work gives the same numbers. So a damaged file of a run is put aside under a name that ends in
`.damaged`, and the next `sweep run` makes it anew. Only what was chosen (the study, the proposals) cannot
be trained again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sweep.errors import NothingBegun
from sweep.ledger.findings import ASIDE, Finding
from sweep.ledger.fresh import with_fresh_seeds
from sweep.ledger.growth import check_hash, declaration, identity_hash
from sweep.ledger.lease import SILENT_SECONDS, Lease
from sweep.ledger.ledger import GENERATION, Ledger, orphans
from sweep.ledger.looks import PICKS
from sweep.ledger.regenerated import Regenerated
from sweep.ledger.shapes import content
from sweep.planning.plan import Plan
from sweep.study import Study, from_declared
from trainer.run_folder import DamagedRun, RunFolder
from trainer.sealed import AttemptRecord, Sign, checked
from trainer.settings import SpecError
from trainer.spec import RunSpec
from trainer.store import Refused, Store, digest, unseal

_NOT_NEEDED = re.compile(r"index\.json|failures/|taken/|gpu-hours\.json")
_SHAPES: dict[str, type] = {"attempt.json": AttemptRecord, "claim.json": Sign}


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
    study, extensions, findings = _declared_study(study, ledger)
    yield from findings
    if all(finding.repaired for finding in findings):
        ledger.load(keep=False)
        bodies = {name: _content(ledger.store, name) for name in _generations(ledger)}
        generations = Regenerated(study, ledger, extensions, bodies)
        yield from generations.findings()
        yield from _orphans(ledger, generations.plan, extensions)
        specs = {spec.run_id: spec for spec in _specs(study, generations.plan)}
        claims = ledger.claims()
        for claim in claims.values():
            ledger.say(f"{claim} Its files are not examined.")
        for run_id in (run_id for run_id in _folders(ledger) if run_id not in claims):
            try:
                yield from _run_folder(ledger, run_id, specs.get(run_id))
            except Refused as error:
                yield Finding(ledger.runs.where(run_id), str(error), False)
        ledger.load()  # makes the index anew where it does not fit
        yield from (Finding(ledger.runs.where(run_id), why, False) for run_id, why in ledger.damaged.items())
        if what := ledger.misquotation():
            yield Finding(ledger.store.where("index.json"), what, True)


def _damaged_summaries(ledger: Ledger) -> Iterator[Finding]:
    """Remove damaged summaries and records that no result needs."""
    for name in ledger.store.names():
        if _NOT_NEEDED.match(name) and _content(ledger.store, name) is None:
            ledger.store.delete(name)
            yield Finding(ledger.store.where(name), "is damaged; removed, for no result needs it.", True)


def _declared_study(study: Study, ledger: Ledger) -> tuple[Study, list[dict[str, Any]], list[Finding]]:
    """The study that the files belong to, and its extensions.

    It is the study that study.json declares, however the given one was changed since. Where study.json is
    damaged, the given study is declared anew if all proposals were made for it.
    """
    if (body := _content(ledger.store, "study.json")) and _is_as_hashed(body):
        return from_declared(study.name, body), body["extensions"], []
    where = ledger.store.where("study.json")
    study, _ = with_fresh_seeds(ledger, study, None)
    proposed_for = {body["study"] for name in _generations(ledger) if (body := _content(ledger.store, name))}
    if proposed_for != {identity_hash(study)}:
        what = "nothing here proves which study this was. Restore it from a backup."
        return study, [], [Finding(where, what, False)]
    ledger.store.write("study.json", declaration(study, []))
    what = "written anew: the proposals here were made for the study that you gave."
    return study, [], [Finding(where, what, True)]


def _is_as_hashed(body: dict[str, Any]) -> bool:
    """Whether a study.json declares what its hash says."""
    try:
        check_hash(body)
    except ValueError:
        return False
    return True


def _generations(ledger: Ledger) -> list[str]:
    """The names of the files of generations."""
    return [name for name in ledger.store.names("generations") if GENERATION.fullmatch(name)]


def _orphans(ledger: Ledger, plan: Plan, extensions: list[dict[str, Any]]) -> Iterator[Finding]:
    """Name the runs that no candidate has: nothing that was trained may be left out silently."""
    found = orphans(ledger, plan)
    picked_anew = any(PICKS.match(line) for extension in extensions for line in extension["changes"])
    if found and picked_anew:
        known = _confirmations(plan)
        before = [run_id for run_id in found if run_id in known]
        found = [run_id for run_id in found if run_id not in known]
        if before:
            ledger.say(
                f"these runs were picked before the study grew, and count no more: {', '.join(before)}."
            )
    if found and not plan.complete:
        ledger.say(
            f"no candidate has these runs now: {', '.join(found)}. They are counted again if candidates "
            "that are still to come have them."
        )
        return
    for run_id in found:
        what = (
            "no candidate has this run, so that it is counted nowhere. Restore what belongs to it, or move"
        )
        yield Finding(ledger.runs.where(run_id), f"{what} its folder away.", False)


def _confirmations(plan: Plan) -> set[str]:
    """Every run that a confirmation of any candidate would have."""
    study = plan.study
    return {
        study.run(candidate, "confirm", seed).run_id
        for name, arm in study.arms.items()
        for candidate, _ in plan.searched((arm.repeats or arm).name)
        for seed in study.arms[name].seeds
    }


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
