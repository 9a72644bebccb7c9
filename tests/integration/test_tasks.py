"""A study over several tasks as people see it: planned, under way, and what its ledger tells of networks."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweep.cli.planned_text import shown_plan
from sweep.estimate.planned import FIXED_SECONDS, RUN_SECONDS, Planned
from sweep.gains.progress import overview
from sweep.ledger.ledger import Ledger
from sweep.ledger.results import from_plain, result_of
from sweep.planning.values import Proposal
from sweep.statistics import minimum_detectable_gain, power
from sweep.study import Study
from sweep.study.contents import Contents
from tests.integration.attempts import attempt
from tests.unit.simulated import plan_of, result, take
from tests.unit.test_study_tasks import BASE, EXPANDED, changed, study
from trainer.run_folder import RunFolder
from trainer.spec import RunSpec
from trainer.store import open_store


def planned(it: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Planned, str]:
    """Return the plan and its words on a machine where an epoch takes 1 s for wine and 3 s for digits."""
    monkeypatch.setattr(
        "sweep.estimate.pace.calibrate", lambda spec, *_: 1.0 if spec.task.data == "wine" else 3.0
    )
    found = Planned.of(it, Ledger(str(folder), it.name, print), 1, folder)
    out = io.StringIO()
    Console(file=out, width=200).print(shown_plan(it, found))
    return found, out.getvalue()


def test_a_plan_lists_every_arm_on_every_task_and_says_whose_parameters_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, text = planned(study(), tmp_path, monkeypatch)
    lines = [line.split()[0] for line in text.splitlines() if "@" in line.split(maxsplit=1)[0]]
    assert lines == list(found.runs) == EXPANDED
    assert "dense@wine (baseline)" in text
    assert "dense@digits (baseline)" in text
    assert text.count("as many parameters as set has at the end") == 2
    assert text.count("as set, on other seeds") == 2
    assert "6 comparisons of 10 pairs" in text


def test_a_plan_says_which_settings_are_taken_from_whose_finalist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = {"policy": {"name": "static-sparse"}, "match": {"arm": "set", "settings": ["policy.epsilon"]}}
    both = {
        "policy": {"name": "dense"},
        "match": {"arm": "set", "at": "start", "settings": ["task.momentum", "task.learning_rate"]},
    }
    values = changed("arms.static", taking)
    values["arms"]["both"] = both
    found, text = planned(study(values), tmp_path, monkeypatch)
    assert text.count("epsilon as set's finalist has it") == 2
    assert (
        text.count(
            "momentum, learning_rate as set's finalist has them; as many parameters as set has at the start"
        )
        == 2
    )
    assert found.runs["static@wine"] == {"search": 0, "confirm": 10}


def test_the_time_of_a_plan_is_that_of_all_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = planned(study(), tmp_path, monkeypatch)
    assert found.seconds_per_epoch == 2.0


def test_the_time_of_a_plan_counts_the_start_the_end_and_what_a_run_takes_beside_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = planned(study(), tmp_path, monkeypatch)
    assert found.seconds_left is not None
    busy = found.epochs * 2.0 + found.runs_left * RUN_SECONDS
    assert (found.seconds_left - FIXED_SECONDS) * found.utilisation == pytest.approx(busy / found.slots)


def test_a_plan_takes_overlapping_splits_into_its_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of wine's 178 rows are tested in each run: 44 beside 134."""
    values = changed("tasks.wine.resample", 0.25)
    values["analysis"]["test"] = "resampled-t"
    found, text = planned(study(values), tmp_path, monkeypatch)
    independent = minimum_detectable_gain(10, 1.0, alpha=0.05 / 6, power=0.8, test="paired-t")
    assert found.detectable_sd == pytest.approx(independent * math.sqrt(1 + 10 * 44 / 134))
    assert (
        found.power_at_one_sd
        == power(10, 1.0, 0.05 / 6, "resampled-t", 44 / 134)
        < power(10, 1.0, 0.05 / 6, "paired-t")
    )
    assert found.smallest_p == 0.0
    assert "(resampled-t test, Holm's correction at alpha 0.05)" in text


def test_a_plan_that_would_find_next_to_nothing_says_so_and_how_many_seeds_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = changed("confirm", {"seeds": 3})
    values["analysis"]["test"] = "paired-t"
    found, text = planned(study(values), tmp_path, monkeypatch)
    assert found.power_at_one_sd < 0.1
    (line,) = (line for line in found.warnings if "next to nothing" in line)
    seeds = int(line.split("Write confirm.seeds: ")[1].removesuffix(" for a chance of 50%."))
    assert power(seeds - 1, 1.0, 0.05 / 6, "paired-t") < 0.5 <= power(seeds, 1.0, 0.05 / 6, "paired-t")
    assert "next to nothing" in text
    assert not any(
        "next to nothing" in line for line in planned(study(), tmp_path / "ten", monkeypatch)[0].warnings
    )


def test_where_no_number_of_seeds_would_do_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine tenths of wine are tested: at any number of seeds the mean's error is that of a few splits."""
    values = changed("tasks.wine.resample", 0.9)
    values["tasks"]["wine"]["batch_size"] = 8
    values["analysis"]["test"] = "resampled-t"
    (line,) = (
        line
        for line in planned(study(values), tmp_path, monkeypatch)[0].warnings
        if "next to nothing" in line
    )
    assert "confirm.seeds" not in line


def test_gains_under_way_are_over_the_baseline_of_the_same_task() -> None:
    arms = {name: {"policy": {"name": policy}} for name, policy in (("dense", "dense"), ("set", "set"))}
    it = Study("made", Contents.read({**BASE, "arms": arms}))
    plan = plan_of(it)
    scores = {"dense@wine": 0.5, "set@wine": 0.6, "dense@digits": 0.9, "set@digits": 0.7}
    for run in take(plan):
        plan.finish(run.run_id, result(scores[run.arm] + run.place / 1000))
    view = overview(plan, plan.total, {})
    gains = {arm.arm: gain["1"].mean if (gain := arm.gains) else None for arm in view.arms}
    assert gains == {
        "dense@wine": None,
        "set@wine": pytest.approx(0.1),
        "dense@digits": None,
        "set@digits": pytest.approx(-0.2),
    }
    assert view.seconds_left == 0


def test_the_time_left_is_by_the_pace_on_each_task() -> None:
    arms = {name: {"policy": {"name": policy}} for name, policy in (("dense", "dense"), ("set", "set"))}
    plan = plan_of(Study("made", Contents.read({**BASE, "arms": arms})))
    assert overview(plan, plan.total, {}).seconds_left is None
    pace, runs = {"wine": 2.0, "digits": 30.0}, take(plan)
    told = {task: [run for run in runs if run.arm.endswith(task)] for task in pace}
    seeds, epochs = plan.study.confirm.seeds, runs[0].spec.task.epochs

    def finish(task: str, count: int) -> float | None:
        for run in told[task][:count]:
            plan.finish(run.run_id, replace(result(0.5), epochs=epochs, seconds=pace[task] * epochs))
        under_way = {run.run_id: 0.5 for run in told[task][count : count + 1]}
        return overview(plan, plan.total, under_way).seconds_left

    # of the other task nothing is known yet, so that it is taken to be as fast
    assert finish("wine", 3) == pytest.approx(2.0 * ((4 * seeds - 3) * epochs) - 2.0 * 0.5)
    assert finish("digits", 1) == pytest.approx(
        2.0 * (2 * seeds - 3) * epochs + 30.0 * ((2 * seeds - 1) * epochs - 0.5)
    )


def test_a_run_s_parameters_are_read_from_its_first_and_its_last_row(tmp_path: Path) -> None:
    """Neurons that are pruned take their biases and connections with them."""
    task = {"data": "wine", "model": "mlp-30-30", "epochs": 3, "batch_size": 32}
    policy = {"name": "npset", "epsilon": 2, "start": 1, "period": 1}
    spec = RunSpec.read({"task": task, "policy": policy, "seed": 1})
    list(attempt(tmp_path, spec))
    folder = RunFolder(open_store(str(tmp_path)), spec, print)
    outcome = folder.outcome()
    assert outcome
    found = result_of(folder, outcome)
    assert 0 < found.parameters_end < found.parameters_start < 13 * 30 + 30 + 30 * 30 + 30 + 30 * 3 + 3


def test_an_index_from_before_parameters_were_counted_is_still_read() -> None:
    old: dict[str, Any] = {
        key: value for key, value in asdict(result(0.5)).items() if not key.startswith("parameters")
    }
    assert from_plain(old) == result(0.5)


@pytest.mark.parametrize("where", ["local", "bucket"])
def test_a_generation_of_an_arm_on_a_task_is_kept_under_its_name(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store_url = str(tmp_path) if where == "local" else request.getfixturevalue("bucket")
    ledger, values = Ledger(store_url, "made", print), [{"policy.epsilon": 2.0}]
    assert ledger.record(study(), Proposal("set@wine", 0, 1, []), values) == values
    assert ledger.proposals() == {("set@wine", 0): values}
