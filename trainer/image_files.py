"""Reading of images from Parquet in the layout of the Hugging Face hub, class folders and .npz arrays.

What a file claims of its sizes is compared with a limit before memory is given to it. Pillow and pyarrow are
imported only where they are needed.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainer.settings import nearest
from trainer.table_files import Column, DataError, arrow_column, first_line, joined, some
from trainer.tables import classes_of

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, int, int]
"""Channels, height and width."""
Colour = Literal["grey", "rgb"]

MOST_IMAGES = 2**24
"""Images in a set; the largest public ones have 14 million."""
MOST_PIXELS = 4096 * 4096
"""Pixels of one image."""
MOST_ENCODED = 2**26
"""Bytes of one encoded image."""
MOST_DECODED = 2**32
"""Bytes of all decoded images. A run holds four times as many, because it trains on float32."""
ROWS_AT_ONCE, READ_AT_ONCE = 256, 2**28
"""Rows of a batch of encoded images, and its bytes, however often one image is repeated."""
EXACT = 2**53
"""The largest whole number up to which float64 has every one."""

FORMATS = ("JPEG", "PNG")
SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_COLUMNS = ("image", "img")
"""Names of the image column that are tried where none is given, in this order."""
MODES = {"L": 1, "RGB": 3}
"""Channels of the modes that need no conversion, by Pillow's names."""
OTHER_MODES = {
    "1": "black and white",
    "P": "of a palette",
    "PA": "of a palette with transparency",
    "LA": "grey with transparency",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
}
"""Modes that `colour` converts."""
ARRAYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
"""Names of the arrays in a .npz: images and classes to train on, then to test on."""


@contextmanager
def reading(where: str) -> Generator[None]:
    """Turn whatever a library raises on bytes that it cannot read into a DataError."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a file that was made to break a library may make it raise anything
        raise DataError(f"{where} cannot be read: {first_line(error)}. Save it anew.") from error


@dataclass(frozen=True)
class Source:
    """Images on disk, before they are decoded. The training images come first, then the test images."""

    train: int
    tested: int
    """Number of test images; 0 where the files do not say which images are for testing."""
    names: list[str]
    """Names of the classes."""
    labels: np.ndarray
    """The number of each image's class."""
    images: Callable[[], Iterator[tuple[str, bytes | np.ndarray]]]
    """Yields where each image is, and its encoded bytes or its pixels (height, width, channels)."""
    column: str | None = None
    """Name of the column of images in Parquet."""


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
        return _arrays(path, labels)
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
    """The content of a folder by name, without hidden files. What leads out of the set is refused."""
    inside = root.resolve()
    found: list[Path] = []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        found.append(folder / entry.name)
        if entry.is_symlink() and not found[-1].resolve().is_relative_to(inside):
            where = found[-1].relative_to(root)
            raise DataError(f"{where}: is a link that leads out of the folder. Copy what it leads to.")
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
        if not file.is_file() or file.suffix.lower() not in SUFFIXES:
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
                raise DataError(_too_long(where, size))
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
    _check_number(sum(rows))
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
        _check_exact(f"{file}: column {target!r}", [end for end in ends.values() if end is not None])
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


# .npz


def _arrays(path: Path, order: Sequence[str] | None) -> Source:
    with reading("as .npz it"):
        archive = zipfile.ZipFile(path)
    held = {name.removesuffix(".npy") for name in archive.namelist()}
    names = next((names for names in ARRAYS if held.issuperset(names[:2])), None)
    if names is None:
        wanted = " or ".join(", ".join(names) for names in ARRAYS)
        raise DataError(f"holds {some(sorted(held))}; the arrays are named {wanted}.")
    pairs = [pair for pair in (names[:2], names[2:]) if held.issuperset(pair)]
    shapes = [_images_shape(archive, images) for images, _ in pairs]
    _check_number(sum(shape[0] for shape in shapes))
    found = [_classes(archive, labels, shape[0]) for (_, labels), shape in zip(pairs, shapes, strict=True)]
    classes, labels = classes_of(names[1], order, np.concatenate(found))

    def images() -> Iterator[tuple[str, np.ndarray]]:
        for (name, _), (count, *size) in zip(pairs, shapes, strict=True):
            with _Member(archive, name) as member:
                for row in range(count):
                    pixels = np.frombuffer(member.read(math.prod(size)), np.uint8)
                    yield f"{name}[{row}]", pixels.reshape(size)
                member.end()

    tested = shapes[1][0] if len(shapes) > 1 else 0
    return Source(shapes[0][0], tested, classes, labels, images)


class _Member:
    """An array in a .npz whose header has been read, and whose values are still to be."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.name = name
        with reading(f"array {name!r}"):
            self.file = archive.open(f"{name}.npy")
            # other versions are for names of fields and for headers of more than 64 KiB
            if np.lib.format.read_magic(self.file) != (1, 0):
                raise ValueError("its header is of another version than 1.0")
            header = np.lib.format.read_array_header_1_0(self.file)
        self.shape, self.by_columns, self.dtype = header
        if self.dtype.hasobject:
            raise DataError(f"array {name!r}: holds objects of Python, which could run code. Save numbers.")
        if self.by_columns and len(self.shape) > 1:
            raise DataError(f"array {name!r}: is in Fortran's order; save np.ascontiguousarray of it.")

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        with reading(f"array {self.name!r}"):
            data = self.file.read(size)
        if len(data) < size:
            raise DataError(f"array {self.name!r}: ends before the {self.shape} values that it claims.")
        return data

    def end(self) -> None:
        """Check that nothing is left. The archive checks its own sum here."""
        with reading(f"array {self.name!r}"):
            left = self.file.read(1)
        if left:
            raise DataError(f"array {self.name!r}: goes on after the {self.shape} values that it claims.")


def _images_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, int, int, int]:
    """Number, height, width and channels of an array of images, by its header."""
    with _Member(archive, name) as member:
        shape, dtype = member.shape, member.dtype
    if dtype != np.uint8:
        raise DataError(f"array {name!r}: is {dtype}; images are whole numbers from 0 to 255 (uint8).")
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in MODES.values() or 0 in shape:
        raise DataError(
            f"array {name!r}: has the shape {member.shape}; images are (number, height, width) "
            "or (number, height, width, channels) with 1 or 3 channels."
        )
    if shape[1] * shape[2] > MOST_PIXELS:
        raise DataError(_too_large(f"array {name!r}", shape[2], shape[1]))
    check_decoded(shape[0], (shape[3], shape[1], shape[2]))
    return shape


def _classes(archive: zipfile.ZipFile, name: str, count: int) -> np.ndarray:
    with _Member(archive, name) as member:
        if member.dtype.kind not in "iu" or member.shape not in ((count,), (count, 1)):
            raise DataError(
                f"array {name!r}: is {member.dtype} of the shape {member.shape}; "
                f"classes are whole numbers, one for each of the {count:,} images."
            )
        labels = np.frombuffer(member.read(count * member.dtype.itemsize), member.dtype)
        member.end()
    _check_exact(f"array {name!r}", [int(labels.min()), int(labels.max())])
    return labels.astype(np.float64)


# one image


def pixels_of(
    where: str,
    given: bytes | np.ndarray,
    colour: Colour | None,
    resize: tuple[int, ...] | None,
    shape: Shape | None,
) -> np.ndarray:
    """The pixels of an image as (height, width, channels), converted and resized where that is declared.

    An image of another shape than `shape` is refused before it is decoded.
    """
    from PIL.Image import Resampling, fromarray

    if isinstance(given, np.ndarray):
        picture = fromarray(given[:, :, 0] if given.shape[2] == 1 else given)
    else:
        picture = _opened(where, given, convert=colour is not None)
    mode = {"grey": "L", "rgb": "RGB", None: picture.mode}[colour]
    found = (MODES[mode], *(resize or (picture.height, picture.width)))
    if shape and found != shape:
        raise DataError(_other_shape(where, found, shape))
    with reading(f"{where}:"):
        picture = picture if mode == picture.mode else picture.convert(mode)
        if resize:
            picture = picture.resize((resize[1], resize[0]), Resampling.BILINEAR)
        return np.asarray(picture).reshape(picture.height, picture.width, MODES[mode])


def _opened(where: str, encoded: bytes, *, convert: bool) -> Image:
    """The image by its header, not decoded. What could not be trained on is refused."""
    from PIL import Image

    if not encoded:
        raise DataError(f"{where}: is empty.")
    if len(encoded) > MOST_ENCODED:
        raise DataError(_too_long(where, len(encoded)))
    with reading(f"{where}:"):
        try:
            picture = Image.open(io.BytesIO(encoded), formats=FORMATS)
        except Image.UnidentifiedImageError:
            raise DataError(f"{where}: is no {' or '.join(FORMATS)}. Save it as one of these.") from None
    if picture.width * picture.height > MOST_PIXELS:
        raise DataError(_too_large(where, picture.width, picture.height))
    if getattr(picture, "n_frames", 1) > 1:
        raise DataError(f"{where}: holds several pictures. Save one of them.")
    # Pillow would cut 16 bits of colour to 8 and say nothing; the depth stands in the first chunk of a PNG
    if picture.format == "PNG" and encoded[24] == 16:
        raise DataError(f"{where}: has 16 bits a value. Save it with 8.")
    if picture.mode not in MODES and not (convert and picture.mode in OTHER_MODES):
        kind = OTHER_MODES.get(picture.mode, picture.mode)
        raise DataError(
            f"{where}: is {kind}. Save it as grey or RGB, or declare colour: rgb or grey (--colour)."
        )
    return picture


def _other_shape(where: str, found: Sequence[int], shape: Shape) -> str:
    if found[1:] != shape[1:]:
        return (
            f"{where}: has {found[1]} x {found[2]} pixels (height x width), where {shape[1]} x {shape[2]} "
            f"were expected. Declare resize: [{shape[1]}, {shape[2]}] (--resize {shape[1]} {shape[2]})."
        )
    kinds = {1: "grey", 3: "RGB"}
    return (
        f"{where}: is {kinds[found[0]]}, where {kinds[shape[0]]} was expected. "
        "Declare colour: rgb or grey (--colour), to convert all."
    )


def check_decoded(count: int, shape: Shape) -> None:
    """Raise DataError if so many images of this shape take too much memory."""
    if (size := count * math.prod(shape)) > MOST_DECODED:
        most = f"at most {MOST_DECODED / 2**30:.0f} are read. Declare a smaller resize."
        raise DataError(
            f"{count:,} images of {shape[1]} x {shape[2]} pixels and {shape[0]} channels take "
            f"{size / 2**30:,.1f} GiB; {most}"
        )


def _check_number(count: int) -> None:
    if count > MOST_IMAGES:
        raise DataError(f"claims {count:,} images; at most {MOST_IMAGES:,} are read.")
    if not count:
        raise DataError("holds no image.")


def _check_exact(where: str, values: list[int]) -> None:
    if any(abs(value) > EXACT for value in values):
        raise DataError(f"{where} holds {max(values, key=abs)}; classes are numbers up to {EXACT:,}.")


def _too_large(where: str, width: int, height: int) -> str:
    return f"{where}: has {height:,} x {width:,} pixels, more than {MOST_PIXELS:,} in all. Make it smaller."


def _too_long(where: str, size: int) -> str:
    return f"{where}: takes {size:,} bytes; an encoded image has at most {MOST_ENCODED:,}."
