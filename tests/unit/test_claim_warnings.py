"""The warnings of a plan about what its comparisons will be able to claim."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.estimate.warnings import warnings
from sweep.study import Study
from sweep.study.contents import Contents
from tests.unit.test_replicates import VALUES


def warned(**parts: dict[str, Any]) -> list[str]:
    """Return the warnings about the study of several searches, with some values of its parts replaced."""
    values = {key: {**value, **parts.get(key, {})} for key, value in VALUES.items()}
    lines = warnings(Study("warned", Contents.read(values)))
    return [line for line in lines if not line.startswith("arms.additive: its keep ratio")]


def test_a_study_of_several_searches_that_scores_what_it_tests_has_no_warning() -> None:
    assert warned() == []


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"search": {"objective": "first"}}, "r = 0.05 is tested, and the search scores r = 1 alone"),
        ({"search": {"replicates": 1}, "confirm": {"seeds": 8}}, "one search for each arm"),
        ({"analysis": {"test": "paired-t"}}, "paired-t over searches"),
        (
            {"search": {"replicates": 12}, "analysis": {"looks": [9, 10]}},
            "the last look is at 10 of 12 pairs",
        ),
    ],
)
def test_what_a_claim_would_lack_is_told(parts: dict[str, Any], said: str) -> None:
    [line] = warned(**parts)
    assert line.startswith(said)


def test_arms_without_a_search_are_not_warned_of_luck() -> None:
    arms = {name: VALUES["arms"][name] for name in ("dense", "fixed")}
    parts = {"search": {"replicates": 1, "objective": "first"}, "confirm": {"seeds": 8}}
    values = {**VALUES, **parts, "arms": arms, "analysis": {"baseline": "dense"}}
    assert warnings(Study("fixed", Contents.read(values))) == []


@pytest.mark.parametrize("epochs", [2, 5, 10, 20])
def test_a_policy_that_refuses_what_is_steeper_gets_no_such_advice(epochs: int) -> None:
    """A period of 13 epochs leaves no room for a larger step."""
    saw = {"policy": {"name": "sawtooth", "step": 0.08, "period": 13}, "task": {"epochs": epochs}}
    lines = warned(arms={**VALUES["arms"], "saw": saw})
    assert not [line for line in lines if "set policy.step" in line]
