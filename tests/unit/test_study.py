"""The seeds, candidates, runs and identity that follow from a study without running it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.errors import RejectStudy
from sweep.study import Candidate, Study, load, study
from sweep.study.contents import Choice, Contents, Range
from sweep.study.space import grid

BASE: dict[str, Any] = {
    "description": "two arms and one of them again",
    "task": {"data": "digits", "model": "wrn-10-1", "epochs": 2, "train_size": 96, "momentum": 0.8},
    "arms": {
        "dense": {"policy": {"name": "dense"}},
        "additive": {
            "policy": {"name": "additive-reset", "step": 0.3},
            "task": {
                "learning_rate": {"low": 0.03, "high": 0.3, "log": True},
                "epochs": {"low": 2, "high": 4},
                "momentum": 0.7,
            },
            "budget": 4,
        },
        "again": {"repeat": "additive"},
    },
    "search": {"proposer": "random", "ladder": [1, 2], "validation": 0.25, "generation": 3},
    "confirm": {"seeds": 10, "include": [3407]},
    "analysis": {"baseline": "dense", "endpoints": [0.5, 1.0], "curve": [0.25, 0.5]},
}
VALUES = {"task.learning_rate": 0.1, "task.epochs": 3}


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Make a study of BASE with some parts changed; `confirm={"seeds": 12}` changes that key alone."""

    def make(**parts: Any) -> Study:
        whole = {
            key: {**value, **parts.get(key, {})} if isinstance(value, dict) else value
            for key, value in BASE.items()
        }
        path = tmp_path / "made.yaml"
        whole |= {key: part for key, part in parts.items() if not isinstance(part, dict) or key not in whole}
        path.write_text(yaml.safe_dump(whole, sort_keys=False))
        return load(path)

    return make


def test_a_study_is_what_its_file_says_with_defaults_filled_in(made: Any) -> None:
    it: Study = made()
    assert (it.name, it.baselines, list(it.arms), it.contents.seed) == (
        "made",
        ["dense"],
        ["dense", "additive", "again"],
        1,
    )
    assert it.arms["additive"].searched == {
        "task.learning_rate": Range(low=0.03, high=0.3, log=True),
        "task.epochs": Range(low=2, high=4),
    }
    assert it.arms["dense"].searched == it.arms["again"].searched == {}
    assert (it.arms["additive"].budget, it.arms["dense"].budget, it.arms["additive"].generations) == (
        4,
        32,
        [3, 1],
    )
    assert (
        it.arms["additive"].takes_whole_numbers("task.epochs"),
        it.arms["additive"].takes_whole_numbers("task.learning_rate"),
    ) == (True, False)
    assert (it.analysis.alpha, it.analysis.test, it.resources.attempts) == (0.05, "sign-flip", 3)


def test_every_arm_but_the_baseline_is_tested_in_the_order_of_the_file_unless_a_family_is_named(
    made: Any,
) -> None:
    arms = {"fixed": {"policy": {"name": "fixed", "ratio": 0.2}}}
    assert made(arms=arms).family == ["additive", "fixed"]
    assert made(arms=arms, analysis={"family": ["fixed", "additive"]}).family == ["additive", "fixed"]


def test_an_a_a_control_is_tested_only_where_the_family_names_it(made: Any) -> None:
    assert made().family == ["additive"]
    assert made(analysis={"family": ["again"]}).family == ["again"]


@pytest.mark.parametrize(
    ("finalists", "comparisons"), [(1, 2 * (1 + 1)), (3, 2 * (3 + 3)), (9, 2 * (4 + 4))]
)
def test_each_finalist_of_each_arm_in_the_family_is_compared_at_each_endpoint(
    made: Any, finalists: int, comparisons: int
) -> None:
    """There are two endpoints. A repeat has as many finalists as the arm that it repeats.

    No arm has more than its 4 candidates.
    """
    assert (
        made(search={"finalists": finalists}, analysis={"family": ["additive", "again"]}).comparisons
        == comparisons
    )


def test_pools_share_no_seed(made: Any) -> None:
    it: Study = made(confirm={"seeds": 500}, search={"ladder": [1, 500]})
    pools = [it.arms["dense"].search_seeds, it.arms["dense"].seeds, it.arms["again"].seeds]
    assert [len(set(pool)) for pool in pools] == [500, 500, 500]
    assert len(set().union(*pools)) == 1500


def test_drawn_pools_that_would_share_a_seed_are_refused(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "derive", lambda _seed, _stream, i: i << 31)
    with pytest.raises(RejectStudy, match="Write another seed"):
        made()


def test_all_arms_are_confirmed_on_the_same_seeds_and_a_repeat_on_its_own(made: Any) -> None:
    pools = {name: arm.seeds for name, arm in made().arms.items()}
    assert pools["dense"] == pools["additive"]
    assert not set(pools["again"]) & set(pools["dense"])


@pytest.mark.parametrize("more", [11, 40, 300])
def test_a_pool_that_grows_keeps_the_seeds_it_had(made: Any, more: int) -> None:
    before: Study = made()
    after: Study = made(confirm={"seeds": more}, search={"ladder": [1, 2, more]})
    assert after.arms["dense"].search_seeds[:2] == before.arms["dense"].search_seeds
    assert len(after.arms["dense"].search_seeds) == more
    for arm, resolved in before.arms.items():
        assert after.arms[arm].seeds[: len(resolved.seeds)] == resolved.seeds
        assert len(after.arms[arm].seeds) == more


def test_an_included_seed_comes_first_in_the_confirmation_and_nowhere_else(made: Any) -> None:
    without: Study = made(confirm={"include": []})
    drawn = without.arms["dense"].search_seeds[0], without.arms["again"].seeds[0]
    it: Study = made(confirm={"include": [3407, *drawn]})
    assert it.arms["dense"].seeds == [3407, *drawn, *without.arms["dense"].seeds[:7]]
    for pool in (it.arms["dense"].search_seeds, it.arms["again"].seeds):
        assert not set(pool) & {3407, *drawn}


def test_another_study_seed_draws_other_seeds(made: Any) -> None:
    one, other = made(), made(seed=2)
    assert not set(one.arms["dense"].seeds[1:]) & set(other.arms["dense"].seeds[1:])
    assert not set(one.arms["dense"].search_seeds) & set(other.arms["dense"].search_seeds)


def test_the_search_holds_out_validation_images_and_declares_the_primary_endpoint_alone(made: Any) -> None:
    run = made().run(Candidate("additive", "additive-0-0", VALUES), "search", 5)
    assert (run.task.validation, run.task.endpoints, run.seed) == (0.25, (0.5,), 5)


def test_the_confirmation_trains_on_everything_and_declares_every_endpoint_and_the_curve(made: Any) -> None:
    run = made().run(Candidate("additive", "additive-0-0", VALUES), "confirm", 5)
    assert (run.task.validation, run.task.endpoints) == (0.0, (1.0, 0.5, 0.25))


def test_a_candidate_fills_the_arm_which_fills_the_task(made: Any) -> None:
    it: Study = made()
    run = it.run(Candidate("additive", "additive-0-0", VALUES), "confirm", 5)
    assert (run.task.learning_rate, run.task.epochs, run.task.momentum, run.task.train_size) == (
        0.1,
        3,
        0.7,
        96,
    )
    assert (run.policy.name, run.policy.settings["step"]) == ("additive-reset", 0.3)
    assert it.run(Candidate("dense", "dense", {}), "confirm", 5).task.momentum == 0.8


def test_a_repeat_has_the_policy_and_the_task_of_the_arm_that_it_repeats(made: Any) -> None:
    it: Study = made()
    again, additive = (it.run(Candidate(arm, arm, VALUES), "confirm", 5) for arm in ("again", "additive"))
    assert again == additive


def test_a_searched_policy_setting_is_filled_in(made: Any) -> None:
    arm = {"policy": {"name": "sawtooth", "step": 0.1, "period": {"choice": [3, 5]}}}
    it: Study = made(arms={"saw": arm})
    assert it.arms["saw"].searched == {"policy.period": Choice(choice=[3, 5])}
    assert it.run(Candidate("saw", "saw", {"policy.period": 5}), "search", 1).policy.settings["period"] == 5


def test_the_ends_of_an_arm_move_one_searched_setting_at_a_time(made: Any) -> None:
    low, rate, epochs = (
        {"task.learning_rate": r, "task.epochs": e} for r, e in ((0.03, 2), (0.3, 2), (0.03, 4))
    )
    assert [candidate.values for candidate in made().arms["additive"].ends] == [low, rate, epochs]


@pytest.mark.parametrize(
    ("searched", "whole", "values"),
    [
        (Range(low=1, high=3), True, [1, 2, 3]),
        (Range(low=2, high=9, step=3), True, [2, 5, 8]),
        (Range(low=0.1, high=0.5, step=0.1), False, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (Range(low=0.1, high=0.5), False, []),
        (Range(low=1, high=9, log=True), True, []),
        (Choice(choice=["r", "r+ema"]), False, ["r", "r+ema"]),
    ],
)
def test_a_grid_is_every_step_up_to_the_upper_end(
    searched: Range | Choice, whole: bool, values: list[Any]
) -> None:
    assert grid(searched, whole) == values


def test_the_identity_leaves_out_what_decides_nothing(made: Any) -> None:
    resources = {"cpus": 2, "gpus": 0.5, "attempts": 9}
    published = {"source": "a paper", "accuracy": {"dense": 0.9}}
    other = made(description="other words", published=published, resources=resources)
    assert made().identity == other.identity


def test_the_identity_is_the_same_however_a_number_is_written(made: Any) -> None:
    plain: Study = made(
        task={"epochs": 40},
        arms={"saw": {"policy": {"name": "sawtooth", "step": 0.1, "period": {"low": 2, "high": 5}}}},
    )
    other: Study = made(
        task={"epochs": 40.0},
        arms={"saw": {"policy": {"name": "sawtooth", "step": 1e-1, "period": {"low": 2.0, "high": 5.0}}}},
    )
    assert json.dumps(other.identity) == json.dumps(plain.identity)
    assert '"epochs": 40,' in json.dumps(plain.identity)


@pytest.mark.parametrize(
    ("one", "other"),
    [(True, 1), (2.0**60, 2**60 + 1), (0.5, 0), ("1", 1)],
    ids=["truth", "beyond a float", "half", "text"],
)
def test_values_that_differ_are_two_identities(made: Any, one: object, other: object) -> None:
    def identity(value: object) -> str:
        it = Study("made", replace(made().contents, task={"epochs": value}))
        return json.dumps(it.identity)

    assert identity(one) != identity(other)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"task": {"epochs": 3}},
        {"arms": {"other": {"policy": {"name": "fixed", "ratio": 0.2}}}},
        {"arms": {"again": {"repeat": "dense"}}},
        *(
            {"search": part}
            for part in (
                {"proposer": "tpe"},
                {"budget": 5},
                {"generation": 2},
                {"lag": 0},
                {"ladder": [1, 3]},
            )
        ),
        *({"search": part} for part in ({"validation": 0.5}, {"finalists": 2})),
        *({"confirm": part} for part in ({"seeds": 11}, {"include": []})),
        *(
            {"analysis": part}
            for part in (
                {"family": ["again"]},
                {"endpoints": [1.0]},
                {"curve": []},
                {"test": "paired-t"},
                {"alpha": 0.1},
            )
        ),
    ],
    ids=str,
)
def test_anything_else_is_another_identity(made: Any, change: dict[str, Any]) -> None:
    assert made().identity != made(**change).identity


def test_a_study_read_back_from_its_identity_has_the_same_runs(made: Any) -> None:
    it: Study = made()
    back = Study("made", Contents.read(json.loads(json.dumps(it.identity))))
    pools = [{name: arm.seeds for name, arm in study.arms.items()} for study in (back, it)]
    assert (back.identity, pools[0], back.arms["dense"].search_seeds, back.family) == (
        it.identity,
        pools[1],
        it.arms["dense"].search_seeds,
        it.family,
    )
    for arm, values in (("dense", {}), ("additive", VALUES), ("again", VALUES)):
        for phase in ("search", "confirm"):
            assert (
                back.run(Candidate(arm, arm, values), phase, 5).run_id
                == it.run(Candidate(arm, arm, values), phase, 5).run_id
            )
