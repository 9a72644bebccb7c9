"""Tables of one's own: a file of numbers, declared as `task.data`, so that a study is checked without it and no other file passes as it.

How each format is read stands in `table_files`.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np

from trainer import randomness
from trainer.settings import SettingError, Within, nearest, written
from trainer.table_files import FORMATS, Column, DataError, columns_of, unread

TEST = 1 / 3
"""The share of a table's rows that are its test set where nothing else is declared."""
FACTS = ("rows", "inputs", "classes", "checksum", "test_rows")
DIGITS = 16
"""Of a file's sha256, that are its checksum."""
MOST_NAMED, MOST_WORDS = 5, 50
"""Columns and classes in one message."""
Count = Annotated[int, Within(at_least=1)]


def _wrong_file(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
        return f"must be a path inside the folder of --data-dir, with / between its parts; it is {name!r}."
    if path.suffix.lower() not in FORMATS:
        return f"must end in {', '.join(FORMATS)}; it is {name!r}. Save it as one of these."
    return None


def _wrong_checksum(text: str) -> str | None:
    good = re.fullmatch("[0-9a-f]{16}", text)
    return (
        None if good else f"must be the first 16 hex digits of the file's sha256, in quotes; it is {text!r}."
    )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file is to be read."""

    file: Annotated[str, _wrong_file]
    """Its path inside the folder of --data-dir."""
    target: str
    """The column of the classes, or the variable of a .mat."""
    test: Annotated[float, Within(above=0, below=1)] | None = None
    """Share of the rows that are the test set, drawn once, the same for every seed; a third where there is no `split`."""
    split: str | None = None
    """A column of 0 and 1, where 1 marks the test rows."""
    labels: tuple[str, ...] | None = None
    """The classes in their order, where the target holds words."""
    constant: Literal["refuse", "drop"] = "refuse"
    """What becomes of an input that is the same in every row."""
    features: str | None = None
    """The matrix of a .mat that holds the inputs, where several could."""

    def __post_init__(self) -> None:
        if self.split is None and self.test is None:
            object.__setattr__(self, "test", TEST)
        elif self.split is not None and self.test is not None:
            raise SettingError(
                "test", f"has no use beside split: column {self.split!r} says which rows are the test set."
            )
        if self.target in (self.split, self.features):
            raise SettingError(
                "target",
                f"is {self.target!r}, and so is {'split' if self.target == self.split else 'features'}.",
            )
        if self.features is not None and not self.file.lower().endswith(".mat"):
            raise SettingError(
                "features", "is for a .mat; of other files every column but target and split is an input."
            )


@dataclass(frozen=True, kw_only=True)
class Table(Layout):
    """A file of one's own and what is in it, as `python -m trainer.data FILE --target COLUMN` prints it."""

    rows: Annotated[int, Within(at_least=2)]
    inputs: Count
    """Columns that a network sees."""
    classes: Annotated[int, Within(at_least=2)]
    checksum: Annotated[str, _wrong_checksum]
    """The first 16 hex digits of the file's sha256."""
    test_rows: Count | None = None
    """How many rows `split` marks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.test_rows is None) != (self.split is None):
            raise SettingError("test_rows", "says how many rows split marks: give both or neither.")
        if not 0 < self.tested < self.rows:
            setting = "test" if self.test_rows is None else "test_rows"
            raise SettingError(
                setting,
                f"takes {self.tested:,} of the {self.rows:,} rows to test; some must be left for both.",
            )
        if self.labels is not None and (
            len(self.labels) != self.classes or len(set(self.labels)) < self.classes
        ):
            raise SettingError(
                "labels",
                f"must be {self.classes} different words, a class each; they are {', '.join(self.labels)}.",
            )

    @property
    def tested(self) -> int:
        """Rows of the fixed test set."""
        return self.test_rows if self.test_rows is not None else round((self.test or TEST) * self.rows)


@dataclass(frozen=True, eq=False)
class Found:
    """What a file holds: the inputs of each row, the number of its class, and whether it is marked as a test row."""

    inputs: np.ndarray
    labels: np.ndarray
    names: list[str]
    """Of the classes, as the file has them."""
    marked: np.ndarray | None
    checksum: str

    def facts(self) -> dict[str, int | str | None]:
        """What a `Table` declares of it."""
        marked = None if self.marked is None else int(self.marked.sum())
        return dict(zip(FACTS, (*self.inputs.shape, len(self.names), self.checksum, marked), strict=True))


def load(table: Table, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and classes, rows to train on first; DataError where the file is not the one that was declared."""
    found = find(table, data_dir)
    differing = [
        f"{fact} is {there}, and {getattr(table, fact)} is declared"
        for fact, there in found.facts().items()
        if there != getattr(table, fact)
    ]
    if differing:
        raise DataError(
            f"{data_dir / table.file}: {'; '.join(differing)}.\n"
            f"  It is another file than the study's. Bring that one, or declare this one: {command(table, data_dir)}"
        )
    test_last = (
        randomness.permutation(table.rows, 0, "table")
        if found.marked is None
        else np.argsort(found.marked, kind="stable")
    )
    return found.inputs[test_last], found.labels[test_last]


def command(layout: Layout, data_dir: Path) -> str:
    """What prints the object to declare a file with, laid out as this one; for a shell."""
    words = ["python", "-m", "trainer.data", layout.file, *_option("target", layout.target)]
    if layout.split is None and layout.test != TEST:
        words += _option("test", str(layout.test))
    words += [] if layout.split is None else _option("split", layout.split)
    words += [] if layout.labels is None else ["--labels", *layout.labels]
    words += [] if layout.constant == "refuse" else _option("constant", layout.constant)
    words += [] if layout.features is None else _option("features", layout.features)
    return shlex.join([*words, *_option("data-dir", str(data_dir))])


def _option(name: str, value: str) -> list[str]:
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def declared(layout: Layout, found: Found) -> dict[str, object]:
    """The object to paste as `task.data`; what says no more than the default is left out."""
    asked = {
        name: value for name, value in written(layout).items() if value is not None and value != "refuse"
    }
    facts = {name: value for name, value in found.facts().items() if value is not None}
    return {**asked, **facts}


def summary(table: Table, found: Found) -> str:
    """What was found in a file, for people."""
    counts = ", ".join(
        f"{name} {count:,}" for name, count in zip(found.names, np.bincount(found.labels), strict=True)
    )
    sizes = f"{table.rows:,} rows of {table.inputs:,} inputs, {table.rows - table.tested:,} to train and {table.tested:,} to test"
    return f"{table.file}: {sizes}.\nRows of each class: {counts}."


def find(layout: Layout, data_dir: Path) -> Found:
    """What is in a file; DataError with its name, the column and what to do where it cannot be trained on."""
    path = data_dir / layout.file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        where = f"{layout.file}: not in {data_dir}, the folder of --data-dir, where files of one's own lie on every node."
        raise DataError(where + _instead(layout, path)) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    try:
        columns = columns_of(
            layout.file, content, [layout.target, *([layout.split] if layout.split else [])], layout.features
        )
        target = columns.pop(layout.target)
        marked = None if layout.split is None else _marked(layout.split, columns.pop(layout.split))
        names, labels = _classes(layout, target)
        inputs = _inputs(layout, columns)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return Found(inputs, labels, names, marked, hashlib.sha256(content).hexdigest()[:DIGITS])


def _instead(layout: Layout, path: Path) -> str:
    """Which file of the folder is the one that is not there. A declared one has its checksum, and a name that is near would be that of
    other data; before, the name is all there is."""
    there = sorted(path.parent.glob("*"))
    if not isinstance(layout, Table):
        return nearest(path.name, [it.name for it in there])
    for other in there:
        if other.suffix.lower() in FORMATS and other.is_file() and _checksum(other) == layout.checksum:
            return f" {other.name} has the declared checksum: was it renamed?"
    return ""


def _checksum(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
    except OSError:  # it is only looked at in passing
        return None


def _inputs(layout: Layout, columns: dict[str, Column]) -> np.ndarray:
    """The columns that are left, as float32; those that never vary are dropped where that is asked for."""
    if not columns:
        raise DataError(f"has no column beside {layout.target!r}: there is nothing to tell the classes by.")
    hint = "Write its categories as columns of 0 and 1, or leave it out."
    whole = np.stack([_numbers(name, column, hint) for name, column in columns.items()], axis=1)
    if (empty := np.isnan(whole)).any():
        told = f"{_columns(columns, empty.any(0))}: missing values ({int(empty.sum()):,}), the first in {_row(empty.any(1))}"
        raise DataError(f"{told}. Fill them in, or leave those rows or columns out.")
    with np.errstate(over="ignore"):
        whole = whole.astype(np.float32)
    if (infinite := ~np.isfinite(whole)).any():
        told = f"{_columns(columns, infinite.any(0))}: values are infinite, or beyond float32, the first in {_row(infinite.any(1))}"
        raise DataError(f"{told}. Leave those rows or columns out, or scale them.")
    constant = (whole == whole[:1]).all(0)
    if constant.all():
        raise DataError(
            f"{_columns(columns, constant)}: the same in every row. There is nothing to tell the classes by."
        )
    if constant.any() and layout.constant == "refuse":
        raise DataError(
            f"{_columns(columns, constant)}: the same in every row. To train without, declare constant: drop (--constant drop)."
        )
    return whole[:, ~constant]


def _classes(layout: Layout, column: Column) -> tuple[list[str], np.ndarray]:
    """The classes' names in their order, and each row's number among them."""
    where, words = f"target column {layout.target!r}", _words(column)
    if not len(column):
        raise DataError("holds no row.")
    missing = np.array([word is None for word in column]) if isinstance(column, list) else np.isnan(column)
    if missing.any():
        raise DataError(
            f"{where}: missing values ({int(missing.sum()):,}), the first in {_row(missing)}. Leave those rows out."
        )
    if words:
        return _named_classes(layout.labels, where, words)
    values = _numbers(layout.target, column, "")
    if layout.labels is not None:
        raise DataError(
            f"{where} holds numbers; labels is for words. Leave it out: numbers are classes in ascending order."
        )
    if (broken := values != np.floor(values)).any() or (broken := ~np.isfinite(values)).any():
        raise DataError(
            f"{where} holds {values[broken.argmax()]:g} in {_row(broken)}; classes are whole numbers, or words with labels."
        )
    found, labels = np.unique(values, return_inverse=True)
    if len(found) < 2:
        raise DataError(f"{where} holds {found[0]:g} alone; there is nothing to tell apart.")
    return [f"{value:.0f}" for value in found], labels.astype(np.int64)


def _named_classes(
    labels: Sequence[str] | None, where: str, words: list[str]
) -> tuple[list[str], np.ndarray]:
    there = sorted(set(words))
    if labels is None:
        if len(there) > MOST_WORDS:
            raise DataError(
                f"{where} holds {len(there):,} different words, such as {words[0]!r}: are these classes?"
            )
        raise DataError(
            f"{where} holds words. Say in which order: labels: [{', '.join(there)}] (--labels {' '.join(there)})."
        )
    if unknown := [word for word in there if word not in labels]:
        row = words.index(unknown[0]) + 1
        raise DataError(
            f"{where} holds {unknown[0]!r} in row {row:,}, which labels does not name.{nearest(unknown[0], labels)}"
        )
    if unused := [word for word in labels if word not in there]:
        raise DataError(
            f"{where} has no row of {unused[0]!r}, which labels names. A class without a row cannot be learnt."
        )
    numbers = {word: number for number, word in enumerate(labels)}
    return list(labels), np.array([numbers[word] for word in words], np.int64)


def _words(column: Column) -> list[str]:
    """A column's words; none where it holds numbers, written as words or not."""
    if isinstance(column, list):
        words = [word for word in column if word is not None]
        try:
            for word in words:
                float(word)
        except ValueError:
            return words
    return []


def _marked(name: str, column: Column) -> np.ndarray:
    values = _numbers(name, column, "split takes 0 and 1.")
    wrong = ~np.isin(values, (0.0, 1.0))
    if wrong.any():
        raise DataError(
            f"split column {name!r} holds {values[wrong.argmax()]:g} in {_row(wrong)}; 1 marks the test rows, 0 the others."
        )
    if values.all() or not values.any():
        raise DataError(
            f"split column {name!r} holds {values[0]:g} alone; it must mark some rows to test with 1, and not all."
        )
    return values == 1


def _numbers(name: str, column: Column, hint: str) -> np.ndarray:
    """A column's numbers; words that are numbers count as such."""
    if isinstance(column, np.ndarray):
        return column
    numbers = np.full(len(column), np.nan)
    for row, word in enumerate(column):
        try:
            numbers[row] = np.nan if word is None else float(word)
        except ValueError:
            told = f"column {name!r} holds {word!r} in row {row + 1:,}, which is no number."
            raise DataError(f"{told} {unread(str(word)) or hint}") from None
    return numbers


def _row(wrong: Any) -> str:
    return f"row {int(wrong.argmax()) + 1:,}"


def _columns(columns: dict[str, Column], wrong: Any) -> str:
    names = [repr(name) for name, it in zip(columns, wrong, strict=True) if it]
    more = len(names) - MOST_NAMED
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names[:MOST_NAMED])}{f' and {more:,} more' if more > 0 else ''}"
