"""Reading of images from class folders and from Parquet in the layout of the Hugging Face hub.

pyarrow is imported only where it is needed. Arrays are read in `image_arrays`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.image_arrays import arrays_of
from trainer.image_source import (
    MOST_ENCODED,
    MOST_IMAGES,
    Source,
    check_exact,
    check_number,
    reading,
    too_long,
)
from trainer.settings import nearest
from trainer.table_files import Column, DataError, arrow_column, joined, some
from trainer.tables import classes_of

SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_COLUMNS = ("image", "img")
"""Names of the image column that are tried where none is given, in this order."""
ROWS_AT_ONCE, READ_AT_ONCE = 256, 2**28
"""Rows of a batch of encoded images, and its bytes, however often one image is repeated."""


def files_of(path: Path) -> list[Path]:
    """The files that a set consists of, sorted by their paths."""
    if not path.is_dir():
        return [path]
    tables = _tables(path)
    files = tables if tables else [file for part in _parts(path) for file, _ in part]
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def open_source(path: Path, image: str | None, target: str, labels: Sequence[str] | None) -> Source:
    """Look at a set without decoding its images: what is there, and the class of each."""
    if path.suffix.lower() == ".npz":
        return arrays_of(path, labels)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _parquet([path], [], path.parent, image, target, labels)
    if not path.is_dir():
        raise DataError("is no folder, .parquet or .npz. Images are kept in one of these.")
    if not (tables := _tables(path)):
        return _folders(path)
    parts = [[file for file in tables if file.name.startswith(part)] for part in ("train", "test")]
    return _parquet(parts[0], parts[1], path, image, target, labels)


# class folders


def _tables(path: Path) -> list[Path]:
    """The Parquet files of a folder whose names begin with train or test. They may lie in data/."""
    for folder in (path, path / "data"):
        listed = _entries(folder, path) if folder.is_dir() else []
        if files := [file for file in listed if file.suffix.lower() == ".parquet"]:
            known = [file for file in files if file.name.startswith(("train", "test"))]
            if not any(file.name.startswith("train") for file in known):
                raise DataError(f"holds {files[0].name} and no .parquet whose name begins with train.")
            return known
    return []


def _entries(folder: Path, root: Path) -> list[Path]:
    """The files and folders in a folder by name, without hidden ones. What leads out is refused."""
    inside = root.resolve()
    found: list[Path] = []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        found.append(folder / entry.name)
        if entry.is_symlink() and not found[-1].resolve().is_relative_to(inside):
            where = found[-1].relative_to(root)
            raise DataError(f"{where}: is a link that leads out of the folder. Copy what it leads to.")
        if not (entry.is_file() or entry.is_dir()):
            raise DataError(f"{found[-1].relative_to(root)}: is no file and no folder. Take it away.")
        if len(found) > MOST_IMAGES:
            raise DataError(f"holds more than {MOST_IMAGES:,} files.")
    return sorted(found)


Images = list[tuple[Path, str]]
"""Files of images with the names of their classes, sorted by path."""


def _parts(path: Path) -> tuple[Images, Images]:
    """The images to train on and to test on. The second list is empty where the folder has no test/."""
    if not (path / "train").is_dir():
        return _class_folders(path, path), []
    test = _class_folders(path / "test", path) if (path / "test").is_dir() else []
    return _class_folders(path / "train", path), test


def _class_folders(folder: Path, root: Path) -> Images:
    found: Images = []
    for entry in _entries(folder, root):
        if entry.is_dir():
            found += [(file, entry.name) for file in _entries(entry, root)]
        elif entry.suffix.lower() in SUFFIXES:
            raise DataError(f"{entry.relative_to(root)}: lies in no folder that is named after its class.")
    for file, _ in found:
        if file.is_dir() or file.suffix.lower() not in SUFFIXES:
            where = file.relative_to(root)
            raise DataError(f"{where}: is no file that ends in {', '.join(SUFFIXES)}. Take it away.")
    if not found:
        within = "" if folder == root else f"{folder.relative_to(root)}: "
        raise DataError(f"{within}holds no train*.parquet and no CLASS/image{SUFFIXES[0]}.")
    return sorted(found, key=lambda image: image[0].relative_to(root).as_posix())


def _folders(path: Path) -> Source:
    train, test = _parts(path)
    names = sorted({name for _, name in train})
    if unknown := sorted({name for _, name in test}.difference(names)):
        hint = nearest(unknown[0], names)
        raise DataError(f"test/{unknown[0]}: train/ has no such class.{hint}")
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[name] for _, name in train + test], np.int64)

    def images() -> Iterator[tuple[str, bytes]]:
        for file, _ in train + test:
            where = file.relative_to(path).as_posix()
            if (size := file.stat().st_size) > MOST_ENCODED:
                raise DataError(too_long(where, size))
            yield where, file.read_bytes()

    return Source(len(train), len(test), names, labels, images)


# Parquet


def _opened_table(path: Path, target: str) -> Any:
    from pyarrow import parquet

    with reading(f"{path.name}: as .parquet it"):
        columns = [(column.path, column.physical_type) for column in parquet.ParquetFile(path).schema]
        # each word of a column is kept once, however often it is repeated
        words = [target] if (target, "BYTE_ARRAY") in columns else []
        return parquet.ParquetFile(path, read_dictionary=words, buffer_size=2**20)


def _column(table: Any, file: str, image: str | None) -> str:
    """The name of the column of images, which holds bytes or a mapping with bytes."""
    import pyarrow as pa

    schema = table.schema_arrow
    wanted = [image] if image else IMAGE_COLUMNS
    chosen = next((name for name in wanted if name in schema.names), None)
    if chosen is None:
        named = " or ".join(map(repr, wanted))
        raise DataError(
            f"{file}: has no column {named}. Its columns are {some(schema.names)}: say which has the images"
            " (--image COLUMN)."
        )
    kind = schema.field(chosen).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"{file}: column {chosen!r} is {kind}; a column of images holds bytes, or a mapping with bytes."
        )
    return chosen


def _parquet(
    train: list[Path],
    test: list[Path],
    root: Path,
    image: str | None,
    target: str,
    labels: Sequence[str] | None,
) -> Source:
    """A set of Parquet files. `root` is the folder that messages name files from."""
    opened = {file.relative_to(root).as_posix(): _opened_table(file, target) for file in [*train, *test]}
    rows = [table.metadata.num_rows for table in opened.values()]
    check_number(sum(rows))
    for file, table in opened.items():
        image = _column(table, file, image)
    found = joined([_target(table, file, target) for file, table in opened.items()])
    names, classes = classes_of(target, labels, found)
    column = image or ""

    def images() -> Iterator[tuple[str, bytes]]:
        for file, table in opened.items():
            at = f"{file} " if len(opened) > 1 else ""
            for row, encoded in enumerate(_cells(table, column, file), start=1):
                if encoded is None:
                    raise DataError(f"{at}row {row:,}: has no image. Leave the row out.")
                yield f"{at}row {row:,}", encoded

    return Source(sum(rows[: len(train)]), sum(rows[len(train) :]), names, classes, images, column)


def _target(table: Any, file: str, target: str) -> Column:
    """The column of the classes: numbers, or words."""
    import pyarrow as pa
    from pyarrow import compute

    names = table.schema_arrow.names
    if target not in names:
        raise DataError(
            f"{file}: has no column {target!r}.{nearest(target, names)} Its columns are {some(names)}: "
            "say which has the classes (--target COLUMN)."
        )
    with reading(f"{file}: column {target!r}"):
        column = table.read([target], use_threads=False).column(target)
    if pa.types.is_nested(column.type):
        raise DataError(f"{file}: column {target!r} is {column.type}; classes are whole numbers or words.")
    if pa.types.is_integer(column.type) and len(column):
        ends = compute.call_function("min_max", [column]).as_py()
        check_exact(f"{file}: column {target!r}", [end for end in ends.values() if end is not None])
    return arrow_column(column)


def _cells(table: Any, column: str, file: str) -> Iterator[bytes | None]:
    """The encoded images of a file, a few at a time."""
    import pyarrow as pa

    nested = pa.types.is_struct(table.schema_arrow.field(column).type)
    path = f"{column}.bytes" if nested else column
    with reading(f"{file}: column {column!r}"):
        for group in range(table.num_row_groups):
            described = table.metadata.row_group(group)
            parts = [described.column(i) for i in range(described.num_columns)]
            size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema == path)
            rows = max(1, min(ROWS_AT_ONCE, READ_AT_ONCE // max(size, 1)))
            for batch in table.iter_batches(rows, row_groups=[group], columns=[path], use_threads=False):
                cells = batch.column(0)
                yield from (cells.flatten()[0] if nested else cells).to_pylist()
