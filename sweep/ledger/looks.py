"""The looks at a study: which gains people have seen. Seeds that are added after a look are tested alone."""

from __future__ import annotations

from sweep.format import now
from sweep.ledger.ledger import Ledger
from sweep.planning.plan import Plan
from sweep.planning.values import Look, Looks
from sweep.study import Study, from_declared

ENOUGH_TO_SEE = 2
"""The least pairs of a gain that can be judged by eye, because it has a standard error."""


def looks_at(ledger: Ledger, study: Study) -> Looks:
    """Every look so far. A study that asks for more seeds than the ledger's adds one.

    The reason is that everybody could watch the earlier gains as they came. The ledger has to be loaded.
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
    baseline_places = {name: (plan.confirmed(name) or [{}])[0].keys() for name in plan.study.baselines}
    others = [arm for arm in plan.study.arms.values() if arm.name not in baseline_places]

    def can_be_judged(arm: str, baseline: str) -> bool:
        pairs = [len(results.keys() & baseline_places[baseline]) for results in plan.confirmed(arm)]
        return max(pairs, default=0) >= ENOUGH_TO_SEE

    return sorted(arm.name for arm in others if can_be_judged(arm.name, arm.baseline))
