"""The specs that a run may have, a run's id, and the messages for a spec that it may not have."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import run_spec, run_values
from trainer.policies import POLICIES
from trainer.settings import SpecError, default_of, descriptions, read, settings_of, written
from trainer.spec import RunSpec, Task

PUBLISHED: dict[str, Any] = {
    "task": {
        "data": "digits",
        "model": "wrn-10-1",
        "epochs": 10,
        "batch_size": 128,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "validation": 0.1,
        "precision": "float32",
    },
    "policy": {"name": "additive-reset", "step": 0.01, "ema": 0.9, "drop": 0.01},
    "seed": 3407,
}


def problems(values: Any) -> str:
    with pytest.raises(SpecError) as caught:
        RunSpec.read(values)
    return str(caught.value)


def test_canonical_json_reads_back_as_the_same_run() -> None:
    spec = RunSpec.read(PUBLISHED)
    assert RunSpec.from_json(spec.to_json()) == spec
    assert RunSpec.from_json(spec.to_json()).run_id == spec.run_id


def test_a_run_id_is_the_same_for_ever() -> None:
    """Another id here means that every ledger loses its finished runs.

    Raise RECIPE only where the numbers change.
    """
    assert RunSpec.read(PUBLISHED).run_id == "69a11aada0f47982"


def test_key_order_spelling_of_numbers_and_written_out_defaults_do_not_change_the_id() -> None:
    other = {
        "seed": 3407.0,
        "policy": {"drop": 1e-2, "ema": 0.90, "step": 0.01, "name": "additive-reset", "floor": 0.01},
        "task": {
            **dict(reversed(PUBLISHED["task"].items())),
            "weight_decay": 0,
            "epochs": 10.0,
            "drop_last": False,
            "endpoints": [1],
        },
    }
    assert RunSpec.read(other).run_id == RunSpec.read(PUBLISHED).run_id


def test_the_order_of_endpoints_does_not_change_the_id_and_the_endpoints_do() -> None:
    assert (
        run_spec(endpoints=[0.05, 1]).run_id
        == run_spec(endpoints=[1, 0.05]).run_id
        != run_spec(endpoints=[1]).run_id
    )


@given(st.sampled_from(["learning_rate", "weight_decay", "epochs", "train_size"]), st.integers(2, 50))
def test_another_value_is_another_run(key: str, value: int) -> None:
    changes: list[dict[str, Any]] = [{key: value}, {key: value + 1}]
    one, other = (RunSpec.read(run_values(None, **change)) for change in changes)
    assert one.run_id != other.run_id


def test_a_whole_number_that_no_float_holds_keeps_its_value() -> None:
    assert RunSpec.read({**PUBLISHED, "seed": 2**53 + 1}).seed == 2**53 + 1


def test_a_setting_tells_its_meaning_and_default_also_where_it_is_inherited() -> None:
    fixed = POLICIES["fixed"]
    assert list(settings_of(fixed)) == ["ratio", "survivors"]
    assert descriptions(fixed)["survivors"].startswith("Which positive activations survive: the largest, or")
    assert descriptions(Task)["train_size"].startswith(
        "Number of images to train on, drawn per seed; null trains on"
    )
    assert (default_of(fixed, "survivors"), default_of(fixed, "ratio")) == ("largest", MISSING)


def test_a_field_added_later_leaves_the_id_of_older_runs_alone() -> None:
    @dataclass(frozen=True)
    class Before:
        a: int

    @dataclass(frozen=True)
    class After:
        a: int
        later: str = field(default="plain", metadata={"added": True})

    assert (
        written(read(After, {"a": 1, "later": "plain"}))
        == written(read(After, {"a": 1}))
        == written(read(Before, {"a": 1}))
    )
    assert written(read(After, {"a": 1, "later": "new"})) == {"a": 1, "later": "new"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"task": {"epoch": 3}},
            ["task.epoch  no such setting. Did you mean 'epochs'?", "task takes: data, model, epochs"],
        ),
        (
            {"task": {"epochs": "3"}},
            ["task.epochs  must be a whole number; it is '3'. Write it without quotes."],
        ),
        ({"task": {"train_size": 0}}, ["task.train_size  must be at least 1; it is 0."]),
        ({"task": {"train_size": "all"}}, ["task.train_size  must be a whole number; it is 'all'."]),
        ({"task": {"epochs": 2.5}}, ["task.epochs  must be a whole number; it is 2.5."]),
        ({"task": {"epochs": 0}}, ["task.epochs  must be at least 1; it is 0."]),
        ({"task": {"epochs": True}}, ["task.epochs  must be a whole number; it is True."]),
        ({"task": {"momentum": 1}}, ["task.momentum  must be at least 0 and below 1; it is 1.0."]),
        ({"task": {"learning_rate": 1e999}}, ["task.learning_rate  must be a finite number; it is inf."]),
        ({"task": {"learning_rate": 10**400}}, ["task.learning_rate  must be a finite number"]),
        ({"task": {"drop_last": 1}}, ["task.drop_last  must be true or false; it is 1."]),
        (
            {"task": {"data": "digit"}},
            ["task.data  must be one of cifar10, digits, synthetic-cifar", "Did you mean 'digits'?"],
        ),
        ({"task": {"data": 3}}, ["task.data  must be a text; it is 3."]),
        ({"task": {"model": "wrn-28"}}, ["no such model: 'wrn-28'. Models are named wrn-DEPTH-WIDEN"]),
        ({"task": {"model": "wrn-27-4"}}, ["has depth 27; a wide ResNet's depth is 10, 16, 22, 28"]),
        ({"task": {"precision": "float16"}}, ["must be one of float32, bfloat16; it is 'float16'."]),
        ({"task": {"endpoints": []}}, ["task.endpoints  must be different keep ratios, at least one"]),
        ({"task": {"endpoints": [1, 1.0]}}, ["task.endpoints  must be different keep ratios"]),
        ({"task": {"endpoints": [1, 0]}}, ["task.endpoints  [1] must be above 0 and at most 1; it is 0.0."]),
        (
            {"task": {"validation": 0.5, "train_size": 700}},
            ["asks for 700 images beside the 600 held out; there are 1,200 in all."],
        ),
        ({"task": {"validation": 0.0001}}, ["task.validation  holds out no image"]),
        ({"task": {"drop_last": True, "batch_size": 97}}, ["task.drop_last  leaves nothing"]),
        (
            {"policy": {"stp": 0.1}},
            ["policy.stp  no such setting. Did you mean 'step'?", "additive-reset takes: step, ema, drop"],
        ),
        ({"policy": {"step": 0}}, ["policy.step  must be above 0 and below 1; it is 0.0."]),
        (
            {"policy": {"name": "additive"}},
            ["policy.name  must be one of dense, fixed", "Did you mean 'additive-reset'?"],
        ),
        ({"policy": {"name": ["dense"]}}, ["policy.name  must be one of dense, fixed"]),
        ({"policy": {"seed": 3}}, ["policy.seed  no such setting."]),
        (
            {"policy": {"floor": 0, "at_floor": "hold"}},
            ["policy.floor  must be above 0 where at_floor is 'hold'"],
        ),
        ({"seed": -1}, ["seed  must be at least 0"]),
        ({"seed": 2**63}, ["seed  must be at least 0 and below"]),
        ({"recipe": 2}, ["recipe  must be 1, this trainer's; it is 2."]),
        (
            {"polcy": 2},
            [
                "polcy  no such part of a run. Did you mean 'policy'?",
                "a run takes: task, policy, seed, recipe.",
            ],
        ),
        ({"epochs": 2}, ["epochs  stands at the top; it belongs inside task."]),
        ({"task": {"data": "CIFAR10"}}, ["Did you mean 'cifar10'?"]),
        ({"task": {"model": "WRN-10-1"}}, ["no such model: 'WRN-10-1'. Did you mean 'wrn-10-1'?"]),
    ],
)
def test_what_is_wrong_is_named_with_its_path_the_nearest_word_and_the_legal_values(
    change: dict[str, Any], said: list[str]
) -> None:
    values = run_values()
    for key, value in change.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    text = problems(values)
    for words in said:
        assert words in text, text


def test_a_part_that_is_missing_is_told_as_missing() -> None:
    text = problems({"polcy": {"name": "dense"}, "seed": 1})
    assert "task  is missing" in text
    assert "policy  is missing" in text
    assert "Did you mean 'policy'?" in text


def test_all_problems_are_told_at_once() -> None:
    values = run_values({"name": "fixed", "ratio": 2}, epochs=0, modell="wrn-10-1")
    del values["seed"]
    text = problems(values)
    assert all(path in text for path in ("task.epochs", "task.modell", "policy.ratio", "seed  is missing"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"text"',
        "{" * 100_000,
        "[" * 100_000,
        '{"seed": NaN}',
        '{"seed": 1, "seed": 2}',
        '{"task": []}',
        "\x00",
    ],
)
def test_text_that_is_no_run_is_an_error_and_never_a_crash(text: str) -> None:
    with pytest.raises(SpecError):
        RunSpec.from_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_value_crashes_the_reader(values: Any) -> None:
    for whole in (
        values,
        {"task": values},
        {"task": {"endpoints": values}, "policy": {"name": values}, "seed": values},
    ):
        with pytest.raises(SpecError):
            RunSpec.read(whole)


@pytest.mark.parametrize(
    ("policy", "takes"),
    [
        ({"name": "sawtooth", "period": 5}, "exactly one of step and decay"),
        ({"name": "sawtooth", "period": 5, "step": 0.1, "decay": 0.9}, "exactly one of step and decay"),
        ({"name": "sawtooth", "period": 11, "step": 0.1}, "takes the ratio to 0"),
        ({"name": "random", "low": 0.5, "high": 0.2}, "policy.low  must not be above high"),
        ({"name": "sawtooth", "period": 5, "step": 1.5}, "policy.step  must be above 0 and below 1"),
        ({"name": "fixed"}, "policy.ratio  is missing; fixed needs it."),
        ({"name": "dense", "survivors": "random"}, "dense takes: no settings."),
        ({}, "must be an object with a name"),
    ],
)
def test_a_policy_says_what_it_takes(policy: dict[str, Any], takes: str) -> None:
    assert takes in problems({**run_values(), "policy": policy})


def test_a_spec_is_frozen() -> None:
    spec = run_spec()
    with pytest.raises(AttributeError):
        spec.seed = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.policy.settings["step"] = 1  # type: ignore[index]


def test_the_canonical_json_is_json_and_sorted() -> None:
    values = json.loads(run_spec().to_json())
    assert list(values) == sorted(values)
    assert list(values["task"]) == sorted(values["task"])
