"""Data sets as whole arrays, and which of their images a run trains on, holds out and is tested on.

`python -m trainer.data NAME --data-dir DIR` fetches what has to be fetched. Nothing here needs torch.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer import randomness

if TYPE_CHECKING:
    from trainer.spec import Task

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
DIGITS_MEAN, DIGITS_STD = (0.3053,), (0.3762,)  # of all 1,797 images, on a scale from 0 to 1


class DataError(RuntimeError):
    """The data cannot be had on this machine; the message says what is expected where, and how to get it."""


@dataclass(frozen=True)
class Arrays:
    """A whole data set: images normalised, float32, (N, C, H, W); labels int64."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is loaded, and how to load it."""

    image: tuple[int, int, int]
    classes: int
    train: int
    test: int
    load: Callable[[Path], Arrays]
    fetch: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class Split:
    """Indices into the training set. The test set is always whole."""

    train: np.ndarray
    validation: np.ndarray


def split(task: Task, seed: int) -> Split:
    """The images this seed trains on and holds out, the same for every policy.

    The validation share is of the whole training set. `train_size` counts the images trained on, so that a search and its confirmation
    train on as many; they are the same images whether or not some are held out.
    """
    order = randomness.permutation(DATASETS[task.data].train, seed, "split")
    held_out = held_out_of(task)
    train = order[held_out:] if task.train_size is None else order[len(order) - task.train_size :]
    return Split(train=train, validation=order[:held_out])


def held_out_of(task: Task) -> int:
    """How many training images the task holds out for validation."""
    return round(task.validation * DATASETS[task.data].train)


def _normalised(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Images of (N, H, W, C) on a scale from 0 to 1, normalised per channel, as (N, C, H, W)."""
    return ((images - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)).transpose(0, 3, 1, 2)


def _digits(_: Path) -> Arrays:
    # scikit-learn's own file, read without importing scikit-learn, which takes every process of a sweep more than a second
    package = find_spec("sklearn")
    assert package is not None
    with gzip.open(Path(str(package.origin)).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        whole = np.loadtxt(file, delimiter=",")
    pictures, target = whole[:, :-1].reshape(-1, 8, 8), whole[:, -1]
    order = randomness.permutation(len(whole), 0, "digits")
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
        parts += [_normalised(part.data.astype(np.float32) / 255, CIFAR_MEAN, CIFAR_STD), np.asarray(part.targets, np.int64)]
    return Arrays(*parts)


def _fetch_cifar10(data_dir: Path) -> None:
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(str(data_dir), download=True)
    except (OSError, RuntimeError) as error:
        files = ", ".join(name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list])
        raise DataError(
            f"cifar10: could not be fetched ({error}).\n"
            f"  Without a network, bring {CIFAR10.filename} from elsewhere and unpack it in {data_dir}; it holds\n"
            f"  {CIFAR10.base_folder}/ with {files} and {CIFAR10.meta['filename']}."
        ) from error


def _synthetic_cifar(_: Path) -> Arrays:
    """Images of CIFAR-10's number and shape: each class has four soft patterns, shifted both ways, faint, under another one and noise.

    Learnable, and far from trivial: neither a pixel nor a mean colour tells the class. For benchmarks; it says nothing about photographs.
    """
    classes, variants, total = 10, 4, 60_000
    words = np.random.PCG64(randomness.derive(0, "synthetic-cifar"))
    coarse = words.random_raw(classes * variants * 3 * 8).view(np.uint8).reshape(classes * variants, 8, 8, 3).astype(np.float32) / 255
    soft = coarse.repeat(4, axis=1).repeat(4, axis=2)
    for axis in (1, 2):
        soft = np.mean([np.roll(soft, shift, axis) for shift in range(-2, 3)], axis=0)
    soft += 0.5 - soft.mean((1, 2), keepdims=True)
    shifted = np.lib.stride_tricks.sliding_window_view(np.tile(soft, (1, 2, 2, 1)), (32, 32), axis=(1, 2))  # [pattern, down, right]
    draws = (words.random_raw(2 * total) >> np.uint64(1)).astype(np.int64).reshape(2, total)
    labels = draws[0] % classes
    pattern, down, right = labels * variants + (draws[0] >> 8) % variants, (draws[0] >> 16) % 32, (draws[0] >> 24) % 32
    other, other_down, other_right = draws[1] % len(soft), (draws[1] >> 16) % 32, (draws[1] >> 24) % 32
    noise = words.random_raw(total * 3 * 32 * 32 // 8).view(np.uint8).reshape(total, 3, 32, 32)
    images = np.empty((total, 32, 32, 3), np.float32)
    for start in range(0, total, 2_000):
        some = slice(start, start + 2_000)
        mixed = np.float32(0.45) * shifted[pattern[some], down[some], right[some]]
        mixed += np.float32(0.25) * shifted[other[some], other_down[some], other_right[some]]
        mixed += np.float32(0.3 / 255) * noise[some]
        images[some] = mixed.transpose(0, 2, 3, 1)
    images = _normalised(images, CIFAR_MEAN, CIFAR_STD)
    return Arrays(images[:50_000], labels[:50_000], images[50_000:], labels[50_000:])


DATASETS = {
    "cifar10": Dataset((3, 32, 32), 10, 50_000, 10_000, _cifar10, _fetch_cifar10),
    "digits": Dataset((1, 8, 8), 10, 1_200, 597, _digits),
    "synthetic-cifar": Dataset((3, 32, 32), 10, 50_000, 10_000, _synthetic_cifar),
}


def load(name: str, data_dir: Path | None = None) -> Arrays:
    """A whole data set; `data_dir` holds those that are fetched (default: data)."""
    return DATASETS[name].load(data_dir or Path("data"))


def main(arguments: list[str] | None = None) -> int:
    """Fetch a data set, or say that there is nothing to fetch."""
    parser = argparse.ArgumentParser(prog="python -m trainer.data", description="Fetch a data set and verify its checksums.")
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="where data sets live (default: data)")
    options = parser.parse_args(arguments)
    fetch = DATASETS[options.name].fetch
    try:
        if fetch:
            fetch(options.data_dir)
        arrays = load(options.name, options.data_dir)
    except DataError as error:
        print(error, file=sys.stderr)
        return 3
    print(
        f"{options.name}: {len(arrays.train_labels):,} images to train and {len(arrays.test_labels):,} to test, all there.", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
