"""Small sets of images in every layout, made from the same pictures."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.conftest import ROOT

TRAIN, TEST = 24, 9
NAMES = ("bird", "cat", "dog")


def drawn(count: int, shape: tuple[int, ...] = (8, 8, 3), seed: int = 1) -> np.ndarray:
    """Smooth random pictures, which JPEG does not turn into noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, *shape[2:]), np.uint8)
    return coarse.repeat(-(-shape[0] // 2), 1).repeat(-(-shape[1] // 2), 2)[:, : shape[0], : shape[1]]


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """What Pillow makes of a file, by its plainest use."""
    return np.array(Image.open(io.BytesIO(data)))


def classes(count: int) -> np.ndarray:
    """Classes in rising order, so that sorted folders have the rows of a table."""
    return np.sort(np.arange(count) % len(NAMES))


def write_parquet(
    path: Path, images: Sequence[bytes | None], labels: Any, *, flat: bool = False, **options: Any
) -> None:
    """A file in the layout of the Hugging Face hub, or with the bytes alone."""
    column = (
        list(images) if flat else [None if one is None else {"bytes": one, "path": None} for one in images]
    )
    kind = pa.binary() if flat else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(column, kind), "label": pa.array(labels)}), path, **options)


def write_folders(
    folder: Path, images: Sequence[bytes], labels: Sequence[int], suffix: str = ".png"
) -> None:
    """A folder for each class, with its images in their order."""
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / NAMES[label]).mkdir(parents=True, exist_ok=True)
        (folder / NAMES[label] / f"{row:03}{suffix}").write_bytes(image)


def write_pngs(folder: Path, shape: tuple[int, ...] = (8, 8, 3)) -> tuple[np.ndarray, np.ndarray]:
    """A set of class folders with a part to train and one to test. Returns the pixels of both."""
    train, test = drawn(TRAIN, shape), drawn(TEST, shape, seed=2)
    write_folders(folder / "train", [encoded(one) for one in train], classes(TRAIN).tolist())
    write_folders(folder / "test", [encoded(one) for one in test], classes(TEST).tolist())
    return train, test


def describe(folder: Path, path: str, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m trainer.data` as a process."""
    words = [sys.executable, "-m", "trainer.data", path, "--data-dir", str(folder), *more]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240, **options
    )


def declaration(folder: Path, path: str, *more: str) -> dict[str, Any]:
    """The object that the command prints."""
    done = describe(folder, path, *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
