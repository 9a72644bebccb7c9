"""Attempts that end without an outcome, machines that spoil them, and files that cannot be trusted."""

from __future__ import annotations

from sweep.planning.plan import Plan
from sweep.planning.values import Failure, Run
from tests.unit.simulated import end, one_arm, plan_of, propose_all, result, study_of, take, trained

LOST = Failure("the process is gone")


def began(attempts: int = 3) -> tuple[Plan, list[Run]]:
    """Return a plan whose ready runs are all running."""
    plan = plan_of(study_of(resources={"attempts": attempts}))
    propose_all(plan)
    return plan, take(plan)


def test_a_lost_attempt_is_tried_again_until_the_attempts_are_used_up() -> None:
    plan, runs = began(attempts=3)
    run_id = runs[0].run_id
    for _ in range(2):
        assert plan.queue.lose(run_id, LOST)
        again = plan.queue.next(0.0)
        assert again
        assert again.run_id == run_id
    assert not plan.queue.lose(run_id, LOST, node="somewhere")
    assert plan.queue.next(0.0) is None
    assert (plan.queue.failed[run_id].reason, plan.queue.failed[run_id].attempts) == (
        "the process is gone",
        3,
    )


def test_a_run_that_is_tried_again_comes_after_all_that_is_ready() -> None:
    plan = plan_of(study_of())
    propose_all(plan)
    first = plan.queue.next(0.0)
    assert first
    plan.queue.lose(first.run_id, LOST)
    assert take(plan)[-1].run_id == first.run_id


def test_an_attempt_without_blame_does_not_count() -> None:
    plan, runs = began(attempts=1)
    for _ in range(10):
        assert plan.queue.lose(runs[0].run_id, LOST, node="preempted", blame=False)
        assert [run.run_id for run in take(plan)] == [runs[0].run_id]
    assert not plan.queue.failed
    assert not plan.queue.avoided


def test_runs_that_are_lost_together_go_apart_and_only_what_is_lost_there_counts() -> None:
    plan, runs = began(attempts=1)
    bad, good = runs[0].run_id, runs[1].run_id
    for run_id in (bad, good):
        assert plan.queue.lose(run_id, LOST, node="somewhere", shared=True)
    assert plan.queue.apart == {bad, good}
    assert {run.run_id for run in take(plan)} == {bad, good}
    plan.finish(good, trained(runs[1]))
    assert plan.queue.apart == {bad}
    assert not plan.queue.lose(bad, LOST, node="somewhere", shared=True)
    assert plan.queue.failed[bad].attempts == 1


def test_what_depends_on_a_failed_run_waits_and_all_else_goes_on() -> None:
    plan, runs = began(attempts=1)
    bad = next(run for run in runs if run.arm == "tuned")
    plan.queue.lose(bad.run_id, LOST)
    for run in runs:
        if run is not bad:
            plan.finish(run.run_id, trained(run))
    end(plan)
    assert plan.over
    assert not plan.complete
    assert plan.arms_of(bad.run_id) == {"tuned"}
    assert plan.finalists("additive")
    assert not plan.finalists("tuned")
    assert plan.finished["confirm", "additive"] == 4


def test_a_new_plan_tries_a_failed_run_again_and_ends_where_it_would_have() -> None:
    study = study_of(resources={"attempts": 1})
    whole = plan_of(study)
    runs = end(whole)
    broken = next(run.run_id for run in runs if run.arm == "tuned")
    plan = plan_of(study)
    while not plan.over:
        propose_all(plan)
        for run in take(plan):
            if run.run_id == broken:
                plan.queue.lose(run.run_id, LOST)
            else:
                plan.finish(run.run_id, trained(run))
    again = Plan(study, plan.results, {})
    assert not again.queue.failed
    rest = end(again)
    assert rest[0].run_id == broken
    assert again.complete
    assert [again.finalists(arm) for arm in study.arms] == [whole.finalists(arm) for arm in study.arms]
    assert plan.results.keys() | {run.run_id for run in rest} == {run.run_id for run in runs}


def test_three_runs_that_end_badly_on_a_node_keep_work_away_from_it() -> None:
    plan, runs = began()
    for run in runs[:2]:
        plan.queue.lose(run.run_id, LOST, node="bad")
    assert plan.queue.avoided == set()
    plan.queue.lose(runs[2].run_id, LOST, node="bad")
    assert plan.queue.avoided == {"bad"}


def test_a_good_end_on_a_node_clears_it() -> None:
    plan, runs = began()
    for run in runs[:2]:
        plan.queue.lose(run.run_id, LOST, node="bad")
    plan.finish(runs[2].run_id, result(0.5), node="bad")
    for run in runs[3:5]:
        plan.queue.lose(run.run_id, LOST, node="bad")
    assert plan.queue.avoided == set()


def test_one_run_that_ends_badly_again_and_again_is_no_fault_of_the_node() -> None:
    plan, runs = began(attempts=5)
    for _ in range(4):
        plan.queue.lose(runs[0].run_id, LOST, node="innocent")
        take(plan)
    assert plan.queue.avoided == set()


def test_bad_ends_on_different_nodes_do_not_add_up_and_none_is_counted_for_an_unknown_node() -> None:
    plan, runs = began()
    for i, run in enumerate(runs[:6]):
        plan.queue.lose(run.run_id, LOST, node=("a", "b", "")[i % 3])
    assert plan.queue.avoided == set()


def test_a_forgiven_node_starts_from_nothing() -> None:
    plan, runs = began()
    for run in runs[:3]:
        plan.queue.lose(run.run_id, LOST, node="last")
    plan.queue.forgive("last")
    assert plan.queue.avoided == set()
    plan.queue.lose(runs[3].run_id, LOST, node="last")
    assert plan.queue.avoided == set()


def test_a_run_without_progress_for_longer_than_its_deadline_is_overdue() -> None:
    plan = plan_of(one_arm(resources={"deadline": 60.0}))
    first, second = plan.queue.next(100.0), plan.queue.next(130.0)
    assert first
    assert second
    assert plan.queue.overdue(160.0) == []
    assert plan.queue.overdue(160.1) == [first.run_id]
    plan.queue.progress(first.run_id, 155.0)
    assert plan.queue.overdue(195.0) == [second.run_id]
    plan.finish(second.run_id, result(0.5))
    plan.queue.progress(second.run_id, 195.0)  # a word that comes late
    assert plan.queue.overdue(300.0) == [first.run_id]


def test_a_damaged_run_is_not_run_again_and_all_else_goes_on() -> None:
    study = study_of()
    damaged = next(run for run in end(plan_of(study)) if run.arm == "tuned")
    plan = plan_of(study)
    plan.queue.damage(damaged.run_id, "outcome.json does not fit its hash")
    runs = end(plan)
    assert damaged.run_id not in {run.run_id for run in runs}
    assert plan.queue.failed[damaged.run_id].damaged
    assert plan.over
    assert not plan.complete
    assert plan.finalists("additive")
    assert not plan.finalists("tuned")


def test_a_run_that_is_damaged_before_anything_waits_for_it_is_not_run_when_something_does() -> None:
    study = one_arm(search={"budget": 4})
    late = next(run for run in end(plan_of(study)) if run.phase == "search" and run.place == 3)
    plan = plan_of(study)
    plan.queue.damage(late.run_id, "a row is missing")
    assert late.run_id not in {run.run_id for run in end(plan)}
    assert plan.over
    assert not plan.complete


def test_an_attempt_that_finds_its_run_damaged_is_the_last() -> None:
    plan, runs = began()
    assert not plan.queue.lose(runs[0].run_id, Failure("damaged: spec.json", damaged=True))
    assert plan.queue.failed[runs[0].run_id].damaged
    assert runs[0].run_id not in {run.run_id for run in take(plan)}


def test_an_outcome_told_twice_counts_once_and_the_first_stands() -> None:
    plan, runs = began()
    run = next(run for run in runs if run.phase == "confirm")
    plan.finish(run.run_id, result(0.5))
    plan.finish(run.run_id, result(0.9))
    assert plan.confirmed("dense")[0][run.place].score("test", 1.0) == 0.5
    assert plan.results[run.run_id].score("test", 1.0) == 0.5
    assert plan.finished["confirm", "dense"] == 1


def test_the_outcome_of_an_attempt_that_was_thought_lost_counts_and_its_run_is_not_handed_out_again() -> (
    None
):
    plan, runs = began()
    plan.queue.lose(runs[0].run_id, LOST)
    plan.finish(runs[0].run_id, trained(runs[0]))
    assert len(plan.queue) == 0
    assert plan.queue.next(0.0) is None
    end(plan)


def test_an_outcome_of_a_run_that_was_given_up_takes_the_failure_back() -> None:
    plan, runs = began(attempts=1)
    plan.queue.lose(runs[0].run_id, LOST)
    for run in runs:
        plan.finish(run.run_id, trained(run))
    assert not plan.queue.failed
    end(plan)
    assert plan.complete


def test_a_run_that_was_put_off_is_handed_out_when_its_time_has_come_and_has_lost_no_try() -> None:
    plan, runs = began(attempts=1)
    first, *others = [run.run_id for run in runs]
    for run_id in others:
        plan.queue.settle(run_id, "")
    plan.queue.put_off(first, until=10.0)
    assert not plan.over
    assert first not in plan.queue.running
    assert not plan.queue.overdue(1e9)
    assert (plan.queue.demand(9.9), plan.queue.demand(10.0)) == (0, 1)
    assert plan.queue.next(9.9) is None
    again = plan.queue.next(10.0)
    assert again
    assert again.run_id == first
    assert not plan.queue.lose(first, LOST)
    assert plan.queue.failed[first].attempts == 1


def test_a_run_that_was_put_off_and_finished_meanwhile_is_not_handed_out_again() -> None:
    plan, runs = began()
    plan.queue.put_off(runs[0].run_id, until=10.0)
    plan.finish(runs[0].run_id, result(0.9))
    assert runs[0].run_id not in [run.run_id for run in take(plan)]
    assert plan.queue.next(1e9) is None
