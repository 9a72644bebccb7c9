"""Reading of CSV, Parquet, ARFF and MATLAB's .mat files into named columns of numbers or words.

Each format's library is imported only when a file of that format is read.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, Literal, NoReturn

import numpy as np

from trainer.plain import one_line
from trainer.settings import nearest

Column = np.ndarray | list[str | None]
"""Numbers as float64 with NaN for missing values, or words with None for missing values."""
MISSING = {"", "?", "-", ".", "na", "n/a", "nan", "null", "none", "missing"}
"""Ways to write a missing value, in small letters. Those that a format itself knows never become words."""
LONGEST_LINE = 2**26
"""Bytes that one line of a CSV or ARFF may have. A table of genes has ten thousand columns."""
MOST_COLUMNS = 2**17
"""Columns of a table."""
MOST_CELLS = 2**26
"""Cells of a table. As numbers they take half a GiB, and reading holds a few copies of them."""
MOST_BYTES = 2**31
"""Bytes of a file."""
MOST_UNPACKED = 2**29
"""Bytes of what is packed in a file."""


NO_MEMORY = "takes more memory than this process can get. Make it smaller, or use a larger machine."
PACKED_AT_ONCE = 2**16
ORDERS: dict[bytes, Literal["little", "big"]] = {b"IM": "little", b"MI": "big"}
"""Order of the bytes of a number in a .mat, by the mark at the end of its header."""


class DataError(RuntimeError):
    """The error for data that this machine lacks or cannot use. The message says what is expected where.

    It is one line, whatever stands in the names of files, columns and classes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def columns_of(file: str, content: bytes, named: list[str], features: str | None) -> dict[str, Column]:
    """The columns of a file in their order. All have one length, and all `named` columns are among them."""
    read = FORMATS[PurePosixPath(file).suffix.lower()]
    try:
        columns = read(content, named, features)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # each library has its own errors for files that it cannot read
        raise DataError(f"cannot be read as {PurePosixPath(file).suffix}: {first_line(error)}") from error
    for name in named:
        if name not in columns:
            raise DataError(
                f"has no column {name!r}.{nearest(name, columns)} Its columns are {some(columns)}."
            )
    return columns


def unread(word: str) -> str | None:
    """Advice on a cell that is no number because its value is missing or has a decimal comma, or None."""
    if word.strip().lower() in MISSING:
        return "A missing value has to be filled in, or its row left out."
    if re.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*", word):
        return "A decimal comma has to be written as a point."
    return None


def first_line(error: Exception) -> str:
    """The first line of a library's error; its kind, where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def some(names: Iterable[str], most: int = 20) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (
        f" and {len(names) - most:,} more" if len(names) > most else ""
    )


def _csv(content: bytes, _named: list[str], _features: str | None) -> dict[str, Column]:
    from pyarrow import csv

    _check_lines(content)
    first = content.partition(b"\n")[0]
    _check_size(0, first.count(b",") + 1)
    if b"," not in first and (
        wrong := [name for mark, name in ((b";", "';'"), (b"\t", "tabs")) if mark in first]
    ):
        raise DataError(
            f"has one column, and {wrong[0]} in its name: columns are separated by commas. "
            "Save it so, with decimal points."
        )
    found = csv.read_csv(
        io.BytesIO(content),
        read_options=csv.ReadOptions(block_size=LONGEST_LINE),
        convert_options=csv.ConvertOptions(strings_can_be_null=True),
    )
    if "" in found.column_names:
        number = found.column_names.index("") + 1
        raise DataError(
            f"column {number:,} has no name in the first line. "
            "(pandas writes its index so: to_csv(..., index=False).)"
        )
    return _from_arrow(found)


def _parquet(content: bytes, _named: list[str], _features: str | None) -> dict[str, Column]:
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(io.BytesIO(content))
    _check_size(file.metadata.num_rows, file.metadata.num_columns)
    # words are kept once, however often they are repeated
    words = [column.path for column in file.schema if column.physical_type == "BYTE_ARRAY"]
    packed = parquet.ParquetFile(io.BytesIO(content), read_dictionary=words)
    groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
    _check_unpacked(sum(group.total_byte_size for group in groups))
    batches, size = list[Any](), 0
    for batch in packed.iter_batches(use_threads=False):
        # what the file says of its sizes need not be true
        size += batch.nbytes
        _check_unpacked(size)
        batches.append(batch)
    found = pa.Table.from_batches(batches) if batches else packed.read()
    if index := [name for name in found.column_names if name.startswith("__index_level_")]:
        raise DataError(
            f"column {index[0]!r} is an index of pandas; "
            "write the file without: to_parquet(..., index=False)."
        )
    return _from_arrow(found)


def _from_arrow(found: Any) -> dict[str, Column]:
    names = found.column_names
    if twice := sorted(
        {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    ):
        raise DataError(f"column {twice[0]!r} stands twice.")
    _check_size(found.num_rows, found.num_columns)
    return {name: arrow_column(column) for name, column in zip(names, found.columns, strict=True)}


def arrow_column(column: Any) -> Column:
    """The values of a column of Arrow as numbers or words."""
    import pyarrow as pa

    kind = pa.types
    if kind.is_dictionary(column.type):
        return joined([_dictionary_column(part) for part in column.chunks])
    if (
        kind.is_integer(column.type)
        or kind.is_floating(column.type)
        or kind.is_decimal(column.type)
        or kind.is_null(column.type)
    ):
        return column.cast(pa.float64(), safe=False).to_numpy()
    if kind.is_boolean(column.type):
        return column.cast(pa.int8()).cast(pa.float64()).to_numpy()
    return [None if value is None else str(value) for value in column.to_pylist()]


def joined(parts: list[Column]) -> Column:
    """The column that several parts of it make. All of it is numbers, or all of it is words."""
    numbers = [part for part in parts if isinstance(part, np.ndarray)]
    if len(numbers) == len(parts):
        return np.concatenate([np.empty(0), *numbers])
    return [None if value is None else str(value) for part in parts for value in part]


def _dictionary_column(part: Any) -> Column:
    """The values of a part of a column that has each different value once. Rows share their words."""
    values, indexes = arrow_column(part.dictionary), part.indices.fill_null(len(part.dictionary))
    if isinstance(values, list):
        values.append(None)
        return [values[index] for index in indexes.to_pylist()]
    return np.append(values, np.nan)[indexes.to_numpy()]


def _arff(content: bytes, _named: list[str], _features: str | None) -> dict[str, Column]:
    from scipy.io import arff

    _check_lines(content)
    rows, about = arff.loadarff(io.StringIO(content.decode()))
    return {name: _arff_column(rows[name]) for name in about.names()}


def _arff_column(values: np.ndarray) -> Column:
    if values.dtype.kind == "f":
        return values
    words = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
    return [None if word == "?" else word for word in words]


def _mat(content: bytes, named: list[str], features: str | None) -> dict[str, Column]:
    """Read the `named` variables, one column each, and the columns of the one matrix with as many rows."""
    from scipy.io import loadmat, whosmat

    _check_packed(content)
    try:
        for _, shape, _ in whosmat(io.BytesIO(content)):
            _check_size(math.prod(shape), 1)
        found: dict[str, Any] = loadmat(io.BytesIO(content))
    except NotImplementedError:
        raise DataError(
            "is of MATLAB's version 7.3, which is HDF5; write it anew with save(FILE, VARIABLES, '-v7')."
        ) from None
    variables = {name: value for name, value in found.items() if not name.startswith("__")}
    for name in [*named, *([features] if features else [])]:
        if name not in variables:
            raise DataError(
                f"has no variable {name!r}.{nearest(name, variables)} Its variables are {some(variables)}."
            )
    columns: dict[str, Column] = {name: _vector(name, variables[name]) for name in named}
    rows = len(columns[named[0]])
    sizes = {name: np.shape(value) for name, value in variables.items()}
    shapes = ", ".join(f"{name} is {' x '.join(map(str, size))}" for name, size in sizes.items())
    fitting = [name for name, value in variables.items() if name not in named and _is_matrix(value, rows)]
    chosen = [features] if features in fitting else fitting if features is None else []
    if len(chosen) != 1:
        problem = (
            "several matrices fit: say which one in features"
            if chosen
            else f"no matrix has {rows:,} rows, one for each of {named[0]!r}"
        )
        raise DataError(f"{problem}. ({shapes})")
    matrix = variables[chosen[0]]
    matrix = np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, np.float64)
    columns.update({f"{chosen[0]}(:,{i + 1})": matrix[:, i] for i in range(matrix.shape[1])})
    return columns


def _is_matrix(value: Any, rows: int) -> bool:
    return len(np.shape(value)) == 2 and np.shape(value)[0] == rows and value.dtype.kind in "fiub"


def _vector(name: str, value: Any) -> Column:
    """The values of a variable with one row or one column. A matrix of letters holds one word per row."""
    value = value.toarray() if hasattr(value, "toarray") else value
    if value.dtype.kind != "U" and (value.ndim != 2 or 1 not in value.shape):
        shape = " x ".join(map(str, value.shape))
        raise DataError(f"variable {name!r} is {shape}; one column was expected, a value for each row.")
    flat = value.ravel()
    if value.dtype.kind in "fiub":
        return flat.astype(np.float64)
    if value.dtype.kind == "U":
        return [str(word).rstrip() for word in flat]
    return [str(np.squeeze(cell)[()]) if np.size(cell) else None for cell in flat]


def _check_lines(content: bytes) -> None:
    """Raise DataError if a line is longer than LONGEST_LINE."""
    start = 0
    while len(content) - start > LONGEST_LINE:
        start = content.rfind(b"\n", start, start + LONGEST_LINE) + 1 or _too_long(content, start)


def _too_long(content: bytes, start: int) -> NoReturn:
    line, text = content.count(b"\n", 0, start) + 1, content[start : start + 20]
    raise DataError(f"line {line:,}, which begins {text!r}, has more than {LONGEST_LINE:,} bytes.")


def _check_size(rows: int, columns: int) -> None:
    """Raise DataError if a table of this size would take too much memory."""
    if columns > MOST_COLUMNS or rows * columns > MOST_CELLS:
        raise DataError(
            f"claims {rows:,} rows of {columns:,} columns; "
            f"at most {MOST_CELLS:,} cells in {MOST_COLUMNS:,} columns are read. Leave some out."
        )


def _check_packed(content: bytes) -> None:
    """Raise DataError if what is packed in a .mat takes more than MOST_UNPACKED.

    A file of version 5 is a header of 128 bytes and elements: their kind (15 is packed by zlib), their size,
    and so many bytes.
    """
    at, size = 128, 0
    while content[126:128] in ORDERS and at + 8 <= len(content):
        order = ORDERS[content[126:128]]
        kind, length = (int.from_bytes(content[at + i : at + i + 4], order) for i in (0, 4))
        at += 8
        if kind == 15:
            for unpacked in _unpacked(content[at : at + length]):
                size += unpacked
                _check_unpacked(size)
        at += length


def _check_unpacked(size: int) -> None:
    """Raise DataError if what is packed in a file takes too much memory."""
    if size > MOST_UNPACKED:
        raise DataError(f"holds more than {MOST_UNPACKED:,} bytes when it is unpacked.")


def _unpacked(packed: bytes) -> Iterator[int]:
    """Unpack bytes a part at a time, and yield the size of each part."""
    stream = zlib.decompressobj()
    for start in range(0, len(packed), PACKED_AT_ONCE):
        rest = packed[start : start + PACKED_AT_ONCE]
        while rest:
            yield len(stream.decompress(rest, 256 * PACKED_AT_ONCE))
            rest = stream.unconsumed_tail


FORMATS: dict[str, Callable[[bytes, list[str], str | None], dict[str, Column]]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".arff": _arff,
    ".mat": _mat,
}
