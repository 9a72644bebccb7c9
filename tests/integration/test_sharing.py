"""Runs that another study of the store has finished: taken over as they are, and never trained again."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sweep.cli.planned_text import shown_plan
from sweep.cluster.worker import Worker
from sweep.estimate.planned import Planned
from sweep.ledger.doctor import examine
from sweep.ledger.fresh import with_fresh_seeds
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import grew_after_look
from sweep.ledger.shared import Shared
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.views.export import files
from sweep.views.reading import Reading
from sweep.views.report.page import Report, page
from sweep.views.report.words import markdown
from tests.loops import begin, drive, job_of, short_values, work
from tests.sweeps import rows, study_values, sweep, write_study
from trainer.run_folder import RunFolder
from trainer.spec import RunSpec
from trainer.store import LocalStore, seal, unseal

ARMS: dict[str, Any] = study_values()["arms"]
ONE_MORE: dict[str, Any] = {**ARMS, "saw": {"policy": {"name": "sawtooth", "step": 0.1, "period": 3}}}
FIXED: dict[str, Any] = {"additive": {"policy": {"name": "additive-reset", "step": 0.3}}}
"""An arm without a search."""
CHOSEN = [3407, 3408, 3409]


def study(name: str, **parts: Any) -> Study:
    return Study(name, Contents.read(short_values(**parts)))


def chosen(name: str, seeds: int = 6, **analysis: Any) -> Study:
    """A study of fixed arms, half of whose seeds are chosen by number."""
    values = short_values(arms=FIXED, confirm={"seeds": seeds, "include": CHOSEN}, analysis=analysis)
    return Study(name, Contents.read(values))


def ledger(store: Path | str, name: str, said: list[str] | None = None) -> Ledger:
    made = Ledger(str(store), name, print if said is None else said.append)
    made.load()
    return made


def fresh(store: Path | str, it: Study) -> Study:
    """The study with the seeds that the command would give it."""
    own = ledger(store, it.name)
    return with_fresh_seeds(own, it, own.declared())[0]


def content(store: Path, name: str) -> dict[str, bytes]:
    """The content of every finished run's outcome.json, which holds the time when it was written."""
    return {path.parent.name: path.read_bytes() for path in (store / name / "runs").glob("*/outcome.json")}


def whole(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but logs, which are no part of a run's results."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log.txt"
    }


def compared(store: Path, name: str) -> list[dict[str, Any]]:
    return [asdict(row) for row in Reading(ledger(store, name)).compare()]


def searches(store: Path, name: str) -> set[str]:
    """The runs that hold images out: those of the search."""
    specs = {path.parent.name: json.loads(path.read_text()) for path in (store / name).rglob("spec.json")}
    return {run_id for run_id, spec in specs.items() if spec["task"]["validation"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the finished study `first`, and the finished study `chosen`, which has no search."""
    store = tmp_path_factory.mktemp("trained")
    assert drive(study("first"), store).complete
    assert drive(chosen("chosen"), store).complete
    return store


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    """A store with a copy of `first` in it."""
    shutil.copytree(trained / "first", tmp_path / "store" / "first")
    return tmp_path / "store"


@pytest.fixture
def chosen_store(trained: Path, tmp_path: Path) -> Path:
    """A store with a copy of `chosen` in it."""
    shutil.copytree(trained / "chosen", tmp_path / "store" / "chosen")
    return tmp_path / "store"


def alone(store: Path, name: str, it: Study) -> Path:
    """The store of a study that is trained by itself, with the seeds that it has beside other studies."""
    assert drive(it, store.parent / "alone").complete
    assert not ledger(store.parent / "alone", name).taken()
    return store.parent / "alone"


def test_a_copy_under_another_name_has_every_run_as_it_is_and_is_no_look(store: Path) -> None:
    copy = fresh(store, study("copy"))
    said: list[str] = []
    assert drive(copy, store, said).complete
    assert said == ["18 runs taken over from first, which has trained them."]
    assert whole(store / "copy" / "runs") == whole(store / "first" / "runs")
    assert ledger(store, "copy").taken() == dict.fromkeys(content(store, "first"), "first")
    assert ledger(store, "copy").looks() == []
    by_itself = alone(store, "copy", copy)
    assert rows(store, "copy") == rows(by_itself, "copy")
    assert compared(store, "copy") == compared(by_itself, "copy")
    assert examine(copy, ledger(store, "copy"), 0.02) == []


@pytest.mark.parametrize("parts", [{"arms": ONE_MORE, "confirm": {"seeds": 7}}, {"confirm": {"seeds": 8}}])
def test_a_study_that_shares_its_search_trains_the_rest_and_ends_as_if_it_were_alone(
    store: Path, parts: dict[str, Any]
) -> None:
    """One more arm, and more or fewer seeds: the seeds of its confirmation are fresh."""
    second = fresh(store, study("second", **parts))
    assert drive(second, store).complete
    taken = ledger(store, "second").taken()
    assert set(taken) == searches(store, "first") == searches(store, "second")
    theirs, ours = content(store, "first"), content(store, "second")
    assert {run_id for run_id in ours if ours[run_id] == theirs.get(run_id)} == set(taken)
    assert ledger(store, "second").looks() == []
    by_itself = alone(store, "second", second)
    assert rows(store, "second") == rows(by_itself, "second")
    assert compared(store, "second") == compared(by_itself, "second")


def forget_first_generation(store: Path) -> set[str]:
    """Remove the search's runs of the first generation from `first`; return those of the second."""
    values = unseal((store / "first" / "generations" / "additive-1.json").read_bytes())["candidates"]
    rates = {candidate["task.learning_rate"] for candidate in values}
    for run_id in searches(store, "first"):
        spec = json.loads((store / "first" / "runs" / run_id / "spec.json").read_text())
        if spec["task"]["learning_rate"] not in rates:
            shutil.rmtree(store / "first" / "runs" / run_id)
    left = searches(store, "first")
    assert left
    return left


def test_runs_of_later_generations_are_found_when_their_candidates_are_known(store: Path) -> None:
    left = forget_first_generation(store)
    assert drive(fresh(store, study("second", confirm={"seeds": 7})), store).complete
    assert set(ledger(store, "second").taken()) == left
    assert len(searches(store, "second")) > len(left)


def test_results_that_were_there_before_a_study_was_declared_count_as_a_look(chosen_store: Path) -> None:
    second, said = fresh(chosen_store, chosen("second", alpha=0.04)), list[str]()
    drive(second, chosen_store, said, most=1)  # too few of its own pairs to judge
    own = ledger(chosen_store, "second")
    [look] = own.looks()
    line = "6 confirmation runs of additive, dense had finished in chosen before this study was declared"
    assert (look.pairs, look.arms, look.said) == (6, ["additive", "dense"], [f"{line}."])
    assert look.taken_from == "chosen"
    assert f"{line}: this counts as a look, and growth after it has a stricter test." in said
    assert set(own.taken().values()) == {"chosen"}
    assert {_seed(chosen_store, run_id) for run_id in own.taken()} == set(CHOSEN)
    assert grew_after_look(own, chosen("second", 8, alpha=0.04)) == "pairs"
    # the look that is made later stands beside it
    assert drive(second, chosen_store).complete
    reading = Reading(ledger(chosen_store, "second"))
    report = Report.of(reading)
    assert [look.taken_from for look in reading.looks] == ["chosen", ""]
    assert f"{line}. They could be seen when it was written" in markdown(report.findings)
    assert line in page(report)


def _seed(store: Path, run_id: str) -> int:
    [spec] = store.glob(f"second/runs/{run_id}/spec.json")
    return json.loads(spec.read_text())["seed"]


def test_without_such_results_growth_as_early_costs_nothing(tmp_path: Path) -> None:
    drive(chosen("second", alpha=0.04), tmp_path, most=1)
    assert grew_after_look(ledger(tmp_path, "second"), chosen("second", 8, alpha=0.04)) == ""


def test_results_that_came_after_the_declaration_are_no_look(tmp_path: Path) -> None:
    second = chosen("second", alpha=0.04)
    begin(second, ledger(tmp_path, "second"))
    drive(chosen("chosen"), tmp_path)
    assert drive(second, tmp_path).complete
    assert len(ledger(tmp_path, "second").taken()) == 12
    assert ledger(tmp_path, "second").looks() == []


def test_results_that_came_before_a_study_grew_to_what_it_is_count_as_a_look(tmp_path: Path) -> None:
    second, grown = chosen("second", alpha=0.04), chosen("second", 7, alpha=0.04)
    begin(second, ledger(tmp_path, "second"))
    drive(chosen("chosen", 7), tmp_path, most=12)
    [declared] = tmp_path.glob("second/study.json")
    body = unseal(declared.read_bytes())
    ledger(tmp_path, "second").declare(grown, extend=True)
    extended = unseal(declared.read_bytes())
    # an extension is dated to the second: a later one, so that the test need not wait
    extended["extensions"][0]["at"] = "2999-01-01T00:00:00+00:00"
    declared.write_bytes(seal(extended))
    drive(grown, tmp_path, most=1)
    assert [look.taken_from for look in ledger(tmp_path, "second").looks()] == ["chosen"]
    assert extended["declared_at"] == body["declared_at"]


def test_a_copy_of_a_study_that_had_such_a_look_has_it_too(chosen_store: Path) -> None:
    drive(fresh(chosen_store, chosen("second", alpha=0.04)), chosen_store)
    shutil.rmtree(chosen_store / "chosen")
    copy = fresh(chosen_store, chosen("copy", alpha=0.04))
    drive(copy, chosen_store, most=1)
    own = ledger(chosen_store, "copy")
    assert len(own.taken()) == 12
    assert [look.said for look in own.looks()] == [
        ["6 confirmation runs of additive, dense had finished in second before this study was declared."]
    ]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], list[Path]]] = {
    "outcome.json": lambda run: [run / "outcome.json"],
    "attempt.json": lambda run: [run / "attempt-1" / "attempt.json"],
    "both copies of a table": lambda run: [run / "epochs.parquet", *run.glob("attempt-1/epochs-*")],
    "the kept weights": lambda run: list(run.glob("attempt-1/checkpoint-*")),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_run_whose_files_are_damaged_is_named_and_trained_here(chosen_store: Path, what: str) -> None:
    run = sorted((chosen_store / "chosen" / "runs").iterdir())[0]
    damaged = DAMAGES[what](run)
    assert damaged
    for path in damaged:
        _flip(path)
    said: list[str] = []
    assert drive(fresh(chosen_store, chosen("copy")), chosen_store, said).complete
    own = ledger(chosen_store, "copy", said)
    assert own.taken() == dict.fromkeys(content(chosen_store, "chosen").keys() - {run.name}, "chosen")
    [line] = [line for line in said if "is not taken over from chosen, and trained here: " in line]
    assert any(str(path) in line for path in damaged)
    assert "\n" not in line
    attempts = own.runs.names(run.name)
    assert sum(name.endswith("/attempt.json") for name in attempts) == 1


def test_a_table_with_one_whole_copy_is_taken_over_and_so_is_a_run_that_a_third_study_has_whole(
    chosen_store: Path,
) -> None:
    drive(fresh(chosen_store, chosen("dup")), chosen_store)
    first, second = sorted((chosen_store / "chosen" / "runs").iterdir())[:2]
    _flip(first / "epochs.parquet")
    _flip(second / "outcome.json")
    assert drive(fresh(chosen_store, chosen("last")), chosen_store).complete
    taken = ledger(chosen_store, "last").taken()
    assert (len(taken), taken[first.name], taken[second.name]) == (12, "chosen", "dup")
    assert rows(chosen_store, "last") == rows(chosen_store, "dup")


def test_a_run_that_was_begun_here_goes_on_here(chosen_store: Path) -> None:
    copy = fresh(chosen_store, chosen("copy"))
    own = ledger(chosen_store, "copy")
    begin(copy, own)
    run_id = min(content(chosen_store, "chosen"))
    RunFolder(own.runs, _spec(chosen_store / "chosen", run_id), print).claim({})
    assert drive(copy, chosen_store).complete
    assert len(ledger(chosen_store, "copy").taken()) == 11
    assert content(chosen_store, "copy")[run_id] != content(chosen_store, "chosen")[run_id]
    assert rows(chosen_store, "copy") == rows(chosen_store, "chosen")


def _spec(study_folder: Path, run_id: str) -> RunSpec:
    return RunSpec.from_json((study_folder / "runs" / run_id / "spec.json").read_text())


def test_a_run_that_was_finished_here_meanwhile_keeps_its_own_outcome(
    chosen_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finishes the run here after its tables were copied and before its outcome is."""
    copy, own = fresh(chosen_store, chosen("copy")), ledger(chosen_store, "copy")
    plan = begin(copy, own)
    run_id = min(content(chosen_store, "chosen"))
    create = LocalStore.create

    def slow(store: LocalStore, name: str, data: bytes) -> bool:
        if name == f"{run_id}/outcome.json":
            assert own.store.read(f"taken/chosen/{run_id}.json")
            monkeypatch.setattr(LocalStore, "create", create)
            job = job_of(own.runs_url, _spec(chosen_store / "chosen", run_id))
            assert work(Worker(job))[-1].state == "ended"
        return create(store, name, data)

    monkeypatch.setattr(LocalStore, "create", slow)
    Shared(own, copy).advance(plan)
    assert run_id not in own.taken()
    assert len(own.taken()) == 11
    assert content(chosen_store, "copy")[run_id] != content(chosen_store, "chosen")[run_id]


WRITES = 9
"""The files that are written for a run with kept weights: the eight of its folder, and the record."""


class _Killed(BaseException):
    """The end of a process, in place of a signal."""


def _kill_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process end when it has written so many files."""
    left = [writes]

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if not left[0]:
                raise _Killed
            left[0] -= 1
            return method(*given)

        return call

    for name in ("write", "create"):
        monkeypatch.setattr(LocalStore, name, counted(getattr(LocalStore, name)))


@pytest.fixture(params=range(WRITES))
def killed(chosen_store: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A store in which one run was being copied to `copy` when the process ended, between two files."""
    copy, own = fresh(chosen_store, chosen("copy")), ledger(chosen_store, "copy")
    plan = begin(copy, own)
    first = min(plan.queue.ready, key=lambda run: run.priority).run_id
    for folder in (chosen_store / "chosen" / "runs").iterdir():
        if folder.name != first:
            shutil.rmtree(folder)
    _kill_after(request.param, monkeypatch)
    with pytest.raises(_Killed):
        Shared(own, copy).advance(plan)
    monkeypatch.undo()
    assert not content(chosen_store, "copy")
    return chosen_store


def test_a_copy_that_was_killed_between_two_files_is_made_whole_by_the_next_command(killed: Path) -> None:
    copy = fresh(killed, chosen("copy"))
    own = ledger(killed, "copy")
    Shared(own, copy).advance(begin(copy, own))
    assert whole(killed / "copy" / "runs") == whole(killed / "chosen" / "runs")
    assert len(whole(killed / "copy" / "runs")) + 1 == WRITES
    assert ledger(killed, "copy").taken() == dict.fromkeys(content(killed, "chosen"), "chosen")


def test_where_the_other_study_is_gone_after_the_kill_the_run_is_trained_here(
    killed: Path, trained: Path
) -> None:
    copy = fresh(killed, chosen("copy"))
    shutil.rmtree(killed / "chosen")
    drive(copy, killed, most=1)
    assert ledger(killed, "copy").taken() == {}
    [(run_id, table)] = rows(killed, "copy").items()
    assert table == rows(trained, "chosen")[run_id]


def test_views_show_a_run_that_was_taken_over_as_the_study_that_trained_it_does(
    store: Path, tmp_path: Path
) -> None:
    """One run had two attempts there."""
    _second_attempt(store / "first" / "runs", min(content(store, "first")))
    assert drive(fresh(store, study("copy")), store).complete
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in ("first", "copy"):
        reading = Reading(ledger(store, name))
        findings = Report.of(reading).findings
        files.export(reading, findings, tmp_path / name, lambda _table, _done: None)
        tables[name] = pq.read_table(tmp_path / name / "runs.parquet").to_pylist()
    assert [row | {"taken_from": "first"} for row in tables["first"]] == tables["copy"]
    assert max(row["attempts"] for row in tables["copy"]) == 2
    assert {row["taken_from"] for row in tables["first"]} == {None}
    assert "Trained by the study first, and taken over: 6 search runs and 12 confirmation runs." in markdown(
        findings
    )


def _second_attempt(runs: Path, run_id: str) -> None:
    """Make a run of which the second attempt was the one that ended."""
    spec = RunSpec.from_json((runs / run_id / "spec.json").read_text())
    shutil.rmtree(runs / run_id)
    RunFolder(LocalStore(runs), spec, print).claim({})
    assert work(Worker(job_of(str(runs), spec)))[-1].state == "ended"


@pytest.mark.filterwarnings("ignore")
def test_a_plan_counts_what_is_there_and_changes_nothing(store: Path) -> None:
    before = whole(store)
    second = study("second", arms=ONE_MORE, confirm={"seeds": 7})
    for it, there, left in ((study("copy"), 18, 0), (second, 6, 21)):
        planned = Planned.of(fresh(store, it), ledger(store, it.name), 2, Path("data"))
        assert (planned.runs_done, planned.runs_shared, planned.runs_left) == (0, {"first": there}, left)
        assert not any("counts as a look" in warning for warning in planned.warnings)
        out = io.StringIO()
        Console(file=out, width=200).print(shown_plan(it, planned))
        assert f"\n{there + left} runs, " in out.getvalue().replace("\n ", "\n")
        assert f"There already, and taken over without training: {there} in first." in out.getvalue()
    assert whole(store) == before


@pytest.mark.filterwarnings("ignore")
def test_a_plan_says_what_would_count_as_a_look(chosen_store: Path) -> None:
    it = chosen("second", alpha=0.04)
    planned = Planned.of(it, ledger(chosen_store, "second"), 2, Path("data"))
    line = "6 confirmation runs of additive, dense had finished in chosen before this study was declared"
    assert f"{line}: taking them over counts as a look." in planned.warnings
    assert not (chosen_store / "second").exists()


def test_a_damaged_record_of_where_a_run_came_from_is_named_and_removed(chosen_store: Path) -> None:
    copy = fresh(chosen_store, chosen("copy"))
    drive(copy, chosen_store)
    record = sorted((chosen_store / "copy" / "taken" / "chosen").iterdir())[0]
    _flip(record)
    [finding] = examine(copy, ledger(chosen_store, "copy"), 0.02)
    assert (finding.file, finding.repaired) == (str(record), True)
    assert len(ledger(chosen_store, "copy").taken()) == 11


def test_a_bucket_shares_runs_as_a_folder_does(bucket: str) -> None:
    first = study("first", arms=FIXED)
    drive(first, bucket, most=4)
    copy, said = fresh(bucket, study("copy", arms=FIXED)), list[str]()
    drive(copy, bucket, said, most=1)
    own, theirs = ledger(bucket, "copy"), ledger(bucket, "first")
    assert own.taken() == dict.fromkeys(theirs.results, "first")
    assert len(own.results) == 5
    for run_id in theirs.results:
        name = f"{run_id}/outcome.json"
        assert own.runs.read(name) == theirs.runs.read(name)
        assert own.results[run_id] == theirs.results[run_id]


@pytest.mark.slow
def test_the_command_takes_over_what_is_there_and_trains_the_rest(tmp_path: Path) -> None:
    """A copy needs no cluster. Of a study with another confirmation, the second generation is there."""
    first, copy = write_study(tmp_path, "first"), write_study(tmp_path, "copy")
    assert sweep("run", first, "--store", tmp_path).returncode == 0
    done = sweep("run", copy, "--store", tmp_path)
    assert done.returncode == 0
    assert "first declares the same" in done.stderr
    assert "18 runs taken over from first, which has trained them." in done.stderr
    assert content(tmp_path, "copy") == content(tmp_path, "first")
    assert "18 runs taken over from first" in sweep("status", copy, "--store", tmp_path).stdout
    shutil.rmtree(tmp_path / "copy")
    second = write_study(tmp_path, "second", confirm={"seeds": 7})
    plan = json.loads(sweep("plan", second, "--store", tmp_path, "--json").stdout)
    assert (plan["runs_shared"], plan["runs_left"]) == ({"first": 6}, 14)
    left = forget_first_generation(tmp_path)
    done = sweep("run", second, "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    status = json.loads(sweep("status", second, "--store", tmp_path, "--json").stdout)
    assert (status["complete"], status["done"], status["taken"]) == (True, 20, {"first": len(left)})
    assert {run_id: content(tmp_path, "first")[run_id] for run_id in left}.items() <= content(
        tmp_path, "second"
    ).items()
