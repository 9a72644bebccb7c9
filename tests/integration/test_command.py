"""`python -m trainer` as its user meets it: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT, command, run_spec, train, unread, without_wall
from trainer.rows import EpochRow, from_parquet, from_plain, json_ready
from trainer.training import Training


def test_stdout_is_one_json_row_per_epoch_and_nothing_else(write_run: Any, tmp_path: Path) -> None:
    done = train(write_run(), tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(row) for row in rows] == [list(get_type_hints(EpochRow))] * 3
    table = pq.read_table(tmp_path / "runs" / run_spec().run_id / "epochs.parquet")
    assert table.num_rows == 3
    kept = from_parquet(EpochRow, (tmp_path / "runs" / run_spec().run_id / "epochs.parquet").read_bytes())
    assert [json_ready(row) for row in kept] == rows
    assert without_wall(kept) == without_wall(list(Training(run_spec())))
    assert "completed, 3 epochs" in done.stderr


def test_the_same_command_again_shows_the_finished_run_and_trains_nothing(
    write_run: Any, tmp_path: Path
) -> None:
    run = write_run()
    first = train(run, tmp_path / "runs")
    files = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = train(run, tmp_path / "runs")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "finished before" in again.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == files


def test_a_finished_run_keeps_its_tables_and_no_weights_unless_they_are_asked_for(
    write_run: Any, tmp_path: Path
) -> None:
    run = write_run()
    train(run, tmp_path / "a")
    train(run, tmp_path / "b", "--keep-weights")
    assert not list((tmp_path / "a").rglob("*.pt"))
    assert len(list((tmp_path / "b").rglob("checkpoint-3-*.pt"))) == 1
    for store in ("a", "b"):
        folder = tmp_path / store / run_spec().run_id
        assert {path.name for path in folder.iterdir()} == {
            "spec.json",
            "outcome.json",
            "epochs.parquet",
            "endpoints.parquet",
            "attempt-1",
        }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"task": {"data": "digits", "model": "wrn-10-1", "epoch": 1},'
            ' "policy": {"name": "dense"}, "seed": 1}',
            "Did you mean 'epochs'?",
        ),
        ("not json", "is not JSON"),
        ("", "is not JSON"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_spec_that_cannot_work_exits_2_with_its_path_and_no_traceback(
    tmp_path: Path, text: str | bytes | None, said: str
) -> None:
    run = tmp_path / "run.json"
    if text is not None:
        run.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = train(run, tmp_path / "runs")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert str(run) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_missing_data_exits_3_and_names_the_command_that_fetches_it(write_run: Any, tmp_path: Path) -> None:
    done = train(
        write_run(data="cifar10", train_size=None), tmp_path / "runs", "--data-dir", str(tmp_path / "data")
    )
    assert done.returncode == 3
    assert "python -m trainer.data cifar10 --data-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_asking_for_a_gpu_that_is_not_there_is_told(write_run: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = train(write_run(), tmp_path / "runs", "--device", "cuda", env=environment)
    assert done.returncode == 2
    assert "--device auto takes the CPU" in done.stderr


def test_a_run_that_diverges_is_done_and_its_null_loss_is_in_its_rows(
    write_run: Any, tmp_path: Path
) -> None:
    policy = {"name": "dense"}
    done = train(write_run(policy, learning_rate=1e20, epochs=5), tmp_path / "runs")
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[-1]["train_loss"] is None
    folder = tmp_path / "runs" / run_spec(policy, learning_rate=1e20, epochs=5).run_id
    assert json.loads((folder / "outcome.json").read_text())["outcome"] == "diverged"
    assert "diverged" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_last_whole_epoch_and_names_the_command_that_continues(
    write_run: Any, tmp_path: Path, number: signal.Signals
) -> None:
    run, store = write_run(epochs=40), tmp_path / "runs"
    process = unread(command(run, store))
    assert process.stdout
    shown = [process.stdout.readline() for _ in range(3)]
    process.send_signal(number)
    rest, said = process.communicate(timeout=240)
    assert process.returncode == 128 + number
    assert f"To continue: {sys.executable} -m trainer {run} --store {store}" in said
    epochs = len(shown) + len(rest.splitlines())
    assert f"stopped by {number.name}; {epochs} of 40 epochs are kept" in said
    continued = train(run, store)
    assert continued.returncode == 0
    assert f"continues from epoch {epochs} of 40" in continued.stderr
    rows = [from_plain(EpochRow, json.loads(line)) for line in continued.stdout.splitlines()]
    assert without_wall(rows) == without_wall(list(Training(run_spec(epochs=40))))


def test_on_a_terminal_a_bar_moves_and_rows_still_go_to_stdout_alone(write_run: Any, tmp_path: Path) -> None:
    parent, child = pty.openpty()
    with subprocess.Popen(
        command(write_run(), tmp_path / "runs"), cwd=ROOT, stdout=subprocess.PIPE, stderr=child, text=True
    ) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert process.stdout
        rows = process.stdout.read().splitlines()
    os.close(parent)
    assert process.returncode == 0
    assert len([json.loads(row) for row in rows]) == 3
    assert "epoch 3/3" in shown.decode()
    assert "━" in shown.decode()


def test_a_reader_that_goes_away_costs_no_epoch(write_run: Any, tmp_path: Path) -> None:
    run, store = write_run(epochs=40), tmp_path / "runs"
    process = unread(command(run, store, "--commit-share", "1e-9"))
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(240) == 128 + signal.SIGPIPE
    assert "Traceback" not in said
    assert "nobody reads the rows any more" in said
    assert len(list(store.rglob("checkpoint-*.pt"))) == 2, "the first epoch is kept, and so is the last"


def test_the_same_run_twice_on_two_threads_gives_the_same_rows(write_run: Any, tmp_path: Path) -> None:
    run = write_run(
        {"name": "fixed", "ratio": 0.2}, epochs=4, train_size=600, validation=0.2, batch_size=128
    )
    outputs = [train(run, tmp_path / store, "--threads", "2").stdout for store in ("a", "b")]
    first, second = (
        [from_plain(EpochRow, json.loads(line)) for line in output.splitlines()] for output in outputs
    )
    assert len(first) == 4
    assert without_wall(first) == without_wall(second)


def test_a_run_lives_in_a_bucket_as_it_does_in_a_folder(write_run: Any, tmp_path: Path, bucket: str) -> None:
    run = write_run()
    local, remote = train(run, tmp_path / "runs"), train(run, bucket)
    assert remote.returncode == 0, remote.stderr
    rows = [
        [from_plain(EpochRow, json.loads(line)) for line in done.stdout.splitlines()]
        for done in (local, remote)
    ]
    assert without_wall(rows[0]) == without_wall(rows[1])
    again = train(run, bucket)
    assert (again.returncode, again.stdout) == (0, remote.stdout)


@pytest.mark.parametrize(
    "more",
    [("--threads", "0"), ("--threads", "two"), ("--commit-share", "nan"), ("--commit-share", "0")],
)
def test_an_option_that_makes_no_sense_exits_2_and_says_why(
    write_run: Any, tmp_path: Path, more: tuple[str, str]
) -> None:
    done = train(write_run(), tmp_path / "runs", *more)
    assert done.returncode == 2
    assert f"argument {more[0]}: must be a" in done.stderr


def test_a_run_that_raises_exits_1_keeps_its_commits_and_its_traceback_in_the_log(
    write_run: Any, tmp_path: Path
) -> None:
    code = """
import sys
from trainer import __main__, training
real = training.Training._train
def train(self, epoch, *rest):
    if epoch == 3:
        raise RuntimeError("the machine burns")
    return real(self, epoch, *rest)
training.Training._train = train
sys.exit(__main__.main(sys.argv[1:]))
"""
    run, store = write_run(epochs=4), tmp_path / "runs"
    arguments = [*command(run, store, "--commit-share", "1")[3:]]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert "the machine burns" in done.stderr
    (log,) = store.rglob("log.txt")
    assert "RuntimeError: the machine burns" in log.read_text()
    assert train(run, store).returncode == 0


def test_off_a_terminal_a_long_epoch_gives_signs_of_life(write_run: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from trainer import __main__, display; display.LONG_SECONDS = 0.05;"
        " sys.exit(__main__.main(sys.argv[1:]))"
    )
    arguments = command(write_run(train_size=1200), tmp_path / "runs")[3:]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert re.search(r"^epoch [123]/3  batch \d+/38$", done.stderr, re.MULTILINE), done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_weights_that_were_not_kept_are_not_promised(write_run: Any, tmp_path: Path) -> None:
    run = write_run()
    train(run, tmp_path / "runs")
    assert "its weights were not kept" in train(run, tmp_path / "runs", "--keep-weights").stderr


def test_help_names_the_exit_codes(tmp_path: Path) -> None:
    done = train(Path("--help"), tmp_path)
    assert done.returncode == 0
    assert "130/143/141 stopped" in " ".join(done.stdout.split())
