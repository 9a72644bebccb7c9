"""Random numbers from one seed, in many independent named streams.

A place is the position in a stream, given as integers such as (epoch,) or (layer, epoch). A number depends
on the seed, the stream's name and the place, and on nothing drawn before. So no generator state must be
saved: a run that continues at epoch 12 draws the same order for it as a run that was never interrupted.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, stream: str, *place: int) -> int:
    """A 63-bit number for one place in a named stream."""
    text = "/".join(["trainer", str(seed), stream, *map(str, place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniform(seed: int, stream: str, *place: int) -> float:
    """A number in [0, 1) for one place in a named stream."""
    return (derive(seed, stream, *place) >> 10) / 2**53


def permutation(n: int, seed: int, stream: str, *place: int) -> np.ndarray:
    """A shuffled range(n): the order that sorts n raw words of PCG64.

    NumPy guarantees that raw words never change between versions. Its own `permutation()` may change.
    """
    words = np.random.PCG64(derive(seed, stream, *place)).random_raw(n)
    return np.argsort(words, kind="stable")


def generator(device: torch.device, seed: int, stream: str, *place: int) -> torch.Generator:
    """A torch generator that is seeded for one place in a named stream."""
    import torch

    made = torch.Generator(device)
    made.manual_seed(derive(seed, stream, *place))
    return made
