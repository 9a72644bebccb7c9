"""The check of recorded generations: each is proposed anew from the scores of its runs, and compared.

A hash inside a file does not say who wrote it. That the recorded candidates follow from the runs can be
computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweep.ledger.findings import ASIDE, Finding
from sweep.ledger.growth import earlier, identity_hash
from sweep.ledger.ledger import GENERATION, Ledger, generation_file
from sweep.planning.plan import Plan
from sweep.planning.proposer import by_optuna, propose, versions
from sweep.planning.values import Proposal
from sweep.study import Candidate, Study, Values, from_declared
from trainer.settings import SpecError

PROPOSES = re.compile(r"(?:search\.(?:budget|replicates)|arms\.[^.]+\.budget): .* -> ")
"""A line about growth that changes how many candidates a generation has, or how they are drawn."""
ELSEWHERE = "other candidates are proposed now from the same scores."


class Regenerated:
    """The generations of a study, one after the other. The ledger has to be loaded."""

    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        extensions: list[dict[str, Any]],
        bodies: Mapping[str, dict[str, Any] | None],
    ) -> None:
        """`bodies` has the content of every file of a generation by its name; None where it is damaged."""
        self.study, self.ledger = study, ledger
        self.plan = Plan(study, ledger.results, {})
        """The plan with every generation that was compared, or written anew."""
        self.studies = [study, *(from_declared(study.name, body) for body in earlier(extensions))]
        """The study as it is now, and as it was before it grew."""
        unkept = [extension for extension in extensions if "before" not in extension]
        self.is_whole = not unkept
        """Whether the ledger says what the study was each time before it grew; older ones do not."""
        grown = [line for extension in unkept for line in extension["changes"]]
        self.is_known = not any(PROPOSES.match(line) for line in grown)
        """Whether it is known of every generation how it would be proposed."""
        self._waiting = dict(bodies)
        self._run_ids = ledger.run_ids

    def findings(self) -> Iterator[Finding]:
        """Compare every generation whose scores are there, and name the others."""
        while due := next((due for due in self.plan.due() if generation_file(due) in self._waiting), None):
            name = generation_file(due)
            yield from self._compare(name, due, self._waiting.pop(name))
        for name, body in sorted(self._waiting.items()):
            where = self.ledger.store.where(name)
            if body is None:
                what = "the scores that it was proposed from are missing. Restore it from a backup."
                yield Finding(where, what, False)
            elif self._is_too_many(name):
                yield Finding(where, "the study has no such generation. Move it away.", False)
            else:
                self.ledger.say(f"{where} cannot be compared before the runs before it have finished.")

    def _compare(self, name: str, due: Proposal, body: dict[str, Any] | None) -> Iterator[Finding]:
        """Compare one generation with what is proposed now, and take one of both into the plan."""
        where = self.ledger.store.where(name)
        recorded: list[Values] | None = body["candidates"] if body else None
        if recorded is None or not self._can_run(due.arm, recorded):
            yield self._written_anew(where, due)
            return
        assert body
        ways = list(self._ways(due, len(recorded)))
        proposed = next((found for found in map(_propose, ways) if found == recorded), None)
        if proposed is None and self._is_lost(due.arm, lost := propose(*ways[0]), recorded):
            self.ledger.store.write(f"{name}{ASIDE}", self.ledger.store.read(name))
            yield self._replaced(where, due, lost)
            return
        yield from (Finding(where, what, False) for what in self._doubts(where, due, body, proposed is None))
        self.plan.propose(due.arm, due.generation, recorded)

    def _ways(self, due: Proposal, size: int) -> Iterator[tuple[Study, Proposal]]:
        """The study as it is, and as it was, with the generation as it would be proposed then."""
        done = len(self.plan.searched(due.arm))
        for study in self.studies:
            if due.arm in study.arms and (left := study.arms[due.arm].budget - done) > 0:
                yield study, replace(due, size=min(left, study.search.generation))
        if not self.is_known and size <= due.size:
            yield self.study, replace(due, size=size)

    def _doubts(self, where: str, due: Proposal, body: dict[str, Any], differs: bool) -> Iterator[str]:
        """What speaks against a recorded generation that cannot be replaced."""
        known = {identity_hash(study) for study in self.studies}
        if self.is_whole and body["study"] not in known:
            yield f"it was proposed for another declaration ({body['study']}) than study.json has."
        if body["proposed_from"] != [{"values": v, "score": s, "seeds": n} for v, s, n in due.history]:
            yield (
                "the scores that it says it was proposed from are not those of the runs here. It or a "
                "run was replaced, or a run was trained anew on another kind of machine. "
                "Restore it from a backup."
            )
        elif differs and self._is_proof(due, body):
            yield (
                f"{ELSEWHERE} It was replaced, or proposed on another kind of machine. "
                "Restore it from a backup."
            )
        elif differs:
            self.ledger.say(
                f"{where}: {ELSEWHERE} It was proposed with {_listed(body.get('proposed_with') or {})}; "
                f"here are {_listed(versions())}. So it is not known whether it was replaced."
            )

    def _is_proof(self, due: Proposal, body: dict[str, Any]) -> bool:
        """Whether another proposal means another file: nothing else that decides can differ."""
        return self.is_known and (not by_optuna(self.study, due) or body.get("proposed_with") == versions())

    def _written_anew(self, where: str, due: Proposal) -> Finding:
        """Propose a damaged generation again, where the runs here are those of its candidates."""
        proposed = propose(self.study, due)
        begun = self._begun(due.arm, proposed)
        # a larger budget changes how many candidates a generation has
        if all(begun) or (any(begun) and len(self.studies) == 1 and self.is_known):
            return self._replaced(where, due, proposed)
        what = (
            "the candidates that are proposed now are not those of the runs here. Restore it from a backup."
        )
        return Finding(where, what, False)

    def _is_lost(self, arm: str, proposed: list[Values], recorded: list[Values]) -> bool:
        """Whether the runs here are those of the proposed candidates, and not of the recorded ones."""
        begun = self._begun(arm, proposed)
        return all(begun) and sum(begun) > sum(self._begun(arm, recorded))

    def _replaced(self, where: str, due: Proposal, proposed: list[Values]) -> Finding:
        name = generation_file(due)
        self.ledger.store.delete(name)
        self.plan.propose(due.arm, due.generation, self.ledger.record(self.study, due, proposed))
        what = "written anew: the candidates that are proposed now are those of the runs here."
        return Finding(where, what, True)

    def _begun(self, arm: str, candidates: list[Values]) -> list[bool]:
        """Whether each candidate has a run here, on the first seed of the search."""
        return [run_id in self._run_ids for run_id in self._first_runs(arm, candidates)]

    def _can_run(self, arm: str, candidates: list[Values]) -> bool:
        """Whether candidates fill in the settings that the arm searches, and no others."""
        searched = self.study.arms[arm].searched.keys()
        try:
            return all(values.keys() == searched for values in candidates) and bool(
                self._first_runs(arm, candidates)
            )
        except SpecError:
            return False

    def _first_runs(self, arm: str, candidates: list[Values]) -> list[str]:
        first = self.study.arms[arm].search_seeds[0]
        filled = [Candidate(arm, "", self.plan.filled(arm, values)) for values in candidates]
        return [self.study.run(candidate, "search", first).run_id for candidate in filled]

    def _is_too_many(self, name: str) -> bool:
        """Whether the search of its arm is over without it, or there is no such search."""
        match = GENERATION.fullmatch(name)
        arm = self.study.arms.get(match[1]) if match else None
        return arm is None or not arm.searched or len(self.plan.searched(arm.name)) >= arm.budget


def _listed(packages: dict[str, str]) -> str:
    """Packages with their versions, for a message."""
    named = [f"{name} {version}" for name, version in packages.items()]
    return " and ".join(named) or "versions that it does not name"


def _propose(way: tuple[Study, Proposal]) -> list[Values]:
    return propose(*way)
