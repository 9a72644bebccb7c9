"""One seed, many independent streams, each addressed by name and place rather than by how much was drawn before.

A stream is a pure function of (seed, name, place), so there is no generator state to save: a run that continues at epoch 12 asks for
the order of epoch 12 and gets what an undisturbed run got.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, stream: str, *place: int) -> int:
    """A 63-bit number for one place in one named stream."""
    text = "/".join(["trainer", str(seed), stream, *map(str, place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniform(seed: int, stream: str, *place: int) -> float:
    """A number in [0, 1) for one place in one named stream."""
    return (derive(seed, stream, *place) >> 10) / 2**53


def permutation(n: int, seed: int, stream: str, *place: int) -> np.ndarray:
    """A shuffled range(n): raw PCG64 words, sorted. NumPy promises the raw words for ever, and `permutation()` it does not."""
    words = np.random.PCG64(derive(seed, stream, *place)).random_raw(n)
    return np.argsort(words, kind="stable")


def generator(device: torch.device, seed: int, stream: str, *place: int) -> torch.Generator:
    """A torch generator at the start of one named stream."""
    import torch

    made = torch.Generator(device)
    made.manual_seed(derive(seed, stream, *place))
    return made


def seed_everything(seed: int, *place: int) -> None:
    """Put Python's, NumPy's and torch's global generators at a known place, for code that asks them without being told."""
    import torch

    random.seed(derive(seed, "python", *place))
    np.random.seed(derive(seed, "numpy", *place) % 2**32)
    torch.manual_seed(derive(seed, "torch", *place))
