"""A table as a run and a study declare it.

What is wrong is named by its path and line, and every node must have the very file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sweep.cluster.preflight import probe
from sweep.errors import RejectStudy
from sweep.study import Study, load, schema
from tests.conftest import run_values
from tests.sweeps import study_values, write_study
from trainer import data
from trainer.settings import SpecError, read
from trainer.spec import RunSpec
from trainer.store import open_store
from trainer.tables import Table

GIVEN: dict[str, Any] = {
    "file": "t.csv",
    "target": "class",
    "rows": 30,
    "inputs": 4,
    "classes": 3,
    "checksum": "0123456789abcdef",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"traget": "x"},
         ["task.data.traget  no such setting. Did you mean 'target'?",
          "table takes: file, target, test, split, labels"]),
        ({"rows": "30"}, ["task.data.rows  must be a whole number; it is '30'. Write it without quotes."]),
        ({"rows": 1}, ["task.data.rows  must be at least 2; it is 1."]),
        ({"inputs": None}, ["task.data.inputs  must be a whole number; it is None."]),
        ({"file": "/t.csv"}, ["task.data.file  must be a path inside the folder of --data-dir"]),
        ({"file": "../t.csv"}, ["task.data.file  must be a path inside the folder of --data-dir"]),
        ({"file": "a\\t.csv"}, ["task.data.file  must be a path inside the folder of --data-dir"]),
        ({"file": "./t.csv"}, ["task.data.file  must be a path inside the folder of --data-dir"]),
        ({"file": "t.xlsx"}, ["task.data.file  must end in .csv, .parquet, .arff, .mat; it is 't.xlsx'."]),
        ({"checksum": 123}, ["task.data.checksum  must be a text; it is 123."]),
        ({"checksum": "abc"},
         ["task.data.checksum  must be the first 16 hex digits of the file's sha256, in quotes;"
          " it is 'abc'."]),
        ({"constant": "keep"}, ["task.data.constant  must be one of refuse, drop; it is 'keep'."]),
        ({"split": "held", "test": 0.5, "test_rows": 3}, ["task.data.test  has no use beside split"]),
        ({"split": "held"}, ["task.data.test_rows  says how many rows split marks: give both or neither."]),
        ({"split": "class", "test_rows": 3}, ["task.data.target  is 'class', and so is split."]),
        ({"split": "held", "test_rows": 30}, ["task.data.test_rows  takes 30 of the 30 rows to test"]),
        ({"test": 0.001}, ["task.data.test  takes 0 of the 30 rows to test; some must be left for both."]),
        ({"test": 1}, ["task.data.test  must be above 0 and below 1; it is 1.0."]),
        ({"labels": ["a", "b"]},
         ["task.data.labels  must be 3 different words, a class each; they are a, b."]),
        ({"labels": ["a", "b", "b"]}, ["task.data.labels  must be 3 different words"]),
        ({"labels": [1, 2, 3]}, ["task.data.labels  [0] must be a text; it is 1."]),
        ({"features": "X"}, ["task.data.features  is for a .mat"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_declared_table_is_named_with_its_path(
    change: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        RunSpec.read(run_values({"name": "dense"}, data={**GIVEN, **change}, model="mlp-8", train_size=None))
    for words in said:
        assert words in str(caught.value)


def test_what_a_declared_table_lacks_is_told_all_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        RunSpec.read(run_values(data={"file": "t.csv"}))
    assert all(
        f"task.data.{key}  is missing; table needs it." in str(caught.value)
        for key in ("target", "rows", "inputs", "checksum")
    )


def test_a_name_that_is_unknown_says_how_a_file_is_declared() -> None:
    with pytest.raises(
        SpecError,
        match=r"A file of one's own is declared as an object, which `python -m trainer.data FILE --target",
    ):
        RunSpec.read(run_values(data="my.csv"))


def study(folder: Path, *, arms: dict[str, Any] | None = None, **task: Any) -> Study:
    whole = {"model": "mlp-8", "train_size": None, **task}
    plain = {"dense": {"policy": {"name": "dense"}}, "other": {"policy": {"name": "dense"}}}
    return load(
        write_study(
            folder,
            task=whole,
            arms={"additive": {"policy": {"name": "dense"}}, **plain, **(arms or {})},
            confirm={"seeds": 10},
        )
    )


def test_a_study_declares_its_table_for_all_arms_or_in_one(tmp_path: Path) -> None:
    everywhere = study(tmp_path, data=GIVEN)
    assert everywhere.data == [read(Table, GIVEN)]
    assert not everywhere.arms["dense"].searched
    mixed = study(
        tmp_path, data="wine", arms={"other": {"policy": {"name": "dense"}, "task": {"data": GIVEN}}}
    )
    assert set(mixed.data) == {"wine", read(Table, GIVEN)}
    assert (
        mixed.data
        == study(
            tmp_path, data="wine", arms={"other": {"policy": {"name": "dense"}, "task": {"data": GIVEN}}}
        ).data
    )
    run = mixed.run(mixed.arms["other"].ends[0], "confirm", 1)
    assert json.loads(run.to_json())["task"]["data"]["checksum"] == GIVEN["checksum"]


def test_another_file_is_another_study(tmp_path: Path) -> None:
    assert (
        study(tmp_path, data=GIVEN).identity
        != study(tmp_path, data={**GIVEN, "checksum": "f" * 16}).identity
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"traget": "x"}, "task.data.traget: no such setting. Did you mean 'target'?"),
        ({"rows": 1}, "task.data.rows: must be at least 2; it is 1."),
    ],
)
def test_what_is_wrong_with_a_table_is_told_in_its_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(RejectStudy) as caught:
        study(tmp_path, data={**GIVEN, **change})
    lines = (tmp_path / "small.yaml").read_text().splitlines()
    assert f":{next(n for n, line in enumerate(lines, 1) if next(iter(change)) in line)}  {said}" in str(
        caught.value
    )
    with pytest.raises(RejectStudy, match=rf"arms\.other\.{said.split(':')[0].replace('.', r'.')}: "):
        study(
            tmp_path,
            data="wine",
            arms={"other": {"policy": {"name": "dense"}, "task": {"data": {**GIVEN, **change}}}},
        )


def test_the_schema_for_editors_takes_a_name_a_table_and_a_choice() -> None:
    checker = jsonschema.Draft202012Validator(json.loads(schema()))
    for given, right in (("wine", True), (GIVEN, True), ("wien", False), ({"fil": "t.csv"}, False)):
        assert checker.is_valid(study_values(task={"data": given})) is right
    searched = {"policy": {"name": "dense"}, "task": {"data": {"choice": ["wine", "digits"]}}}
    assert checker.is_valid(study_values(arms={"dense": {"policy": {"name": "dense"}}, "other": searched}))


def test_a_node_must_have_the_very_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(str(tmp_path / "store"))
    store.write("note", b"")

    def problems(table: Table) -> list[str]:
        return probe(store.where(), ["wine", table], str(tmp_path), 0.0, "note")["problems"]

    (missing,) = problems(read(Table, GIVEN))
    assert missing.startswith(f"t.csv: not in {tmp_path}")
    (tmp_path / "t.csv").write_text("a,class\n" + "".join(f"{i},{i % 3}\n" for i in range(30)))
    assert data.main(["t.csv", "--target", "class", "--data-dir", str(tmp_path)]) == 0
    declared = json.loads(capsys.readouterr().out)
    assert problems(read(Table, declared)) == []
    (changed,) = problems(read(Table, {**declared, "checksum": "f" * 16}))
    assert "ffffffffffffffff is declared" in changed
