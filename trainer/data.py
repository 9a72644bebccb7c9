"""Data sets as arrays, and how a run splits their images. A row of a table counts as an image too.

`python -m trainer.data NAME` fetches a data set. `python -m trainer.data PATH` prints the object that
declares a table or images of one's own. Nothing here needs torch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from trainer import images, randomness, synthetic, tables
from trainer.decoded import Say
from trainer.images import CHANNELS, ImageLayout, Images
from trainer.plain import say
from trainer.settings import SpecError, one_of, read, settings_of
from trainer.table_files import FORMATS, DataError
from trainer.tables import Layout, Table

Data = str | Table | Images
"""The name of a data set, or the declaration of a table or of images of one's own."""

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# taken over all 1,797 images, on a scale from 0 to 1; tables are scaled by their training rows instead
DIGITS_MEAN, DIGITS_STD = (0.3053,), (0.3762,)
OWN = (
    "A file of one's own is declared as an object, "
    "which `python -m trainer.data FILE --target COLUMN` prints. "
    "Of images, `python -m trainer.data FOLDER` prints it."
)


@dataclass(frozen=True)
class Arrays:
    """All images and labels of a data set.

    Images are float32 of shape (N, C, H, W). They are normalised unless the `Dataset` says `standardise`.
    Labels are int64.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Facts about a data set that are known before it is loaded, and how to load it."""

    image: tuple[int, int, int]
    classes: int
    train: int
    test: int
    load: Callable[[Path], Arrays]
    fetch: Callable[[Path], object] | None = None
    brought: bool = False
    """Whether its files must be brought to the folder of --data-dir."""
    standardise: bool = False
    """Whether the images are raw. The trainer then scales each channel to mean 0 and deviation 1 over the
    images it trains on; a column of a table counts as a channel."""


@dataclass(frozen=True)
class Split:
    """Indices of images in the data set, where all training images come before the test images."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Shares(Protocol):
    """The settings of a task that decide which images it uses."""

    @property
    def data(self) -> Data: ...
    @property
    def validation(self) -> float: ...
    @property
    def train_size(self) -> int | None: ...
    @property
    def resample(self) -> float | None: ...


def _quiet(_: str) -> None:
    pass


def split(task: Shares, seed: int) -> Split:
    """Draw the images that this seed trains on, holds out and tests on. They are the same for every policy.

    The validation part is a share of all images that are not test images. `train_size` counts the images
    trained on, so that a search and its confirmation train on equally many. These are the same images
    whether or not others are held out. A drawn test set depends only on the seed and on `resample`, so that
    neither a search nor its confirmation trains on a test image of the other.
    """
    fixed, (available, tested) = facts(task.data).train, sizes(task)
    trainable, test = np.arange(fixed), np.arange(fixed, available + tested)
    if task.resample is not None:
        drawn = randomness.permutation(available + tested, seed, "resample")
        trainable, test = drawn[tested:], np.sort(drawn[:tested])
    order = trainable[randomness.permutation(available, seed, "split")]
    held_out = held_out_of(task)
    train = order[held_out:] if task.train_size is None else order[available - task.train_size :]
    return Split(train=train, validation=order[:held_out], test=test)


def sizes(task: Shares) -> tuple[int, int]:
    """Number of images to train on, including those held out, and number of test images."""
    known = facts(task.data)
    if task.resample is None:
        return known.train, known.test
    total = known.train + known.test
    tested = round(task.resample * total)
    return total - tested, tested


def held_out_of(task: Shares) -> int:
    """Number of training images that the task holds out for validation."""
    return round(task.validation * sizes(task)[0])


def _normalised(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Normalise images per channel: (N, H, W, C) on a scale from 0 to 1 becomes (N, C, H, W)."""
    return ((images - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)).transpose(0, 3, 1, 2)


def _packaged(file: str, header: int = 0) -> np.ndarray:
    """Read a data file of scikit-learn without importing scikit-learn, which takes more than a second."""
    package = find_spec("sklearn")
    if package is None:
        raise DataError(
            f"{file} comes with scikit-learn, which is not installed here: pip install scikit-learn."
        )
    return np.loadtxt(
        Path(str(package.origin)).parent / "datasets" / "data" / file, delimiter=",", skiprows=header
    )


def _packaged_table(file: str, name: str, _: Path) -> Arrays:
    """Load a table of scikit-learn. A third of the rows, drawn once, are the test set.

    The file's first line holds only the numbers of rows and columns and the names of the classes.
    """
    table = _packaged(file, header=1)
    table = table[randomness.permutation(len(table), 0, name)]
    return _rows(table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64), DATASETS[name].train)


def _own(table: Table, data_dir: Path) -> Arrays:
    return _rows(*tables.load(table, data_dir), table.rows - table.tested)


def _pictures(given: Images, data_dir: Path, cache: Path | None = None, say: Say = _quiet) -> Arrays:
    """Load images of one's own. They are on a scale from 0 to 1 where the trainer is to scale them."""
    decoded = images.load(given, data_dir, cache, say)
    pixels = np.divide(decoded.images, np.float32(255), dtype=np.float32)
    if given.mean and given.std:
        pixels -= np.asarray(given.mean, np.float32)
        pixels /= np.asarray(given.std, np.float32)
    pixels, labels, train = pixels.transpose(0, 3, 1, 2), decoded.labels.astype(np.int64), given.train
    return Arrays(pixels[:train], labels[:train], pixels[train:], labels[train:])


def _rows(inputs: np.ndarray, labels: np.ndarray, train: int) -> Arrays:
    images = inputs[:, :, None, None]
    return Arrays(images[:train], labels[:train], images[train:], labels[train:])


def _digits(_: Path) -> Arrays:
    table = _packaged("digits.csv.gz")
    pictures, target = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    order = randomness.permutation(len(table), 0, "digits")
    images = _normalised(pictures[order, :, :, None].astype(np.float32) / 16, DIGITS_MEAN, DIGITS_STD)
    labels = target[order].astype(np.int64)
    return Arrays(images[:1200], labels[:1200], images[1200:], labels[1200:])


def _cifar10(data_dir: Path) -> Arrays:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder = data_dir / CIFAR10.base_folder
    expected = [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]]
    bad = [name for name, md5 in expected if not check_integrity(str(folder / name), md5)]
    if bad:
        broken = [name for name in bad if (folder / name).exists()]
        raise DataError(
            f"cifar10: {len(bad)} of {len(expected)} files are not in {folder}: {', '.join(bad)}."
            + (f"\n  There, but with the wrong checksum: {', '.join(broken)}." if broken else "")
            + f"\n  To fetch them: python -m trainer.data cifar10 --data-dir {data_dir}"
        )
    parts: list[np.ndarray] = []
    for train in (True, False):
        part = CIFAR10(str(data_dir), train=train)
        parts += [
            _normalised(part.data.astype(np.float32) / 255, CIFAR_MEAN, CIFAR_STD),
            np.asarray(part.targets, np.int64),
        ]
    return Arrays(*parts)


def _fetch_cifar10(data_dir: Path) -> None:
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(str(data_dir), download=True)
    except (OSError, RuntimeError) as error:
        files = ", ".join(name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list])
        raise DataError(
            f"cifar10: could not be fetched ({error}).\n"
            f"  Without a network, bring {CIFAR10.filename} from elsewhere and unpack it in {data_dir};\n"
            f"  it holds {CIFAR10.base_folder}/ with {files} and {CIFAR10.meta['filename']}."
        ) from error


def _synthetic_cifar(_: Path) -> Arrays:
    images, labels = synthetic.images()
    images = _normalised(images, CIFAR_MEAN, CIFAR_STD)
    return Arrays(images[:50_000], labels[:50_000], images[50_000:], labels[50_000:])


DATASETS = {
    "cifar10": Dataset((3, 32, 32), 10, 50_000, 10_000, _cifar10, _fetch_cifar10, brought=True),
    "digits": Dataset((1, 8, 8), 10, 1_200, 597, _digits),
    "synthetic-cifar": Dataset((3, 32, 32), 10, 50_000, 10_000, _synthetic_cifar),
    "breast-cancer": Dataset(
        (30, 1, 1),
        2,
        379,
        190,
        partial(_packaged_table, "breast_cancer.csv", "breast-cancer"),
        standardise=True,
    ),
    "wine": Dataset(
        (13, 1, 1), 3, 119, 59, partial(_packaged_table, "wine_data.csv", "wine"), standardise=True
    ),
}


def wrong(name: str) -> str | None:
    """The reason why no data set has this name, or None."""
    why = one_of(name, DATASETS)
    return why and f"{why}\n    {OWN}"


def facts(data: Data) -> Dataset:
    """The facts about a data set, which is not loaded for them."""
    if isinstance(data, str):
        return DATASETS[data]
    if isinstance(data, Images):
        load, standardise = partial(_pictures, data), data.mean is None
        return Dataset(
            data.sizes, data.classes, data.train, data.tested, load, brought=True, standardise=standardise
        )
    train, load = data.rows - data.tested, partial(_own, data)
    return Dataset(
        (data.inputs, 1, 1), data.classes, train, data.tested, load, brought=True, standardise=True
    )


def verify(data: Data, data_dir: Path, cache: Path | None = None, say: Say = _quiet) -> None:
    """Check the files that must be brought to a machine. DataError says what is missing or damaged.

    Other data sets come with installed packages and are not checked.
    """
    if isinstance(data, Images):
        images.load(data, data_dir, cache, say)
    elif facts(data).brought:
        load(data, data_dir)


def load(data: Data, data_dir: Path | None = None, cache: Path | None = None, say: Say = _quiet) -> Arrays:
    """Load a data set. `data_dir` (default: data) holds downloaded data sets and files of one's own.

    `cache` is the folder that keeps decoded images of one's own. `say` takes what there is to say of them.
    """
    folder = data_dir or Path("data")
    return _pictures(data, folder, cache, say) if isinstance(data, Images) else facts(data).load(folder)


def main(arguments: list[str] | None = None) -> int:
    """Fetch a data set by name, or print the declaration of a table or of images. Returns the exit code."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    name, data_dir = options.pop("name"), options.pop("data_dir")
    given = {key: value for key, value in options.items() if value is not None}
    try:
        if name in DATASETS and not given:
            return _fetch(name, data_dir)
        if name in DATASETS:
            parser.error(f"--{next(iter(given))} is for a file.")
        path = _inside(name, data_dir)
        folder = (data_dir / path).is_dir() and Path(path).suffix.lower() not in FORMATS
        of_images = folder or path.lower().endswith(".npz") or "image" in given
        takes, kind = (ImageLayout, "images") if of_images else (Layout, "a table")
        if unfit := next((key for key in given if key not in settings_of(takes)), None):
            parser.error(f"--{unfit} has no use for {kind}, and {name} is taken for that.")
        if of_images:
            return _declare_images({"images": path, **given}, data_dir)
        if "target" not in given:
            parser.error(
                f"{name} needs --target COLUMN, what holds its classes."
                if Path(name).suffix
                else f"NAME {wrong(name)}"
            )
        return _declare({"file": path, **given}, data_dir)
    except (DataError, SpecError) as error:
        say(error)
        return 3 if isinstance(error, DataError) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.data",
        description="Fetch a data set and verify its checksums; "
        "or read a table or images and print the object that declares them as task.data.",
    )
    parser.add_argument(
        "name",
        metavar="NAME|PATH",
        help=f"one of {', '.join(DATASETS)}; or in --data-dir a table ({', '.join(FORMATS)}), "
        "or images (a folder, a .npz, or with --image a .parquet)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="where data sets live (default: data)",
    )
    both = parser.add_argument_group("options for a table and for images")
    both.add_argument(
        "--target",
        metavar="COLUMN",
        help="the column (.mat: the variable) of the classes; of images in Parquet by default label",
    )
    both.add_argument(
        "--test", type=float, metavar="SHARE", help="share of the rows in the test set (default: a third)"
    )
    both.add_argument(
        "--labels",
        nargs="+",
        metavar="WORD",
        help="the classes in their order, where the target holds words",
    )
    table = parser.add_argument_group("options for a table")
    table.add_argument("--split", metavar="COLUMN", help="a column of 0 and 1, where 1 marks the test rows")
    table.add_argument(
        "--constant",
        choices=("refuse", "drop"),
        help="what to do with inputs that never vary (default: refuse)",
    )
    table.add_argument("--features", metavar="NAME", help="the matrix of a .mat that holds the inputs")
    pictures = parser.add_argument_group("options for images")
    pictures.add_argument("--image", metavar="COLUMN", help="the column of a .parquet that holds images")
    pictures.add_argument(
        "--resize", nargs=2, type=int, metavar=("H", "W"), help="height and width to bring every image to"
    )
    pictures.add_argument("--colour", choices=tuple(CHANNELS), help="convert every image to this")
    for name, what in (("mean", "mean"), ("std", "standard deviation")):
        pictures.add_argument(
            f"--{name}",
            nargs="+",
            type=float,
            metavar="X",
            help=f"{what} of each channel on a scale from 0 to 1 (default: of the images trained on)",
        )
    return parser


def _fetch(name: str, data_dir: Path) -> int:
    if fetch := DATASETS[name].fetch:
        fetch(data_dir)
    arrays = load(name, data_dir)
    train, test = len(arrays.train_labels), len(arrays.test_labels)
    say(f"{name}: {train:,} images to train and {test:,} to test, all there.")
    return 0


def _inside(file: str, data_dir: Path) -> str:
    """A file's path inside `data_dir`. A path completed by the shell begins with `data_dir` itself."""
    path = Path(file)
    return path.relative_to(data_dir).as_posix() if path.is_relative_to(data_dir) else file


def _declare(given: dict[str, object], data_dir: Path) -> int:
    layout = read(Layout, given, takes="a file")
    found = tables.find(layout, data_dir)
    declared = tables.declared(layout, found)
    table = read(Table, declared)  # what a run would refuse must not be printed
    print(json.dumps(declared))
    say(tables.summary(table, found))
    return 0


def _declare_images(given: dict[str, object], data_dir: Path) -> int:
    layout = read(ImageLayout, given, takes="images")
    found = images.find(layout, data_dir, say)
    declared = images.declared(found)
    pictures = read(Images, declared)  # what a run would refuse must not be printed
    print(json.dumps(declared))
    say(images.summary(pictures, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
