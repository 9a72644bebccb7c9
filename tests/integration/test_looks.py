"""A gain that was seen counts as seen, however it was seen; what was said of it stays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import RejectStudy
from sweep.gains.comparisons import earlier, said
from sweep.gains.progress import overview
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import grew_after_look, look_before_growth
from sweep.statistics import paired_comparison
from sweep.study import Study
from sweep.views.reading import Reading
from tests.loops import drive, study_of

ARMS: dict[str, Any] = {"additive": {"policy": {"name": "additive-reset", "step": 0.3}}}
"""Arms without a search."""


def of(seeds: int) -> Study:
    return study_of(arms=ARMS, confirm={"seeds": seeds})


def searched(budget: int, seeds: int = 11) -> Study:
    """A study whose arm is searched, with so many candidates. A tenth of 5 % takes eleven pairs."""
    rate = {"learning_rate": {"low": 0.02, "high": 0.2, "log": True}}
    arms = {"additive": {**ARMS["additive"], "task": rate}}
    search = {"budget": budget, "ladder": [1], "generation": 2}
    return study_of(arms=arms, confirm={"seeds": seeds}, search=search)


def opened(folder: Path) -> Ledger:
    ledger = Ledger(str(folder), "small", print)
    ledger.load()
    return ledger


def extended(folder: Path, study: Study | None = None) -> Reading:
    """Extend the study, as the command does: by six seeds, if nothing else is asked for."""
    ledger, study = opened(folder), study or of(12)
    if look := look_before_growth(ledger, study):
        ledger.look(look.pairs, look.arms)
    ledger.declare(study, True)
    assert drive(study, folder).complete
    return Reading(opened(folder))


@pytest.mark.parametrize(("runs", "seen"), [(0, False), (3, False), (4, True), (12, True)])
def test_growth_is_growth_after_a_look_once_a_gain_could_be_judged(
    tmp_path: Path, runs: int, seen: bool
) -> None:
    drive(of(6), tmp_path, most=runs)
    look = look_before_growth(opened(tmp_path), of(12))
    assert ((look.pairs, look.arms) if look else None) == ((6, ["additive"]) if seen else None)
    assert look_before_growth(opened(tmp_path), of(6)) is None
    assert grew_after_look(opened(tmp_path), of(12)) == ("pairs" if seen else "")
    assert extended(tmp_path).grew_after_look == ("pairs" if seen else "")


def test_a_study_that_grew_before_any_look_is_tested_like_one_that_was_declared_so(tmp_path: Path) -> None:
    drive(of(6), tmp_path / "grown", most=2)
    drive(of(12), tmp_path / "whole")
    grown, whole = extended(tmp_path / "grown"), Reading(opened(tmp_path / "whole"))
    assert list(map(asdict, grown.compare())) == list(map(asdict, whole.compare()))


def test_after_a_look_all_pairs_are_tested_by_the_test_for_looks_at_any_time(tmp_path: Path) -> None:
    drive(of(6), tmp_path)
    before = Reading(opened(tmp_path)).compare()
    after = extended(tmp_path)
    row = after.compare()[0]
    own, base = (
        [after.plan.results[run].score("test", 1.0) for run in cohort.runs]
        for arm in ("additive", "dense")
        for cohort in after.cohorts
        if cohort.candidate.arm == arm
    )
    expected = paired_comparison(own, base, looks="any", comparisons=after.study.comparisons)
    assert (row.pairs, row.looks, row.p_value) == (12, 0, expected.p_value)
    assert (row.family_low, row.family_high) == (expected.family_low, expected.family_high)
    # what was said before stands beside it
    kept = earlier(after.plan, after.looks, after.right_images)
    assert {size: [asdict(row) for row in rows] for size, rows in kept.items()} == {
        6: [asdict(row) for row in before]
    }


def test_growth_after_which_nothing_could_be_found_is_refused_with_what_could(tmp_path: Path) -> None:
    drive(searched(2, 8), tmp_path)
    with pytest.raises(RejectStudy, match=r"with 8 pairs here\. Write at least 11 for confirm\.seeds"):
        grew_after_look(opened(tmp_path), searched(4, 8))
    assert grew_after_look(opened(tmp_path), searched(4, 11)) == "picks"


def test_the_gains_of_the_tables_are_those_that_are_tested(tmp_path: Path) -> None:
    drive(of(6), tmp_path)
    reading = extended(tmp_path)
    shown = next(arm for arm in overview(reading.plan, {}, {}).arms if arm.arm == "additive")
    assert (shown.gains["1"].pairs, shown.gains["1"].mean) == (12, pytest.approx(reading.compare()[0].gain))


def test_a_study_whose_test_sets_overlap_cannot_grow_after_a_look_and_may_grow_before_one(
    tmp_path: Path,
) -> None:
    def study(seeds: int) -> Study:
        parts: dict[str, Any] = {"task": {"resample": 0.1}, "analysis": {"test": "resampled-t"}}
        return study_of(arms=ARMS, confirm={"seeds": seeds}, **parts)

    drive(study(6), tmp_path, most=2)
    assert grew_after_look(opened(tmp_path), study(8)) == ""
    drive(study(6), tmp_path)
    with pytest.raises(RejectStudy, match=r"its test sets overlap.* give the grown study another name"):
        grew_after_look(opened(tmp_path), study(8))


def test_what_a_look_said_and_how_many_runs_there_were_is_kept_when_finalists_are_picked_anew(
    tmp_path: Path,
) -> None:
    drive(searched(2), tmp_path)
    before = Reading(opened(tmp_path))
    [row] = [row for row in before.compare() if row.role == "family"]
    assert grew_after_look(opened(tmp_path), searched(4)) == "picks"
    after = extended(tmp_path, searched(4))
    assert after.grew_after_look == "picks"
    [look] = after.looks
    assert look.said == said([row])
    assert f"p = {row.p_holm:.3g}" in look.said[0]
    assert after.declared["extensions"][0]["confirmed_before"] == 22
    after.compare()
    assert [(look.pairs, look.arms) for look in Reading(opened(tmp_path)).looks] == [(11, ["additive"])] * 2
