"""Studies of several tasks: the comparisons on each task and across them, and their words.

They are played without training.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from sweep.gains.across import across
from sweep.gains.comparisons import comparisons, keep_ratio_matters, references
from sweep.gains.rows import Compared
from sweep.planning.plan import Plan
from sweep.planning.values import Result, Run
from sweep.statistics import across_tasks, holm, paired_comparison
from sweep.study import Study
from sweep.views.report.sentences import answer, cautions
from sweep.views.report.tables import across_cells, gains, header
from sweep.views.report.words import markdown
from tests.unit.reported import findings_of
from tests.unit.simulated import plan_of, propose_all, study_of, take
from trainer.randomness import uniform

ARMS: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "half": {"policy": {"name": "fixed", "ratio": 0.5}},
    "third": {"policy": {"name": "fixed", "ratio": 0.3}},
    "slow": {"policy": {"name": "dense"}, "task": {"learning_rate": 0.05}},
    "again": {"repeat": "dense"},
}
SEEDS = 9


def study(
    tasks: int = 3, arms: dict[str, Any] | None = None, task: dict[str, Any] | None = None, **analysis: Any
) -> Study:
    """A study of tasks a, b, c and so on, of as many images."""
    listed = {chr(ord("a") + i): {"train_size": 60 + i} for i in range(tasks)}
    base = study_of(arms or ARMS, task=task or {}, tasks=listed, confirm={"seeds": SEEDS}).contents
    more = {"endpoints": [1.0], **analysis}
    return Study("simulated", replace(base, analysis=replace(base.analysis, **more)))


def scored(run_id: str) -> float:
    """Return a run's test accuracy, a whole number of 199 images."""
    return round(199 * (0.5 + 0.4 * uniform(0, run_id))) / 199


def played(
    it: Study, *, without: tuple[str, int] | None = None, better: dict[str, float] | None = None
) -> Plan:
    """Play every run but one; an arm in `better` gains so much on every task."""
    plan = plan_of(it)
    propose_all(plan)
    for run in take(plan):
        if (run.arm, run.place) != without:
            plan.finish(run.run_id, _given(run, it, better or {}))
    return plan


def _given(run: Run, it: Study, better: dict[str, float]) -> Result:
    score = scored(run.run_id) + better.get(it.arms[run.arm].base, 0.0)
    scores = {"1": score, "0.05": score}
    return Result(
        "completed", 20, 20.0, 10, {}, scores, 1000, 500 if it.arms[run.arm].base == "half" else 1000
    )


def runs_of(plan: Plan, arm: str) -> list[str]:
    candidate = plan.finalists(arm)[0]
    return [plan.study.run(candidate, "confirm", seed).run_id for seed in plan.study.arms[arm].seeds]


# on each task


def test_every_arm_is_held_against_the_baseline_of_its_own_task_and_against_the_arms_with_its_policy() -> (
    None
):
    plan = played(study(2))
    assert [arm.name for arm in references(plan.study)] == ["dense@a", "slow@a", "dense@b", "slow@b"]
    rows = comparisons(plan)
    assert all(
        row.task == plan.study.arms[row.arm].task == plan.study.arms[row.reference_arm].task for row in rows
    )
    for task in "ab":
        assert [(row.arm, row.reference_arm, row.role) for row in rows if row.task == task] == [
            (f"half@{task}", f"dense@{task}", "family"),
            (f"third@{task}", f"dense@{task}", "family"),
            (f"slow@{task}", f"dense@{task}", "family"),
            (f"again@{task}", f"dense@{task}", "repeat"),
            (f"dense@{task}", f"slow@{task}", "control"),
            (f"half@{task}", f"slow@{task}", "control"),
            (f"third@{task}", f"slow@{task}", "control"),
        ]


def test_the_correction_is_over_the_family_of_all_tasks_together() -> None:
    plan = played(study(3))
    family = [row for row in comparisons(plan) if row.role == "family"]
    assert len(family) == 9
    for row in family:
        halves = [[scored(run_id) for run_id in runs_of(plan, arm)] for arm in (row.arm, row.reference_arm)]
        expected = paired_comparison(*halves, comparisons=9)
        assert (row.p_value, row.family_low) == pytest.approx((expected.p_value, expected.family_low))
    assert [row.p_holm for row in family] == holm([row.p_value or 0 for row in family])


def test_gains_over_other_arms_are_tested_where_that_is_declared_in_one_family_with_the_others() -> None:
    plan = played(study(2, against={"half": ["third"]}))
    named = comparisons(plan)
    more = [row for row in named if row.reference_arm.startswith("third")]
    assert [(row.arm, row.role, row.p_holm is not None) for row in more if row.task == "b"] == [
        ("dense@b", "control", False),
        ("half@b", "family", True),
        ("slow@b", "control", False),
    ]
    family = [row for row in named if row.role == "family"]
    assert plan.study.comparisons == len(family) == 2 * (3 + 1)
    assert [row.p_holm for row in family] == holm([row.p_value or 0 for row in family])
    same = {
        "p_holm",
        "family_low",
        "family_high",
        "detectable_gain",
    }  # all others do not know how many are tested
    plain = [
        {key: it for key, it in asdict(row).items() if key not in same}
        for row in comparisons(played(study(2)))
    ]
    assert [
        {key: it for key, it in asdict(row).items() if key not in same} for row in named if row not in more
    ] == plain


def test_a_network_of_matched_size_is_a_reference_because_it_is_dense() -> None:
    arms = {
        "dense": ARMS["dense"],
        "set": {"policy": {"name": "set"}},
        "small": {"policy": {"name": "dense"}, "match": {"arm": "set", "at": "start"}},
    }
    it = study(2, arms, task={"model": "mlp-20-20"})
    assert [arm.name for arm in references(it)] == ["dense@a", "small@a", "dense@b", "small@b"]
    assert not keep_ratio_matters(it)


# resampled splits


def test_where_each_seed_draws_its_test_rows_the_test_and_every_error_know_of_the_overlap() -> None:
    it = study(2, task={"resample": 0.02}, test="resampled-t")
    plan = played(it)
    overlap = 36 / 1761  # of the digits' 1,797 rows, however few of the others a run trains on
    for row in comparisons(plan, right_images=lambda _run, _ratio: np.ones(36, bool)):
        halves = [[scored(run_id) for run_id in runs_of(plan, arm)] for arm in (row.arm, row.reference_arm)]
        if row.task == "b":
            expected = paired_comparison(*halves, test="resampled-t", comparisons=6, overlap=overlap)
            assert row.overlap == pytest.approx(overlap)
            assert (row.p_value, row.ci_low) == pytest.approx((expected.p_value, expected.ci_low))
            assert (row.standard_error, row.standard_error_without) == pytest.approx(
                (expected.standard_error,) * 2
            )
            assert row.detectable_gain is not None
            assert row.detectable_gain > 3 * expected.standard_error
        assert row.two_way_standard_error is None


# across tasks


def test_across_tasks_each_task_counts_once_by_its_mean_gain() -> None:
    it = study(7, family=["half", "third"])
    rows = comparisons(played(it))
    found = across(it, rows)
    assert [(row.arm, row.reference_arm, row.role) for row in found[:4]] == [
        ("half", "dense", "family"),
        ("third", "dense", "family"),
        ("slow", "dense", "control"),
        ("again", "dense", "repeat"),
    ]
    for row in found:
        gains = {
            it.task: it.gain or 0
            for it in rows
            if (it.arm, it.reference_arm) == (f"{row.arm}@{it.task}", f"{row.reference_arm}@{it.task}")
        }
        expected = across_tasks(gains, comparisons=2)
        assert (row.tasks, row.wins, row.ties, row.median_gain) == (
            7,
            expected.wins,
            expected.ties,
            expected.median_gain,
        )
        assert (row.p_value, row.claimable, row.missing) == (expected.p_value, True, [])
    family = [row for row in found if row.role == "family"]
    assert [row.p_holm for row in family] == holm([row.p_value or 0 for row in family])
    assert not [row for row in found if row.role != "family" and row.p_holm is not None]


@pytest.mark.parametrize(
    ("tasks", "family", "claimable"),
    [(5, ["half"], False), (6, ["half"], True), (6, ["half", "third"], False)],
)
def test_so_few_tasks_that_nothing_could_be_rejected_may_claim_nothing(
    tasks: int, family: list[str], claimable: bool
) -> None:
    it = study(tasks, family=family)
    assert {row.claimable for row in across(it, comparisons(played(it)))} == {claimable}


def test_a_task_that_lacks_a_pair_is_named_and_nothing_is_tested_across_tasks_without_it() -> None:
    it = study(7, family=["half", "third"])
    found = across(it, comparisons(played(it, without=("half@c", 4))))
    half, third = found[:2]
    assert (half.tasks, half.missing, half.p_value) == (6, ["c: 8 of 9 pairs"], None)
    assert half.median_gain is not None
    assert (third.tasks, third.missing, third.p_holm) == (7, [], None)
    assert third.p_value is not None


def test_a_gain_across_tasks_says_what_it_is_without_the_pairs_of_which_a_run_failed() -> None:
    it = study(7, family=["half"])
    rows = comparisons(played(it, better={"half": 5.0}))
    lost = dict(zip("abcdefg", (-0.03, 0.02, -0.01, -0.04, 0.01, -0.05, -0.02), strict=True))

    def without(row: Compared, failed: int, gain: float | None) -> Compared:
        mine = row.arm.startswith("half") and row.reference_arm.startswith("dense")
        return replace(row, pairs_without=SEEDS - failed, gain_without=gain) if mine else row

    failed = [without(row, 2, lost[row.task]) for row in rows]
    half = across(it, failed)[0]
    assert (half.run_pairs, half.failed_pairs) == (7 * SEEDS, 14)
    assert (half.median_gain_without, half.wins_without) == (-0.02, 2)
    # what was found by the test is as before
    assert half.p_holm == across(it, rows)[0].p_holm
    assert answer(findings_of(it, failed))[0].endswith(
        "In 14 of 63 pairs of runs one collapsed or diverged; without those the median gain is -2.00 "
        "points, and above 0 on 2 tasks."
    )
    none_left = [without(row, SEEDS, None) if row.task == "c" else row for row in failed]
    assert across(it, none_left)[0].median_gain_without is None
    assert answer(findings_of(it, none_left))[0].endswith("diverged; on some task no other pair is left.")
    assert across(it, rows)[0].failed_pairs == 0
    assert "collapsed" not in answer(findings_of(it, rows))[0]


def test_a_study_of_one_task_has_nothing_across_tasks() -> None:
    for it in (study_of(ARMS, confirm={"seeds": SEEDS}), study(1)):
        assert across(it, comparisons(plan_of(it))) == []


# in words


def test_the_answer_names_the_task_and_what_holds_across_them() -> None:
    it = study(6, family=["half"])
    report = findings_of(it, comparisons(played(it, better={"half": 0.5})))
    first, *found = answer(report)
    assert first.startswith("Across 6 tasks half is better than dense at r = 1: a median gain of +")
    assert first.endswith("points, wins on 6, p = 0.0312 after Holm over 1.")
    assert [line.split(" by ")[0] for line in found] == [
        f"On {task}: half is better than dense at r = 1" for task in "abcdef"
    ]
    assert all(
        line.endswith("better in 9 of 9 seeds, p = 0.0234 after Holm over 6 comparisons, on this test set.")
        for line in found
    )


def test_too_few_tasks_are_said_to_be_and_how_many_it_would_take() -> None:
    it = study(3, family=["half", "third"])
    report = findings_of(it, comparisons(played(it, better={"half": 0.5})))
    assert (
        answer(report)[0]
        == "3 tasks are too few to claim anything across tasks: 2 comparisons at 0.05 would take 7."
    )
    assert across_cells(report)[0][-3] == "too few tasks to claim anything"
    assert "| half | dense at r = 1 | 3 | 3 | 0 |" in markdown(report)


def test_what_was_not_found_is_never_said_to_be_equal_and_every_sentence_says_how_large_it_may_be() -> None:
    it = study(6, family=["half"])
    report = findings_of(it, rows := comparisons(played(it)))
    across_them, *found = answer(report)
    assert across_them.startswith("Across 6 tasks no difference is shown")
    family = [row for row in rows if row.role == "family"]
    assert len(found) == len(family) == 6
    for line, row in zip(found, family, strict=True):
        low, high = (f"{100 * end:+.2f}" for end in (row.family_low or 0, row.family_high or 0))
        name, task = row.arm.split("@")
        equal = f" and equal in {row.equal}" if row.equal else ""
        said = (
            f"On {task}: {name} over dense at r = 1: no difference is shown; the true gain may be anything"
        )
        assert line.startswith(
            f"{said} from {low} to {high} points; better in {row.better} of 9 seeds{equal}, p = "
        )
    assert "no difference beyond chance" not in markdown(report)
    assert "The interval of a tested gain is the family's" in markdown(report)


def test_where_no_policy_moves_a_keep_ratio_none_is_spoken_of() -> None:
    arms = {"dense": ARMS["dense"], "set": {"policy": {"name": "set"}}}
    it = study(2, arms, task={"model": "mlp-20-20"})
    report = findings_of(it, comparisons(played(it, better={"set": 0.5})))
    assert "r = 1" not in markdown(report)
    assert header(report) == ["arm", "gain", "interval", "p", "±", "better in"]


def test_over_resampled_splits_nothing_is_said_of_this_test_set() -> None:
    it = study(2, task={"resample": 0.02}, test="resampled-t", family=["half"])
    found = answer(findings_of(it, comparisons(played(it, better={"half": 5.0}))))
    assert all(line.endswith("over resampled splits.") for line in found[1:])
    assert len(found) == 3


def test_both_counts_of_parameters_are_shown_where_networks_differ_in_size_and_nowhere_else() -> None:
    it = study(2)
    report = findings_of(it, rows := comparisons(played(it)))
    at = header(report).index("parameters")
    assert {line[0]: line[at] for line in gains(report, "dense@a")} == {
        "half": "500 / 1,000",
        "third": "",
        "slow": "",
        "again (repeat)": "",
    }
    assert any("another size" in line for line in cautions(report))
    alike = findings_of(it, [replace(row, parameters=None) for row in rows])
    assert "parameters" not in header(alike)
    assert not cautions(alike)


def test_an_arm_that_is_beside_another_in_a_task_s_table_goes_by_its_name_in_the_study() -> None:
    it = study(2)
    report = findings_of(it, comparisons(played(it)))
    assert {line[0] for line in gains(report, "slow@b")} == {"dense", "half", "third"}
    assert not math.isnan(report.across[0].median_gain or 0.0)
