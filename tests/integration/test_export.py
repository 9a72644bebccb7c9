"""`sweep export`: every reader reads its tables alike.

The folder is whole or not there. A message says where it cannot be written.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from sweep.ledger.ledger import Ledger
from sweep.views.export import files as exports
from sweep.views.export import tables
from sweep.views.export.tables import TABLES_VERSION
from sweep.views.markdown import escaped
from sweep.views.reading import Reading
from sweep.views.report.page import Report, page
from tests.integration.exported import TABLES, WILD, WORDS, made, values_of, written
from tests.integration.readers import READERS, by_pyarrow, kinds, query
from tests.sweeps import sweep
from trainer.store import StoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a study with diverged and collapsed runs: its tables have NaN and nulls."""
    place = tmp_path_factory.mktemp("store")
    assert made(place, "wild", WILD).complete
    return place


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of that ledger, with one more comparison that has wild words and an endless interval."""
    to = tmp_path_factory.mktemp("export") / "deep" / "out"
    reading = Reading(Ledger(str(store), "wild", lambda _: None))
    found = Report.of(reading).findings
    wild: dict[str, Any] = {"arm": WORDS, "ci_low": -math.inf, "ci_high": math.inf, "gain": math.nan}
    endless = replace(found.comparisons[0], **wild, missing=[WORDS, ""])
    more = replace(found, comparisons=[*found.comparisons, endless])
    rows = exports.export(reading, more, to, lambda _table, _rows: None)
    assert {name: pq.read_metadata(to / f"{name}.parquet").num_rows for name in TABLES} == rows
    return to


def test_the_page_shows_what_was_chosen_and_says_that_a_diverged_run_counts_as_0(store: Path) -> None:
    report = Report.of(Reading(Ledger(str(store), "wild", lambda _: None)))
    assert "a diverged run counts as 0" in page(report)
    arms = [replace(arm, diverged=0, settings={}) for arm in report.findings.arms]
    plain = replace(report, findings=replace(report.findings, arms=arms))
    assert "a diverged run counts as 0" not in page(plain)
    assert '<th class="text">chosen</th>' not in page(plain)
    chosen = {"policy.epsilon": 5.2000001, "task.learning_rate": 0.02123, "task.model": "mlp-13-14"}
    arms[0] = replace(arms[0], settings=chosen)
    report = replace(report, findings=replace(report.findings, arms=arms))
    assert '<th class="text">chosen</th>' in page(report)
    assert ">epsilon 5.2, learning_rate 0.0212, model mlp-13-14</td>" in page(report)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_counts_and_sums_a_table_alike(folder: Path, table: str, reader: str) -> None:
    path = folder / f"{table}.parquet"
    (rows, *expected), (count, *found) = by_pyarrow(path), READERS[reader](path)
    assert count == rows
    assert rows > 0 or table == "across"  # the study lists no tasks
    for (name, *values), (other, *others) in zip(expected, found, strict=True):
        assert (name, others) == (other, pytest.approx(values, rel=1e-12, abs=0))


def test_the_tables_have_what_readers_disagree_on(folder: Path) -> None:
    epochs = {name: rest for name, *rest in list(by_pyarrow(folder / "epochs.parquet"))[1:]}
    assert epochs["train_loss"][1] > 6, "no run diverged with NaN"
    assert epochs["test_accuracy"][0] > 0, "no null in epochs without an evaluation"
    comparisons = {name: rest for name, *rest in list(by_pyarrow(folder / "comparisons.parquet"))[1:]}
    assert comparisons["ci_low"][2:4] == [0, 1]
    assert comparisons["ci_high"][2:4] == [1, 0]
    assert comparisons["gain"][1] == 1


def test_words_are_the_same_in_every_reader(folder: Path) -> None:
    path = folder / "comparisons.parquet"
    last = query(f"SELECT arm, missing FROM read_parquet('{path}')")[-1]
    assert last == (WORDS, [WORDS, ""])
    assert pl.read_parquet(path)["arm"].to_list()[-1] == pd.read_parquet(path)["arm"].tolist()[-1] == WORDS


@pytest.mark.parametrize("table", TABLES)
def test_columns_carry_their_meaning_and_unit_and_the_table_its_version(folder: Path, table: str) -> None:
    schema = pq.read_schema(folder / f"{table}.parquet")
    assert int(schema.metadata[b"schema_version"]) == TABLES_VERSION
    assert all(field.metadata[b"meaning"] for field in schema)
    words = (
        (folder / "README.md").read_text(encoding="utf-8").split(f"## {table}.parquet")[1].split("\n## ")[0]
    )
    assert f"schema version {TABLES_VERSION}" in words
    for field in schema:
        (line,) = (line for line in words.splitlines() if line.startswith(f"| {field.name} |"))
        assert field.metadata[b"meaning"].decode().replace("|", "\\|") in line
        assert field.metadata.get(b"unit", b"").decode() in line
    numbers = [
        field
        for field in schema
        if kinds(folder / f"{table}.parquet")[field.name] == "number" and "." not in field.name
    ]
    without = {field.name for field in numbers if not field.metadata.get(b"unit")}
    assert without <= {"seed", "learning_rate"}, "numbers without a unit"


def test_report_and_study_are_strict_json_with_every_word_as_it_was_written(folder: Path) -> None:
    def never(word: str) -> None:
        raise AssertionError(word)

    found = {
        name: json.loads((folder / f"{name}.json").read_bytes(), parse_constant=never)
        for name in ("report", "study")
    }
    assert found["report"]["description"] == found["study"]["contents"]["description"] == WORDS
    endless = found["report"]["comparisons"][-1]
    assert endless | {"arm": WORDS, "ci_low": "-inf", "ci_high": "inf", "gain": None} == endless
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert escaped(WORDS) in readme
    assert "What the notebook prints and draws is in points" in readme
    assert found["study"]["searched"] == {
        "additive": {"task.learning_rate": {"choice": [0.1, 1e18], "whole": False}}
    }
    assert {path.name for path in folder.iterdir()} == set(exports.FILES)


# whole or not at all


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("step", ["epoch_tables", "endpoint_tables", "run_tables", "notebook"])
@pytest.mark.parametrize("pulled", [KeyboardInterrupt, RuntimeError])
def test_an_export_that_ends_early_leaves_the_earlier_one_and_nothing_else(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, pulled: type[BaseException]
) -> None:
    written(store, "wild", tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("a file of somebody else")
    (tmp_path / "out" / "README.md").write_text("the earlier one")
    before = contents(tmp_path / "out")
    module = exports if step == "notebook" else tables
    whole: Callable[..., Any] = getattr(module, step)

    def one_and_no_more(*given: Any) -> Any:
        made = whole(*given)
        if step != "notebook":
            yield next(made)
        raise pulled

    monkeypatch.setattr(
        module,
        step,
        (lambda source: next(one_and_no_more(source))) if step == "notebook" else one_and_no_more,
    )
    for to in ("out", "fresh"):
        with pytest.raises(pulled):
            written(store, "wild", tmp_path / to)
    assert contents(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.undo()
    written(store, "wild", tmp_path / "out")
    after = contents(tmp_path / "out")
    assert set(after) == {*exports.FILES, "mine.txt"}
    assert after["mine.txt"] == before["mine.txt"]
    assert after["README.md"] != before["README.md"]


def test_what_others_keep_in_the_folder_is_never_moved(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount point or a working folder cannot be renamed, and files moved out of it may be lost."""

    def busy(path: Path, _: Path) -> Path:
        raise OSError(16, "Device or resource busy", str(path))

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("a file of somebody else")
    monkeypatch.setattr(Path, "rename", busy)
    written(store, "wild", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "a file of somebody else"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*exports.FILES, "mine.txt"}


def test_a_full_disk_is_said_and_leaves_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StoreError, match=r"out could not be written: .*No space left on device"):
        written(store, "wild", tmp_path / "out")
    assert not list(tmp_path.iterdir())


# the command


@pytest.mark.parametrize(
    ("study", "to", "code", "words"),
    [
        ("begun-by-nobody", "out", 2, "holds no study yet"),
        ("wild", "a-file", 2, "is a file; an export is a folder"),
        ("wild", "a-file/out", 3, "could not be written"),
        ("wild", "mine", 2, "no export made the README.md there"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    store: Path, tmp_path: Path, study: str, to: str, code: int, words: str
) -> None:
    (tmp_path / "a-file").write_text("kept")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("kept")
    (tmp_path / f"{study}.yaml").write_text(
        yaml.safe_dump(values_of(WILD), allow_unicode=True), encoding="utf-8"
    )
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ended = sweep("export", tmp_path / f"{study}.yaml", "--store", store, "--to", tmp_path / to)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_command_says_what_it_wrote(store: Path, tmp_path: Path) -> None:
    ended = sweep(
        "export",
        "wild.yaml",
        "--store",
        store,
        "--to",
        tmp_path / "out",
        "--json",
        env={"LC_ALL": "C", "PYTHONUTF8": "0"},
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["to"] == str(tmp_path / "out")
    assert told["rows"] == {
        name: pq.read_metadata(tmp_path / "out" / f"{name}.parquet").num_rows for name in TABLES
    }
