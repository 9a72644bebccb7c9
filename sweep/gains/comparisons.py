"""The comparisons of a study: which candidates are compared, over which pairs, and the test's result. Pure.

Nothing is tested over fewer pairs than the study declares, or than a look that it declares: a comparison
without all of them is incomplete, and lists what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweep.format import counted, points, probability
from sweep.gains.compared import RightImages, Stage, compared
from sweep.gains.rows import Compared
from sweep.planning.pairing import FEWEST, PICKED_ANEW, Pairing, complete_blocks, pairings, verdict
from sweep.planning.plan import Plan
from sweep.planning.values import Growth, Look
from sweep.statistics import holm
from sweep.study import ResolvedArm, Study
from trainer.policies import POLICIES
from trainer.policies.keep_ratio import Dense, KeepRatioPolicy


def stage(plan: Plan, grew_after_look: Growth = "") -> Stage:
    """The stage that a study has reached.

    Pairs beyond the last declared look are tested like those of a study that grew after a look.
    """
    contents, done = plan.study.contents, complete_blocks(plan)
    looks = contents.looks
    if contents.analysis.looks == "any" or grew_after_look or done > looks[-1]:
        share = PICKED_ANEW if grew_after_look == "picks" else 1.0
        return Stage(max(done, FEWEST), at_any_time=True, look=0, share=share)
    reached = [look for look in looks if look <= done]
    return Stage(reached[-1] if reached else looks[0], at_any_time=False, look=len(reached))


def comparisons(
    plan: Plan,
    *,
    grew_after_look: Growth = "",
    right_images: RightImages = lambda _run, _ratio: None,
    at: Stage | None = None,
) -> list[Compared]:
    """Compare, task by task, every arm with the baseline, and then every arm with the other references.

    `grew_after_look` says how the study was extended after its gains could be seen. `at` gives the
    comparisons as they were at an earlier stage.
    """
    study, at = plan.study, at or stage(plan, grew_after_look)
    found = [
        compared(plan, pairing, at, right_images)
        for reference in references(study)
        for pairing in _against(plan, reference)
    ]
    family = [i for i, row in enumerate(found) if row.role == "family"]
    p_values = [p for i in family if (p := found[i].p_value) is not None]
    if p_values and len(p_values) == len(family) == study.comparisons:
        for i, p in zip(family, holm(p_values), strict=True):
            found[i] = replace(found[i], p_holm=p, verdict=_verdict(study, found[i], p))
    return found


def _verdict(study: Study, row: Compared, p_holm: float) -> str:
    """The verdict on a tested comparison."""
    low, high = row.family_low, row.family_high
    if row.margin is not None:
        return "inconclusive" if low is None or high is None else verdict(low, high, row.margin)
    if p_holm > study.analysis.alpha:
        return "inconclusive"
    return "better" if row.gain is not None and row.gain > 0 else "worse"


def references(study: Study) -> list[ResolvedArm]:
    """The arms that others are compared with: task by task the baseline, and then some others.

    The others are the arms that `analysis.against` names, and the arms with the baseline's policy: the
    published settings where the baseline is tuned, or a dense network of another arm's size.
    """
    found: list[ResolvedArm] = []
    for name in study.baselines:
        baseline = study.arms[name]
        arms = [arms[0] for arms in study.methods.values()]
        own = [arm for arm in arms if arm.task == baseline.task and not arm.is_repeat]
        found.append(baseline)
        for arm in own:
            named = any(other.is_tested_over(arm) for other in own)
            if arm is not baseline and (named or arm.written.policy == baseline.written.policy):
                found.append(arm)
    return found


def declared_pairs(study: Study, row: Compared) -> int:
    """How many pairs a comparison has in the end, if the study does not end early."""
    by_seed = study.search.replicates > 1 and row.unit == "seed"
    return study.contents.blocks * (study.confirm.seeds if by_seed else 1)


def keep_ratio_matters(study: Study) -> bool:
    """Whether results depend on the keep ratio: several are measured, or a policy moves it."""
    own = [arms[0] for arms in study.methods.values() if not arms[0].is_repeat]
    policies = {POLICIES[str(arm.written.policy["name"])] for arm in own} - {Dense}
    measured = {*study.analysis.endpoints, *study.analysis.curve}
    return len(measured) > 1 or any(issubclass(policy, KeepRatioPolicy) for policy in policies)


def earlier(plan: Plan, looks: Sequence[Look], right_images: RightImages) -> dict[int, list[Compared]]:
    """The tested comparisons at the looks before a study grew, by the number of blocks then."""
    now, declared = plan.study.contents.blocks, plan.study.contents.looks
    # a declared look that later ones have paid for is none of before the study grew
    sizes = sorted(
        {
            look.pairs
            for look in looks
            if look.pairs < now and (look.pairs not in declared or declared[-1] < now)
        }
    )
    rows = {
        size: comparisons(plan, right_images=right_images, at=Stage(size, at_any_time=False, look=1))
        for size in sizes
    }
    return {
        size: [row for row in found if row.role == "family" and row.candidates]
        for size, found in rows.items()
    }


def seen(rows: Sequence[Compared]) -> list[str]:
    """The arms with a tested comparison among these rows: whoever reads the rows has a look at them."""
    return sorted({row.arm for row in rows if row.p_value is not None})


def said(rows: Sequence[Compared]) -> list[str]:
    """What the tested comparisons of a complete family say, a line each, for the record of a look."""
    return [
        f"{row.arm} over {row.reference_arm} at r = {row.keep_ratio:g}: {row.verdict}, {points(row.gain)} "
        f"points [{points(row.family_low)}, {points(row.family_high)}], p = {probability(row.p_holm)}, "
        f"{counted(row.pairs, 'pair')}"
        for row in rows
        if row.role == "family" and row.verdict
    ]


def _against(plan: Plan, reference: ResolvedArm) -> Iterator[Pairing]:
    """Every arm of the reference's task beside the reference's first finalist."""
    for name, (arm, *_) in plan.study.methods.items():
        if arm.task != reference.task or (
            reference.role != "baseline" and (arm.is_repeat or arm is reference)
        ):
            continue
        for pairing in pairings(plan, name, reference.method):
            if not (arm is reference and pairing.candidate.rank == 0):
                yield pairing
