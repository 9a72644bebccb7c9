"""Arms that take another arm's number of parameters, or settings of its finalist.

They begin at the right time, on the right network, and nothing else moves them.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.errors import RejectStudy
from sweep.planning.forecast import forecast, scattered
from sweep.planning.plan import Plan
from sweep.planning.proposer import importances, propose
from sweep.planning.values import Proposal, Result, Run
from sweep.study import Study, Values, find, load, matching
from tests.unit.simulated import (
    RATE,
    Sweep,
    counted,
    disturbed,
    end,
    plan_of,
    propose_all,
    study_of,
    take,
    trained,
)

MLP = {"model": "mlp-40-40"}
SET = {"policy": {"name": "set", "epsilon": {"low": 1, "high": 8}}, "task": {"learning_rate": RATE}}
ARMS: dict[str, Any] = {
    "narrow": {
        "policy": {"name": "dense"},
        "match": {"arm": "set", "at": "end"},
        "task": {"learning_rate": RATE},
    },
    "narrow-as-published": {"policy": {"name": "dense"}, "match": {"arm": "plain", "at": "start"}},
    "static": {
        "policy": {"name": "static-sparse"},
        "task": {"learning_rate": RATE},
        "match": {"arm": "set", "settings": ["policy.epsilon"]},
    },
    "static-as-published": {
        "policy": {"name": "static-sparse"},
        "match": {"arm": "plain", "settings": ["policy.epsilon", "task.momentum"]},
    },
    "narrow-and-as-fast": {
        "policy": {"name": "dense"},
        "match": {"arm": "set", "at": "end", "settings": ["task.learning_rate"]},
    },
    "dense": {"policy": {"name": "dense"}},
    "set": SET,
    "plain": {"policy": {"name": "set"}},
    "narrow-again": {"repeat": "narrow"},
    "static-again": {"repeat": "static"},
}
"""Arms matched in size, in settings and in both, with an arm that is searched and with one that is not.

They stand before the arms that they wait for, which must not matter.
"""
TASKS = {"wine": {"data": "wine", "train_size": None}, "digits": {"data": "digits"}}
SEARCH = {"proposer": "tpe", "lag": 1, "budget": 8, "finalists": 2}
STUDIES = {
    "one task": study_of(ARMS, task=MLP, search=SEARCH),
    "two tasks": study_of(ARMS, task=MLP, tasks=TASKS, search=SEARCH),
}


def study(**parts: dict[str, Any]) -> Study:
    whole: dict[str, Any] = {"task": MLP, "search": SEARCH, **parts}
    return study_of(ARMS, **whole)


def played(it: Study) -> tuple[Plan, list[Run]]:
    plan = plan_of(it)
    runs = end(plan)
    assert plan.complete
    return plan, runs


REFERENCE = {
    name: Sweep.of(plan, {run.run_id for run in runs})
    for name, it in STUDIES.items()
    for plan, runs in [played(it)]
}


@pytest.mark.parametrize("name", STUDIES)
@settings(max_examples=25)
@given(
    slots=st.integers(1, 40),
    draw=st.integers(0, 2**32),
    losses=st.sampled_from([0.0, 0.3]),
    restarts=st.sampled_from([0.0, 0.2]),
)
def test_any_order_of_finishing_any_losses_and_any_restarts_match_the_same_networks(
    name: str, slots: int, draw: int, losses: float, restarts: float
) -> None:
    assert (
        disturbed(STUDIES[name], slots, random.Random(draw), losses=losses, restarts=restarts)
        == REFERENCE[name]
    )


@pytest.mark.parametrize("name", STUDIES)
def test_a_plan_made_anew_from_what_was_recorded_is_the_same(name: str) -> None:
    it, recorded = STUDIES[name], dict[tuple[str, int], list[Values]]()

    def keep(study: Study, due: Proposal) -> list[Values]:
        recorded[due.arm, due.generation] = json.loads(json.dumps(propose(study, due)))
        return recorded[due.arm, due.generation]

    plan = plan_of(it)
    end(plan, proposer=keep)
    again = Plan(it, plan.results, recorded)
    assert again.complete
    assert Sweep.of(again, set()) == Sweep.of(plan, set())


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {
            "search": {"proposer": "random", "lag": 0, "replicates": 9, "budget": 4, "ladder": [1]},
            "confirm": {"seeds": 1, "stop": "decided"},
            "analysis": {"looks": [7, 8, 9]},
        },
    ],
    ids=["lag", "looks"],
)
def test_what_is_due_is_at_any_moment_what_a_plan_made_anew_finds_due(parts: dict[str, Any]) -> None:
    it, recorded = study(**parts), dict[tuple[str, int], list[Values]]()
    plan = plan_of(it)

    def compare() -> None:
        again = Plan(it, plan.results, recorded)
        assert [due.arm for due in plan.due()] == [due.arm for due in again.due()]

    for step in itertools.count():
        if due := plan.wanted():
            recorded[due.arm, due.generation] = scattered(it, due)
            plan.propose(due.arm, due.generation, recorded[due.arm, due.generation])
        elif run := plan.queue.next(0.0):
            plan.finish(run.run_id, trained(run))
        else:
            break
        if step % 5 == 0:
            compare()
    assert plan.complete


def test_a_matched_arm_has_the_mean_count_of_the_finalist_s_runs_on_the_whole_ladder() -> None:
    plan, runs = played(study())
    best = plan.finalists("set")[0].name
    ends = [counted(run.spec)[1] for run in runs if run.candidate == best and run.phase == "search"]
    assert len(ends) == 4
    assert {c.values["task.model"] for c, _ in plan.searched("narrow")} == {
        matching.network(plan.study.arms["narrow"], round(fmean(ends)))
    }


def test_of_an_arm_without_a_search_as_many_confirmation_runs_are_counted_as_the_ladder_has() -> None:
    """Not all of its runs are counted: seeds that are added later would change the network."""
    models: list[Any] = []
    for seeds in (6, 9):
        plan, runs = played(study(confirm={"seeds": seeds}))
        starts = [
            counted(run.spec)[0] for run in sorted(runs, key=lambda run: run.place) if run.arm == "plain"
        ]
        models.append(plan.finalists("narrow-as-published")[0].values["task.model"])
        assert models[-1] == matching.network(
            plan.study.arms["narrow-as-published"], round(fmean(starts[:4]))
        )
    assert models[0] == models[1]


def until_due(arm: str) -> Plan:
    """Play the study until an arm that follows `set` is to be proposed.

    Before that, `set` has no finalists.
    """
    plan = plan_of(study())
    while arm not in (dues := {due.arm for due in plan.due()}):
        assert not plan.finalists("set")
        if dues:
            propose_all(plan)
        for run in take(plan):
            plan.finish(run.run_id, trained(run))
    return plan


def test_a_matched_arm_begins_once_the_other_one_s_finalists_are_chosen() -> None:
    plan = until_due("narrow")
    assert plan.finalists("set")
    assert not plan.finalists("narrow")


def test_a_matched_arm_waits_for_every_run_that_is_counted() -> None:
    plan = plan_of(study())
    propose_all(plan)
    waiting = [run for run in take(plan) if run.arm == "plain"]
    assert len(waiting) == 4
    for run in waiting:
        assert not plan.finalists("narrow-as-published")
        plan.finish(run.run_id, trained(run))
    assert plan.finalists("narrow-as-published")


def test_the_network_stands_in_the_runs_and_in_the_candidate_s_values_and_not_in_what_is_proposed() -> None:
    dues: list[Proposal] = []
    asked: list[list[Values]] = []

    def listen(study: Study, due: Proposal) -> list[Values]:
        dues.append(due)
        asked.append(propose(study, due))
        return asked[-1]

    plan = plan_of(study(search={**SEARCH, "lag": 0}))
    runs = end(plan, proposer=listen)
    own = [(due, values) for due, values in zip(dues, asked, strict=True) if due.arm == "narrow"]
    told = [values for due, _ in own for values, _, _ in due.history] + [
        values for _, proposed in own for values in proposed
    ]
    assert told
    assert {tuple(values) for values in told} == {("task.learning_rate",)}
    assert any(due.history for due, _ in own)
    model = plan.finalists("narrow")[0].values["task.model"]
    assert model != "mlp-40-40"
    assert {run.spec.task.model for run in runs if run.arm in ("narrow", "narrow-again")} == {model}
    assert {run.spec.task.model for run in runs if run.arm in ("dense", "set", "plain")} == {"mlp-40-40"}


def test_a_repeat_of_a_matched_arm_has_its_network() -> None:
    plan, _ = played(study())
    for arm in ("narrow", "static"):
        assert [c.values for c in plan.finalists(f"{arm}-again")] == [c.values for c in plan.finalists(arm)]


@pytest.mark.parametrize("name", STUDIES)
def test_a_taken_setting_is_what_the_first_finalist_of_the_other_arm_has_on_the_same_task(name: str) -> None:
    plan, runs = played(STUDIES[name])
    for task in plan.study.tasks:
        on = f"@{task}" if task else ""
        theirs = plan.finalists(f"set{on}")[0].values
        own = {
            run.spec.policy.settings["epsilon"]
            for run in runs
            if run.arm in (f"static{on}", f"static-again{on}")
        }
        assert own == {theirs["policy.epsilon"]}
        assert len({run.spec.task.learning_rate for run in runs if run.arm == f"static{on}"}) > 1
        both = plan.finalists(f"narrow-and-as-fast{on}")[0].values
        assert both == {
            "task.learning_rate": theirs["task.learning_rate"],
            "task.model": plan.finalists(f"narrow{on}")[0].values["task.model"],
        }


def test_of_an_arm_that_does_not_search_a_setting_its_written_value_or_its_default_is_taken() -> None:
    """The arm `plain` has the policy's default epsilon and the study's momentum."""
    it = study_of(ARMS, task={**MLP, "momentum": 0.7}, search=SEARCH)
    assert played(it)[0].finalists("static-as-published")[0].values == {
        "policy.epsilon": 20.0,
        "task.momentum": 0.7,
    }
    written = {**ARMS, "plain": {"policy": {"name": "set", "epsilon": 3}, "task": {"momentum": 0.4}}}
    it = study_of(written, task={**MLP, "momentum": 0.7}, search=SEARCH)
    assert played(it)[0].finalists("static-as-published")[0].values == {
        "policy.epsilon": 3.0,
        "task.momentum": 0.4,
    }


def test_an_arm_that_takes_settings_waits_for_the_other_one_s_finalists_and_for_no_count() -> None:
    plan = until_due("static")
    assert plan.finalists("set")
    assert plan.finalists("static-as-published")  # before any run of `plain` has finished
    early = plan_of(study())
    assert early.finalists("static-as-published")
    assert not early.finalists("narrow-as-published")


def test_a_taken_setting_is_neither_proposed_nor_told_to_the_proposer() -> None:
    asked: list[tuple[Proposal, list[Values]]] = []

    def listen(study: Study, due: Proposal) -> list[Values]:
        asked.append((due, propose(study, due)))
        return asked[-1][1]

    end(plan_of(study(search={**SEARCH, "lag": 0})), proposer=listen)
    own = [(due, values) for due, values in asked if due.arm == "static"]
    told = [values for due, _ in own for values, _, _ in due.history]
    assert told
    assert {
        tuple(values) for values in [*told, *(values for _, proposed in own for values in proposed)]
    } == {("task.learning_rate",)}


def test_the_ends_of_an_arm_that_takes_settings_are_those_of_the_arm_it_takes_them_from() -> None:
    ends = [candidate.values for candidate in study().arms["static"].ends]
    assert ends[0] == {"task.learning_rate": RATE["low"], "policy.epsilon": 1.0}
    assert {values["policy.epsilon"] for values in ends} == {1.0, 8.0}
    assert [candidate.values for candidate in study().arms["static-as-published"].ends] == [
        {"policy.epsilon": 20.0, "task.momentum": 0.9}
    ]


def test_what_matters_in_a_matched_arm_s_search_is_told_of_its_searched_settings() -> None:
    plan, _ = played(study())
    told = [(candidate.values, fmean(scores)) for candidate, scores in plan.searched("narrow")]
    assert importances(plan.study, "narrow", told) == {"task.learning_rate": 1.0}


def test_a_forecast_counts_the_runs_of_matched_arms_as_they_are_then_played() -> None:
    plan, _ = played(study())
    assert forecast(plan_of(study()), 8).runs == plan.total


def test_the_shipped_study_of_connectivity_plays_to_its_end() -> None:
    it = load(find("connectivity"))
    plan = plan_of(it)
    runs = end(plan, proposer=scattered)
    assert plan.complete
    assert forecast(plan_of(it), 2).runs == plan.total
    assert len(runs) == plan.total.total()
    for task in it.tasks:
        for arm, other, at in (("dense-start", "set", 0), ("dense-end", "npset", 1)):
            best = plan.finalists(f"{other}@{task}")[0].name
            counts = [
                counted(run.spec)[at] for run in runs if run.candidate == best and run.phase == "search"
            ]
            models = {run.spec.task.model for run in runs if run.arm == f"{arm}@{task}"}
            assert models == {matching.network(it.arms[f"{arm}@{task}"], round(fmean(counts)))}
        for arm, other, keys in (
            ("static-sparse", "set", ["epsilon"]),
            ("npset-frozen", "npset", ["epsilon", "percentile"]),
        ):
            best = plan.finalists(f"{other}@{task}")[0].values
            for run in runs:
                if run.arm == f"{arm}@{task}":
                    assert [run.spec.policy.settings[key] for key in keys] == [
                        best[f"policy.{key}"] for key in keys
                    ]


def with_counts(it: Study, count: Any) -> Plan:
    """Play a study whose runs have these counts of parameters."""
    plan = plan_of(it)
    propose_all(plan)
    while runs := take(plan):
        for run in runs:
            start, last = count(run)
            plan.finish(run.run_id, replace(trained(run), parameters_start=start, parameters_end=last))
        propose_all(plan)
    return plan


def test_a_run_that_does_not_say_how_many_parameters_it_had_is_left_out_of_the_mean() -> None:
    plan = with_counts(study(), lambda run: (4_000, 4_000) if run.place in (1, 2) else (0, 0))
    assert plan.finalists("narrow")[0].values["task.model"] == matching.network(
        plan.study.arms["narrow"], 4_000
    )


def test_a_diverged_run_counts_too() -> None:
    """It had its network all the same; what it scored is the search's to judge."""
    it = study_of(
        {"dense": ARMS["dense"], "plain": ARMS["plain"], "narrow": ARMS["narrow-as-published"]}, task=MLP
    )
    plan = plan_of(it)
    for run in take(plan):
        plan.finish(
            run.run_id, Result("diverged", 1, 1.0, 10, {}, {}, parameters_start=3_000, parameters_end=3_000)
        )
    assert plan.finalists("narrow")[0].values["task.model"] == matching.network(it.arms["narrow"], 3_000)


def test_a_study_is_refused_and_not_run_as_written_where_no_run_says_how_many_parameters_it_had() -> None:
    with pytest.raises(
        RejectStudy, match=r"arms\.narrow-as-published\.match: no run of 'plain' says how many parameters"
    ):
        with_counts(study(), lambda _: (0, 0))
