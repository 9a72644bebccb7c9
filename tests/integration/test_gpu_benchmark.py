"""The command that measures a GPU, on a machine without one.

It says that there is none, and its rehearsal goes through every part.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks import gpu, gpu_lab, gpu_packed
from benchmarks.gpu_children import hand_over
from benchmarks.gpu_command import Command, ResultsFile, begun, load, main, measure, run
from benchmarks.gpu_packed import NoMps, mps, rate
from benchmarks.gpu_setting import GPU, REHEARSAL, Bench, write_whole
from sweep.estimate.measured import Results, read
from tests.conftest import ROOT

COMMAND = [sys.executable, "-m", "benchmarks.gpu"]
CONTROL = """#!/bin/sh
# stands in for NVIDIA's: a daemon that notes when it began and when it was told to quit
if [ "$1" = -d ]; then
    test -e "$CUDA_MPS_PIPE_DIRECTORY" && test -e "$CUDA_MPS_LOG_DIRECTORY" && echo began >> "$0.log"
else
    read -r told && echo "$told" >> "$0.log"
fi
"""


def numbers(value: Any) -> Iterator[float]:
    """Yield every number in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, (int, float)):
        yield value


def gone(process: int, seconds: float = 120) -> bool:
    """Say whether a process ends within so many seconds; a zombie has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stat = Path(f"/proc/{process}/stat")
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """Restore Triton's environment, which the command changes: other tests of this process use Triton."""
    with mock.patch.dict(os.environ):
        yield


@pytest.mark.slow
def test_a_rehearsal_goes_through_every_part_and_is_no_measurement(tmp_path: Path) -> None:
    out = tmp_path / "gpu-rehearsal.json"
    done = subprocess.run(
        [*COMMAND, "--rehearse", "--out", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# REHEARSAL, not a measurement\n")
    found = json.loads(out.read_text())
    assert found["measured"] is False
    assert found["complete"] is True
    assert not found["errors"]
    assert all(found[part] for part in gpu.COMMAND.parts)
    assert all(math.isfinite(number) for number in numbers(found))
    assert [line["sites"] for line in found["sites"]["shapes"]] == [
        3,
        2,
        2,
    ]  # wrn-10-1 has 7: the first block's input is as wide as the stem
    assert all(line["exactly_keep_survive"] and not line["errors"] for line in found["sites"]["shapes"])
    rungs = ["plain fp32", "plain bf16", "plain bf16 compiled", "fused", "fused + graph"]
    assert [(line["rung"], line["epoch_seconds"] > 0) for line in found["ladder"]] == [
        (rung, True) for rung in rungs
    ]
    assert found["ratios"]["recorded_anew"] is False
    assert len(found["ratios"]["epochs"]) == 4
    apart, spread = (
        found["agreement"][key] for key in ("greatest_difference_by_epoch", "spread_over_seeds_by_epoch")
    )
    # Tiny sizes agree or not by luck; the flag must follow from the figures.
    assert found["agreement"]["agree"] == all(one <= other for one, other in zip(apart, spread, strict=True))
    assert sorted(found["agreement"]["reference"]) == ["1", "2", "3"]
    assert [(line["runs"], line["threads"], line["rows_equal"]) for line in found["packed"]] == [
        (1, True, True),
        (2, True, True),
        (1, False, True),
        (2, False, True),
    ]
    assert not any(line["mps"] for line in found["packed"])
    assert found["mps"]["complete"] is False
    assert len(found["required"]) == 8
    assert all(line["measured"] is not None and line["met"] is None for line in found["required"])
    assert read(tmp_path) == Results([], [])


@pytest.mark.slow
def test_a_rehearsal_of_the_lab_goes_through_every_part(tmp_path: Path) -> None:
    out = tmp_path / "gpu-lab.json"
    command = [sys.executable, "-m", "benchmarks.gpu_lab", "--rehearse", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# REHEARSAL, not a measurement\n")
    found = json.loads(out.read_text())
    assert (found["measured"], found["complete"], found["errors"]) == (False, True, {})
    assert all(found[part] for part in gpu_lab.COMMAND.parts)
    heads = [line.removeprefix("## ") for line in done.stdout.splitlines() if line.startswith("## ")]
    assert heads == [*gpu_lab.COMMAND.parts, "required"]
    for part in gpu_lab.COMMAND.parts:
        assert f"s] {part}" in done.stderr  # its progress
    assert "Techniques that do not pay" not in done.stdout
    assert "1 processes" not in done.stderr
    assert all(math.isfinite(number) for number in numbers(found))
    losses = [line["train_losses"] for line in found["techniques"].values()]
    assert losses == [losses[0]] * len(losses)  # on a CPU a technique changes no bit
    assert [line["runs"] for line in found["threads"]] == [1, 2, 3, 4]
    assert all(line["rows_equal"] for line in found["packed"])
    assert found["race"]["rows_equal"]
    assert not [line for line in found["own convolution"] if "error" in line]
    assert not [it for line in found["sites"]["shapes"] for it in line["variants"] if "error" in it]
    assert len({line["accuracy"] for line in found["evaluation"]}) == 1
    assert all(line["met"] is None for line in found["required"])
    assert read(tmp_path) == Results([], [])
    # had it been measured, a plan could read it
    out.write_text(json.dumps({**found, "measured": True}))
    (file,) = read(tmp_path).measured
    assert file.knows_threads
    assert file.ratios
    assert 0 < file.ratios.evaluation < 1


@pytest.mark.slow
def test_winners_by_itself_uses_every_technique_and_says_what_it_needs(tmp_path: Path) -> None:
    out = tmp_path / "gpu-lab.json"
    lab = [sys.executable, "-m", "benchmarks.gpu_lab", "--rehearse", "--out", str(out), "--part", "winners"]
    done = subprocess.run(lab, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["winners"]["off"] == []
    assert "needs the part `techniques`. All are in use here." in done.stdout


def test_parts_that_are_named_are_measured_in_their_own_order(tmp_path: Path) -> None:
    out = tmp_path / "gpu-lab.json"
    parts = ["--part", "evaluation", "--part", "baseline"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_lab", "--rehearse", "--out", str(out), *parts],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert list(json.loads(out.read_text())["seconds"]) == ["baseline", "evaluation", "all"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_device_nothing_is_measured_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(gpu.COMMAND, ["--out", str(tmp_path / "gpu.json")]) == 3
    said = capsys.readouterr()
    assert "--rehearse" in said.err
    assert (said.out, said.err.count("\n"), list(tmp_path.iterdir())) == ("", 1, [])


def test_the_figures_take_the_place_of_a_file_or_of_nothing(tmp_path: Path) -> None:
    """A device among folders of root's was replaced once."""
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(tmp_path / "file.json")
    for path in (fifo, tmp_path):
        with pytest.raises(OSError, match="is no file"):
            write_whole(path, {})
        assert main(gpu.COMMAND, ["--rehearse", "--out", str(path)]) == 2
    write_whole(link, {"one": 1})
    assert link.is_symlink()
    assert json.loads((tmp_path / "file.json").read_text()) == {"one": 1}
    assert fifo.is_fifo()


def test_a_place_that_cannot_be_written_is_told_in_one_line_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(gpu.COMMAND, torch.device("cpu"), ResultsFile(tmp_path / "file" / "gpu.json")) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{tmp_path}/file/gpu.json: cannot be written: ")


@pytest.mark.parametrize("there", ["", "notes", "[1]", '{"another": "object"}'])
def test_a_file_that_has_no_results_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    path = tmp_path / "notes.json"
    path.write_text(there)
    assert main(gpu.COMMAND, ["--rehearse", "--out", str(path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "is no file of results" in said
    assert path.read_text() == there


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(gpu.COMMAND, ["--rehearse", "--out", str(tmp_path / "typo" / "gpu.json")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(f"there is no folder {tmp_path}/typo")
    assert not list(tmp_path.iterdir())


def test_a_part_by_itself_is_not_measured_into_the_default_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(gpu_lab.COMMAND, ["--part", "fork"])
    assert "--part wants --out: the default file holds a whole measurement" in capsys.readouterr().err


@pytest.mark.parametrize("command", [gpu.COMMAND, gpu_lab.COMMAND], ids=lambda command: command.name)
def test_help_names_the_whole_default_path(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(command, ["--help"])
    assert str(command.out / f"{command.prefix}DEVICE.json") in capsys.readouterr().out


def stop(_: Bench) -> None:
    """Stand in for Ctrl-C in the midst of a part: the command's handler raises this."""
    raise SystemExit(130)


def fail(_: Bench) -> None:
    raise RuntimeError("no memory")


def rehearsed(results: ResultsFile, **parts: Any) -> int:
    return run(replace(gpu.COMMAND, parts=parts), torch.device("cpu"), results)


def test_only_a_whole_measurement_takes_the_place_of_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, partial = tmp_path / "gpu-h100.json", tmp_path / "gpu-h100.json.partial"
    path.write_text("the only measurement")
    results = ResultsFile(path, only_whole=True)
    with pytest.raises(SystemExit, match="130"):
        rehearsed(results, one=lambda _: None, two=stop)
    assert f"kept in {partial}; {path} is only written when" in capsys.readouterr().err
    assert list(json.loads(partial.read_text())["seconds"]) == ["one"]
    assert rehearsed(results, one=fail) == 1
    assert f"kept in {partial}; {path} is only written when" in capsys.readouterr().out
    assert path.read_text() == "the only measurement"
    assert rehearsed(results, one=lambda _: None) == 0
    assert capsys.readouterr().out.endswith(f"kept in {path}\n")
    assert json.loads(path.read_text())["complete"]
    assert not partial.exists()


def test_who_stops_a_command_is_told_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for results, told in (
        (ResultsFile(None), "nothing was kept: --out FILE would\n"),
        (ResultsFile(tmp_path / "gpu.json"), f"kept in {tmp_path}/gpu.json\n"),
    ):
        with pytest.raises(SystemExit, match="130"):
            rehearsed(results, one=stop)
        assert capsys.readouterr().err.endswith(told)


def test_a_disk_that_is_full_for_a_while_costs_no_part(tmp_path: Path) -> None:
    done: list[str] = []
    parts = {name: lambda _, name=name: done.append(name) for name in ("one", "two")}
    command = replace(gpu.COMMAND, parts=parts)

    def full() -> None:
        if len(done) < 2:
            raise OSError(28, "No space left on device")

    cpu = torch.device("cpu")
    found = begun(command, REHEARSAL, cpu)
    bench = Bench(REHEARSAL, cpu, tmp_path, load(REHEARSAL, cpu), found, full)
    measure(bench, command)
    assert done == ["one", "two"]
    assert bench.found["complete"]
    assert not bench.found["errors"]


def test_a_rehearsal_that_is_killed_leaves_whole_figures_or_none(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [*COMMAND, "--rehearse", "--out", str(out)]
    nowhere, environment = subprocess.DEVNULL, {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, stdout=nowhere, stderr=nowhere, env=environment) as process:
        while not out.exists() and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    found = json.loads(out.read_text())
    assert (found["measured"], found["complete"], found["packed"]) == (False, False, [])


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    write_whole(path, {"loss": math.nan, "by": {1: math.inf}})
    assert json.loads(path.read_text()) == {"loss": None, "by": {"1": None}}
    with pytest.raises(TypeError):
        write_whole(path, {"no": object()})
    assert json.loads(path.read_text())["loss"] is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_child_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """The child is in the midst of a run that would last longer than this test waits."""
    hand_over(load(REHEARSAL, torch.device("cpu")), tmp_path)
    code = f"""
import pathlib, sys
from benchmarks.gpu_children import Child
child = Child(pathlib.Path({str(tmp_path)!r}), rehearsal=True)
child.ask({{"do": "train", "techniques": {{}}, "epochs": 1}}, 60)
child.tell({{"do": "train", "techniques": {{}}, "epochs": 100}})
print(child.process.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    assert gone(child)


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for NVIDIA's command, first on the PATH."""
    path = tmp_path / gpu_packed.MPS
    path.write_text(CONTROL)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


def test_a_daemon_of_ours_is_told_to_quit(control: Path) -> None:
    with mps() as environment:
        assert set(environment) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
        assert Path(f"{control}.log").read_text() == "began\n"
    assert Path(f"{control}.log").read_text() == "began\nquit\n"
    assert not Path(environment["CUDA_MPS_PIPE_DIRECTORY"]).exists()


def test_a_daemon_of_ours_quits_though_we_are_killed(control: Path) -> None:
    code = (
        "import os; from benchmarks.gpu_packed import mps;"
        " daemon = mps(); daemon.__enter__(); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(control.parent)}
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False).returncode
        == -signal.SIGKILL
    )
    until, log = time.monotonic() + 120, Path(f"{control}.log")
    while log.read_text() != "began\nquit\n" and time.monotonic() < until:
        time.sleep(0.05)
    assert log.read_text() == "began\nquit\n"


def test_a_daemon_that_cannot_be_had_is_told_with_its_reason(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.write_text("#!/bin/sh\necho Insufficient privileges >&2\nexit 1\n")
    with pytest.raises(NoMps, match="did not start: Insufficient privileges"), mps():
        pass
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoMps, match="is not on the PATH"), mps():
        pass


def test_only_what_is_done_while_all_are_busy_counts_as_packed() -> None:
    """One run alone, two in step, and two of which the second is a second late and half as fast."""
    assert rate([[10.0, 12.0, 14.0]]) == pytest.approx(0.5)
    assert rate([[10.0, 12.0, 14.0], [10.0, 12.0, 14.0]]) == pytest.approx(1.0)
    # Both are busy from 1 to 3: the first does two epochs, the second one.
    assert rate([[0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 5.0]]) == pytest.approx(1.5)
    # The two never met: two epochs in four seconds.
    assert rate([[0.0, 1.0], [3.0, 4.0]]) == pytest.approx(0.5)


def test_the_plan_of_a_measurement_has_every_part_and_fits_its_time() -> None:
    assert list(GPU.plan) == list(gpu.COMMAND.parts)
    assert sum(GPU.plan.values()) < GPU.seconds < 480
    assert not REHEARSAL.plan
