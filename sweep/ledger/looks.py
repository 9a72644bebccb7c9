"""Which gains people have seen."""

from __future__ import annotations

from sweep.ledger.ledger import Ledger, now
from sweep.planning.plan import Plan
from sweep.planning.work import Look, Looks
from sweep.study import Study, from_declared

ENOUGH_TO_SEE = 2
"""So many pairs give a gain its standard error, and so can be judged by eye."""


def looks_at(ledger: Ledger, study: Study) -> Looks:
    """Every look so far. A study that now asks for more seeds adds one: the earlier gains were on show as they came.

    The ledger has to be loaded.
    """
    seen, declared = ledger.looks(), ledger.declared()
    if declared is None:
        return Looks(seen, seen, None)
    before = from_declared(study.name, declared)
    begun, arms = before.confirm.seeds, _on_show(Plan(before, ledger.results, ledger.proposals()))
    if_more = [*seen, Look(now(), begun, arms)] if arms else seen
    return Looks(if_more if begun < study.confirm.seeds else seen, if_more, begun)


def _on_show(plan: Plan) -> list[str]:
    """The arms with a gain that could be judged."""
    bases = {name: (plan.confirmed(name) or [{}])[0].keys() for name in plan.study.baselines}
    others = [arm for arm in plan.study.arms.values() if arm.name not in bases]

    def can_be_judged(arm: str, baseline: str) -> bool:
        return any(len(results.keys() & bases[baseline]) >= ENOUGH_TO_SEE for results in plan.confirmed(arm))

    return sorted(arm.name for arm in others if can_be_judged(arm.name, arm.baseline))
