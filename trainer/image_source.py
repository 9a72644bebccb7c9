"""A set of images on disk as its readers give it, and how much of it is read at most.

What a file claims of its sizes is compared with a limit before memory is given to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from trainer.decoded import Shape
from trainer.table_files import DataError, first_line

MOST_IMAGES = 2**24
"""Images in a set; the largest public ones have 14 million."""
MOST_PIXELS = 4096 * 4096
"""Pixels of one image."""
MOST_ENCODED = 2**26
"""Bytes of one encoded image."""
MOST_DECODED = 2**32
"""Bytes of all decoded images. A run holds four times as many, because it trains on float32."""
EXACT = 2**53
"""The largest whole number up to which float64 has every one."""
MODES = {"L": 1, "RGB": 3}
"""Channels of the modes that need no conversion, by Pillow's names."""


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


def check_decoded(count: int, shape: Shape) -> None:
    """Raise DataError if so many images of this shape take too much memory."""
    if (size := count * math.prod(shape)) > MOST_DECODED:
        most = f"at most {MOST_DECODED / 2**30:.0f} are read. Declare a smaller resize."
        raise DataError(
            f"{count:,} images of {shape[1]} x {shape[2]} pixels and {shape[0]} channels take "
            f"{size / 2**30:,.1f} GiB; {most}"
        )


def check_number(count: int) -> None:
    """Raise DataError for a set of no images, or of more than are read."""
    if count > MOST_IMAGES:
        raise DataError(f"claims {count:,} images; at most {MOST_IMAGES:,} are read.")
    if not count:
        raise DataError("holds no image.")


def check_exact(where: str, values: list[int]) -> None:
    """Raise DataError for a class number that float64 does not have exactly."""
    if any(abs(value) > EXACT for value in values):
        raise DataError(f"{where} holds {max(values, key=abs)}; classes are numbers up to {EXACT:,}.")


def too_large(where: str, width: int, height: int) -> str:
    """Why an image of this size is refused."""
    return f"{where}: has {height:,} x {width:,} pixels, more than {MOST_PIXELS:,} in all. Make it smaller."


def too_long(where: str, size: int) -> str:
    """Why an encoded image of so many bytes is refused."""
    return f"{where}: takes {size:,} bytes; an encoded image has at most {MOST_ENCODED:,}."
