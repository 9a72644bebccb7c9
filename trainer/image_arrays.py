"""Reading of images from .npz arrays. Their headers are read and checked before their values."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trainer.image_source import (
    MODES,
    MOST_PIXELS,
    Source,
    check_decoded,
    check_exact,
    check_number,
    reading,
    too_large,
)
from trainer.table_files import DataError, some
from trainer.tables import classes_of

ARRAYS = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
"""Names of the arrays in a .npz: images and classes to train on, then to test on."""


def arrays_of(path: Path, order: Sequence[str] | None) -> Source:
    """Look at a .npz without reading its images."""
    with reading("as .npz it"):
        archive = zipfile.ZipFile(path)
    held = {name.removesuffix(".npy") for name in archive.namelist()}
    names = next((names for names in ARRAYS if held.issuperset(names[:2])), None)
    if names is None:
        wanted = " or ".join(", ".join(names) for names in ARRAYS)
        raise DataError(f"holds {some(sorted(held))}; the arrays are named {wanted}.")
    pairs = [pair for pair in (names[:2], names[2:]) if held.issuperset(pair)]
    shapes = [_images_shape(archive, images) for images, _ in pairs]
    check_number(sum(shape[0] for shape in shapes))
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
        raise DataError(too_large(f"array {name!r}", shape[2], shape[1]))
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
    check_exact(f"array {name!r}", [int(labels.min()), int(labels.max())])
    return labels.astype(np.float64)
