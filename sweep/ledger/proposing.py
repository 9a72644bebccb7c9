"""The step from a plan to the ledger: generations that are due are proposed and recorded."""

from __future__ import annotations

from sweep.ledger.ledger import Ledger
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose


def propose_all(plan: Plan, ledger: Ledger) -> None:
    """Propose and record every generation that is due, and let the plan go on with it."""
    while due := plan.wanted():
        values = ledger.record(plan.study, due, propose(plan.study, due))
        plan.propose(due.arm, due.generation, values)
