"""The looks at a study: which gains people have seen. Seeds that are added after a look are tested alone."""

from __future__ import annotations

from sweep.gains.rows import Look
from sweep.gains.seeds import refuse_what_cannot_reject
from sweep.ledger.ledger import Ledger, now
from sweep.planning.plan import Plan
from sweep.study import Study, from_declared

ENOUGH_TO_SEE = 2
"""The least pairs of a gain that can be judged by eye, because it has a standard error."""


def accepted_looks(ledger: Ledger, study: Study) -> list[Look]:
    """Every look so far. Raises RejectStudy where the seeds after a look could not reject anything."""
    looks, declared = looks_at(ledger, study), ledger.declared()
    begun = None if declared is None else declared["identity"]["confirm"]["seeds"]
    refuse_what_cannot_reject(study, looks, looks_at(ledger, study, more=True), begun)
    return looks


def looks_at(ledger: Ledger, study: Study, *, more: bool = False) -> list[Look]:
    """Every look so far. A study that asks for more seeds than the ledger's adds one.

    The reason is that everybody could watch the earlier gains as they came. The ledger has to be loaded.
    `more` gives the looks as if the study asked for more seeds.
    """
    found = [Look(**look) for look in ledger.looks()]
    declared = ledger.declared()
    if declared is None:
        return found
    before = from_declared(study.name, declared)
    grows = more or before.confirm.seeds < study.confirm.seeds
    if grows and (arms := _on_show(Plan(before, ledger.results, ledger.proposals()))):
        found.append(Look(now(), before.confirm.seeds, arms))
    return found


def _on_show(plan: Plan) -> list[str]:
    """The arms with a gain that could be judged."""
    baseline_places = {name: (plan.confirmed(name) or [{}])[0].keys() for name in plan.study.baselines}
    others = [arm for arm in plan.study.arms.values() if arm.name not in baseline_places]

    def can_be_judged(arm: str, baseline: str) -> bool:
        pairs = [len(results.keys() & baseline_places[baseline]) for results in plan.confirmed(arm)]
        return max(pairs, default=0) >= ENOUGH_TO_SEE

    return sorted(arm.name for arm in others if can_be_judged(arm.name, arm.baseline))
