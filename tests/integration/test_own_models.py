"""Models of one's own in both commands: killed and continued, in a sweep, refused, with changed sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.cluster import preflight
from sweep.cluster.worker import Worker
from sweep.ledger.ledger import Ledger
from sweep.study import load
from sweep.views.reading import Reading
from sweep.views.report.page import Report, page
from tests.conftest import ROOT, command, run_spec, run_values, train, unread
from tests.integration.exported import study, values_of, written
from tests.integration.test_notebook import run as run_notebook
from tests.loops import drive, job_of, work
from tests.own_models import EXAMPLES, SMALL, SMALL_STUDY, changed, importable
from tests.sweeps import sweep
from trainer.models import own
from trainer.rows import WALL
from trainer.store import open_store


def hash_of(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def write_run(folder: Path, **task: Any) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps(run_values({"name": "sawtooth", "period": 3, "decay": 0.5}, **task)))
    return path


def write_study(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values_of(SMALL_STUDY), sort_keys=False))
    return path


def rows_of(stdout: str) -> list[dict[str, Any]]:
    rows = map(json.loads, stdout.splitlines())
    return [{key: value for key, value in row.items() if key not in WALL} for row in rows]


def kill_after_rows(run: Path, store: Path, *more: str, rows: int = 3) -> None:
    process = unread(command(run, store, "--commit-share", "1", *more))
    assert process.stdout
    for _ in range(rows):
        assert process.stdout.readline(), process.stderr and process.stderr.read()
    process.kill()
    process.communicate()


def attempts(store: Path) -> list[str]:
    """Return what each attempt at the only run recorded of one's own code."""
    records = sorted(store.glob("*/attempt-*/attempt.json"))
    return [json.loads(record.read_text())["own_code"] for record in records]


@pytest.mark.parametrize("model", ["networks.residual:build", "networks.resnet:narrow"])
def test_an_example_that_is_killed_goes_on_to_the_rows_of_an_undisturbed_run(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    run = write_run(tmp_path, model=model, epochs=12, evaluate_every=4)
    allowed = ("--allow-code", "networks")
    kill_after_rows(run, tmp_path / "killed", *allowed)
    done = train(run, tmp_path / "killed", *allowed)
    assert "attempt 2 continues from epoch" in done.stderr
    undisturbed = train(run, tmp_path / "whole", *allowed)
    assert (done.returncode, undisturbed.returncode) == (0, 0)
    assert rows_of(done.stdout) == rows_of(undisturbed.stdout)
    assert len(rows_of(done.stdout)) == 12
    code = hash_of(*sorted((EXAMPLES / "networks").rglob("*.py")))
    assert attempts(tmp_path / "killed") == [f"networks {code}"] * 2


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module of the documents. Processes that a test starts find it by PYTHONPATH."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "small.py").write_text(SMALL)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_a_run_that_goes_on_with_other_sources_says_so(tmp_path: Path, code: Path) -> None:
    run, store, source = (
        write_run(tmp_path, model="small:build", epochs=30),
        tmp_path / "runs",
        code / "small.py",
    )
    kill_after_rows(run, store, "--allow-code", "small")
    before = hash_of(source)
    source.write_text(f"{SMALL}# the same network\n")
    done = train(run, store, "--allow-code", "small")
    assert done.returncode == 0, done.stderr
    change = f"own_code small {before} -> small {hash_of(source)}"
    assert f"attempt 1 ran on something else ({change})" in done.stderr
    assert attempts(store) == [f"small {before}", f"small {hash_of(source)}"]


def test_a_run_does_not_run_code_that_the_command_does_not_allow(tmp_path: Path, code: Path) -> None:
    trap = tmp_path / "trap"
    (code / "small.py").write_text(f"open({str(trap)!r}, 'w').close()\n{SMALL}")
    run = write_run(tmp_path, model="small:build")
    refused = train(run, tmp_path / "runs")
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"{run}: task.model  'small:build' is code")
    assert line.endswith(": --allow-code small")
    assert not trap.exists()
    assert not (tmp_path / "runs").exists()
    assert train(run, tmp_path / "runs", "--allow-code", "small").returncode == 0
    assert trap.exists()


def test_a_package_that_is_not_found_is_told_in_a_line(tmp_path: Path) -> None:
    refused = train(write_run(tmp_path), tmp_path / "runs", "--allow-code", "nowhere")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(
        "--allow-code nowhere: Python finds no such package. Install it, or name the folder"
    )


BROKEN = changed(
    ("    return Small(math.prod(image), classes, generator)", "    raise RuntimeError('no room')")
)


def test_an_error_of_the_users_code_comes_with_the_users_part_of_the_traceback(
    tmp_path: Path, code: Path
) -> None:
    (code / "small.py").write_text(BROKEN)
    run = write_run(tmp_path, model="small:build")
    failed = train(run, tmp_path / "runs", "--allow-code", "small")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.endswith(
        f"RuntimeError: no room\n{run}: task.model  'small:build' raised an error: RuntimeError: no room\n"
    )
    assert failed.stderr.count("Traceback") == 1
    assert str(code / "small.py") in failed.stderr
    assert str(ROOT / "trainer") not in failed.stderr


@pytest.fixture
def importable_code(code: Path) -> Iterator[Path]:
    """The same folder, also for this process."""
    with importable(code):
        yield code


def test_an_attempt_whose_model_fails_reports_the_line_and_logs_the_users_part_of_the_traceback(
    tmp_path: Path, importable_code: Path
) -> None:
    (importable_code / "small.py").write_text(BROKEN)
    spec = run_spec(model="small:build")
    refused = work(Worker(job_of(str(tmp_path), spec)))[-1]
    assert refused.reason.endswith("--allow-code small")
    assert refused.log == []
    failed = work(Worker(job_of(str(tmp_path), spec, allowed=["small"])))[-1]
    assert failed.reason == "'small:build' raised an error: RuntimeError: no room"
    assert failed.log[0] == "Traceback (most recent call last):"
    assert str(importable_code / "small.py") in failed.log[1]
    assert failed.log[-1] == "RuntimeError: no room"
    assert str(ROOT / "trainer") not in "".join(failed.log)


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_command_runs_code_that_it_does_not_allow(tmp_path: Path, importable_code: Path) -> None:
    trap, store = tmp_path / "trap", tmp_path / "store"
    (importable_code / "small.py").write_text(f"open({str(trap)!r}, 'w').close()\n{SMALL}")
    path = write_study(tmp_path)
    own.allow(["small"])
    drive(load(path), store, most=4)
    assert trap.exists()
    trap.unlink()
    before = files_in(store / "small" / "runs")
    env = {"PYTHONPATH": str(importable_code)}

    def said(*arguments: str | Path, code: int = 0, at: Path = store) -> str:
        done = sweep(*arguments, "--store", at, env=env)
        assert done.returncode == code, done.stderr
        assert not trap.exists(), arguments
        return done.stdout + done.stderr

    unknown = "no run to measure by, and 'small:build' is code"
    assert unknown in said("plan", path, at=tmp_path / "empty")
    assert unknown in said("run", path, "--dry-run", at=tmp_path / "empty")
    (line,) = said("run", path, code=2).splitlines()
    assert line.startswith(f"{path}:3  task.model: 'small:build' is code")
    assert line.endswith(": --allow-code small.")
    status = said("status", path)
    assert "4/12 runs done" in status
    assert "To go on: " in status
    assert status.splitlines()[-1].endswith(" --allow-code small")
    assert "Not complete yet" in said("report", path)
    assert "every file is whole" in said("doctor", path)
    said("export", path, "--to", tmp_path / "export")
    assert files_in(store / "small" / "runs") == before
    assert not (tmp_path / "empty").exists()
    planned = sweep("plan", path, "--store", tmp_path / "empty", "--allow-code", "small", "--json", env=env)
    assert json.loads(planned.stdout)["seconds_per_epoch"] > 0
    assert trap.exists()


def test_a_model_that_does_not_work_is_told_before_a_sweep_begins(tmp_path: Path, code: Path) -> None:
    (code / "small.py").write_text(BROKEN)
    path = write_study(tmp_path)
    for subcommand in ("plan", "run"):
        failed = sweep(
            *(subcommand, path, "--store", tmp_path / "store", "--allow-code", "small"),
            env={"PYTHONPATH": str(code)},
        )
        assert failed.returncode == 2
        assert failed.stderr.endswith("\n'small:build' raised an error: RuntimeError: no room\n")
        assert str(ROOT) not in failed.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runs"), [("residual", 32), ("resnet", 12)])
def test_a_shorter_study_of_each_example_ends_in_a_report(name: str, runs: int, tmp_path: Path) -> None:
    values = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    values["task"] |= {"epochs": 3, "train_size": 64, "evaluate_every": 3}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    env = {"PYTHONPATH": str(EXAMPLES)}
    done = sweep("run", path, "--store", tmp_path, "--allow-code", "networks", env=env)
    assert done.returncode == 0, done.stderr
    report = sweep("report", path, "--store", tmp_path, "--json")
    assert report.returncode == 0, report.stderr
    found = json.loads(report.stdout)
    assert found["runs"]["completed"] + found["runs"]["collapsed"] == runs
    code = hash_of(*sorted((EXAMPLES / "networks").rglob("*.py")))
    assert [(row["own_code"], row["runs"]) for row in found["versions"]] == [(f"networks {code}", runs)]
    assert found["mixed"] == []
    assert (tmp_path / f"{name}-report.html").exists()


def test_runs_with_different_sources_are_called_mixed_by_report_and_notebook(
    tmp_path: Path, importable_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.allow(["small"])
    # another package beside it is no mixture
    (importable_code / "other.py").write_text(SMALL)
    own.allow(["other"])
    values = {**SMALL_STUDY, "arms": {**SMALL_STUDY["arms"]}}
    values["arms"]["other"] = {"policy": {"name": "dense"}, "task": {"model": "other:build"}}
    values["arms"]["plain"] = {"policy": {"name": "dense"}, "task": {"model": "mlp-16"}}
    values["analysis"] = {"family": ["set"]}
    for name, later in (("alike", None), ("mixed", {"small": "b" * 16, "other": "a" * 16}.__getitem__)):
        monkeypatch.setattr(own, "hash_of", lambda _: "a" * 16)
        # a store each: in one, the second study would take the runs of the first one over
        store = tmp_path / "stores" / name
        assert drive(study(name, values), store, most=12).finished.total() == 12
        if later:
            monkeypatch.setattr(own, "hash_of", later)
        assert drive(study(name, values), store).complete
        report = Report.of(Reading(Ledger(str(store), name, print)))
        assert report.findings.mixed == (["own_code"] if later else [])
        assert ("ran on different things (own_code)" in page(report)) == bool(later)
        written(store, name, tmp_path / "exports" / name)
        assert "numbers of the report agree" in run_notebook(tmp_path / "exports" / name)
    of_packages = {row.get("own_code") for row in report.findings.versions}
    assert of_packages == {None, "small " + "a" * 16, "small " + "b" * 16, "other " + "a" * 16}


def test_the_preflight_names_a_node_that_lacks_the_package_or_has_another_one(
    tmp_path: Path, importable_code: Path
) -> None:
    store = open_store(tmp_path)
    store.write("note", b"")
    here = preflight.probe(str(tmp_path), [], "data", 0.0, "note", ["small"])
    assert here["packages"] == {"small": hash_of(importable_code / "small.py")}
    lacking = preflight.probe(str(tmp_path), [], "data", 0.0, "note", ["nowhere"])["packages"]["nowhere"]
    mine = f"and {here['packages']['small']} where the driver runs."
    for packages, problems in (
        (here["packages"], []),
        ({"small": lacking}, [f"the package small is missing, {mine}"]),
        ({"small": "0"}, [f"the package small is 0, {mine}"]),
    ):
        assert preflight.compare(here, {**here, "packages": packages}) == problems
