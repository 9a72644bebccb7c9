"""Which gains people have seen: after that, seeds that are added are tested alone."""

from __future__ import annotations

from sweep.gains.comparisons import Look, refuse_what_cannot_reject
from sweep.ledger.ledger import Ledger, now
from sweep.planning.plan import Plan
from sweep.study import files as studies
from sweep.study.study import Study

SHOWN = 2
"""Pairs with which a gain has a standard error, and so can be judged by eye."""


def accepted_looks(ledger: Ledger, study: Study) -> list[Look]:
    """Every look so far; RejectStudy where the seeds that come after one could not reject anything."""
    looks, declared = looks_at(ledger, study), ledger.declared()
    begun = None if declared is None else declared["identity"]["confirm"]["seeds"]
    refuse_what_cannot_reject(study, looks, looks_at(ledger, study, more=True), begun)
    return looks


def looks_at(ledger: Ledger, study: Study, *, more: bool = False) -> list[Look]:
    """Every look so far. A study that now asks for more seeds adds one: the gains of the earlier ones were on show while they came in.

    The ledger has to be loaded. `more` takes the study for one that asks for more seeds.
    """
    found = [Look(**look) for look in ledger.looks()]
    declared = ledger.declared()
    if declared is None:
        return found
    before = studies.from_declared(study.name, declared)
    if (more or before.confirm.seeds < study.confirm.seeds) and (
        arms := _shown(Plan(before, ledger.results, ledger.proposals()))
    ):
        found.append(Look(now(), before.confirm.seeds, arms))
    return found


def _shown(plan: Plan) -> list[str]:
    """The arms with a gain that could be judged."""
    study = plan.study
    bases = {baseline: (plan.confirmed(baseline) or [{}])[0].keys() for baseline in study.baselines}
    arms = {arm: bases[study.baseline_of(arm)] for arm in study.arms if arm not in bases}
    return sorted(
        arm
        for arm, base in arms.items()
        if any(len(results.keys() & base) >= SHOWN for results in plan.confirmed(arm))
    )
