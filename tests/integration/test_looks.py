"""A gain that was seen counts as seen, however it was seen; what was said of it stays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import RejectStudy
from sweep.gains.comparisons import earlier
from sweep.gains.progress import overview
from sweep.gains.seeds import refuse_what_cannot_reject
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import looks_at
from sweep.study import Study
from sweep.views.reading import Reading
from tests.loops import drive, study_of

ARMS: dict[str, Any] = {"additive": {"policy": {"name": "additive-reset", "step": 0.3}}}
"""Arms without a search."""


def of(seeds: int) -> Study:
    return study_of(arms=ARMS, confirm={"seeds": seeds})


def opened(folder: Path) -> Ledger:
    ledger = Ledger(str(folder), "small", print)
    ledger.load()
    return ledger


def extended(folder: Path) -> Reading:
    """Extend the study by six seeds, as the command does."""
    ledger, study = opened(folder), of(12)
    for look in looks_at(ledger, study).seen:
        ledger.look(look.pairs, look.arms)
    ledger.declare(study, True, 12)
    assert drive(study, folder).complete
    return Reading(opened(folder))


@pytest.mark.parametrize(("runs", "seen"), [(0, False), (3, False), (4, True), (12, True)])
def test_more_seeds_are_a_look_at_the_earlier_ones_once_a_gain_of_theirs_could_be_judged(
    tmp_path: Path, runs: int, seen: bool
) -> None:
    drive(of(6), tmp_path, most=runs)
    assert [(look.pairs, look.arms) for look in looks_at(opened(tmp_path), of(12)).seen] == (
        [(6, ["additive"])] if seen else []
    )
    assert looks_at(opened(tmp_path), of(6)).seen == []


def test_what_the_test_said_before_the_study_grew_stays_beside_what_it_says_of_the_new_seeds(
    tmp_path: Path,
) -> None:
    drive(of(6), tmp_path)
    before = Reading(opened(tmp_path)).compare()
    after = extended(tmp_path)
    assert [(row.first_place, row.pairs) for row in after.compare()] == [(6, 6)]
    kept = earlier(after.plan, after.looks, after.right_images)
    assert {size: [asdict(row) for row in rows] for size, rows in kept.items()} == {
        6: [asdict(row) for row in before]
    }


def test_the_gains_of_the_tables_are_those_that_are_tested(tmp_path: Path) -> None:
    drive(of(6), tmp_path)
    reading = extended(tmp_path)
    shown = next(arm for arm in overview(reading.plan, {}, {}, reading.looks).arms if arm.arm == "additive")
    assert (shown.gains["1"].pairs, shown.gains["1"].mean) == (6, pytest.approx(reading.compare()[0].gain))


def test_the_number_of_seeds_that_is_asked_for_is_one_that_is_accepted(tmp_path: Path) -> None:
    """One comparison takes 6 pairs, and two take 7.

    A study with 12 seeds, of which 6 and then all were seen, needs 19.
    """
    drive(of(6), tmp_path)

    def accepted(study: Study) -> bool:
        refuse_what_cannot_reject(study, looks_at(opened(tmp_path), study))
        return True

    with pytest.raises(RejectStudy, match=r"Ask for 12 seeds or more, or stay at the 6 that it has\."):
        accepted(of(9))
    assert accepted(of(12))
    extended(tmp_path)
    two: dict[str, Any] = {**ARMS, "saw": {"policy": {"name": "sawtooth", "step": 0.3, "period": 3}}}
    with pytest.raises(RejectStudy, match=r"Ask for 19 seeds or more\.$"):
        accepted(study_of(arms=two, confirm={"seeds": 12}))
    assert accepted(study_of(arms=two, confirm={"seeds": 19}))
    with pytest.raises(RejectStudy, match=r"Ask for 19 seeds or more\.$"):
        accepted(study_of(arms=two, confirm={"seeds": 18}))
