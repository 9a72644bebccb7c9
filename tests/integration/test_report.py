"""The report of real ledgers: an arm over all its searches, its failures, its epochs and its tuning curves.

Expected figures are taken from the runs' own tables by other code than the report's.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.ledger.ledger import Ledger
from sweep.planning.values import Cohort
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.views.reading import Reading
from sweep.views.report.page import Report, page
from tests.loops import drive
from tests.sweeps import study_values

SEARCHED = {"learning_rate": {"low": 0.1, "high": 1.0, "log": True}}
ARMS: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "tuned": {"policy": {"name": "dense"}, "task": SEARCHED},
    "additive": {"policy": {"name": "additive-reset", "step": 0.3}, "task": SEARCHED},
    "hot": {"policy": {"name": "dense"}, "task": {"learning_rate": 1e18}},
}
SEARCHES, RATIOS = 7, (1.0, 0.1)
PUBLISHED = {
    "source": "a paper, one run each",
    "accuracy": {"additive": 0.8797, "dense": 0.869},
    "differs": ["digits"],
}


def play(folder: Path, name: str, searches: int, seeds: int, proposer: str = "random") -> None:
    """Play a study whose arms are searched so often. At both endpoints other settings may be picked."""
    search = {"budget": 3, "generation": 3, "ladder": [1], "objective": "each", "proposer": proposer}
    values = study_values(
        task={"epochs": 4, "evaluate_every": 1},
        search={**search, "replicates": searches},
        confirm={"seeds": seeds},
        analysis={"baseline": "tuned", "family": ["additive"], "endpoints": list(RATIOS)},
    )
    given = {**values, "arms": ARMS, "published": PUBLISHED}
    assert drive(Study(name, Contents.read(given)), folder).complete


def reading_of(store: Path, name: str) -> Reading:
    return Reading(Ledger(str(store), name, lambda _: None))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies with several searches, with one, and with one that learns from its candidates."""
    folder = tmp_path_factory.mktemp("reported")
    play(folder, "several", SEARCHES, 1)
    play(folder, "one", 1, 7)
    play(folder, "learning", 1, 7, proposer="tpe")
    return folder


@pytest.fixture(scope="module")
def several(store: Path) -> Reading:
    return reading_of(store, "several")


@pytest.fixture(scope="module")
def report(several: Reading) -> Report:
    return Report.of(several)


@pytest.fixture(scope="module")
def values(report: Report) -> dict[str, Any]:
    """The report as `sweep report --json` prints it."""
    return json.loads(json.dumps(report.findings.as_json(), allow_nan=False))


def read_at(reading: Reading, run_id: str, split: str, ratio: float) -> float:
    """Return a run's accuracy from its own table; a diverged run has none and counts as 0."""
    table = reading.runs[run_id].endpoints()
    rows = table.to_pylist() if table else []
    return next(
        (row["accuracy"] for row in rows if (row["split"], row["keep_ratio"]) == (split, ratio)), 0.0
    )


def cohorts(reading: Reading, phase: str, arm: str) -> Iterator[Cohort]:
    return (it for it in reading.cohorts if it.phase == phase and it.candidate.arm == arm)


def picks(reading: Reading, arm: str, ratio: float) -> list[Cohort]:
    """Return the confirmation of each search's best candidate at an endpoint; the first of equals."""
    found: list[Cohort] = []
    for k in range(1, SEARCHES + 1):
        name = arm + (f"~{k}" if k > 1 else "")
        tried = list(cohorts(reading, "search", name))
        best = (
            max(tried, key=lambda it: read_at(reading, it.runs[0], "validation", ratio)) if tried else None
        )
        confirmed = list(cohorts(reading, "confirm", name))
        found += [it for it in confirmed if best is None or it.candidate.name == best.candidate.name]
    assert len(found) == SEARCHES
    return found


def entry(values: dict[str, Any], arm: str, part: str = "arms") -> dict[str, Any]:
    """Return the only entry of an arm in a part of the report."""
    (found,) = [it for it in values[part] if it["arm"] == arm]
    return found


@pytest.mark.parametrize("arm", ["dense", "tuned", "additive"])
def test_an_arm_has_one_entry_over_all_searches_with_each_endpoint_s_own_finalists(
    values: dict[str, Any], several: Reading, arm: str
) -> None:
    for ratio in RATIOS:
        scores = [read_at(several, it.runs[0], "test", ratio) for it in picks(several, arm, ratio)]
        found = entry(values, arm)["accuracy"][f"{ratio:g}"]
        assert found["mean"] == pytest.approx(statistics.mean(scores))
        assert found["standard_error"] == pytest.approx(statistics.stdev(scores) / math.sqrt(SEARCHES))


def test_what_each_search_picked_is_listed_by_endpoint(values: dict[str, Any], several: Reading) -> None:
    found = entry(values, "additive")
    expected = [
        {f"{ratio:g}": picks(several, "additive", ratio)[k].candidate.values for ratio in RATIOS}
        for k in range(SEARCHES)
    ]
    assert (found["settings"], found["settings_by_search"], found["searches"]) == ({}, expected, SEARCHES)
    assert any(one["1"] != one["0.1"] for one in expected)  # else the study tests nothing


def test_inflation_compares_both_epochs_at_r_1_and_the_epoch_s_own_r_is_kept_beside(
    values: dict[str, Any], several: Reading
) -> None:
    runs = [several.runs[it.runs[0]] for it in picks(several, "additive", 1.0)]
    tables = [table.to_pydict() for run in runs if (table := run.epochs())]
    dense = [table["dense_test_accuracy"] for table in tables]
    best, last = statistics.mean(map(max, dense)), statistics.mean(column[-1] for column in dense)
    found = entry(values, "additive")
    assert (found["best_epoch"], found["last_epoch"]) == pytest.approx((best, last))
    assert found["inflation"] == pytest.approx(best - last)
    own = statistics.mean(max(table["test_accuracy"]) for table in tables)
    assert found["best_epoch_own_ratio"] == pytest.approx(own)
    # the last epoch's own r is far from 1 here: there the figure would be another one
    assert statistics.mean(table["test_accuracy"][-1] for table in tables) != pytest.approx(last)


def test_a_paper_s_figures_stand_beside_the_best_epoch_and_where_r_stood_then(
    values: dict[str, Any], several: Reading, report: Report
) -> None:
    runs = [several.runs[it.runs[0]] for it in picks(several, "additive", 1.0)]
    rows = [table.to_pylist() for run in runs if (table := run.epochs())]
    best = [max(table, key=lambda row: row["test_accuracy"]) for table in rows]
    last = [table[-1] for table in rows]
    found = entry(values, "additive", "replication")
    assert found == {
        "arm": "additive",
        "rank": 1,
        "published": 0.8797,
        "best": pytest.approx(statistics.mean(row["test_accuracy"] for row in best)),
        "epoch": pytest.approx(statistics.mean(row["epoch"] for row in best)),
        "keep_ratio": pytest.approx(statistics.mean(row["keep_ratio"] for row in best)),
        "nonzero_rate": pytest.approx(statistics.mean(row["nonzero_rate"] for row in best)),
        "last": pytest.approx(statistics.mean(row["dense_test_accuracy"] for row in last)),
        "gap": pytest.approx(
            statistics.mean(row["train_accuracy"] for row in last)
            - statistics.mean(row["test_accuracy"] for row in last)
        ),
    }
    assert found["keep_ratio"] < 1  # at r = 1 it would not show where r stood
    # an arm without a published figure is shown beside the others, and one whose runs all diverged is not
    assert entry(values, "tuned", "replication")["published"] is None
    assert "hot" not in {row["arm"] for row in values["replication"]}
    text = page(report)
    assert "a paper, one run each" in text
    assert '<td data-label="published, %">87.97</td>' in text


def test_a_study_without_a_paper_has_no_such_table(several: Reading) -> None:
    bare = Reading(several.ledger)
    bare.study.contents = replace(bare.study.contents, published=None)
    assert "Beside the paper" not in page(Report.of(bare))


def test_failed_runs_have_exact_limits(values: dict[str, Any]) -> None:
    hot, dense = entry(values, "hot"), entry(values, "dense")
    assert (hot["diverged"], hot["finished"], hot["failure_rate"]) == (7, 7, 1.0)
    # where all of n failed the lower limit is the n-th root of half of alpha
    assert (hot["failure_low"], hot["failure_high"]) == pytest.approx((0.025 ** (1 / 7), 1.0))
    assert dense["collapsed"] or dense["failure_high"] == pytest.approx(1 - 0.025 ** (1 / 7))


def test_a_search_has_one_entry_with_the_candidates_of_all_searches(
    values: dict[str, Any], several: Reading
) -> None:
    found = entry(values, "additive", "search")
    assert [it["search"] for it in found["candidates"]] == [k for k in range(1, 8) for _ in range(3)]
    picked = {it["candidate"]: it["picked_for"] for it in found["candidates"] if it["picked_for"]}
    expected: dict[str, list[float]] = {}
    for ratio in RATIOS:
        for cohort in picks(several, "additive", ratio):
            expected.setdefault(cohort.candidate.name, []).append(ratio)
    assert picked == expected


def by_enumeration(scores: Sequence[float], budget: int) -> tuple[float, float]:
    """Return mean and deviation of the best score, over all ways to draw so many candidates."""
    best = [max(drawn) for drawn in itertools.product(scores, repeat=budget)]
    return statistics.mean(best), statistics.pstdev(best)


def test_a_tuning_curve_is_what_all_draws_of_so_many_candidates_would_pick(
    values: dict[str, Any], several: Reading
) -> None:
    names = ["additive", *(f"additive~{k}" for k in range(2, SEARCHES + 1))]
    tried = [it.runs[0] for name in names for it in cohorts(several, "search", name)]
    found = entry(values, "additive", "tuning")
    assert [curve["keep_ratio"] for curve in found["curves"]] == list(RATIOS)
    assert (found["candidates"], found["budget"], found["why_not"]) == (21, 3, None)
    for curve in found["curves"]:
        scores = [read_at(several, run, "validation", curve["keep_ratio"]) for run in tried]
        assert len(curve["mean"]) == len(curve["deviation"]) == 21
        for budget in (1, 2, 3):
            expected = by_enumeration(scores, budget)
            got = (curve["mean"][budget - 1], curve["deviation"][budget - 1])
            assert got == pytest.approx(expected)


def test_with_one_search_the_spread_of_both_picks_stands_beside_the_gain(store: Path) -> None:
    reading = reading_of(store, "one")
    found = Report.of(reading).findings
    for row in found.comparisons:
        if row.role == "family":
            spreads = [
                by_enumeration(
                    [
                        read_at(reading, it.runs[0], "validation", row.keep_ratio)
                        for it in cohorts(reading, "search", arm)
                    ],
                    3,
                )[1]
                for arm in ("additive", "tuned")
            ]
            assert row.pick_deviation == pytest.approx(math.sqrt(sum(it**2 for it in spreads)))
    (additive,) = [arm for arm in found.arms if arm.arm == "additive"]
    assert additive.settings == additive.settings_by_search[0]["1"] != {}


def test_a_search_that_learns_has_no_tuning_curve_and_says_why(store: Path) -> None:
    report = Report.of(reading_of(store, "learning"))
    assert all(not tuning.curves for tuning in report.findings.tuning)
    assert all(row.pick_deviation is None for row in report.findings.comparisons)
    assert "There is no tuning curve: tpe proposes candidates from the scores" in page(report)


def test_the_page_has_one_picture_for_each_arm_and_not_one_for_each_search(report: Report) -> None:
    shown = page(report)
    assert shown.count("<h3>additive</h3>") == 2  # its epochs, and its search
    assert "~2" not in shown
    assert "21 candidates of 7 searches" in shown
    assert "always keep the largest activations, whatever the arm trained with" in shown
    assert "are tested alone" not in shown
    assert shown.index('class="matrix"') < shown.index('class="answer"') < shown.index("Gains over tuned")


def test_every_linked_word_has_its_meaning_at_the_end(report: Report) -> None:
    shown = page(report)
    for word in ("arm", "endpoint", "gain", "keep-ratio", "points", "seed", "search", "family", "interval"):
        assert shown.count(f'href="#word-{word}"') == shown.count(f'id="word-{word}"') == 1
