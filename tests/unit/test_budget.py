"""The budget of GPU time, and the keys of a study that say what runs may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweep.errors import RejectStudy
from sweep.estimate.planned import Planned
from sweep.ledger.doctor import examine
from sweep.ledger.gpu_time import FILE, GpuClock, gpu_hours, used_before
from sweep.ledger.growth import identity_hash
from sweep.ledger.ledger import Ledger
from sweep.planning.values import Result
from sweep.study import Study, load
from sweep.study.contents import Contents
from tests.sweeps import study_values, write_study
from trainer.store import seal

HOUR = 3600.0


def study(**resources: Any) -> Study:
    return Study("small", Contents.read(study_values(resources=resources)))


def ledger(folder: Path, said: list[str] | None = None) -> Ledger:
    return Ledger(str(folder), "small", [].append if said is None else said.append)


def refused(folder: Path, **resources: Any) -> str:
    """Return why a study with these resources is refused."""
    with pytest.raises(RejectStudy) as error:
        load(write_study(folder, resources=resources))
    return str(error.value)


def test_the_time_between_two_commits_is_refused_with_the_name_of_what_replaced_it(tmp_path: Path) -> None:
    assert "Did you mean 'commit_share'?" in refused(tmp_path, commit_seconds=30)


def test_a_budget_of_gpu_time_is_refused_where_no_run_takes_a_gpu(tmp_path: Path) -> None:
    assert "resources.gpu_hours: has no use: resources.gpus is 0" in refused(tmp_path, gpu_hours=3)
    assert "must be above 0" in refused(tmp_path, gpu_hours=0, gpus=1)


def test_what_runs_may_cost_does_not_make_another_study() -> None:
    other = study(gpus=1, gpu_hours=3, commit_share=0.1)
    assert identity_hash(other) == identity_hash(study())


def test_a_run_under_way_takes_its_share_of_a_gpu_over_all_sessions(tmp_path: Path) -> None:
    it = study(gpus=0.25, gpu_hours=2)
    first = GpuClock(ledger(tmp_path), it, now=0)
    first.count(0, 5 * HOUR)
    first.count(4, 6 * HOUR)  # four runs for an hour
    first.write()
    first.count(4, 6.5 * HOUR)  # lost, because the driver was killed before it wrote it
    second = GpuClock(ledger(tmp_path), it, now=0)
    assert second.hours
    assert (second.hours.used, second.spent) == (1, False)
    second.count(2, 2 * HOUR)
    assert (second.hours.used, second.spent) == (2, True)
    second.write()
    third = GpuClock(ledger(tmp_path), study(gpus=0.25, gpu_hours=3), now=0)
    assert not third.spent
    assert str(gpu_hours(ledger(tmp_path))) == "The budget of 2 GPU-hours is spent (2 used)"


@pytest.mark.parametrize("record", [None, b"{}", seal({"used": -1.0, "budget": None})])
def test_without_a_sound_record_the_finished_runs_are_counted(tmp_path: Path, record: bytes | None) -> None:
    said: list[str] = []
    it = ledger(tmp_path, said)
    it.results = {
        "a": Result("completed", 3, HOUR, 10, {}, {}),
        "b": Result("diverged", 1, HOUR, 10, {}, {}),
    }
    if record is not None:
        it.store.write(FILE, record)
    assert used_before(it, study(gpus=0.5)) == 1
    assert len(said) == (record is not None)


def test_the_doctor_removes_a_damaged_record_because_no_result_needs_it(tmp_path: Path) -> None:
    it, begun = study(gpus=1), ledger(tmp_path)
    begun.load()
    begun.declare(it, extend=False)
    begun.store.write(FILE, b"{}")
    assert [(Path(found.file).name, found.repaired) for found in examine(it, begun)] == [(FILE, True)]
    assert FILE not in begun.store.names()


def test_a_plan_warns_where_it_takes_more_gpu_time_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweep.estimate import planned
    from sweep.estimate.pace import Pace

    def pace(*_: Any) -> Pace:
        return Pace(HOUR, "made up")

    monkeypatch.setattr(planned, "pace_of", pace)
    hours = Planned.of(study(gpus=1), ledger(tmp_path), 1, tmp_path).gpu_hours_left
    assert hours

    def warned(budget: float) -> list[str]:
        it = Planned.of(study(gpus=1, gpu_hours=budget), ledger(tmp_path), 1, tmp_path)
        return [warning for warning in it.warnings if "GPU-hours" in warning]

    assert not warned(hours + 1)
    assert f"resources.gpu_hours is {hours - 1:g}: it will stop before its end." in warned(hours - 1)[0]
