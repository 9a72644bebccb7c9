"""Tables of one's own: files of numbers that a study declares as `task.data`.

The declaration lets a study be checked without the file, and its checksum refuses any other file. The
formats are read in `table_files`.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np

from trainer import randomness
from trainer.settings import SettingError, Within, nearest, written
from trainer.store import read_file
from trainer.table_files import FORMATS, MOST_BYTES, NO_MEMORY, Column, DataError, columns_of, unread

TEST = 1 / 3
"""Default share of a table's rows in its test set."""
FACTS = ("rows", "inputs", "classes", "checksum", "test_rows")
DIGITS = 16
"""Number of hex digits of a file's sha256 that make its checksum."""
MOST_NAMED, MOST_WORDS = 5, 50
"""Most columns, and most different words, that one message lists."""
Count = Annotated[int, Within(at_least=1)]


def wrong_path(name: str) -> str | None:
    """The reason why a name is no path inside the folder of --data-dir, or None."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
        return f"must be a path inside the folder of --data-dir, with / between its parts; it is {name!r}."
    return None


def _wrong_file(name: str) -> str | None:
    if why := wrong_path(name):
        return why
    if PurePosixPath(name).suffix.lower() not in FORMATS:
        return f"must end in {', '.join(FORMATS)}; it is {name!r}. Save it as one of these."
    return None


def wrong_checksum(text: str) -> str | None:
    """The reason why a text is no checksum of a file, or None."""
    good = re.fullmatch("[0-9a-f]{16}", text)
    return (
        None if good else f"must be the first 16 hex digits of the file's sha256, in quotes; it is {text!r}."
    )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How to read a file: which column holds the classes, which rows are the test set, and more."""

    file: Annotated[str, _wrong_file]
    """Path of the file inside the folder of --data-dir."""
    target: str
    """Name of the column of the classes; in a .mat, of the variable."""
    test: Annotated[float, Within(above=0, below=1)] | None = None
    """Share of the rows in the test set, drawn once for all seeds; a third if there is no `split`."""
    split: str | None = None
    """Name of a column of 0 and 1, where 1 marks the test rows."""
    labels: tuple[str, ...] | None = None
    """Names of the classes in their order, if the target holds words."""
    constant: Literal["refuse", "drop"] = "refuse"
    """What to do with an input that is the same in every row."""
    features: str | None = None
    """Name of the matrix of a .mat that holds the inputs, if several could."""

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
    """The declaration of a file: its layout, sizes and checksum.

    `python -m trainer.data FILE --target COLUMN` prints it.
    """

    rows: Annotated[int, Within(at_least=2)]
    """Rows of the file."""
    inputs: Count
    """Number of columns that the network takes."""
    classes: Annotated[int, Within(at_least=2)]
    """Classes of the target."""
    checksum: Annotated[str, wrong_checksum]
    """The first 16 hex digits of the file's sha256."""
    test_rows: Count | None = None
    """Number of rows that `split` marks as test rows."""

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
        """Number of rows of the fixed test set."""
        return self.test_rows if self.test_rows is not None else round((self.test or TEST) * self.rows)


@dataclass(frozen=True, eq=False)
class Found:
    """The content of a file: inputs, the number of each row's class, and which rows are marked as test."""

    inputs: np.ndarray
    labels: np.ndarray
    names: list[str]
    """Names of the classes, as the file has them."""
    marked: np.ndarray | None
    checksum: str

    def facts(self) -> dict[str, int | str | None]:
        """The facts that a `Table` declares about the file."""
        marked = None if self.marked is None else int(self.marked.sum())
        return dict(zip(FACTS, (*self.inputs.shape, len(self.names), self.checksum, marked), strict=True))


def load(table: Table, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Load inputs and classes, training rows first.

    DataError says how the file differs from its declaration.
    """
    found = find(table, data_dir)
    _compare(table, data_dir, found.facts())
    test_last = (
        randomness.permutation(table.rows, 0, "table")
        if found.marked is None
        else np.argsort(found.marked, kind="stable")
    )
    return found.inputs[test_last], found.labels[test_last]


def _compare(table: Table, data_dir: Path, facts: Mapping[str, object]) -> None:
    """Raise DataError where facts about a file are not those that were declared."""
    differing = [
        f"{fact} is {actual}, and {getattr(table, fact)} is declared"
        for fact, actual in facts.items()
        if actual != getattr(table, fact)
    ]
    if differing:
        raise DataError(
            f"{data_dir / table.file}: {'; '.join(differing)}. "
            "It is another file than the study's. "
            f"Bring that one, or declare this one: {command(table, data_dir)}"
        )


def command(layout: Layout, data_dir: Path) -> str:
    """The shell command that prints the declaration of a file with this layout."""
    words = ["python", "-m", "trainer.data", layout.file, *option("target", layout.target)]
    if layout.split is None and layout.test != TEST:
        words += option("test", str(layout.test))
    words += [] if layout.split is None else option("split", layout.split)
    words += [] if layout.labels is None else ["--labels", *layout.labels]
    words += [] if layout.constant == "refuse" else option("constant", layout.constant)
    words += [] if layout.features is None else option("features", layout.features)
    return shlex.join([*words, *option("data-dir", str(data_dir))])


def option(name: str, value: str) -> list[str]:
    """The words of an option and its value. A value that begins with a dash is joined to its name."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def declared(layout: Layout, found: Found) -> dict[str, object]:
    """The object to paste as `task.data`. Settings at their defaults are left out."""
    settings = {
        name: value for name, value in written(layout).items() if value is not None and value != "refuse"
    }
    facts = {name: value for name, value in found.facts().items() if value is not None}
    return {**settings, **facts}


def summary(table: Table, found: Found) -> str:
    """A description of a file's content, for people."""
    counts = ", ".join(
        f"{name} {count:,}" for name, count in zip(found.names, np.bincount(found.labels), strict=True)
    )
    parts = f"{table.rows - table.tested:,} to train and {table.tested:,} to test"
    sizes = f"{table.rows:,} rows of {table.inputs:,} inputs, {parts}"
    return f"{table.file}: {sizes}.\nRows of each class: {counts}."


def find(layout: Layout, data_dir: Path) -> Found:
    """Read a file's content. DataError says why no run can train on it, in which column, and what to do."""
    path = data_dir / layout.file
    try:
        content = read_file(path, MOST_BYTES)
    except FileNotFoundError:
        missing = f"{layout.file}: not in {data_dir}, the folder of --data-dir, "
        where = "where files of one's own lie on every node."
        raise DataError(missing + where + _likely_file(layout, path)) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except MemoryError:
        raise DataError(f"{path}: {NO_MEMORY}") from None
    checksum = hashlib.sha256(content).hexdigest()[:DIGITS]
    if isinstance(layout, Table):
        # a file that is not the declared one may be made to harm who parses it
        _compare(layout, data_dir, {"checksum": checksum})
    try:
        columns = columns_of(
            layout.file, content, [layout.target, *([layout.split] if layout.split else [])], layout.features
        )
        target = columns.pop(layout.target)
        marked = None if layout.split is None else _marked(layout.split, columns.pop(layout.split))
        names, labels = classes_of(layout.target, layout.labels, target)
        inputs = _inputs(layout, columns)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except MemoryError:
        raise DataError(f"{path}: {NO_MEMORY}") from None
    return Found(inputs, labels, names, marked, checksum)


def _likely_file(layout: Layout, path: Path) -> str:
    """A hint which file of the folder may be the missing one, or an empty text.

    A declared file is looked for by its checksum, since a similar name may be other data. A file that is not
    yet declared can only be looked for by its name.
    """
    others = sorted(path.parent.glob("*"))
    if not isinstance(layout, Table):
        return nearest(path.name, [other.name for other in others])
    for other in others:
        if other.suffix.lower() in FORMATS and other.is_file() and _checksum(other) == layout.checksum:
            return f" {other.name} has the declared checksum: was it renamed?"
    return ""


def _checksum(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
    except OSError:  # the checksum is only for a hint
        return None


def _inputs(layout: Layout, columns: dict[str, Column]) -> np.ndarray:
    """The columns of the inputs, as float32. Columns that never vary are dropped if the layout says so."""
    if not columns:
        raise DataError(f"has no column beside {layout.target!r}: there is nothing to tell the classes by.")
    hint = "Write its categories as columns of 0 and 1, or leave it out."
    matrix = np.stack([_numbers(name, column, hint) for name, column in columns.items()], axis=1)
    if (missing := np.isnan(matrix)).any():
        where, first = _columns(columns, missing.any(0)), _row(missing.any(1))
        raise DataError(
            f"{where}: missing values ({int(missing.sum()):,}), the first in {first}. "
            "Fill them in, or leave those rows or columns out."
        )
    with np.errstate(over="ignore"):
        matrix = matrix.astype(np.float32)
    if (infinite := ~np.isfinite(matrix)).any():
        where, first = _columns(columns, infinite.any(0)), _row(infinite.any(1))
        raise DataError(
            f"{where}: values are infinite, or beyond float32, the first in {first}. "
            "Leave those rows or columns out, or scale them."
        )
    constant = (matrix == matrix[:1]).all(0)
    if constant.all():
        raise DataError(
            f"{_columns(columns, constant)}: the same in every row. There is nothing to tell the classes by."
        )
    if constant.any() and layout.constant == "refuse":
        raise DataError(
            f"{_columns(columns, constant)}: the same in every row. "
            "To train without, declare constant: drop (--constant drop)."
        )
    return matrix[:, ~constant]


def classes_of(target: str, order: Sequence[str] | None, column: Column) -> tuple[list[str], np.ndarray]:
    """The names of the classes in their order, and the number of each row's class.

    `order` has the names of the classes where the target holds words.
    """
    where, words = f"target column {target!r}", _words(column)
    if not len(column):
        raise DataError("holds no row.")
    missing = np.array([word is None for word in column]) if isinstance(column, list) else np.isnan(column)
    if missing.any():
        count = int(missing.sum())
        raise DataError(
            f"{where}: missing values ({count:,}), the first in {_row(missing)}. Leave those rows out."
        )
    if words:
        return _named_classes(order, where, words)
    values = _numbers(target, column, "")
    if order is not None:
        raise DataError(
            f"{where} holds numbers; labels is for words. "
            "Leave it out: numbers are classes in ascending order."
        )
    if (broken := values != np.floor(values)).any() or (broken := ~np.isfinite(values)).any():
        raise DataError(
            f"{where} holds {values[broken.argmax()]:g} in {_row(broken)}; "
            "classes are whole numbers, or words with labels."
        )
    found, labels = np.unique(values, return_inverse=True)
    if len(found) < 2:
        raise DataError(f"{where} holds {found[0]:g} alone; there is nothing to tell apart.")
    return [f"{value:.0f}" for value in found], labels.astype(np.int64)


def _named_classes(
    labels: Sequence[str] | None, where: str, words: list[str]
) -> tuple[list[str], np.ndarray]:
    classes = sorted(set(words))
    if labels is None:
        if len(classes) > MOST_WORDS:
            raise DataError(
                f"{where} holds {len(classes):,} different words, such as {words[0]!r}: are these classes?"
            )
        raise DataError(
            f"{where} holds words. "
            f"Say in which order: labels: [{', '.join(classes)}] (--labels {' '.join(classes)})."
        )
    if unknown := [word for word in classes if word not in labels]:
        row, hint = words.index(unknown[0]) + 1, nearest(unknown[0], labels)
        raise DataError(f"{where} holds {unknown[0]!r} in row {row:,}, which labels does not name.{hint}")
    if unused := [word for word in labels if word not in classes]:
        raise DataError(
            f"{where} has no row of {unused[0]!r}, which labels names. "
            "A class without a row cannot be learnt."
        )
    numbers = {word: number for number, word in enumerate(labels)}
    return list(labels), np.array([numbers[word] for word in words], np.int64)


def _words(column: Column) -> list[str]:
    """The words of a column. The list is empty if all values are numbers, even if written as words."""
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
            f"split column {name!r} holds {values[wrong.argmax()]:g} in {_row(wrong)}; "
            "1 marks the test rows, 0 the others."
        )
    if values.all() or not values.any():
        raise DataError(
            f"split column {name!r} holds {values[0]:g} alone; "
            "it must mark some rows to test with 1, and not all."
        )
    return values == 1


def _numbers(name: str, column: Column, hint: str) -> np.ndarray:
    """The numbers of a column, including numbers written as words."""
    if isinstance(column, np.ndarray):
        return column
    numbers = np.full(len(column), np.nan)
    for row, word in enumerate(column):
        try:
            numbers[row] = np.nan if word is None else float(word)
        except ValueError:
            problem = f"column {name!r} holds {word!r} in row {row + 1:,}, which is no number."
            raise DataError(f"{problem} {unread(str(word)) or hint}") from None
    return numbers


def _row(wrong: Any) -> str:
    return f"row {int(wrong.argmax()) + 1:,}"


def _columns(columns: dict[str, Column], wrong: Any) -> str:
    names = [repr(name) for name, is_wrong in zip(columns, wrong, strict=True) if is_wrong]
    more = len(names) - MOST_NAMED
    rest = f" and {more:,} more" if more > 0 else ""
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names[:MOST_NAMED])}{rest}"
