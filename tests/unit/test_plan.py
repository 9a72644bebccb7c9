"""Which runs are urgent, how full a cluster is, and how little a large study costs."""

from __future__ import annotations

import tracemalloc

from sweep.planning.forecast import forecast, play, scattered
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Result, Run
from sweep.study import Study, Values
from tests.unit.simulated import (
    ARMS,
    end,
    final,
    one_arm,
    plan_of,
    propose_all,
    result,
    study_of,
    take,
    trained,
)

REPEATED = {**ARMS, "again": {"repeat": "additive"}}


def test_earlier_generations_come_first_and_the_search_before_the_confirmation() -> None:
    plan = plan_of(study_of(search={"lag": 1}))
    propose_all(plan)
    handed = [(run.phase, run.arm, run.candidate.split(".")[0]) for run in take(plan)]
    expected = [
        ("search", arm, f"{arm}-{generation}")
        for generation in (0, 1)
        for arm in ("tuned", "additive")
        for _ in range(4)
    ]
    assert handed == [*expected, *[("confirm", "dense", "dense")] * 4]


def test_a_high_rung_comes_before_the_low_rung_of_a_later_generation() -> None:
    plan = plan_of(one_arm(search={"lag": 1}))
    propose_all(plan)
    first = [plan.queue.next(0.0) for _ in range(4)]
    for run in first:
        assert run
        plan.finish(run.run_id, trained(run))
    following = take(plan)
    assert [run.candidate.split(".")[0] for run in following[:6]] == ["tuned-0"] * 2 + ["tuned-1"] * 4
    assert [run.place for run in following[:2]] == [1, 1]


def test_confirmation_seeds_go_side_by_side_across_the_arms() -> None:
    plan = plan_of(study_of(REPEATED, search={"budget": 1, "ladder": [1], "finalists": 1}))
    propose_all(plan)
    search = [run for run in (plan.queue.next(0.0), plan.queue.next(0.0)) if run]
    for run in search:
        plan.finish(run.run_id, trained(run))
    handed = [(run.place, run.arm) for run in take(plan)]
    assert handed == [(place, arm) for place in range(4) for arm in ("dense", "tuned", "additive", "again")]


def test_the_baseline_and_published_arms_fill_the_slots_that_the_search_leaves_idle() -> None:
    arms = {**ARMS, "published": {"policy": {"name": "fixed", "ratio": 0.3}}}
    plan = plan_of(study_of(arms, search={"lag": 0}))
    propose_all(plan)
    handed = [run.arm for run in take(plan)]
    assert handed == ["tuned"] * 4 + ["additive"] * 4 + ["dense", "published"] * 4


def test_a_forecast_counts_what_is_then_played() -> None:
    study = study_of(REPEATED, search={"proposer": "tpe", "budget": 10, "finalists": 2})
    told = forecast(plan_of(study), 8)
    plan = plan_of(study)
    runs = end(plan)
    assert told.runs == plan.total == plan.finished
    assert told.runs.total() == len(runs)
    assert told.epochs == sum(run.spec.task.epochs for run in runs)


def test_a_forecast_of_a_sweep_under_way_counts_what_is_left() -> None:
    study = study_of(REPEATED)
    plan = plan_of(study)
    recorded: dict[tuple[str, int], list[Values]] = {}
    propose_all(plan, lambda study, due: recorded.setdefault((due.arm, due.generation), propose(study, due)))
    runs = take(plan)
    for run in runs[:11]:
        plan.finish(run.run_id, trained(run))
    left = forecast(Plan(study, plan.results, recorded), 8)
    for run in runs[11:]:
        plan.finish(run.run_id, trained(run))
    assert left.runs.total() == len(runs[11:]) + len(end(plan))
    assert plan.complete


def test_a_forecast_of_a_study_with_few_choices_trains_none_of_them_twice() -> None:
    told = forecast(plan_of(one_arm({"choice": [0.05, 0.2]}, search={"budget": 32})), 4)
    assert told.runs["search", "tuned"] <= 2 * 4


def ten_generations(lag: int) -> Study:
    return one_arm(
        search={"budget": 160, "generation": 16, "ladder": [1, 2, 4, 8], "lag": lag}, confirm={"seeds": 10}
    )


def test_a_lag_keeps_a_cluster_busy() -> None:
    """Ten generations of 16 run on 32 slots."""
    busy = [forecast(plan_of(ten_generations(lag)), 32).utilisation for lag in (0, 1, 2)]
    assert busy[0] < 0.4
    assert busy[0] < busy[1] < busy[2]
    assert busy[2] > 0.7


def test_one_slot_is_always_busy_and_the_clock_adds_up() -> None:
    study = one_arm()
    played = play(plan_of(study), 1, trained, lambda run: run.spec.task.epochs * 2.0, scattered)
    assert played.utilisation == 1.0
    assert played.makespan == played.epochs * 2.0 == played.busy
    wide = play(plan_of(study), 1000, trained, lambda _: 1.0, scattered)
    # The third generation waits for the first one's three rungs; then come its own three and the
    # confirmation.
    assert wide.makespan == 3 + 3 + 1


def test_a_large_study_is_played_to_its_end_and_a_finished_run_leaves_little_behind() -> None:
    """4,000 runs of 500 epochs are played here, and 20,000 in benchmarks/plan.py.

    A run leaves a result, a score and a share of a candidate.
    """
    step = {
        "policy": {"name": "additive-reset", "step": {"low": 0.01, "high": 0.2}},
        "task": {"learning_rate": {"low": 0.03, "high": 0.3}},
    }
    arms = {"dense": ARMS["dense"], "one": step, "two": {**step, "policy": {**step["policy"], "drop": 0.02}}}
    search = {"budget": 768, "generation": 16, "ladder": [1, 2, 4, 8], "lag": 2}
    plan = plan_of(study_of(arms, search=search, confirm={"seeds": 54}))
    traced: dict[int, int] = {}
    finished = 0

    def give(run: Run) -> Result:
        nonlocal finished
        finished += 1
        if finished % 1000 == 0:
            traced[finished] = tracemalloc.get_traced_memory()[0]
        return result(final(run.spec))

    tracemalloc.start()
    try:
        played = play(plan, 64, give, lambda run: run.spec.task.epochs, scattered)
    finally:
        tracemalloc.stop()
    assert played.runs.total() == finished == 2 * 48 * 40 + 3 * 54
    assert plan.complete
    assert (traced[4000] - traced[1000]) / 3000 < 1500
