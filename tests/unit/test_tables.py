"""Tables of one's own: every format gives the same rows.

What cannot be trained on is refused with the file, the column and the next step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from tests.conftest import run_values
from trainer import data
from trainer.data import DataError
from trainer.settings import read
from trainer.spec import RunSpec
from trainer.tables import Table

ROWS, INPUTS = 30, 4
INPUT_NAMES = [f"gene {i}" for i in range(INPUTS)]
NUMBERS = np.random.default_rng(1).normal(100, 3, (ROWS, INPUTS)).round(6)
CLASSES = np.arange(ROWS) % 3 + 1
WORDS = np.array(["low", "mid", "high"])[CLASSES - 1]
MARKED = (np.arange(ROWS) >= 25).astype(int)
Writer = Callable[[Path, list[Any]], None]


def write_csv(path: Path, target: list[Any]) -> None:
    lines = [
        ",".join(map(str, [*map(repr, row.tolist()), mark, value]))
        for row, mark, value in zip(NUMBERS, MARKED, target, strict=True)
    ]
    path.write_text("\n".join([",".join([*INPUT_NAMES, "held", "class"]), *lines]) + "\n")


def write_parquet(path: Path, target: list[Any]) -> None:
    inputs = {name: NUMBERS[:, i] for i, name in enumerate(INPUT_NAMES)}
    pq.write_table(
        pa.table({**inputs, "held": MARKED.astype(bool), "class": pa.array(target).dictionary_encode()}),
        path,
    )


def write_arff(path: Path, target: list[Any]) -> None:
    head = [
        "@relation genes",
        *(f"@attribute '{name}' numeric" for name in INPUT_NAMES),
        "@attribute held {0,1}",
    ]
    head += [f"@attribute class {{{','.join(map(str, sorted(set(target))))}}}", "@data"]
    lines = [
        ",".join(map(str, [*map(repr, row.tolist()), mark, value]))
        for row, mark, value in zip(NUMBERS, MARKED, target, strict=True)
    ]
    path.write_text("\n".join([*head, *lines]) + "\n")


def write_mat(path: Path, target: list[Any]) -> None:
    column = np.array(target, dtype=object if isinstance(target[0], str) else None)[:, None]
    savemat(path, {"X": NUMBERS, "class": column, "held": MARKED[None, :], "other": np.zeros((7, 9))})


WRITERS: dict[str, Writer] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "arff": write_arff,
    "mat": write_mat,
}


@pytest.fixture(params=WRITERS)
def suffix(request: pytest.FixtureRequest) -> str:
    return request.param


def describe(
    folder: Path, file: str, capsys: pytest.CaptureFixture[str], *more: str, target: str = "class"
) -> dict[str, Any]:
    assert data.main([file, "--target", target, "--data-dir", str(folder), *more]) == 0
    return json.loads(capsys.readouterr().out)


def refused(
    folder: Path,
    file: str,
    capsys: pytest.CaptureFixture[str],
    *more: str,
    target: str = "class",
    code: int = 3,
) -> str:
    capsys.readouterr()
    assert data.main([file, "--target", target, "--data-dir", str(folder), *more]) == code
    said = capsys.readouterr()
    assert not said.out
    return said.err


def table_of(given: dict[str, Any]) -> Table:
    return read(Table, given)


def write_lines(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


def test_every_format_gives_the_same_rows_from_the_same_numbers(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[suffix](tmp_path / f"t.{suffix}", CLASSES.tolist())
    table = table_of(describe(tmp_path, f"t.{suffix}", capsys, "--split", "held"))
    arrays = data.load(table, tmp_path)
    assert (arrays.train_images.shape, arrays.test_images.shape) == ((25, INPUTS, 1, 1), (5, INPUTS, 1, 1))
    assert arrays.train_images.dtype == arrays.test_images.dtype == np.float32
    assert np.array_equal(arrays.train_images[:, :, 0, 0], NUMBERS[:25].astype(np.float32))
    assert np.array_equal(arrays.test_images[:, :, 0, 0], NUMBERS[25:].astype(np.float32))
    assert arrays.train_labels.tolist() == (CLASSES[:25] - 1).tolist()
    assert arrays.test_labels.tolist() == (CLASSES[25:] - 1).tolist()


def test_words_are_classes_in_the_order_of_the_labels(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[suffix](tmp_path / f"t.{suffix}", WORDS.tolist())
    given = describe(tmp_path, f"t.{suffix}", capsys, "--split", "held", "--labels", "low", "mid", "high")
    arrays = data.load(table_of(given), tmp_path)
    assert arrays.train_labels.tolist() == (CLASSES[:25] - 1).tolist()
    said = refused(tmp_path, f"t.{suffix}", capsys, "--split", "held")
    assert (
        "target column 'class' holds words. Say in which order: labels: [high, low, mid]"
        " (--labels high low mid)." in said
    )


def test_a_plain_variable_of_a_mat_need_not_be_named_where_one_matrix_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    savemat(tmp_path / "t.mat", {"X": NUMBERS, "Y": CLASSES[:, None]})
    assert describe(tmp_path, "t.mat", capsys, target="Y")["inputs"] == INPUTS
    savemat(tmp_path / "t.mat", {"X": NUMBERS, "Z": NUMBERS, "Y": CLASSES[:, None]})
    assert "several matrices fit: say which one in features. (X is 30 x 4, Z is 30 x 4" in refused(
        tmp_path, "t.mat", capsys, target="Y"
    )
    given = describe(tmp_path, "t.mat", capsys, "--features", "Z", target="Y")
    assert given["features"] == "Z"
    assert "has no variable 'W'" in refused(tmp_path, "t.mat", capsys, "--features", "W", target="Y")
    savemat(tmp_path / "t.mat", {"X": NUMBERS.T, "Y": CLASSES[:, None]})
    assert "no matrix has 30 rows, one for each of 'Y'. (X is 4 x 30" in refused(
        tmp_path, "t.mat", capsys, target="Y"
    )


def test_a_third_of_the_rows_drawn_once_is_the_test_set_where_nothing_else_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "t.csv", CLASSES.tolist())
    table = table_of(describe(tmp_path, "t.csv", capsys))
    arrays, facts = data.load(table, tmp_path), data.facts(table)
    assert (facts.image, facts.classes, facts.train, facts.test, facts.standardise) == (
        (INPUTS + 1, 1, 1),
        3,
        20,
        10,
        True,
    )
    assert len(arrays.test_labels) == 10
    every = np.concatenate([arrays.train_images, arrays.test_images])[:, 0, 0, 0]
    assert sorted(every) == sorted(NUMBERS[:, 0].astype(np.float32))
    assert every.tolist() != NUMBERS[:, 0].astype(np.float32).tolist()
    assert (
        len(data.load(table_of(describe(tmp_path, "t.csv", capsys, "--test", "0.2")), tmp_path).test_labels)
        == 6
    )


@pytest.mark.parametrize("values", [[1, 2, 7], [-1, 0, 1], [0, 5, 10]])
def test_numbers_of_any_kind_are_classes_in_ascending_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: list[int]
) -> None:
    write_csv(tmp_path / "t.csv", [values[c - 1] for c in CLASSES])
    table = table_of(describe(tmp_path, "t.csv", capsys, "--split", "held"))
    assert data.load(table, tmp_path).train_labels.tolist() == (CLASSES[:25] - 1).tolist()


def test_the_printed_object_is_what_a_run_takes_and_its_id_is_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "t.csv", CLASSES.tolist())
    assert data.main(["t.csv", "--target", "class", "--data-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "30 rows of 5 inputs, 20 to train and 10 to test." in said.err
    assert "Rows of each class: 1 10, 2 10, 3 10." in said.err
    given = json.loads(said.out)
    assert given["checksum"] == hashlib.sha256((tmp_path / "t.csv").read_bytes()).hexdigest()[:16]
    spec = RunSpec.read(run_values({"name": "dense"}, data=given, model="mlp-32-32", train_size=None))
    assert RunSpec.from_json(spec.to_json()) == spec
    defaults = {"split": None, "labels": None, "constant": "refuse", "features": None, "test_rows": None}
    assert json.loads(spec.to_json())["task"]["data"] == {**given, **defaults}
    assert hash(spec.task.data) == hash(RunSpec.from_json(spec.to_json()).task.data)
    other = RunSpec.read(
        run_values(
            {"name": "dense"}, data={**given, "checksum": "0" * 16}, model="mlp-32-32", train_size=None
        )
    )
    assert other.run_id != spec.run_id


def test_a_path_that_the_shell_has_completed_is_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    write_csv(tmp_path / "sub" / "t.csv", CLASSES.tolist())
    assert describe(tmp_path, str(tmp_path / "sub" / "t.csv"), capsys)["file"] == "sub/t.csv"


def test_a_file_that_changed_is_told_by_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "t.csv", CLASSES.tolist())
    given = describe(tmp_path, "t.csv", capsys)
    with pytest.raises(DataError) as caught:
        data.load(table_of({**given, "rows": 31, "classes": 4}), tmp_path)
    assert "t.csv: rows is 30, and 31 is declared; classes is 3, and 4 is declared." in str(caught.value)
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text.replace(repr(NUMBERS[0, 0].item()), "99.5"))
    with pytest.raises(DataError) as caught:
        data.load(table_of(given), tmp_path)
    now = hashlib.sha256((tmp_path / "t.csv").read_bytes()).hexdigest()[:16]
    assert f"checksum is {now}, and {given['checksum']} is declared" in str(caught.value)
    assert f"python -m trainer.data t.csv --target class --data-dir {tmp_path}" in str(caught.value)


@pytest.mark.parametrize("more", [["--split", "held"], ["--test", "0.2", "--constant", "drop"]])
def test_the_command_to_declare_a_changed_file_declares_the_same_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    write_csv(folder / "t 1.csv", (words := ["it's low" if word == "low" else str(word) for word in WORDS]))
    given = describe(folder, "t 1.csv", capsys, *more, "--labels", "it's low", "mid", "high")
    write_csv(folder / "t 1.csv", words[::-1])
    with pytest.raises(DataError) as caught:
        data.load(table_of(given), folder)
    told = shlex.split(str(caught.value).partition("declare this one: ")[2])
    assert told[:3] == ["python", "-m", "trainer.data"]
    assert data.main(told[3:]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("checksum") != given.pop("checksum")
    assert again == given


def test_the_command_names_the_matrix_of_a_mat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    savemat(tmp_path / "t.mat", {"X": NUMBERS, "Z": NUMBERS, "Y": CLASSES[:, None]})
    given = describe(tmp_path, "t.mat", capsys, "--features", "Z", target="Y")
    with pytest.raises(DataError, match=r"--target Y --features Z --data-dir "):
        data.load(table_of({**given, "checksum": "0" * 16}), tmp_path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,class", "1,1", ",2"],
         "column 'a': missing values (1), the first in row 2. Fill them in, or leave those rows"),
        (["a,class", "1,1", "nan,2"], "column 'a': missing values (1)"),
        (["a,class", "1,1", "2,"], "target column 'class': missing values (1), the first in row 2."),
        (["a,b,class", "1,3,1", "2,3,2"],
         "column 'b': the same in every row. To train without, declare constant: drop (--constant drop)."),
        (["a,b,class", "4,3,1", "4,3,2"],
         "columns 'a', 'b': the same in every row. There is nothing to tell"),
        (["a,class", "1,1", "red,2"],
         "column 'a' holds 'red' in row 2, which is no number. Write its categories as columns of 0 and 1"),
        (["a,class", "1,1", "?,2"],
         "column 'a' holds '?' in row 2, which is no number. A missing value has to be filled in, or its "
         "row"),
        (["a,class", '"1,5",1', '"2,5",2'],
         "column 'a' holds '1,5' in row 1, which is no number. A decimal comma has to be written as a"),
        (["a;class", "1,5;1", "2,5;2"],
         "has one column, and ';' in its name: columns are separated by commas."),
        (["a\tclass", "1\t1", "2\t2"],
         "has one column, and tabs in its name: columns are separated by commas."),
        (["a,class", "2020-01-01,1", "2020-01-02,2"],
         "column 'a' holds '2020-01-01' in row 1, which is no number."),
        (["a,class", "1,1", "inf,2"],
         "column 'a': values are infinite, or beyond float32, the first in row 2."),
        (["a,class", "1,1", "1e300,2"],
         "column 'a': values are infinite, or beyond float32, the first in row 2."),
        (["a,class", "1,1", "2,1.5"],
         "target column 'class' holds 1.5 in row 2; classes are whole numbers, or words with labels."),
        (["a,class", "1,1", "2,inf"], "target column 'class' holds inf in row 2; classes are whole numbers"),
        (["a,class", "1,4", "2,4"], "target column 'class' holds 4 alone; there is nothing to tell apart."),
        (["a,clas", "1,1", "2,2"],
         "has no column 'class'. Did you mean 'clas'? Its columns are 'a', 'clas'."),
        (["class", "1", "2"], "has no column beside 'class'"),
        (["a,class"], "holds no row."),
        (["a,a,class", "1,2,1", "3,4,2"], "column 'a' stands twice."),
        ([",a,class", "0,2,1", "1,4,2"],
         "column 1 has no name in the first line. (pandas writes its index so"),
        (["a,class", "1,1", "2"], "cannot be read as .csv: CSV parse error: Expected 2 columns, got 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_told_with_file_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], said: str
) -> None:
    write_lines(tmp_path / "t.csv", *lines)
    text = refused(tmp_path, "t.csv", capsys)
    assert text.startswith(f"{tmp_path / 't.csv'}: ")
    assert said in text


def test_labels_must_name_every_word_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "t.csv", WORDS.tolist())
    text = refused(tmp_path, "t.csv", capsys, "--labels", "lo", "mid", "high")
    assert "holds 'low' in row 1, which labels does not name. Did you mean 'lo'?" in text
    text = refused(tmp_path, "t.csv", capsys, "--labels", "low", "mid", "high", "top")
    assert "has no row of 'top', which labels names. A class without a row cannot be learnt." in text
    write_csv(tmp_path / "t.csv", CLASSES.tolist())
    assert "holds numbers; labels is for words." in refused(
        tmp_path, "t.csv", capsys, "--labels", "1", "2", "3"
    )


def test_a_target_with_a_word_in_every_row_is_not_listed_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "t.csv", "a,class", *(f"{i},name{i}" for i in range(200)))
    assert "holds 200 different words, such as 'name0': are these classes?" in refused(
        tmp_path, "t.csv", capsys
    )


def test_constant_columns_are_dropped_where_that_is_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "t.csv", "a,b,c,class", *(f"{i},3,{-i},{i % 2}" for i in range(9)))
    table = table_of(describe(tmp_path, "t.csv", capsys, "--constant", "drop"))
    assert (table.inputs, table.constant) == (2, "drop")
    images = data.load(table, tmp_path).train_images
    assert np.array_equal(images[:, 0], -images[:, 1])


def test_a_split_marks_some_rows_with_1_and_the_others_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for marks, said in (
        (["0", "1", "2"], "split column 'held' holds 2 in row 3; 1 marks the test rows, 0 the others."),
        (["0", "0", "0"], "split column 'held' holds 0 alone"),
        (["a", "0", "0"], "column 'held' holds 'a' in row 1, which is no number. split takes 0 and 1."),
    ):
        write_lines(
            tmp_path / "t.csv", "a,held,class", *(f"{i},{mark},{i % 2}" for i, mark in enumerate(marks))
        )
        assert said in refused(tmp_path, "t.csv", capsys, "--split", "held")


def test_a_file_that_is_not_there_names_the_folder_and_the_nearest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "genes.csv", CLASSES.tolist())
    text = refused(tmp_path, "gens.csv", capsys)
    assert f"gens.csv: not in {tmp_path}, the folder of --data-dir" in text
    assert "Did you mean 'genes.csv'?" in text


def test_what_is_no_file_is_refused_and_a_pipe_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("folder.csv", "pipe.csv"):
        assert f"{name}: cannot be read: it is no file, but a folder" in refused(tmp_path, name, capsys)


def test_a_declared_file_that_is_not_there_is_known_by_its_checksum_and_not_by_a_name_that_is_near(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "t.csv", CLASSES.tolist())
    table = table_of(describe(tmp_path, "t.csv", capsys))
    (tmp_path / "t.csv").rename(tmp_path / "renamed.csv")
    write_csv(tmp_path / "t1.csv", CLASSES[::-1].tolist())
    with pytest.raises(
        DataError, match=r"on every node\. renamed\.csv has the declared checksum: was it renamed\?$"
    ):
        data.load(table, tmp_path)
    (tmp_path / "renamed.csv").unlink()
    with pytest.raises(DataError, match=r"on every node\.$"):
        data.load(table, tmp_path)


@pytest.mark.parametrize("suffix", ["parquet", "arff", "mat"])
def test_bytes_that_are_no_file_of_the_kind_are_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    (tmp_path / f"t.{suffix}").write_bytes(b"\x89PNG and no table at all" * 20)
    assert f"t.{suffix}: cannot be read as .{suffix}: " in refused(tmp_path, f"t.{suffix}", capsys)


def test_a_mat_of_version_7_3_says_how_to_save_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "t.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(400))
    assert (
        "is of MATLAB's version 7.3, which is HDF5; write it anew with save(FILE, VARIABLES, '-v7')."
        in refused(tmp_path, "t.mat", capsys)
    )


def test_an_index_that_pandas_left_in_a_parquet_file_is_no_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(
        pa.table({"a": [1, 2], "class": [0, 1], "__index_level_0__": [5, 6]}), tmp_path / "t.parquet"
    )
    assert "is an index of pandas; write the file without" in refused(tmp_path, "t.parquet", capsys)


def test_the_command_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["genes.csv"], "genes.csv needs --target COLUMN"),
        (["wien"], "Did you mean 'wine'?"),
        (["wine", "--target", "a"], "--target is for a file."),
    ):
        with pytest.raises(SystemExit) as caught:
            data.main([*arguments, "--data-dir", str(tmp_path)])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    assert "file  must end in .csv, .parquet, .arff, .mat; it is 't.xlsx'. Save it" in refused(
        tmp_path, "t.xlsx", capsys, code=2
    )


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "classes"),
    [("breast-cancer", [212, 357], 30, 2), ("wine", [59, 71, 48], 13, 3)],
)
def test_the_tables_of_scikit_learn_are_all_there_and_raw(
    name: str, rows: list[int], inputs: int, classes: int
) -> None:
    from sklearn.datasets import load_breast_cancer, load_wine

    arrays, facts = data.load(name), data.facts(name)
    assert (facts.image, facts.classes, facts.standardise) == ((inputs, 1, 1), classes, True)
    assert (len(arrays.train_labels), len(arrays.test_labels)) == (facts.train, facts.test)
    assert facts.test == round(sum(rows) / 3)
    labels = np.concatenate([arrays.train_labels, arrays.test_labels])
    images = np.concatenate([arrays.train_images, arrays.test_images])[:, :, 0, 0]
    assert np.bincount(labels).tolist() == rows
    theirs: Any = {"breast-cancer": load_breast_cancer, "wine": load_wine}[name]()
    expected = np.column_stack([theirs.data.astype(np.float32), theirs.target])
    ours = np.column_stack([images, labels])
    assert np.array_equal(ours[np.lexsort(ours.T)], expected[np.lexsort(expected.T)])
    assert ours.tolist() != expected.tolist()


def test_only_tables_are_standardised_by_whoever_trains() -> None:
    assert {name for name in data.DATASETS if data.facts(name).standardise} == {"breast-cancer", "wine"}
