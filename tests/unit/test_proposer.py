"""Candidates are a pure function of the study's seed, the arm, the generation and the scores told."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.planning.proposer import propose
from sweep.planning.values import Proposal
from sweep.study import Study, Values
from sweep.study.space import grid
from tests.unit.simulated import end, one_arm, plan_of, study_of

SPACE: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "wide": {
        "policy": {
            "name": "additive-reset",
            "step": {"low": 0.013, "high": 0.2},
            "drop": {"low": 0.01, "high": 0.05, "step": 0.01},
        },
        "task": {
            "learning_rate": {"low": 1.23456789e-3, "high": 0.3, "log": True},
            "batch_size": {"low": 8, "high": 64, "step": 8},
            "precision": {"choice": ["float32", "bfloat16"]},
        },
    },
    "other": {
        "policy": {"name": "dense"},
        "task": {"learning_rate": {"low": 1.23456789e-3, "high": 0.3, "log": True}},
    },
}
GRID: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "wide": {
        "policy": {"name": "additive-reset", "drop": {"low": 0.01, "high": 0.05, "step": 0.01}},
        "task": {
            "batch_size": {"low": 8, "high": 32, "step": 8},
            "precision": {"choice": ["float32", "bfloat16"]},
        },
    },
}
PROPOSERS = ["tpe", "random", "grid"]


def made(proposer: str, seed: int = 1) -> Study:
    return study_of(
        GRID if proposer == "grid" else SPACE,
        seed=seed,
        search={"proposer": proposer, "budget": 40, "generation": 8},
    )


def history(study: Study, arm: str, n: int, favour: str = "policy.drop") -> list[tuple[Values, float, int]]:
    """Return candidates that were scored by one of their settings."""
    told = (
        [values for g in range(-(-n // 8)) for values in propose(study, Proposal(arm, 100 + g, 8, []))][:n]
        if n
        else []
    )
    return [(values, float(values[favour]), 1) for values in told]


def asked(
    study: Study, arm: str = "wide", generation: int = 0, told: list[tuple[Values, float, int]] | None = None
) -> list[Values]:
    return propose(study, Proposal(arm, generation, 8, told or []))


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_the_same_question_has_the_same_answer_whatever_was_asked_before(proposer: str) -> None:
    study = made(proposer)
    told = history(study, "wide", 24) if proposer == "tpe" else []
    first = asked(study, generation=3, told=told)
    random.seed(0)
    asked(study, generation=2)
    assert asked(made(proposer), generation=3, told=told) == first


@pytest.mark.parametrize("proposer", ["tpe", "random"])
def test_the_study_s_seed_the_arm_and_the_generation_each_make_other_candidates(proposer: str) -> None:
    def rates(study: Study, arm: str, generation: int) -> tuple[float, ...]:
        return tuple(values["task.learning_rate"] for values in asked(study, arm, generation))

    study = made(proposer)
    different = {
        rates(study, "wide", 0),
        rates(study, "wide", 1),
        rates(study, "other", 0),
        rates(made(proposer, seed=2), "wide", 0),
    }
    assert len(different) == 4


def test_after_the_start_tpe_s_candidates_follow_the_scores() -> None:
    study = made("tpe")
    told = history(study, "wide", 32, "policy.step")
    turned = [(values, -score, seeds) for values, score, seeds in told]
    high, low = (asked(study, generation=4, told=scores) for scores in (told, turned))
    assert high != low
    assert sum(values["policy.step"] for values in high) > sum(values["policy.step"] for values in low)


def test_how_many_seeds_a_score_is_the_mean_of_does_not_matter() -> None:
    study = made("tpe")
    told = history(study, "wide", 16, "policy.step")
    assert asked(study, told=told) == asked(study, told=[(values, score, 8) for values, score, _ in told])


@pytest.mark.parametrize("proposer", ["random", "grid"])
def test_random_and_grid_take_no_notice_of_scores(proposer: str) -> None:
    study = made(proposer)
    told = [(values, float(i), 1) for i, values in enumerate(asked(study))]
    assert asked(study, generation=1, told=told) == asked(study, generation=1)


@pytest.mark.parametrize("proposer", ["tpe", "random"])
@settings(max_examples=10)
@given(generation=st.integers(0, 10_000), seed=st.integers(0, 2**63 - 1), scored=st.booleans())
def test_candidates_stay_within_bounds_on_steps_and_have_six_digits(
    proposer: str, generation: int, seed: int, scored: bool
) -> None:
    study = made(proposer, seed=seed)
    told = history(study, "wide", 16) if scored else []
    for values in asked(study, generation=generation, told=told):
        rate, step = values["task.learning_rate"], values["policy.step"]
        assert 1.23456789e-3 <= rate <= 0.3
        assert 0.013 <= step <= 0.2
        assert step == float(f"{step:.6g}")
        assert rate in (float(f"{rate:.6g}"), 1.23456789e-3)
        assert values["policy.drop"] in [0.01, 0.02, 0.03, 0.04, 0.05]
        assert values["task.batch_size"] in range(8, 65, 8)
        assert type(values["task.batch_size"]) is int
        assert values["task.precision"] in ["float32", "bfloat16"]


def test_every_proposed_candidate_is_a_run_and_lies_within_the_space_that_it_is_told_of_again() -> None:
    study = made("tpe")
    told: list[tuple[Values, float, int]] = []
    for generation in range(5):
        values = asked(study, generation=generation, told=told)
        told += [(one, float(i), 1) for i, one in enumerate(values)]
    assert len(told) == 40


def test_a_step_that_does_not_reach_high_stops_below_it() -> None:
    study = one_arm(
        {"low": 0.1, "high": 0.25, "step": 0.1}, search={"proposer": "tpe", "budget": 40, "generation": 20}
    )
    plan = plan_of(study)
    end(plan)
    assert {c.values["task.learning_rate"] for c, _ in plan.searched("tuned")} == {0.1, 0.2}


def test_a_logarithmic_range_is_drawn_evenly_in_the_logarithm() -> None:
    study = one_arm({"low": 0.0001, "high": 1.0, "log": True}, search={"generation": 400, "budget": 400})
    rates = [values["task.learning_rate"] for values in propose(study, Proposal("tuned", 0, 400, []))]
    quarters = [sum(-4 + q <= math.log10(rate) < -3 + q for rate in rates) for q in range(4)]
    assert min(quarters) > 60  # 100 expected of each, with a standard deviation of 9


def test_a_grid_is_every_point_once_over_the_generations() -> None:
    plan = plan_of(made("grid"))
    end(plan)
    points = [tuple(c.values.values()) for c, _ in plan.searched("wide")]
    assert len(points) == 40
    assert set(points) == set(
        itertools.product([0.01, 0.02, 0.03, 0.04, 0.05], [8, 16, 24, 32], ["float32", "bfloat16"])
    )


def test_whole_settings_have_a_grid_without_a_step_and_others_need_one() -> None:
    searched = made("random").arms["wide"].searched
    assert grid(searched["task.batch_size"], whole=True) == list(range(8, 65, 8))
    assert grid(searched["policy.step"], whole=False) == []
