"""Images of one's own: a folder, a .parquet or a .npz that a study declares as `task.data`.

The declaration lets a study be checked without the files. Its hashes refuse other files and other pixels.
The files are read in `image_files` and `image_arrays`, and decoded images are kept by `decoded`.
"""

from __future__ import annotations

import hashlib
import shlex
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from trainer import randomness
from trainer.decoded import Cache, Decoded, Facts, Say, Shape
from trainer.image_files import files_of, open_source
from trainer.image_source import Source, check_decoded
from trainer.pictures import Colour, pixels_of
from trainer.settings import SettingError, Within, written
from trainer.table_files import NO_MEMORY, DataError, first_line
from trainer.tables import DIGITS, TEST, Count, option, wrong_checksum, wrong_path

CHANNELS = {"grey": 1, "rgb": 3}
SAY_SECONDS = 10.0
"""The time from one message about decoding to the next."""
COUNTED_AT_ONCE = 1000
Side = Annotated[int, Within(at_least=1, at_most=4096)]


@dataclass(frozen=True, kw_only=True)
class ImageLayout:
    """How to read a set of images: where it lies, which are the test images, and what each is brought to."""

    images: Annotated[str, wrong_path]
    """Path of the folder, .parquet or .npz inside the folder of --data-dir."""
    image: str | None = None
    """Parquet: name of the column of images; null takes image, or else img."""
    target: str = "label"
    """Parquet: name of the column of the classes."""
    labels: tuple[str, ...] | None = None
    """Parquet: names of the classes in their order, if the target holds words."""
    test: Annotated[float, Within(above=0, below=1)] | None = None
    """Share of the images in the test set, drawn once for all seeds; null if the files mark it."""
    resize: tuple[Side, ...] | None = None
    """Height and width that every image is resized to (bilinear); null refuses images of several sizes."""
    colour: Colour | None = None
    """What every image is converted to; null refuses a mixture, and all but grey and RGB."""
    mean: tuple[Annotated[float, Within(at_least=0, at_most=1)], ...] | None = None
    """Mean of each channel on a scale from 0 to 1; null takes that of the images that the run trains on."""
    std: tuple[Annotated[float, Within(above=0, at_most=1)], ...] | None = None
    """Standard deviation of each channel on that scale; null as for `mean`."""

    def __post_init__(self) -> None:
        if self.resize is not None and len(self.resize) != 2:
            raise SettingError("resize", f"must be [height, width]; it is {list(self.resize)}.")
        if (self.mean is None) != (self.std is None):
            given, lacking = ("mean", "std") if self.std is None else ("std", "mean")
            raise SettingError(given, f"stands alone: give {lacking} too, or neither.")


@dataclass(frozen=True, kw_only=True)
class Images(ImageLayout):
    """The declaration of a set of images: its layout, sizes and hashes.

    `python -m trainer.data PATH` prints it.
    """

    train: Count
    """Number of training images."""
    tested: Count
    """Number of test images."""
    shape: tuple[Side, ...]
    """Channels, height and width of every image."""
    classes: Annotated[int, Within(at_least=2)]
    """Classes of the images."""
    checksum: Annotated[str, wrong_checksum]
    """The first 16 hex digits of a sha256: the file's, or that of the names and hashes in the folder."""
    pixels: Annotated[str, wrong_checksum]
    """The first 16 hex digits of the sha256 of the decoded images and their classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) != 3 or self.shape[0] not in CHANNELS.values():
            raise SettingError(
                "shape", f"must be [channels, height, width] with 1 or 3 channels; it is {list(self.shape)}."
            )
        if self.resize is not None and self.shape[1:] != self.resize:
            raise SettingError("shape", f"is {list(self.shape)}, and resize is {list(self.resize)}.")
        if self.colour is not None and self.shape[0] != CHANNELS[self.colour]:
            raise SettingError("shape", f"has {self.shape[0]} channels, and colour is {self.colour}.")
        for setting in ("mean", "std"):
            values = getattr(self, setting)
            if values is not None and len(values) != self.shape[0]:
                raise SettingError(
                    setting,
                    f"must have {self.shape[0]} numbers, one for each channel; it has {len(values)}.",
                )
        if self.test is not None and self.tested != round(self.test * (self.train + self.tested)):
            raise SettingError(
                "tested", f"is {self.tested:,}, which is no share of {self.test} of all images."
            )
        try:
            check_decoded(self.train + self.tested, self.sizes)
        except DataError as error:
            raise SettingError("shape", str(error)) from None

    @property
    def sizes(self) -> Shape:
        """`shape` as three numbers."""
        channels, height, width = self.shape
        return channels, height, width

    @property
    def facts(self) -> Facts:
        """What the block of the decoded images says of itself."""
        return Facts(self.train, self.tested, self.sizes, self.classes)

    @property
    def name(self) -> str:
        """The name under which the decoded images are kept."""
        return f"{self.checksum}-{self.pixels}"


@dataclass(frozen=True, eq=False)
class Found:
    """The content of a set: decoded images, the names of the classes, and the checksum of the files."""

    layout: ImageLayout
    """The layout in which nothing is left to be found out."""
    decoded: Decoded
    names: list[str]
    checksum: str

    def facts(self) -> dict[str, object]:
        """The facts that `Images` declares about the set."""
        return {**vars(self.decoded.facts), "checksum": self.checksum, "pixels": self.decoded.pixels}


def load(images: Images, data_dir: Path, cache: Path | None, say: Say) -> Decoded:
    """Load the decoded images. `cache` is the folder that keeps them.

    Files whose decoded images are kept are not read again. DataError says how they differ from the
    declaration.
    """
    kept = Cache(cache, say) if cache else None
    if kept and (decoded := kept.read(images.name, images.facts)):
        return decoded
    found = find(images, data_dir, say)
    if differing := [
        f"{fact} is {_shown(actual)}, and {_shown(getattr(images, fact))} is declared"
        for fact, actual in found.facts().items()
        if actual != getattr(images, fact)
    ]:
        raise DataError(
            f"{data_dir / images.images}: {'; '.join(differing)}. {_advice(images, data_dir, found)}"
        )
    if kept:
        kept.write(images.name, found.decoded)
    return found.decoded


def _shown(fact: object) -> str:
    return str(list(fact)) if isinstance(fact, tuple) else str(fact)


def _advice(images: Images, data_dir: Path, found: Found) -> str:
    again = f"declare it anew: {command(images, data_dir)}"
    others = [fact for fact, actual in found.facts().items() if actual != getattr(images, fact)]
    if others == ["pixels"]:
        from PIL import __version__, features

        jpeg = f"Pillow {__version__} with libjpeg {features.version('jpg')}"
        return f"Another decoder was used ({jpeg} here): use that one, save the images as PNG, or {again}"
    return f"The declaration is not of these files: {again}"


def command(layout: ImageLayout, data_dir: Path) -> str:
    """The shell command that prints the declaration of a set with this layout."""
    words = ["python", "-m", "trainer.data", layout.images]
    words += [] if layout.image is None else option("image", layout.image)
    words += [] if layout.target == "label" else option("target", layout.target)
    words += [] if layout.labels is None else ["--labels", *layout.labels]
    words += [] if layout.test in (None, TEST) else option("test", str(layout.test))
    words += [] if layout.resize is None else ["--resize", *map(str, layout.resize)]
    words += [] if layout.colour is None else option("colour", layout.colour)
    words += [] if layout.mean is None else ["--mean", *map(str, layout.mean)]
    words += [] if layout.std is None else ["--std", *map(str, layout.std)]
    return shlex.join([*words, *option("data-dir", str(data_dir))])


def declared(found: Found) -> dict[str, object]:
    """The object to paste as `task.data`. Settings at their defaults are left out."""
    settings = {name: value for name, value in written(found.layout).items() if value not in (None, "label")}
    return {**settings, **written(found.facts())}


def summary(images: Images, found: Found) -> str:
    """A description of a set's content, for people."""
    facts, channels = found.decoded.facts, {1: "grey", 3: "RGB"}[images.shape[0]]
    counts = np.bincount(found.decoded.labels, minlength=len(found.names))
    classes = ", ".join(f"{name} {count:,}" for name, count in zip(found.names, counts, strict=True))
    size = f"{images.shape[1]} x {images.shape[2]} pixels, {channels}"
    mean, deviation = map(_numbers, channel_statistics(found.decoded.images[: facts.train]))
    return "\n".join(
        [
            f"{images.images}: {facts.train:,} images to train and {facts.tested:,} to test, {size}.",
            f"Images of each of the {len(found.names):,} classes: {classes}.",
            f"Training images, on a scale from 0 to 1: mean {mean}, deviation {deviation}.",
        ]
    )


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, on a scale from 0 to 1.

    They come from how often each value occurs, which is exact.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), COUNTED_AT_ONCE):
        some = images[start : start + COUNTED_AT_ONCE].reshape(-1, channels)
        counts += np.stack([np.bincount(some[:, channel], minlength=256) for channel in range(channels)])
    shares, scale = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = shares @ scale
    return mean, np.sqrt((shares * (scale - mean[:, None]) ** 2).sum(1))


def find(layout: ImageLayout, data_dir: Path, say: Say) -> Found:
    """Decode a set. DataError says why no run can train on it, at which image, and what to do."""
    path = data_dir / layout.images
    if not (path.is_file() or path.is_dir()):
        missing = f"{layout.images}: not in {data_dir}, the folder of --data-dir, "
        raise DataError(missing + "where images of one's own lie on every node.")
    try:
        checksum = _checksum(path)
        if isinstance(layout, Images) and checksum != layout.checksum:
            raise DataError(
                f"checksum is {checksum}, and {layout.checksum} is declared. These are other files than the "
                f"study's. Bring those, or declare these: {command(layout, data_dir)}"
            )
        source = open_source(path, layout.image, layout.target, layout.labels)
        layout = _resolved(layout, source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about what is refused here or of no account
            return Found(layout, _gather(layout, source, say), source.names, checksum)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except MemoryError:
        raise DataError(f"{path}: {NO_MEMORY}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}.") from error


def _resolved(layout: ImageLayout, source: Source) -> ImageLayout:
    """The layout with the column of images and the share of test images that hold for this source."""
    if source.column is None and (layout.image or layout.labels or layout.target != "label"):
        raise DataError("is no Parquet: leave image, target and labels out. They are for its columns.")
    if source.tested and layout.test is not None:
        raise DataError("has test images of its own: leave the share `test` out (--test).")
    if not source.tested and layout.test is None and isinstance(layout, Images):
        raise DataError("has no test images, and no share `test` is declared (--test).")
    test = None if source.tested else layout.test or TEST
    return replace(layout, image=source.column, test=test)


def _checksum(path: Path) -> str:
    """The hash of a file, or of the names and hashes of a folder's files."""
    if not path.is_dir():
        return _hash(path)[:DIGITS]
    total = hashlib.sha256()
    for file in files_of(path):
        name = file.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
        total.update(name + b"\0" + _hash(file).encode() + b"\n")
    return total.hexdigest()[:DIGITS]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _gather(layout: ImageLayout, source: Source, say: Say) -> Decoded:
    """Decode all images of a source into one block."""
    total = source.train + source.tested
    tested = source.tested or round((layout.test or 0) * total)
    if not 0 < tested < total:
        raise DataError(
            f"a test set of {tested:,} of {total:,} images leaves none to train, or none to test."
        )
    shape = layout.sizes if isinstance(layout, Images) else None
    decoded: Decoded | None = None
    slots, said = _slots(source), time.monotonic()
    for done, (slot, (where, given)) in enumerate(zip(slots, source.images(), strict=True)):
        pixels = pixels_of(where, given, layout.colour, layout.resize, shape)
        if decoded is None:
            shape = (pixels.shape[2], pixels.shape[0], pixels.shape[1])
            check_decoded(total, shape)
            decoded = Decoded.empty(Facts(total - tested, tested, shape, len(source.names)))
        decoded.images[slot] = pixels
        if time.monotonic() - said >= SAY_SECONDS:
            said = time.monotonic()
            say(f"{done + 1:,} of {total:,} images are decoded")
    assert decoded is not None
    decoded.labels[slots] = source.labels
    _check_classes(source.names, decoded)
    return decoded


def _check_classes(names: list[str], decoded: Decoded) -> None:
    counts = np.bincount(decoded.labels[: decoded.facts.train], minlength=len(names))
    if not counts.all():
        raise DataError(
            f"class {names[counts.argmin()]!r} has no training image. "
            "A class without one cannot be learnt: leave it out, or declare another share to test."
        )


def _slots(source: Source) -> np.ndarray:
    """The index of each image in the block. A test set that is not marked is drawn, and comes last."""
    slots = np.arange(source.train + source.tested)
    if not source.tested:
        slots[randomness.permutation(len(slots), 0, "images")] = np.arange(len(slots))
    return slots
