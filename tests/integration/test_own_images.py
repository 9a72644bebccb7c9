"""Images of one's own through the trainer's command, a worker and a plan; and the folder that keeps them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.cluster.preflight import probe
from sweep.cluster.worker import Worker
from tests.conftest import ROOT, command, run_values, train, unread
from tests.pictures import (
    TEST,
    TRAIN,
    classes,
    declaration,
    decoded,
    drawn,
    encoded,
    write_folders,
    write_parquet,
    write_pngs,
)
from tests.sweeps import environment, sweep_command, write_study
from trainer import images
from trainer.decoded import folder_of
from trainer.images import Images
from trainer.rows import WALL
from trainer.settings import read
from trainer.spec import RunSpec
from trainer.worker import Job

SMALL: dict[str, Any] = {"train_size": None, "batch_size": 8, "epochs": 3}


@pytest.fixture
def declared(tmp_path: Path) -> dict[str, Any]:
    write_pngs(tmp_path / "set")
    return declaration(tmp_path, "set")


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that were decoded, which grows while a test runs."""
    seen: list[str] = []
    real = images.pixels_of

    def counted(where: str, *more: Any) -> np.ndarray:
        seen.append(where)
        return real(where, *more)

    monkeypatch.setattr(images, "pixels_of", counted)
    return seen


def write_run(folder: Path, data: dict[str, Any], **task: Any) -> tuple[Path, RunSpec]:
    values = run_values({"name": "additive-reset", "step": 0.3}, data=data, **{**SMALL, **task})
    (folder / "run.json").write_text(json.dumps(values))
    return folder / "run.json", RunSpec.read(values)


def rows_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The rows that a run printed, without the times and without its id."""
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    passed = {*WALL, "run_id"}
    return [{name: value for name, value in row.items() if name not in passed} for row in rows]


# runs


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 9)])
def test_a_run_on_folders_has_the_rows_of_the_same_run_on_arrays(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    pixels = write_pngs(tmp_path / "set", shape)
    labels: dict[str, Any] = {"y_train": classes(TRAIN), "y_test": classes(TEST)}
    np.savez(tmp_path / "set.npz", x_train=pixels[0], x_test=pixels[1], **labels)
    rows = {}
    for path in ("set", "set.npz"):
        run, _ = write_run(tmp_path, declaration(tmp_path, path), validation=0.25, resample=0.25)
        rows[path] = rows_of(train(run, tmp_path / "runs", "--data-dir", str(tmp_path)))
    assert len(rows["set"]) == 3
    assert rows["set"] == rows["set.npz"]


def test_a_killed_run_continues_from_decoded_images_alone(tmp_path: Path, declared: dict[str, Any]) -> None:
    run, spec = write_run(tmp_path, declared, epochs=12)
    more = ("--data-dir", str(tmp_path), "--commit-share", "1")
    undisturbed = rows_of(train(run, tmp_path / "other", *more))
    process = unread(command(run, tmp_path / "runs", *more))
    assert process.stdout
    for _ in range(3):
        assert process.stdout.readline()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "runs" / spec.run_id / "outcome.json").exists()
    shutil.rmtree(tmp_path / "set")
    assert rows_of(train(run, tmp_path / "runs", *more)) == undisturbed


def other_checksum(_: Path, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "checksum": "0" * 16}


def other_pixels(_: Path, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "pixels": "0" * 16}


def gone(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(folder / "set")
    return given


def altered(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    (folder / "set" / "train" / "cat" / "008.png").write_bytes(b"no image")
    return given


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_checksum, "and 0000000000000000 is declared. These are other files than the study's."),
        (other_pixels, "and 0000000000000000 is declared. Another decoder was used (Pillow "),
        (gone, "set: not in "),
        (altered, "is declared. These are other files than the study's."),
    ],
)
def test_a_run_that_is_declared_on_other_images_ends_in_one_line(
    tmp_path: Path,
    declared: dict[str, Any],
    change: Callable[[Path, dict[str, Any]], dict[str, Any]],
    said: str,
) -> None:
    run, _ = write_run(tmp_path, change(tmp_path, declared))
    done = train(run, tmp_path / "runs", "--data-dir", str(tmp_path))
    assert done.returncode == 3
    begun, *lines = done.stderr.splitlines()
    assert begun.startswith("run ")
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_decoder_that_gives_other_pixels_is_noticed(tmp_path: Path, form: str) -> None:
    """The files and their checksum are the same; the hash of the pixels is another decoder's."""
    pictures = [encoded(one, form) for one in drawn(TRAIN)]
    write_parquet(tmp_path / "t.parquet", pictures, classes(TRAIN).tolist())
    given = declaration(tmp_path, "t.parquet", "--image", "image")
    theirs = np.stack([decoded(one) for one in pictures])
    theirs[0, 0, 0, 0] ^= 1
    np.savez(tmp_path / "theirs.npz", x_train=theirs, y_train=classes(TRAIN))
    given["pixels"] = declaration(tmp_path, "theirs.npz")["pixels"]
    with pytest.raises(images.DataError, match=r"^.*t\.parquet: pixels is .* Another decoder was used"):
        images.load(read(Images, given), tmp_path, None, print)


# the folder of decoded images


def test_images_are_decoded_once_for_a_store(
    tmp_path: Path, declared: dict[str, Any], decodings: list[str]
) -> None:
    given, cache = read(Images, declared), tmp_path / "store" / "decoded"
    first = images.load(given, tmp_path, cache, print)
    assert len(decodings) == TRAIN + TEST
    assert [path.name for path in cache.iterdir()] == [f"{declared['checksum']}-{declared['pixels']}"]
    again = images.load(given, tmp_path, cache, print)
    assert len(decodings) == TRAIN + TEST
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)


def cut(content: bytes) -> bytes:
    return content[:100]


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def emptied(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, flipped, emptied])
def test_damaged_images_are_decoded_anew_and_said(
    tmp_path: Path, declared: dict[str, Any], decodings: list[str], damage: Callable[[bytes], bytes]
) -> None:
    given, cache, said = read(Images, declared), tmp_path / "decoded", list[str]()
    whole = images.load(given, tmp_path, cache, said.append)
    (file,) = cache.iterdir()
    before = file.read_bytes()
    assert said == []
    file.write_bytes(damage(before))
    again = images.load(given, tmp_path, cache, said.append)
    assert said == [f"{file}: is damaged. The images are decoded anew."]
    assert len(decodings) == 2 * (TRAIN + TEST)
    assert np.array_equal(again.images, whole.images)
    assert file.read_bytes() == before


def test_a_kept_block_passes_for_no_other_declaration(tmp_path: Path, declared: dict[str, Any]) -> None:
    cache = tmp_path / "decoded"
    images.load(read(Images, declared), tmp_path, cache, print)
    for change in (
        {"train": 23, "tested": 10},
        {"classes": 4},
        {"shape": [3, 4, 16]},
        {"checksum": "0" * 16},
    ):
        with pytest.raises(images.DataError, match=r" is declared| were expected"):
            images.load(read(Images, {**declared, **change}), tmp_path, cache, print)


def test_what_a_killed_writer_left_is_never_read(tmp_path: Path, declared: dict[str, Any]) -> None:
    """A writer leaves its part under another name: the name of the block appears with all of it."""
    given, cache = read(Images, declared), tmp_path / "decoded"
    cache.mkdir()
    (cache / f".{given.name}.0123.partial").write_bytes(b"half of it")
    assert images.load(given, tmp_path, cache, print).pixels == given.pixels
    assert (cache / given.name).stat().st_size == 64 + 33 * (8 + 3 * 8 * 8)


def test_a_folder_that_cannot_be_written_to_is_said_once_and_the_images_are_there(
    tmp_path: Path, declared: dict[str, Any]
) -> None:
    said: list[str] = []
    nowhere = Path("/proc/none/decoded")
    loaded = images.load(read(Images, declared), tmp_path, nowhere, said.append)
    assert loaded.pixels == declared["pixels"]
    assert len(said) == 1
    assert said[0].startswith(f"cannot write {nowhere}")


def test_several_that_decode_at_once_do_no_harm(tmp_path: Path, declared: dict[str, Any]) -> None:
    given, cache = read(Images, declared), tmp_path / "decoded"
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: images.load(given, tmp_path, cache, print).pixels, range(16)))
    assert set(loaded) == {declared["pixels"]}
    assert [path.name for path in cache.iterdir()] == [given.name]


def test_the_folder_is_that_of_the_store_also_from_a_studys_runs(tmp_path: Path) -> None:
    study = tmp_path / "store" / "mine"
    (study / "runs").mkdir(parents=True)
    assert folder_of(str(study / "runs")) == study / "runs" / "decoded"
    (study / "study.json").write_text("{}")
    for place in (study / "runs", study, tmp_path / "store"):
        assert folder_of(str(place)) == tmp_path / "store" / "decoded"
    assert folder_of("memory:///runs") is None


def test_a_worker_and_the_preflight_share_the_folder_of_the_store(
    tmp_path: Path, declared: dict[str, Any], decodings: list[str]
) -> None:
    study = tmp_path / "store" / "mine"
    (study / "runs").mkdir(parents=True)
    (study / "study.json").write_text("{}")
    (study / "note").write_text("")
    answers = probe(str(study), [read(Images, declared)], str(tmp_path), 0.0, "note")
    assert answers["problems"] == []
    _, spec = write_run(tmp_path, declared)
    job = Job(
        spec.run_id, spec.to_json(), str(study / "runs"), str(tmp_path), "cpu", 1, 0.0, keep_weights=False
    )
    worker, report = Worker(job), None
    while report is None or report.state in ("began", "training"):
        report = worker.step()
    assert report.state == "ended", report
    assert len(decodings) == TRAIN + TEST
    assert len(list((tmp_path / "store" / "decoded").iterdir())) == 1
    shutil.rmtree(tmp_path / "set")
    shutil.rmtree(tmp_path / "store" / "decoded")
    (missing,) = probe(str(study), [read(Images, declared)], str(tmp_path), 0.0, "note")["problems"]
    assert missing.startswith(f"set: not in {tmp_path}")


def test_a_plan_on_images_measures_a_run_and_takes_decoded_images_for_no_study(
    tmp_path: Path, declared: dict[str, Any]
) -> None:
    study = write_study(tmp_path, task={"data": declared, "train_size": None, "batch_size": 8})
    plan = sweep_command(
        "plan", study, "--store", tmp_path / "store", "--data-dir", tmp_path, "--workers", "1"
    )
    for _ in range(2):
        done = subprocess.run(
            plan, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=240
        )
        assert done.returncode == 0, done.stderr
        assert "estimated by a few seconds of training here" in done.stdout
        assert "decoded" not in done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["decoded"]


# the page


def test_the_example_of_the_page_of_one_run_works(tmp_path: Path) -> None:
    """Its command, on pictures of its names, prints the keys that the page shows."""
    page = (ROOT / "docs" / "one-run.md").read_text()
    section = page.partition("## Images of your own")[2]
    shown = json.loads(section.partition("flowers\n")[2].partition("\n```")[0])
    labels = [0, 0, 1, 1, 2, 2]
    for part in ("train", "test"):
        write_folders(tmp_path / "flowers" / part, [encoded(one) for one in drawn(6)], labels)
    printed = declaration(tmp_path, "flowers")
    assert printed.keys() == shown.keys()
    assert read(Images, shown).name == f"{shown['checksum']}-{shown['pixels']}"
    run, _ = write_run(tmp_path, printed, epochs=1)
    assert len(rows_of(train(run, tmp_path / "runs", "--data-dir", str(tmp_path)))) == 1
