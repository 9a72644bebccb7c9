"""The same study is the same sweep.

It is so on any number of slots, in any order of finishing, whatever is lost and whoever begins anew.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.planning.forecast import play
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Result, Run
from sweep.study import Study
from tests.unit.simulated import ARMS, Sweep, disturbed, end, final, plan_of, study_of, take, trained
from trainer.randomness import uniform

REPEATED = {**ARMS, "dense-again": {"repeat": "dense"}, "additive-again": {"repeat": "additive"}}
CHOICES = {
    "dense": ARMS["dense"],
    "few": {"policy": {"name": "dense"}, "task": {"learning_rate": {"choice": [0.05, 0.1, 0.2]}}},
}
STUDIES = {
    "tpe, lag 0": study_of(REPEATED, search={"proposer": "tpe", "lag": 0, "finalists": 2}),
    "tpe, lag 2": study_of(REPEATED, search={"proposer": "tpe", "lag": 2, "budget": 18}),
    "equal candidates": study_of(CHOICES, search={"finalists": 2}),
    "one rung": study_of(search={"ladder": [3], "budget": 6}),
}


def played(study: Study, slots: int) -> Sweep:
    """Play a sweep without mishaps, in which runs take different times."""
    plan, runs = plan_of(study), set[str]()

    def give(run: Run) -> Result:
        assert run.run_id not in runs
        runs.add(run.run_id)
        return trained(run)

    play(plan, slots, give, lambda run: 1 + uniform(0, run.run_id), propose)
    assert plan.complete
    return Sweep.of(plan, runs)


REFERENCE = {name: played(study, 1) for name, study in STUDIES.items()}


@pytest.mark.parametrize("slots", [2, 7, 64])
@pytest.mark.parametrize("name", STUDIES)
def test_any_number_of_slots_makes_the_same_sweep(name: str, slots: int) -> None:
    assert played(STUDIES[name], slots) == REFERENCE[name]


@pytest.mark.parametrize("name", STUDIES)
@settings(max_examples=20)
@given(
    slots=st.integers(1, 40),
    draw=st.integers(0, 2**32),
    losses=st.sampled_from([0.0, 0.2, 0.5]),
    restarts=st.sampled_from([0.0, 0.2]),
)
def test_any_order_of_finishing_any_losses_and_any_restarts_make_the_same_sweep(
    name: str, slots: int, draw: int, losses: float, restarts: float
) -> None:
    assert (
        disturbed(STUDIES[name], slots, random.Random(draw), losses=losses, restarts=restarts)
        == REFERENCE[name]
    )


def test_another_seed_of_the_study_makes_another_sweep() -> None:
    assert (
        played(study_of(REPEATED, search={"proposer": "tpe", "lag": 0, "finalists": 2}, seed=2), 1)
        != REFERENCE["tpe, lag 0"]
    )


def test_what_exists_is_not_run_again() -> None:
    study = study_of()
    whole = end(plan_of(study))
    kept = {run.run_id: trained(run) for run in whole[::3]}
    plan = Plan(study, kept, {})
    rest = end(plan)
    assert plan.complete
    assert {run.run_id for run in rest} == {run.run_id for run in whole} - kept.keys()


def test_a_plan_of_which_everything_exists_has_nothing_to_do_and_says_the_same() -> None:
    study, results = study_of(REPEATED), dict[str, Result]()
    plan, proposals = plan_of(study), {}
    while not plan.over:
        while due := plan.wanted():
            proposals[due.arm, due.generation] = propose(study, due)
            plan.propose(due.arm, due.generation, proposals[due.arm, due.generation])
        for run in take(plan):
            results[run.run_id] = trained(run)
            plan.finish(run.run_id, results[run.run_id])
    again = Plan(study, results, proposals)
    assert again.complete
    assert not again.queue
    assert Sweep.of(again, set()) == Sweep.of(plan, set())
    assert again.finished == plan.finished == again.total


def test_the_caller_s_results_are_left_as_they_were() -> None:
    """A forecast plays on with results of its own; they must not reach the ledger's."""
    kept: dict[str, Result] = {}
    end(Plan(study_of(), kept, {}))
    assert kept == {}


def test_no_run_is_handed_out_twice_and_no_search_seed_is_ever_a_confirmation_seed() -> None:
    study = study_of(REPEATED, confirm={"seeds": 6, "include": [3407]})
    runs = end(plan_of(study))
    assert len({run.run_id for run in runs}) == len(runs)
    search = {run.spec.seed for run in runs if run.phase == "search"}
    confirm = {run.spec.seed for run in runs if run.phase == "confirm"}
    assert len(search) == 4
    assert 3407 in confirm
    assert not search & confirm
    assert all(run.spec.task.validation == (0.2 if run.phase == "search" else 0.0) for run in runs)


def test_every_arm_is_confirmed_on_the_same_seeds_and_a_repeat_on_others() -> None:
    runs = [run for run in end(plan_of(study_of(REPEATED))) if run.phase == "confirm"]
    seeds = {
        arm: [run.spec.seed for run in sorted(runs, key=lambda run: run.place) if run.arm == arm]
        for arm in REPEATED
    }
    assert seeds["dense"] == seeds["tuned"] == seeds["additive"]
    pools = [set(seeds["dense"]), set(seeds["dense-again"]), set(seeds["additive-again"])]
    assert sum(map(len, pools)) == len(set[int]().union(*pools)) == 12


def test_a_repeat_runs_its_arm_s_finalists() -> None:
    plan = plan_of(study_of(REPEATED, search={"finalists": 2}))
    end(plan, final)
    assert [c.values for c in plan.finalists("additive-again")] == [
        c.values for c in plan.finalists("additive")
    ]
    assert [c.values for c in plan.finalists("dense-again")] == [{}]
    assert all(len(results) == 4 for arm in REPEATED for results in plan.confirmed(arm))
