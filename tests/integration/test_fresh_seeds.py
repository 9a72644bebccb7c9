"""Two studies of one store: the second one does not test on seeds that the first one has shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweep.estimate.planned import Planned
from sweep.ledger.fresh import with_fresh_seeds
from sweep.ledger.growth import identity_hash
from sweep.ledger.ledger import Ledger
from sweep.study import Study
from sweep.study.contents import Contents
from tests.loops import drive, short_values
from trainer.store import seal, unseal

ARMS: dict[str, Any] = {"additive": {"policy": {"name": "additive-reset", "step": 0.3}}}


ALPHA = {"first": 0.05, "second": 0.045, "third": 0.04, "a": 0.045, "b": 0.05}
"""Each study's own alpha: two studies that declare the same are one, and share their seeds."""


def study(name: str, seeds: int = 6, **parts: Any) -> Study:
    """A study without a search. Studies of one seed draw the same pool."""
    confirm, analysis = {"seeds": seeds, **parts}, {"alpha": ALPHA[name]}
    return Study(name, Contents.read(short_values(arms=ARMS, confirm=confirm, analysis=analysis)))


def ledger(folder: Path, name: str) -> Ledger:
    made = Ledger(str(folder), name, print)
    made.load()
    return made


def fresh(folder: Path, it: Study) -> tuple[Study, list[str]]:
    own = ledger(folder, it.name)
    return with_fresh_seeds(own, it, own.declared())


def seeds_of(it: Study) -> list[int]:
    return it.arms["dense"].seeds


def test_seeds_that_another_study_has_had_are_told_and_others_are_drawn(tmp_path: Path) -> None:
    drive(study("first"), tmp_path)
    second, lines = fresh(tmp_path, study("second"))
    assert lines == ["the study first has had 6 confirmation seeds: others are drawn instead."]
    assert not set(seeds_of(second)) & set(seeds_of(study("first")))
    assert seeds_of(second) == seeds_of(study("first", 12))[6:]


def test_what_is_drawn_instead_is_fresh_in_every_other_study_too(tmp_path: Path) -> None:
    """`a` draws the seeds after those of `b`, which has had the first ones."""
    drive(study("b"), tmp_path)
    drive(fresh(tmp_path, study("a"))[0], tmp_path)
    third, lines = fresh(tmp_path, study("third"))
    assert lines == ["the study b has had 6 confirmation seeds: others are drawn instead."]
    assert seeds_of(third) == seeds_of(study("b", 18))[12:]


def test_searches_that_are_those_of_another_study_are_told(tmp_path: Path) -> None:
    rate = {"learning_rate": {"low": 0.02, "high": 0.2, "log": True}}
    arms = {"additive": {**ARMS["additive"], "task": rate}}
    first, second = (
        Study(name, Contents.read(short_values(arms=arms, confirm={"seeds": 6}, analysis={"alpha": alpha})))
        for name, alpha in (("first", 0.05), ("second", 0.04))
    )
    drive(first, tmp_path)
    [line] = fresh(tmp_path, second)[1]
    assert "they pick what those of first picked. Another `seed`" in line


def test_a_study_that_was_begun_keeps_its_seeds_and_its_ledger_remembers_what_it_left_out(
    tmp_path: Path,
) -> None:
    drive(study("first"), tmp_path)
    second, _ = fresh(tmp_path, study("second"))
    plan = drive(second, tmp_path)
    assert plan.complete
    drive(study("third"), tmp_path)
    again, lines = fresh(tmp_path, study("second"))
    assert (seeds_of(again), lines) == (seeds_of(second), [])
    state = ledger(tmp_path, "second").state()
    assert state.plan.complete
    assert seeds_of(state.study) == seeds_of(second)
    assert state.declared["hash"] != ledger(tmp_path, "first").begun()["hash"]


def test_a_study_that_grows_draws_only_what_it_grows_by_from_seeds_that_are_fresh(tmp_path: Path) -> None:
    drive(study("first"), tmp_path)
    drive(fresh(tmp_path, study("second", 8))[0], tmp_path)
    grown, lines = fresh(tmp_path, study("first", 8))
    assert seeds_of(grown)[:6] == seeds_of(study("first"))
    assert not set(seeds_of(grown)) & set(seeds_of(fresh(tmp_path, study("second", 8))[0]))
    assert len(lines) == 1


def test_a_study_of_other_data_or_without_such_seeds_leaves_a_study_as_it_is(tmp_path: Path) -> None:
    values = short_values(arms=ARMS, confirm={"seeds": 6})
    other = Study(
        "other", Contents.read({**values, "task": {**values["task"], "data": "wine", "train_size": 60}})
    )
    drive(other, tmp_path)
    drive(Study("elsewhere", Contents.read({**values, "seed": 2})), tmp_path)
    (tmp_path / "no-study").mkdir()
    (tmp_path / "an-export").mkdir()
    (tmp_path / "an-export" / "study.json").write_text('{"study": "other", "contents": {}}')
    it, lines = fresh(tmp_path, study("second"))
    assert (seeds_of(it), lines) == (seeds_of(study("second")), [])


def test_a_study_that_declares_the_same_as_another_one_has_its_seeds_until_that_one_grows(
    tmp_path: Path,
) -> None:
    drive(study("first"), tmp_path)
    second = fresh(tmp_path, study("second"))[0]
    drive(second, tmp_path)
    copy, [line] = fresh(tmp_path, Study("copy", second.contents))
    assert "second declares the same: this is one study under two names" in line
    assert (seeds_of(copy), identity_hash(copy)) == (seeds_of(second), identity_hash(second))
    own = ledger(tmp_path, "second")
    own.declare(fresh(tmp_path, study("second", 8))[0], extend=True)
    later, [line, *_] = fresh(tmp_path, Study("later", study("second", 8).contents))
    assert line == "the study first has had 6 confirmation seeds: others are drawn instead."
    assert not set(seeds_of(later)) & set(seeds_of(second))


def test_a_ledger_that_does_not_say_when_it_was_declared_keeps_its_seeds_to_itself(tmp_path: Path) -> None:
    """Ledgers of earlier releases are such. A look at them may have come before this declaration."""
    drive(study("first"), tmp_path)
    file = tmp_path / "first" / "study.json"
    declared = unseal(file.read_bytes())
    del declared["declared_at"]
    file.write_bytes(seal(declared))
    copy, lines = fresh(tmp_path, Study("copy", study("first").contents))
    assert lines == ["the study first has had 6 confirmation seeds: others are drawn instead."]
    assert not set(seeds_of(copy)) & set(seeds_of(study("first")))


def test_a_seed_that_was_chosen_by_number_is_kept_and_told(tmp_path: Path) -> None:
    drive(study("first", include=[3407]), tmp_path)
    it, lines = fresh(tmp_path, study("second", include=[3407]))
    assert seeds_of(it)[0] == 3407
    assert lines[0] == "seeds that were chosen by number are not fresh, the study first has had them: 3407."


@pytest.mark.filterwarnings("ignore")
def test_a_pilot_says_how_much_pairs_vary_and_is_not_tested(tmp_path: Path) -> None:
    first = drive(study("first"), tmp_path)
    it = study("second")
    planned = Planned.of(it, ledger(tmp_path, "second"), 2, Path("data"), None, ledger(tmp_path, "first"))
    assert planned.pilot
    [row] = planned.pilot
    own, base = (
        [results[place].score("test", 1.0) for place in range(6)]
        for arm in ("additive", "dense")
        for _, results in first.picked(arm, 1.0)
    )
    differences = [100 * (a - b) for a, b in zip(own, base, strict=True)]
    mean = sum(differences) / 6
    deviation = (sum((d - mean) ** 2 for d in differences) / 5) ** 0.5
    assert (row.arm, row.reference_arm, row.pairs) == ("additive", "dense", 6)
    assert row.deviation == pytest.approx(deviation)
    assert row.deviation_high > row.deviation
    assert row.detectable_gain == pytest.approx(planned.detectable_sd * row.deviation_high)
    assert "others are drawn instead" in " ".join(planned.warnings)
    assert not (tmp_path / "second").exists()
