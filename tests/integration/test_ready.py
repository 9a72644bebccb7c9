"""A study without Ray: `sweep ready` prints runs, `python -m trainer --from-stdin` trains them."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.planning.plan import Plan
from tests.conftest import ROOT, run_spec, run_values, train
from tests.crews import LONG, commits, lines_of, train_lines, until
from tests.integration import test_claims
from tests.integration.test_claims import ELSEWHERE, claimed_by
from tests.loops import begin, drive, job_of, short_values, study_of, work
from tests.sweeps import (
    Started,
    folders,
    generations,
    rows,
    sweep,
    write_study,
)
from trainer import crew
from trainer.claims import Claim, Watch
from trainer.crew import Crew
from trainer.orders import Order
from trainer.store import open_store
from trainer.worker import Worker

SMALL: dict[str, Any] = {"model": "mlp-16", "epochs": 2, "evaluate_every": 2}


def short_study(folder: Path) -> Path:
    """Write the study of `tests.loops` as a file."""
    return write_study(folder, task=short_values()["task"])


def finish(study: Path, store: Path, most: int | None = None) -> int:
    """Train what is ready until nothing is, or until so many runs are done; return how many were."""
    done = 0
    while done != most:
        ready = sweep("ready", study, "--store", store)
        assert ready.returncode == 0, ready.stderr
        lines = ready.stdout.splitlines(keepends=True)[: most and most - done]
        if not lines:
            assert "complete: " in ready.stderr
            break
        trained = train_lines("".join(lines), store / study.stem / "runs")
        assert trained.returncode == 0, trained.stderr
        results = [json.loads(line) for line in trained.stdout.splitlines()]
        assert {it["run_id"] for it in results} == {Order.from_json(line).spec.run_id for line in lines}
        assert {(it["outcome"], it["epochs"]) for it in results} == {("completed", 3)}
        done += len(lines)
    return done


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the same study, played in one process."""
    store = tmp_path_factory.mktemp("undisturbed")
    assert drive(study_of(), store).complete
    return store


def finalists(store: Path) -> list[Any]:
    plan = Ledger(str(store), "small", print).state().plan
    assert plan.complete
    return [plan.finalists(arm) for arm in plan.study.arms]


def assert_equal(store: Path, other: Path) -> None:
    assert rows(store) == rows(other)
    assert generations(store) == generations(other)
    assert finalists(store) == finalists(other)
    assert {len(list(folder.glob("attempt-*"))) for folder in folders(store)} == {1}
    assert not list(store.rglob("claim.json"))
    kept, wanted = ({path.parts[-3] for path in root.rglob("checkpoint-*.pt")} for root in (store, other))
    assert kept == wanted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_is_finished_without_ray_as_a_sweep_finishes_it(tmp_path: Path, undisturbed: Path) -> None:
    assert finish(short_study(tmp_path), tmp_path) == len(folders(undisturbed))
    assert_equal(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_half_by_lines_and_half_by_ray_give_one_table(tmp_path: Path, undisturbed: Path) -> None:
    study = short_study(tmp_path)
    assert finish(study, tmp_path, most=9) == 9
    done = sweep("run", study, "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "9 of 18 runs done" in done.stderr
    assert_equal(tmp_path, undisturbed)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_sweep_leaves_a_run_that_others_train_for_later_says_so_once_and_counts_no_try(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, task=short_values()["task"], resources={"attempts": 1})
    ledger = Ledger(str(tmp_path), "small", print)
    plan = begin(study_of(), ledger)
    run = plan.queue.next(0.0)
    assert run
    monkeypatch.setattr(test_claims, "SPEC", run.spec)
    claimed_by(ledger.runs)
    with Started(tmp_path, "run", study, "--store", tmp_path) as started:
        beats = itertools.count()

        def put_off() -> int:
            test_claims.sign(ledger.runs, "held", next(beats))
            return len(list(tmp_path.glob("small/runs/*/outcome.json"))) >= 6 and next(beats) > 1000

        started.until(put_off)
        test_claims.sign(ledger.runs, "released", 0)
        assert started.wait() == 0, started.log.read_text()
    log = started.log.read_text()
    assert log.count("goes on with other runs") == 1
    assert f"run {run.run_id} is being trained by process 7 on elsewhere" in log
    assert "tried again" not in log
    assert len(list((tmp_path / "small" / "runs" / run.run_id).glob("attempt-*"))) == 2
    assert rows(tmp_path) == rows(undisturbed)


def test_ready_loads_no_engine_of_a_sweep(tmp_path: Path) -> None:
    code = """
import sys
from sweep.cli.app import app
try:
    app()(sys.argv[1:])
finally:
    print(*sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
"""
    arguments = ["ready", str(short_study(tmp_path)), "--store", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "sweep" in loaded
    assert not loaded & {"ray", "torch", "mlflow"}
    specs = [Order.from_json(line) for line in done.stdout.splitlines()]
    assert [order.keep_weights for order in specs] == [False] * 2 + [True] * 6


def ready_orders(store: Path) -> tuple[list[Order], str]:
    done = sweep("ready", store / "small.yaml", "--store", store)
    assert done.returncode == 0, done.stderr
    return [Order.from_json(line) for line in done.stdout.splitlines()], done.stderr


def test_beside_a_driver_ready_proposes_nothing_and_leaves_out_what_is_claimed_or_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_study(tmp_path)
    first, second, third, *others = ready_orders(tmp_path)[0]
    ledger, lease = Ledger(str(tmp_path), "small", print), Lease(open_store(tmp_path / "small"), print)
    assert work(Worker(job_of(ledger.runs_url, third.spec)))[-1].state == "ended"
    monkeypatch.setattr(test_claims, "SPEC", others[0].spec)
    test_claims.folder(ledger.runs).claim({})  # by this process, which lives
    for path in (tmp_path / "small" / "generations").glob("*"):
        path.unlink()
    lease.acquire()
    try:
        left, said = ready_orders(tmp_path)
    finally:
        lease.release()
    assert "is driven by process" in said
    assert "4 runs ready, 1 being trained now, 1 of 18 runs done." in said
    assert not list((tmp_path / "small" / "generations").glob("*"))
    assert first not in left  # a candidate of a generation that is not there
    assert second not in left
    assert left == others[1:]


def test_ready_waits_while_others_train_all_that_could_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, orders = short_study(tmp_path), ready_orders(tmp_path)[0]
    ledger = Ledger(str(tmp_path), "small", print)
    for order in orders:
        monkeypatch.setattr(test_claims, "SPEC", order.spec)
        test_claims.folder(ledger.runs).claim({})  # by this process, which lives
    assert ready_orders(tmp_path)[0] == []
    with Started(tmp_path, "ready", study, "--store", tmp_path, "--wait") as waiting:
        waiting.until(lambda: "Waiting for more." in waiting.log.read_text())
        test_claims.sign(ledger.runs, "released", 0)
        assert waiting.wait() == 0
        said = waiting.log.read_text().splitlines()
    assert [line for line in said if line.startswith("{")] == [orders[-1].to_json()]
    assert "1 run ready, 7 being trained now, 0 of 18 runs done." in said


def test_a_list_that_is_given_to_several_commands_is_trained_once(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    specs = [run_spec(seed=seed, **SMALL) for seed in range(12)]
    processes = [started(lines_of(*specs), tmp_path) for _ in range(5)]
    for process in processes:
        _, said = process.communicate(timeout=280)
        assert process.returncode == 0, said
    assert {len(list((tmp_path / spec.run_id).glob("attempt-*"))) for spec in specs} == {1}
    assert all((tmp_path / spec.run_id / "outcome.json").exists() for spec in specs)


def test_a_line_that_is_no_run_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    done = train_lines(f"{lines_of(run_spec(**SMALL))}\nnonsense\n", tmp_path / "runs")
    assert (done.returncode, done.stdout) == (2, "")
    assert "stdin: line 3: is not JSON" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_finished_runs_are_said_to_be_and_an_empty_list_is_done(tmp_path: Path) -> None:
    spec = run_spec(**SMALL)
    work(Worker(job_of(str(tmp_path), spec)))
    done = train_lines(lines_of(spec, spec), tmp_path)
    assert done.returncode == 0
    assert f"run {spec.run_id}: finished before" in done.stderr
    assert "1/1 runs done." in done.stderr
    assert not (tmp_path / spec.run_id / "attempt-2").exists()
    assert train_lines("\n", tmp_path).returncode == 0


def test_a_process_that_dies_costs_its_run_only(tmp_path: Path) -> None:
    # only the processes of the command know this policy
    faulty = [
        json.dumps(run_values({"name": "faulty", "how": how}, **SMALL)) for how in ("killed", "raises")
    ]
    fine = [run_spec(seed=seed, **SMALL) for seed in range(4)]
    done = train_lines("\n".join([*faulty, lines_of(*fine)]), tmp_path)
    assert done.returncode == 1, done.stderr
    assert {json.loads(line)["run_id"] for line in done.stdout.splitlines()} == {it.run_id for it in fine}
    assert re.search(r"^run \w{16}: its process ended \(SIGKILL\)", done.stderr, re.MULTILINE)
    assert re.search(r"^run \w{16}: RuntimeError: no such luck", done.stderr, re.MULTILINE)
    assert "4/6 runs done, 2 failed." in done.stderr


def test_a_run_in_the_hands_of_a_living_process_is_left_to_it(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    spec, other = run_spec(**LONG), run_spec(**SMALL)
    started(lines_of(spec), tmp_path)
    until(lambda: commits(tmp_path))
    (tmp_path / "run.json").write_text(spec.to_json())
    alone = train(tmp_path / "run.json", tmp_path)
    assert alone.returncode == 3
    assert f"run {spec.run_id} is being trained by process" in alone.stderr.splitlines()[-1]
    many = train_lines(lines_of(spec, other), tmp_path)
    assert many.returncode == 0, many.stderr
    assert [json.loads(line)["run_id"] for line in many.stdout.splitlines()] == [other.run_id]
    assert "It is left to that process." in many.stderr
    assert "1/2 runs done, 1 left to others." in many.stderr


@pytest.mark.parametrize("lives", [True, False])
def test_a_list_waits_for_other_machines_and_goes_on_with_what_is_free_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    store, said, now = open_store(tmp_path), list[str](), [0.0]
    spec, other = run_spec(**SMALL), run_spec(seed=8, **SMALL)
    monkeypatch.setattr(test_claims, "SPEC", spec)
    monkeypatch.setattr(crew, "LOOK_SECONDS", 0.0)
    claimed_by(store)

    def show(*_: Any) -> None:
        if (tmp_path / other.run_id / "outcome.json").exists():
            now[0] += 20.0
            if lives:
                test_claims.sign(store, "held", int(now[0]))

    jobs = [job_of(str(tmp_path), it) for it in (spec, other)]
    assert Crew(jobs, store, 1, said.append, show, Watch(lambda: now[0])).work() == 0
    assert (tmp_path / spec.run_id / "outcome.json").exists() is not lives
    assert now[0] >= (20 if lives else 60)
    assert ("It is left to that process." in said[-1]) is lives


def test_what_a_disconnected_copy_trained_is_taken_up_and_the_first_outcome_wins(
    tmp_path: Path, undisturbed: Path
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    study = study_of()
    drive(study, home, most=2)
    subprocess.run(["cp", "-r", home, away], check=True)
    plan = begin(study, Ledger(str(away), "small", print))
    both, only_away, stopped = (run for run in (plan.queue.next(0.0) for _ in range(3)) if run)
    for store, run in ((home, both), (away, both), (away, only_away)):
        ended = work(Worker(job_of(str(store / "small" / "runs"), run.spec, keep_weights=True)))[-1]
        assert ended.state == "ended"
    worker = Worker(job_of(str(away / "small" / "runs"), stopped.spec, keep_weights=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.worker.STEP_SECONDS", 0.0)
        while getattr(worker.step(), "epochs", 0) < 2:
            pass
    worker.stop()
    first = (home / "small" / "runs" / both.run_id / "outcome.json").read_bytes()
    subprocess.run(["cp", "-rn", f"{away}/small/runs/.", home / "small" / "runs"], check=False)
    assert (home / "small" / "runs" / both.run_id / "outcome.json").read_bytes() == first
    state: Plan = Ledger(str(home), "small", print).state().plan
    assert {both.run_id, only_away.run_id} <= state.results.keys()
    said: list[str] = []
    assert drive(study, home, said).complete
    assert any("attempt 2 continues from epoch 2 of 3, kept by attempt 1" in line for line in said)
    assert rows(home) == rows(undisturbed)
    assert generations(home) == generations(undisturbed)


def test_status_counts_what_is_trained_outside_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of()
    ledger = Ledger(str(tmp_path), study.name, print)
    plan = begin(study, ledger)
    for lease in (0, 5):
        run = plan.queue.next(0.0)
        assert run
        monkeypatch.setattr(test_claims, "SPEC", run.spec)
        claimed_by(ledger.runs, lease=lease)
    short_study(tmp_path)
    shown = sweep("status", tmp_path / "small.yaml", "--store", tmp_path)
    assert "1 run being trained outside of a sweep" in shown.stdout
    values = json.loads(sweep("status", tmp_path / "small.yaml", "--store", tmp_path, "--json").stdout)
    assert values["outside"] == 1


def test_a_worker_reports_that_somebody_else_has_its_run_and_takes_it_when_it_was_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = run_spec(**SMALL)
    monkeypatch.setattr(test_claims, "SPEC", spec)
    claim: Claim = claimed_by(open_store(tmp_path))
    job = job_of(str(tmp_path), spec, data_dir=str(tmp_path / "none"))
    report = work_to_the_end(Worker(job))
    assert report.state == "busy"
    assert (report.claim, report.stamp) == (str(claim), claim.stamp)
    assert f"process {ELSEWHERE['pid']} on elsewhere" in report.claim
    assert not (tmp_path / spec.run_id / "attempt-2").exists()
    assert work_to_the_end(Worker(replace(job, silent=claim.stamp))).state == "ended"


def work_to_the_end(worker: Worker) -> Any:
    report: Any = worker.step()
    while report.state in ("began", "training"):
        report = worker.step()
    return report
