"""The looks at a study: which gains people have seen, and whether the study grew after that."""

from __future__ import annotations

import re
from datetime import datetime

from sweep.errors import RejectStudy
from sweep.format import now
from sweep.ledger.growth import changes
from sweep.ledger.ledger import Ledger
from sweep.planning.pairing import PICKED_ANEW, Pairing, sides
from sweep.planning.plan import Plan
from sweep.planning.values import Growth, Look
from sweep.statistics import pairs_needed_at_any_time
from sweep.study import Study, from_declared

ENOUGH_TO_SEE = 2
"""The least pairs of a gain that can be judged by eye, because it has a standard error."""

PICKS = re.compile(r"(?:search|arms\.[^.]+)\.(?:budget|finalists): .* -> ")
"""A line about growth by which finalists are picked anew."""
_GREW = (
    "the study grew after its gains could be seen. It is now tested, from its first pair on, by a test that "
    "allows looks at any time."
)
GREW: dict[Growth, str] = {
    "pairs": f"{_GREW} Counting the test before it too, the chance of any false gain is up to twice alpha.",
    "picks": f"{_GREW} Finalists may have been picked anew, so that this test has a tenth of alpha: p is "
    "ten times what it would be, and intervals are wider.",
}
"""What to say about a study that grew."""


def look_before_growth(ledger: Ledger, study: Study) -> Look | None:
    """The look to record before a study grows, because everybody could watch its gains as they came.

    None where the study did not grow, or where nothing could be judged yet. The ledger has to be loaded.
    """
    declared = ledger.declared()
    if declared is None or declared["identity"] == study.identity:
        return None
    before = from_declared(study.name, declared)
    arms = _on_show(Plan(before, ledger.results, ledger.proposals()))
    return Look(now(), before.contents.blocks, arms) if arms else None


def grew_after_look(ledger: Ledger, study: Study) -> Growth:
    """How the tests of a study grew, or would grow now, after its gains could be seen."""
    looks, declared = ledger.looks(), ledger.declared()
    if declared is None:
        return ""
    first = min((_time(look.at) for look in looks), default=None)
    lines = [
        line
        for extension in declared["extensions"]
        for line in extension["changes"]
        if first is not None and first <= _time(extension["at"])
    ]
    if declared["identity"] != study.identity and (looks or look_before_growth(ledger, study)):
        lines += changes(declared["identity"], study.identity)
    lines = [line for line in lines if _concerns_tests(study, line)]
    growth: Growth = "picks" if any(PICKS.match(line) for line in lines) else "pairs" if lines else ""
    if growth and declared["identity"] != study.identity:
        _refuse_what_cannot_reject(study, growth)
    return growth


def _refuse_what_cannot_reject(study: Study, growth: Growth) -> None:
    """Raise RejectStudy where the tests of a study that grows after a look could not find anything."""
    analysis, pairs = study.analysis, study.contents.blocks
    alpha = analysis.alpha * (PICKED_ANEW if growth == "picks" else 1)
    needed = pairs_needed_at_any_time(study.comparisons, alpha)
    reason = ""
    if analysis.test == "resampled-t":
        reason = "its test sets overlap, and no test of such pairs allows looks at any time"
    elif pairs < needed:
        what = "search.replicates" if study.search.replicates > 1 else "confirm.seeds"
        reason = (
            f"the test that allows looks at any time cannot reject anything with {pairs} pairs here. "
            f"Write at least {needed} for {what}"
        )
    if reason:
        advice = "Or give the grown study another name: copy the file."
        raise RejectStudy(
            [f"{study.name}: cannot grow so, now that gains could be seen: {reason}. {advice}"]
        )


def _concerns_tests(study: Study, line: str) -> bool:
    """Whether a line about growth changes what is tested: an arm outside the family that is new does not."""
    arm = re.match(r"arms\.([^.]+)\..* is new$", line)
    if not arm:
        return True
    against = study.analysis.against
    return arm[1] in {
        *study.contents.family,
        *against,
        *(other for own in against.values() for other in own),
    }


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _on_show(plan: Plan) -> list[str]:
    """The arms with a gain that could be judged."""
    study, ratio = plan.study, plan.study.analysis.endpoints[0]

    def pairs(method: str) -> int:
        arm = study.methods[method][0]
        against = sides(plan, arm.baseline, ratio)[0]
        pairings = [Pairing(side, against, ratio) for side in sides(plan, method, ratio)]
        return max(len(pairing.scores(study.contents.blocks)[0]) for pairing in pairings)

    others = [name for name, (arm, *_) in study.methods.items() if arm.role != "baseline"]
    return sorted(name for name in others if pairs(name) >= ENOUGH_TO_SEE)
