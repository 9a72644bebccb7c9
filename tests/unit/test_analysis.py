"""The comparisons of candidates, their pairs, and what is left out where a pair is missing.

They are played without training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sweep.gains.comparisons import comparisons, references
from sweep.gains.rows import Compared
from sweep.planning.plan import Plan
from sweep.planning.values import Failure, Result, Run
from sweep.statistics import holm, paired_comparison, two_way_standard_error
from sweep.study import Study
from tests.unit.simulated import RATE, STEP, plan_of, propose_all, study_of, take
from trainer.randomness import uniform

ARMS: dict[str, Any] = {
    "published": {"policy": {"name": "dense"}},
    "fixed": {"policy": {"name": "fixed", "ratio": 0.3}},
    "tuned": {"policy": {"name": "dense"}, "task": {"learning_rate": RATE}},
    "additive": {"policy": {"name": "additive-reset", "step": STEP}, "task": {"learning_rate": RATE}},
    "again": {"repeat": "tuned"},
}
SEEDS = 8
Give = Callable[[Run], Result | Failure | None]
TESTED = (
    "p_value",
    "p_holm",
    "ci_low",
    "ci_high",
    "family_low",
    "family_high",
    "effect_size",
    "welch_p_value",
    "wilcoxon_p_value",
    "correlation",
    "detectable_gain",
    "two_way_standard_error",
)


def study(*, seeds: int = SEEDS, finalists: int = 1, **analysis: Any) -> Study:
    base = study_of(
        ARMS,
        baseline="tuned",
        confirm={"seeds": seeds},
        search={"budget": 4, "finalists": finalists, "ladder": [1, 2]},
        resources={"attempts": 1},
    ).contents
    return Study("simulated", replace(base, analysis=replace(base.analysis, **analysis)))


def scored(run_id: str, ratio: float) -> float:
    """Return a run's test accuracy, a whole number of 199 images."""
    return round(199 * (0.5 + 0.4 * uniform(0, run_id, round(100 * ratio)))) / 199


def give(run: Run, outcome: Any = "completed") -> Result:
    """Return a run's result; its validation scores have nothing to do with its test scores."""
    test = {"1": scored(run.run_id, 1.0), "0.05": scored(run.run_id, 0.05)}
    return Result(outcome, 20, 20.0, 10, {"1": uniform(1, run.run_id)}, test)


def played(it: Study, give: Give = give) -> Plan:
    """Play a study until nothing is left but runs that got no result."""
    plan = plan_of(it)
    propose_all(plan)
    while runs := take(plan):
        for run in runs:
            match give(run):
                case Result() as result:
                    plan.finish(run.run_id, result)
                case Failure() as failure:
                    plan.queue.lose(run.run_id, failure)
                case None:
                    pass
        propose_all(plan)
    return plan


def spoilt(arm: str, place: int, instead: Result | Failure | None) -> Give:
    """Return what gives every run a good result, except one of the confirmation."""
    return lambda run: instead if (run.phase, run.arm, run.place) == ("confirm", arm, place) else give(run)


def runs_of(plan: Plan, arm: str, rank: int = 0) -> list[str]:
    """Return the run ids of a finalist's confirmation, in their order."""
    candidate = plan.finalists(arm)[rank]
    return [plan.study.run(candidate, "confirm", seed).run_id for seed in plan.study.arms[arm].seeds]


def the(rows: list[Compared], arm: str, reference: str = "tuned", ratio: float = 1.0) -> Compared:
    [row] = [row for row in rows if (row.arm, row.reference_arm, row.keep_ratio) == (arm, reference, ratio)]
    return row


def test_every_arm_is_held_against_the_baseline_and_then_against_the_other_arms_with_its_policy() -> None:
    plan = played(study())
    assert [arm.name for arm in references(plan.study)] == ["tuned", "published"]
    shown = [(row.arm, row.reference_arm, row.role) for row in comparisons(plan) if row.keep_ratio == 1]
    assert shown == [
        ("published", "tuned", "family"),
        ("fixed", "tuned", "family"),
        ("additive", "tuned", "family"),
        ("again", "tuned", "repeat"),
        ("fixed", "published", "control"),
        ("tuned", "published", "control"),
        ("additive", "published", "control"),
    ]
    assert [row.keep_ratio for row in comparisons(plan)] == [1, 0.05] * len(shown)


def test_a_comparison_is_that_of_the_test_scores_of_the_same_seeds() -> None:
    plan = played(study())
    for row in comparisons(plan):
        assert (row.state, row.missing, row.pairs, row.unit) == ("complete", [], SEEDS, "seed")
        halves = [
            [scored(run_id, row.keep_ratio) for run_id in runs_of(plan, arm)]
            for arm in (row.arm, row.reference_arm)
        ]
        expected = paired_comparison(*halves, comparisons=6)
        assert row.gain == pytest.approx(expected.gain, abs=1e-15)
        for name in (
            "standard_error",
            "p_value",
            "ci_low",
            "ci_high",
            "family_low",
            "family_high",
            "effect_size",
            "correlation",
        ):
            assert getattr(row, name) == pytest.approx(getattr(expected, name))
        assert (row.accuracy, row.reference_accuracy) == pytest.approx([np.mean(half) for half in halves])


def test_the_declared_test_and_alpha_are_the_ones_that_are_used() -> None:
    plan = played(study(test="paired-t", alpha=0.2))
    halves = [[scored(run_id, 1.0) for run_id in runs_of(plan, arm)] for arm in ("fixed", "tuned")]
    row, expected = (
        the(comparisons(plan), "fixed"),
        paired_comparison(*halves, alpha=0.2, test="paired-t", comparisons=6),
    )
    assert (row.p_value, row.ci_low, row.family_high) == (
        expected.p_value,
        expected.ci_low,
        expected.family_high,
    )


def test_every_finalist_is_held_against_the_reference_s_first_and_the_baseline_s_second_is_no_test() -> None:
    plan = played(study(finalists=2))
    rows = [row for row in comparisons(plan) if row.keep_ratio == 1 and row.reference_arm == "tuned"]
    assert {row.reference for row in rows} == {plan.finalists("tuned")[0].name}
    assert [row.candidate for row in rows if row.arm == "additive"] == [
        it.name for it in plan.finalists("additive")
    ]
    assert [(row.candidate, row.role) for row in rows if row.arm == "tuned"] == [
        (plan.finalists("tuned")[1].name, "control")
    ]
    assert sum(row.p_holm is not None for row in comparisons(plan)) == plan.study.comparisons == 8


@pytest.mark.parametrize("family", [None, ["additive"], ["fixed", "additive", "again"]])
def test_the_correction_is_holm_s_over_the_declared_family_alone(family: list[str] | None) -> None:
    """A repeat is tested where it is named."""
    rows = comparisons(played(study(family=family)))
    inside = [row for row in rows if row.role == "family"]
    assert {row.arm for row in inside} == set(family or ["published", "fixed", "additive"])
    assert {row.reference_arm for row in inside} == {"tuned"}
    assert [row.p_holm for row in inside] == holm([row.p_value or 0 for row in inside])
    outside = [row for row in rows if row.role != "family"]
    assert all(row.p_holm is None and row.p_value is not None for row in outside)


def test_there_is_no_correction_until_the_whole_family_is_complete_whatever_lacks_outside_it() -> None:
    rows = comparisons(played(study(), spoilt("additive", 2, None)))
    assert not [row for row in rows if row.p_holm is not None]
    assert the(rows, "fixed").p_value is not None
    rows = comparisons(played(study(), spoilt("again", 2, None)))
    assert the(rows, "again").state == "incomplete"
    assert all(row.p_holm is not None for row in rows if row.role == "family")


def test_a_missing_pair_is_named_and_never_a_smaller_sample() -> None:
    plan = played(study(), spoilt("additive", 2, None))
    row, seed, run_id = (
        the(comparisons(plan), "additive"),
        plan.study.arms["additive"].seeds[2],
        runs_of(plan, "additive")[2],
    )
    assert row.state == "incomplete"
    assert row.missing == [
        f"{plan.finalists('additive')[0].name}, confirm seed {seed} (run {run_id}) has not finished"
    ]
    assert [getattr(row, name) for name in TESTED] == [None] * len(TESTED)
    gains = [
        scored(a, 1.0) - scored(b, 1.0)
        for a, b in zip(runs_of(plan, "additive"), runs_of(plan, "tuned"), strict=True)
    ]
    assert (row.pairs, row.gain) == (SEEDS - 1, pytest.approx((sum(gains) - gains[2]) / (SEEDS - 1)))


def test_a_run_that_failed_is_named_with_its_reason() -> None:
    plan = played(study(), spoilt("fixed", 0, Failure("its node is gone.")))
    for reference in ("tuned", "published"):
        [line] = the(comparisons(plan), "fixed", reference).missing
        seed, run = plan.study.arms["fixed"].seeds[0], runs_of(plan, "fixed")[0]
        assert line == f"fixed, confirm seed {seed} (run {run}) failed: its node is gone."


def test_a_missing_run_of_the_baseline_is_missing_in_every_comparison_with_it_and_in_no_other() -> None:
    plan = played(study(), spoilt("tuned", 5, None))
    rows, lost = comparisons(plan), runs_of(plan, "tuned")[5]
    for row in rows:
        touched = "tuned" in (row.arm, row.reference_arm)
        assert (row.state == "incomplete", lost in " ".join(row.missing), row.p_value is None) == (
            touched,
        ) * 3


def test_an_arm_whose_search_is_under_way_is_shown_without_a_candidate_and_lacks_its_search() -> None:
    rows = comparisons(
        played(study(), lambda run: None if (run.phase, run.arm) == ("search", "additive") else give(run))
    )
    row = the(rows, "additive")
    assert (row.candidate, row.pairs, row.gain, row.p_value) == (None, 0, None, None)
    assert row.missing == ["additive: its search is under way"]
    baseline = comparisons(played(study(), lambda run: None if run.phase == "search" else give(run)))
    assert the(baseline, "fixed").missing == ["tuned: its search is under way"]
    assert the(baseline, "fixed", "published").state == "complete"


def test_a_diverged_run_scores_zero_a_collapsed_one_its_score_and_gains_stand_without_them_too() -> None:
    bad = {
        ("additive", 1): "diverged",
        ("additive", 4): "collapsed",
        ("tuned", 4): "diverged",
        ("tuned", 6): "collapsed",
    }
    plan = played(
        study(),
        lambda run: give(
            run, bad.get((run.arm, run.place), "completed") if run.phase == "confirm" else "completed"
        ),
    )
    scores = {
        arm: np.array([scored(run_id, 1.0) for run_id in runs_of(plan, arm)])
        for arm in ("additive", "tuned")
    }
    without = np.delete(scores["additive"] - scores["tuned"], [1, 4, 6])
    for (arm, place), outcome in bad.items():
        scores[arm][place] = 0.0 if outcome == "diverged" else scores[arm][place]
    row, expected = (
        the(comparisons(plan), "additive"),
        paired_comparison(scores["additive"], scores["tuned"]),
    )
    assert (row.state, row.pairs, row.gain, row.p_value) == (
        "complete",
        SEEDS,
        pytest.approx(expected.gain),
        expected.p_value,
    )
    assert (row.diverged, row.collapsed, row.reference_diverged, row.reference_collapsed) == (1, 1, 1, 1)
    assert (row.pairs_without, row.gain_without) == (SEEDS - 3, pytest.approx(without.mean()))
    assert row.standard_error_without == pytest.approx(without.std(ddof=1) / math.sqrt(SEEDS - 3))


def test_each_endpoint_has_a_two_way_error_where_every_run_keeps_its_correctness_by_image() -> None:
    plan = played(study())

    def correct(run_id: str, ratio: float) -> np.ndarray | None:
        if run_id == runs_of(plan, "fixed")[3]:
            return None
        return np.array([uniform(2, run_id, round(100 * ratio), image) < 0.7 for image in range(40)])

    rows = comparisons(plan, right_images=correct)
    assert the(rows, "fixed").two_way_standard_error is None
    assert the(rows, "fixed").p_value is not None
    for ratio in (1.0, 0.05):
        bits = [
            np.array([correct(run_id, ratio) for run_id in runs_of(plan, arm)])
            for arm in ("additive", "tuned")
        ]
        assert the(rows, "additive", ratio=ratio).two_way_standard_error == two_way_standard_error(*bits)
    assert all(row.two_way_standard_error is None for row in comparisons(plan))
