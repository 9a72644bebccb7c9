"""The seal of a study: a line to publish, which says what was declared and what came of it.

    pairsweep-seal:1:<hash of the declaration>              nothing has finished
    pairsweep-seal:1:<hash of the declaration>:<hash of the results>

It is the same for a study that gave the same numbers elsewhere: times, machines and attempts are not in it.
Decision 23 says what a seal proves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sweep.errors import RejectStudy
from sweep.ledger.growth import hash_of
from sweep.planning.values import Look
from sweep.study import Study
from sweep.views.reading import Reading, RunFiles, ahead
from trainer.rows import content_hash
from trainer.store import digest, seal

MARK = "pairsweep-seal:1"
LINE = re.compile(rf"{MARK}:([0-9a-f]{{64}})(?::([0-9a-f]{{64}}))?")


@dataclass(frozen=True)
class Seal:
    """The hashes of a study, and what they are over."""

    declaration: str
    """The hash of what was declared."""
    results: str | None
    """The hash of what came of it; None where no run has finished."""
    study: str
    """The study's hash, as the report shows it."""
    growth: int
    """How often the study grew since it was declared."""
    runs: int
    """The finished runs."""
    generations: int
    """The recorded generations."""
    looks: int
    """The recorded looks. Those that decide how the study is tested are sealed."""

    @property
    def line(self) -> str:
        """The line to publish."""
        return ":".join([MARK, self.declaration, *([self.results] if self.results else [])])


def seal_of(reading: Reading) -> Seal:
    """The seal of a study as its ledger has it. It reads the tables of every finished run."""
    runs = dict(_runs(reading))
    return Seal(
        declaration=_declarations(reading)[-1],
        results=_results(reading, runs) if runs else None,
        study=reading.declared["hash"],
        growth=len(reading.declared["extensions"]),
        runs=len(runs),
        generations=len(reading.plan.proposals),
        looks=len(reading.looks),
    )


def declaration_line(reading: Reading) -> str:
    """The line that seals what was declared alone. It reads no run."""
    return f"{MARK}:{_declarations(reading)[-1]}"


def seal_before(study: Study) -> Seal:
    """The seal of a study that is not begun yet: what it would declare."""
    declared = {"identity": study.identity, "taken_seeds": sorted(study.taken)}
    return Seal(_declaration(declared, []), None, hash_of(declared), 0, 0, 0, 0)


def parts_of(line: str) -> tuple[str, str | None]:
    """The two hashes of a published seal. RejectStudy: it is none."""
    match = LINE.fullmatch(line.strip())
    if not match:
        raise RejectStudy([f"--seal {line}: is no seal. `sweep seal` prints one: {MARK}:..."])
    return match[1], match[2]


def differences(reading: Reading, declaration: str, results: str | None) -> list[str]:
    """What a published seal says otherwise than the study's files, part by part."""
    now, known, differing = seal_of(reading), _declarations(reading), list[str]()
    if declaration not in known:
        differing.append("the declaration differs: another study was sealed than study.json declares")
    elif declaration != known[-1]:
        grown = reading.declared["extensions"][known.index(declaration) :]
        lines = "; ".join(line for extension in grown for line in extension["changes"])
        reading.ledger.say(f"the seal is from before the study grew: {lines}.")
    if results and results != now.results:
        differing.append(
            f"the results differ: they are not what was sealed, or other runs had finished then ({now.runs} "
            "have now)"
        )
    return differing


def _declarations(reading: Reading) -> list[str]:
    """The hashes of everything that the study declared, from first to last, as far as that was kept."""
    declared, extensions = reading.declared, reading.declared["extensions"]
    growth = [_grown(extension, reading.looks) for extension in extensions]
    stages = [(extension.get("before"), growth[:i]) for i, extension in enumerate(extensions)]
    return [_declaration(body, grown) for body, grown in [*stages, (declared, growth)] if body]


def _declaration(declared: dict[str, Any], growth: Sequence[dict[str, Any]]) -> str:
    """The hash of a declaration: everything that decides what is measured and compared, and how it grew."""
    taken = sorted(declared.get("taken_seeds", []))
    return digest(seal({"identity": declared["identity"], "taken_seeds": taken, "growth": list(growth)}))


def _grown(extension: dict[str, Any], looks: Sequence[Look]) -> dict[str, Any]:
    """A growth, without its time. Whether gains could be seen before it decides the test."""
    at = datetime.fromisoformat(extension["at"])
    seen = any(datetime.fromisoformat(look.at) <= at for look in looks)
    kept = {key: extension[key] for key in ("changes", "confirmed_before")}
    return {**kept, "after_look": seen}


def _results(reading: Reading, runs: dict[str, list[Any]]) -> str:
    """The hash of the candidates, the rows of every run, and what could be seen before the declaration."""
    generations = {f"{arm}-{number}": values for (arm, number), values in reading.plan.proposals.items()}
    seen = sorted([look.taken_from, look.pairs, look.arms] for look in reading.looks if look.taken_from)
    return digest(seal({"generations": generations, "runs": runs, "seen_before": seen}))


def _runs(reading: Reading) -> Iterator[tuple[str, list[Any]]]:
    """How each finished run ended, with the hashes of its rows."""
    finished = [run for run in reading.runs.values() if run.result]
    for run, hashes in ahead(finished, _hashes):
        assert run.result
        yield run.run_id, [run.result.outcome, run.result.epochs, *hashes]


def _hashes(run: RunFiles) -> list[str]:
    tables = [table for table in (run.epochs(), run.endpoints()) if table is not None]
    return [content_hash(table) for table in tables]
