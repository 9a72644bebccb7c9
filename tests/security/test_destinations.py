"""`--to` leads into no ledger and through no link; a store that cannot be written to is told in a line.

| attack on a function | in 15d2fea | now |
| --- | --- | --- |
| the folder becomes a link during the export | sweep.export.export | sweep.views.export.files.export |
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from sweep.ledger.ledger import Ledger
from sweep.views.export import files
from sweep.views.reading import Reading
from sweep.views.report.page import Report
from tests.kept import STUDY, unpack
from tests.security.victim import PATIENCE_SECONDS, arguments, environment, sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("handed"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder. What a report leaves in the store is not among them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "index.json" and path.parent.name not in ("looks", "lease")
    }


@pytest.mark.parametrize("to", ["", "kept", "kept/runs", "kept/runs/new", "kept-tasks/export"])
def test_an_export_into_a_store_or_a_ledger_is_refused(store: Path, tmp_path: Path, to: str) -> None:
    before = contents(store)
    told = sweep("export", STUDY, "--store", store, "--to", store / to, cwd=tmp_path)
    assert told.returncode == 2, told.stderr
    assert "--to" in told.stderr
    assert "Traceback" not in told.stderr
    assert contents(store) == before


def test_an_export_to_the_root_is_refused(store: Path, tmp_path: Path) -> None:
    before = set(Path("/").iterdir())
    told = sweep("export", STUDY, "--store", store, "--to", "/", cwd=tmp_path)
    written = [path for path in set(Path("/").iterdir()) - before if path.name in files.FILES]
    for path in written:
        path.unlink()
    assert told.returncode == 2, told.stderr
    assert written == []
    assert "root of the file system" in told.stderr


@pytest.mark.parametrize("to", ["kept/study.json", "kept/page.html", "kept/runs/page.html", "kept-tasks"])
def test_a_page_into_a_ledger_is_refused(store: Path, tmp_path: Path, to: str) -> None:
    before = contents(store)
    told = sweep("report", STUDY, "--store", store, "--to", store / to, cwd=tmp_path)
    assert told.returncode == 2, told.stderr
    assert "Traceback" not in told.stderr
    assert contents(store) == before


@pytest.mark.parametrize("command", ["export", "report"])
def test_a_link_is_refused(store: Path, tmp_path: Path, command: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target if command == "export" else target / "page.html")
    told = sweep(command, STUDY, "--store", store, "--to", tmp_path / "link", cwd=tmp_path)
    assert told.returncode == 2, told.stderr
    assert list(target.iterdir()) == []
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_becomes_a_link_during_an_export_is_not_written_through(
    store: Path, tmp_path: Path
) -> None:
    reading = Reading(Ledger(str(store), "kept", print))
    findings = Report.of(reading).findings
    to, target = tmp_path / "to", tmp_path / "target"
    to.mkdir()
    target.mkdir()

    swapped: list[int] = []

    def swap(_table: str, _rows: int) -> None:
        if not swapped:
            to.rename(tmp_path / "moved")
            to.symlink_to(target)
        swapped.append(1)

    rows, files.ROWS = files.ROWS, 1
    try:
        files.export(reading, findings, to, swap)
    finally:
        files.ROWS = rows
    assert swapped
    assert list(target.iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == sorted(files.FILES)


def test_an_export_replaces_an_earlier_one_and_nothing_else(store: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    for _ in range(2):
        told = sweep("export", STUDY, "--store", store, "--to", to, cwd=tmp_path)
        assert told.returncode == 0, told.stderr
        (to / "mine.txt").write_text("kept")
    assert sorted(path.name for path in to.iterdir()) == sorted([*files.FILES, "mine.txt"])
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


@pytest.mark.parametrize("command", ["sync", "ui"])
def test_a_store_that_cannot_be_written_to_is_told_in_a_line(
    store: Path, tmp_path: Path, command: str
) -> None:
    mine = tmp_path / "store"
    shutil.copytree(store, mine)
    database = mine / "mlflow.db"
    database.touch()
    for path in (mine, *mine.rglob("*")):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    obeying: list[str] = []
    if os.geteuid() == 0:  # to root no permission is denied, unless it gives that power up
        obeying = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which(obeying[0]) is None:
            pytest.skip("root can write anywhere: run the tests as another user, or install util-linux")
    more = ["--port", "0"] if command == "ui" else []
    told = subprocess.run(
        [*obeying, *arguments("sweep", command, STUDY, "--store", mine, *more)],
        cwd=tmp_path,
        env=environment({"MLFLOW_TRACKING_URI": ""}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    for path in (mine, *mine.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert told.returncode == 3, told.stderr
    assert "Traceback" not in told.stderr
    assert len(told.stderr.splitlines()) <= 2
    assert "cannot write " in told.stderr
    assert "--store" in told.stderr
