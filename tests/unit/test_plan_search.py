"""The ladder worked by hand: who goes on, who is proposed from what, who is confirmed."""

from __future__ import annotations

import math

import pytest

from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Proposal, Result
from sweep.study import Study, Values
from tests.unit.simulated import ARMS, end, one_arm, plan_of, propose_all, result, study_of, take, trained

FIVE = [0.05, 0.1, 0.15, 0.2, 0.25]


def given(rates: list[float]) -> list[Values]:
    return [{"task.learning_rate": rate} for rate in rates]


def rungs(plan: Plan, scores: dict[float, list[float]]) -> list[dict[float, list[int]]]:
    """Play the first generation; for each rung, the seeds' places that every rate was run on."""
    seeds, seen = plan.study.arms["dense"].search_seeds, list[dict[float, list[int]]]()
    while runs := [run for run in take(plan) if run.phase == "search"]:
        seen.append({})
        for run in runs:
            seen[-1].setdefault(run.spec.task.learning_rate, []).append(seeds.index(run.spec.seed))
            plan.finish(run.run_id, result(scores[run.spec.task.learning_rate][run.place]))
    return seen


def ladder_of_five() -> Plan:
    plan = plan_of(one_arm(search={"budget": 5, "generation": 5}))
    plan.propose("tuned", 0, given(FIVE))
    return plan


def test_half_go_on_rounded_up_and_run_only_the_seeds_they_have_not() -> None:
    scores = dict(zip(FIVE, ([0.1] * 4, [0.5] * 4, [0.3] * 4, [0.4] * 4, [0.2] * 4), strict=True))
    first = {rate: [0] for rate in FIVE}
    assert rungs(ladder_of_five(), scores) == [
        first,
        {0.1: [1], 0.2: [1], 0.15: [1]},
        {0.1: [2, 3], 0.2: [2, 3]},
    ]


def test_a_tie_for_the_last_place_goes_to_the_earlier_candidate() -> None:
    assert rungs(ladder_of_five(), {rate: [0.5] * 4 for rate in FIVE})[1:] == [
        {rate: [1] for rate in FIVE[:3]},
        {rate: [2, 3] for rate in FIVE[:2]},
    ]


def test_candidates_are_compared_on_the_mean_of_the_seeds_that_all_of_them_ran() -> None:
    # After one seed 0.05, 0.1 and 0.15 lead. Over two seeds their means are 0.5, 0.7 and 0.6.
    # Over four seeds 0.1 has 0.35 and 0.15 has 0.4, which wins.
    scores = {
        0.05: [0.9, 0.1, 0, 0],
        0.1: [0.8, 0.6, 0, 0.0],
        0.15: [0.7, 0.5, 0.2, 0.2],
        0.2: [0.6] * 4,
        0.25: [0.6] * 4,
    }
    plan = ladder_of_five()
    assert [set(rung) for rung in rungs(plan, scores)] == [set(FIVE), {0.05, 0.1, 0.15}, {0.1, 0.15}]
    assert plan.finalists("tuned")[0].values == {"task.learning_rate": 0.15}
    means = {c.values["task.learning_rate"]: scores for c, scores in plan.searched("tuned")}
    assert means == {
        0.05: [0.9, 0.1],
        0.1: [0.8, 0.6, 0, 0],
        0.15: [0.7, 0.5, 0.2, 0.2],
        0.2: [0.6],
        0.25: [0.6],
    }


def test_a_rung_waits_for_its_last_run() -> None:
    plan = ladder_of_five()
    runs = [run for run in take(plan) if run.phase == "search"]
    for run in runs[:-1]:
        plan.finish(run.run_id, result(0.5))
    assert not plan.queue
    plan.finish(runs[-1].run_id, result(0.5))
    assert len(plan.queue) == 3


@pytest.mark.parametrize(("outcome", "score"), [("diverged", 0.0), ("collapsed", 0.12)])
def test_a_diverged_run_scores_0_and_a_collapsed_one_what_it_measured_and_neither_is_dropped(
    outcome: str, score: float
) -> None:
    plan = plan_of(one_arm(search={"budget": 4, "generation": 2, "lag": 0, "ladder": [1, 2]}))
    plan.propose("tuned", 0, given([0.05, 0.1]))
    for run in take(plan):
        bad = run.spec.task.learning_rate == 0.05
        plan.finish(run.run_id, result(0.12 if bad else 0.5, outcome if bad else "completed"))
    for run in take(plan):
        plan.finish(run.run_id, result(0.12, outcome))
    due = plan.wanted()
    assert due
    values = given([0.05, 0.1])
    assert list(due.history) == [(values[0], score, 1), (values[1], (0.5 + score) / 2, 2)]


def test_diverged_confirmation_runs_are_results_like_any_other() -> None:
    plan = plan_of(one_arm())
    dense = [run for run in take(plan) if run.arm == "dense"]
    for run in dense:
        plan.finish(run.run_id, result(0.9, "diverged"))
    assert [found.score("test", 1.0) for found in plan.confirmed("dense")[0].values()] == [0.0] * 4
    assert plan.finished["confirm", "dense"] == plan.total["confirm", "dense"] == 4
    assert not plan.queue.failed


def test_a_sweep_in_which_everything_diverges_comes_to_its_end() -> None:
    plan = plan_of(study_of())
    while not plan.over:
        propose_all(plan)
        for run in take(plan):
            plan.finish(run.run_id, result(math.nan, "diverged"))
    assert plan.complete
    assert [c.name for c in plan.finalists("additive")] == ["additive-0.0"]


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_generation_is_proposed_from_all_generations_up_to_its_own_less_one_less_the_lag_and_from_no_other(
    lag: int,
) -> None:
    plan, seen = plan_of(one_arm(search={"budget": 20, "lag": lag})), dict[int, tuple[Proposal, int]]()

    def watched(study: Study, due: Proposal) -> list[Values]:
        unfinished = sum(
            math.isnan(score)
            for c, scores in plan.searched("tuned")
            for score in scores
            if _generation(c.name) < due.generation - lag
        )
        seen[due.generation] = due, unfinished
        return propose(study, due)

    end(plan, proposer=watched)
    assert list(seen) == [0, 1, 2, 3, 4]
    for generation, (due, unfinished) in seen.items():
        known = [
            (c, scores) for c, scores in plan.searched("tuned") if _generation(c.name) < generation - lag
        ]
        assert list(due.history) == [
            (c.values, pytest.approx(sum(scores) / len(scores)), len(scores)) for c, scores in known
        ]
        assert not unfinished


def _generation(name: str) -> int:
    return int(name.rsplit("-", 1)[1].split(".")[0])


def test_a_generation_is_due_while_those_within_the_lag_are_still_running() -> None:
    plan = plan_of(one_arm(search={"budget": 20, "lag": 2}))
    assert [due.generation for due in propose_all(plan)] == [0, 1, 2]
    assert plan.wanted() is None


def test_a_later_generation_that_is_done_first_does_not_stand_for_an_earlier_one() -> None:
    plan = plan_of(one_arm(search={"budget": 16, "lag": 1, "ladder": [1]}))
    propose_all(plan)
    runs = [run for run in take(plan) if run.phase == "search"]
    for run in runs[4:]:  # generation 1
        plan.finish(run.run_id, result(0.5))
    assert plan.wanted() is None
    for run in runs[:4]:
        plan.finish(run.run_id, result(0.5))
    assert [due.generation for due in propose_all(plan)] == [2, 3]


def test_finalists_are_the_best_of_those_that_climbed_the_whole_ladder() -> None:
    plan = plan_of(one_arm(search={"budget": 8, "lag": 2, "finalists": 2}))
    plan.propose("tuned", 0, given([0.05, 0.06, 0.07, 0.08]))
    plan.propose("tuned", 1, given([0.15, 0.16, 0.17, 0.18]))
    heights = dict(
        zip(
            [0.05, 0.06, 0.07, 0.08, 0.15, 0.16, 0.17, 0.18],
            [0.7, 0.8, 0.9, 0.6, 0.1, 0.3, 0.4, 0.2],
            strict=True,
        )
    )
    end(plan, lambda spec: heights.get(spec.task.learning_rate, 0.5))
    # 0.06 scored 0.8 and was halved away; the second finalist is the second generation's best at 0.4
    assert [c.values["task.learning_rate"] for c in plan.finalists("tuned")] == [0.07, 0.17]
    assert [len(found) for found in plan.confirmed("tuned")] == [4, 4]


def test_of_equally_good_finalists_the_earlier_is_confirmed() -> None:
    plan = plan_of(one_arm(search={"finalists": 1}))
    end(plan, lambda _: 0.5)
    assert [c.name for c in plan.finalists("tuned")] == ["tuned-0.0"]


def few(**search: int) -> Study:
    return one_arm({"choice": [0.05, 0.2]}, search={"budget": 12, **search})


def test_equal_candidates_share_their_runs_and_are_trained_once() -> None:
    plan = plan_of(few())
    runs = end(plan)
    assert len({run.run_id for run in runs}) == len(runs)
    assert sum(run.phase == "search" for run in runs) <= 2 * 4
    by_rate: dict[float, list[list[float]]] = {}
    for candidate, scores in plan.searched("tuned"):
        by_rate.setdefault(candidate.values["task.learning_rate"], []).append(scores)
    for all_scores in by_rate.values():
        longest = max(all_scores, key=len)
        assert all(scores == longest[: len(scores)] for scores in all_scores)
    assert sum(map(len, by_rate.values())) == 12
    assert plan.complete


def test_a_candidate_that_was_proposed_twice_takes_one_finalist_s_place() -> None:
    plan = plan_of(few(finalists=2, lag=9))
    for generation, rates in enumerate([[0.2] * 4, [0.2] * 4, [0.05] * 4]):
        plan.propose("tuned", generation, given(rates))
    end(plan, lambda spec: spec.task.learning_rate)
    assert [(c.name, c.values["task.learning_rate"]) for c in plan.finalists("tuned")] == [
        ("tuned-0.0", 0.2),
        ("tuned-2.0", 0.05),
    ]


def test_arms_whose_confirmation_is_the_same_work_share_it() -> None:
    plan = plan_of(one_arm(search={"budget": 1, "ladder": [1]}))
    plan.propose("tuned", 0, given([0.1]))  # the published learning rate
    runs = end(plan)
    assert [run.phase for run in runs].count("confirm") == 4
    assert plan.confirmed("tuned") == plan.confirmed("dense")


def test_a_search_that_grew_keeps_what_was_recorded_and_still_reaches_its_budget() -> None:
    before, grown = (one_arm(search={"budget": budget}, confirm={"seeds": 2}) for budget in (6, 14))
    plan, recorded = plan_of(before), {}

    def kept(study: Study, due: Proposal) -> list[Values]:
        return recorded.setdefault((due.arm, due.generation), propose(study, due))

    results = {run.run_id: trained(run) for run in end(plan, proposer=kept)}
    assert [len(values) for values in recorded.values()] == [4, 2]
    more = Plan(grown, results, recorded)
    done = end(more)
    assert more.complete
    assert [c for c, _ in more.searched("tuned")][:6] == [c for c, _ in plan.searched("tuned")]
    assert len(more.searched("tuned")) == 14
    assert not {run.run_id for run in done} & results.keys()


def test_what_is_recorded_of_one_arm_is_taken_up_while_another_arm_s_is_not_there() -> None:
    study = study_of(ARMS)
    values = [{"policy.step": 0.1, "task.learning_rate": rate} for rate in (0.05, 0.1, 0.15, 0.2)]
    plan = Plan(study, {}, {("additive", 0): values})
    assert [c.values for c, _ in plan.searched("additive")] == values
    due = plan.wanted()
    assert due
    assert (due.arm, due.generation) == ("tuned", 0)


def test_the_search_is_scored_on_validation_and_the_confirmation_on_test() -> None:
    plan = plan_of(one_arm(search={"budget": 1, "ladder": [1]}))
    propose_all(plan)
    run = next(run for run in take(plan) if run.phase == "search")
    two = Result("completed", 20, 1.0, 10, {"1": 0.25}, {"1": 0.75})
    plan.finish(run.run_id, two)
    assert plan.searched("tuned")[0][1] == [0.25]
    assert two.score("test", 1.0) == 0.75
