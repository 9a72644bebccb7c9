"""A process is lost, and whether its node is gone is known only later: every order of what can follow."""

from __future__ import annotations

from collections.abc import Callable

from sweep.planning.plan import Plan
from sweep.planning.queue import FATE_SECONDS, LOST_IN_A_ROW, Judged, Loss
from sweep.planning.values import Failure, Run
from tests.unit.simulated import plan_of, propose_all, result, study_of, take, trained

LOST = Failure("the process is gone")
LATE = FATE_SECONDS + 1


def began(attempts: int = 1) -> tuple[Plan, list[Run]]:
    """Return a plan whose ready runs are all running."""
    plan = plan_of(study_of(resources={"attempts": attempts}))
    propose_all(plan)
    return plan, take(plan)


def gone(*nodes: str) -> Callable[[Loss], bool]:
    return lambda loss: loss.node in nodes


def lives(_: Loss) -> bool:
    return False


def ready(plan: Plan) -> list[str]:
    return [run.run_id for run in plan.queue.ready]


def test_a_lost_run_is_ready_at_once_and_no_try_is_counted_before_its_node_s_fate_is_known() -> None:
    plan, runs = began(attempts=1)
    assert plan.queue.lose_early(runs[0].run_id, LOST, "node", 0.0)
    assert ready(plan) == [runs[0].run_id]
    assert plan.queue.judge(lives, FATE_SECONDS - 1) == []
    assert not plan.queue.failed


def test_a_run_whose_node_is_gone_loses_no_try_however_often_that_happens() -> None:
    plan, runs = began(attempts=1)
    run_id = runs[0].run_id
    for i in range(3 * LOST_IN_A_ROW):
        assert plan.queue.lose_early(run_id, LOST, f"node {i}", float(i))
        assert plan.queue.judge(gone(f"node {i}"), float(i)) == [Judged(run_id, LOST, True, False)]
        assert plan.queue.next(0.0) == runs[0]
    assert not plan.queue.avoided


def test_a_run_whose_node_is_gone_is_as_urgent_as_before() -> None:
    plan = plan_of(study_of())
    propose_all(plan)
    first = plan.queue.next(0.0)
    assert first
    plan.queue.lose_early(first.run_id, LOST, "node", 0.0)
    plan.queue.judge(gone("node"), 0.0)
    assert plan.queue.next(0.0) == first


def test_a_run_whose_process_was_lost_comes_after_all_that_is_ready_until_it_is_judged() -> None:
    plan = plan_of(study_of())
    propose_all(plan)
    first = plan.queue.next(0.0)
    assert first
    plan.queue.lose_early(first.run_id, LOST, "node", 0.0)
    assert take(plan)[-1] == first


def test_a_waiting_run_whose_node_lives_is_given_up_when_that_was_its_last_try() -> None:
    plan, runs = began(attempts=1)
    run_id = runs[0].run_id
    plan.queue.lose_early(run_id, LOST, "node", 0.0)
    assert plan.queue.judge(lives, LATE) == [Judged(run_id, LOST, False, True)]
    assert plan.queue.failed[run_id].attempts == 1
    assert ready(plan) == []


def test_a_run_that_was_put_off_meanwhile_is_given_up_all_the_same() -> None:
    plan, runs = began(attempts=1)
    plan.queue.lose_early(runs[0].run_id, LOST, "node", 0.0)
    plan.queue.next(1.0)
    plan.queue.put_off(runs[0].run_id, until=1e6)
    plan.queue.judge(lives, LATE)
    assert runs[0].run_id in plan.queue.failed
    assert plan.queue.next(1e9) is None


def test_a_run_that_is_tried_again_may_end_well_after_its_last_try_was_counted() -> None:
    plan, runs = began(attempts=1)
    run_id = runs[0].run_id
    plan.queue.lose_early(run_id, LOST, "node", 0.0)
    plan.queue.next(1.0)
    assert plan.queue.judge(lives, LATE) == [Judged(run_id, LOST, False, False)]
    plan.finish(run_id, trained(runs[0]), "other")
    assert not plan.queue.failed


def test_a_run_that_is_tried_again_is_given_up_at_its_next_loss_after_its_last_try_was_counted() -> None:
    plan, runs = began(attempts=1)
    run_id = runs[0].run_id
    plan.queue.lose_early(run_id, LOST, "node", 0.0)
    plan.queue.next(1.0)
    plan.queue.judge(lives, LATE)
    assert not plan.queue.lose_early(run_id, LOST, "node", LATE)
    assert plan.queue.failed[run_id].attempts == 2
    assert plan.queue.judge(lives, 2 * LATE) == []  # it was told when it was given up


def test_a_run_that_has_its_outcome_is_not_blamed() -> None:
    plan, runs = began(attempts=1)
    plan.queue.lose_early(runs[0].run_id, LOST, "node", 0.0)
    plan.queue.next(1.0)
    plan.finish(runs[0].run_id, trained(runs[0]), "other")
    assert plan.queue.judge(lives, LATE) == []
    assert not plan.queue.failed


def test_an_outcome_that_comes_from_the_attempt_that_was_lost_counts_and_nobody_is_blamed() -> None:
    plan, runs = began(attempts=1)
    plan.queue.lose_early(runs[0].run_id, LOST, "node", 0.0)
    plan.finish(runs[0].run_id, trained(runs[0]), "node")
    assert plan.queue.judge(lives, LATE) == []
    assert ready(plan) == []


def test_a_node_that_lives_is_avoided_after_three_runs_lost_their_processes_there() -> None:
    plan, runs = began(attempts=3)
    for run in runs[:3]:
        plan.queue.lose_early(run.run_id, LOST, "bad", 0.0)
    assert plan.queue.avoided == set()
    for run in runs[:3]:  # they end well elsewhere, which does not clear the node
        plan.finish(run.run_id, result(0.5), "other")
    plan.queue.judge(lives, LATE)
    assert plan.queue.avoided == {"bad"}


def test_a_run_that_ended_well_on_a_node_clears_the_losses_there_that_are_not_judged() -> None:
    plan, runs = began(attempts=3)
    for run in runs[:3]:
        plan.queue.lose_early(run.run_id, LOST, "good", 0.0)
    plan.finish(runs[3].run_id, result(0.5), "good")
    plan.queue.judge(lives, LATE)
    assert plan.queue.avoided == set()


def test_a_run_that_is_lost_again_and_again_before_anything_is_known_is_given_up() -> None:
    plan, runs = began(attempts=1)
    run_id = runs[0].run_id
    for _ in range(LOST_IN_A_ROW - 1):
        assert plan.queue.lose_early(run_id, LOST, "node", 0.0)
        assert plan.queue.next(0.0) == runs[0]
    assert not plan.queue.lose_early(run_id, LOST, "node", 0.0)
    assert f"{LOST_IN_A_ROW} times in a row" in plan.queue.failed[run_id].reason
    assert plan.queue.failed[run_id].attempts == LOST_IN_A_ROW
    assert plan.queue.judge(gone("node"), LATE) == []


def test_runs_that_shared_a_process_on_a_node_that_is_gone_may_share_one_again() -> None:
    plan, runs = began(attempts=1)
    first, second = runs[0].run_id, runs[1].run_id
    plan.queue.lose_early(first, LOST, "gone", 0.0, shared=True)
    plan.queue.lose_early(second, LOST, "lives", 0.0, shared=True)
    assert plan.queue.apart == {first, second}
    plan.queue.judge(gone("gone"), LATE)
    assert plan.queue.apart == {second}
    assert not plan.queue.failed
    assert plan.queue.next(0.0)


def test_a_run_that_loses_a_process_of_its_own_is_blamed() -> None:
    plan, runs = began(attempts=1)
    run_id = runs[0].run_id
    for _ in range(2):
        plan.queue.lose_early(run_id, LOST, "node", 0.0, shared=True)
        plan.queue.next(0.0)
    plan.queue.judge(lives, LATE)
    assert not plan.queue.lose_early(run_id, LOST, "node", LATE, shared=True)
