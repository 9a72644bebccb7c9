"""A small file that asks for much is planned, or refused with a number, before it takes long."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.study import Study
from sweep.study.contents import Contents
from tests.security.victim import sweep
from tests.sweeps import study_values, write_study

HEAVY: dict[str, dict[str, Any]] = {
    "budget": {"search": {"budget": 10_000, "ladder": list(range(1, 16))}},
    "ladder": {"search": {"ladder": [1, 10_000]}},
    "searches": {"search": {"replicates": 10_000}, "confirm": {"seeds": 10_000}},
    "seeds": {"confirm": {"seeds": 10_000}},
}


@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_study_of_too_many_runs_is_refused_with_their_number(
    tmp_path: Path, name: str, command: str
) -> None:
    study = write_study(tmp_path, **HEAVY[name])
    told = sweep(command, study, "--store", tmp_path / "store", cwd=tmp_path)
    assert told.returncode == 2, told.stderr
    assert "runs; a study has at most 20,000" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "store").exists()


def test_many_generations_of_a_wide_ladder_are_planned(tmp_path: Path) -> None:
    study = write_study(tmp_path, search={"budget": 1_500, "ladder": list(range(1, 16))})
    told = sweep("plan", study, "--store", tmp_path / "store", cwd=tmp_path)
    assert told.returncode == 0, told.stderr


STUDIES: dict[str, dict[str, Any]] = {
    "one search": {"search": {"budget": 7, "generation": 3, "ladder": [1, 2, 5]}},
    "replicates": {"search": {"budget": 4, "generation": 2, "ladder": [1], "replicates": 3}},
    "a repeat": {"arms": {"again": {"repeat": "additive"}}},
    "a repeat that is searched": {
        "arms": {"again": {"repeat": "additive"}},
        "search": {"ladder": [1], "replicates": 6},
        "confirm": {"seeds": 1},
    },
    "finalists": {"search": {"finalists": 2}},
    "tasks": {"tasks": {"short": {"epochs": 3}, "long": {"epochs": 9}}},
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_number_of_runs_is_that_of_the_plan(name: str) -> None:
    contents = Contents.read(study_values(**STUDIES[name]))
    planned: Counter[Any] = forecast(Plan(Study("small", contents), {}, {}), 1).runs
    assert contents.most_runs == planned.total()
