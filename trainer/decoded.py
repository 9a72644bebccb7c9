"""Decoded images: one block of bytes with a name that is its hash, and the folder that keeps such blocks.

The block is what `pixels` of a declaration is the hash of. So a kept block needs no other proof.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from trainer.store import LocalStore, StoreError, open_store
from trainer.tables import DIGITS

HEAD = 64
"""Bytes of the line that a block begins with."""
FOLDER = "decoded"
"""Name of the folder of a store that keeps decoded images. It is no study: it has no study.json."""
Shape = tuple[int, int, int]
"""Channels, height and width."""
Say = Callable[[str], None]
"""Takes a message for the person at the command."""


@dataclass(frozen=True)
class Facts:
    """The line that a block begins with: how many images it has, of which shape, in how many classes."""

    train: int
    tested: int
    shape: Shape
    classes: int

    @property
    def count(self) -> int:
        return self.train + self.tested

    def line(self) -> bytes:
        words = ("images", self.train, self.tested, *self.shape, self.classes)
        return " ".join(map(str, words)).ljust(HEAD - 1).encode() + b"\n"


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images as whole numbers from 0 to 255, training images first, with the class of each.

    `block` holds the line of facts, the classes as int64, and the pixels.
    """

    facts: Facts
    block: np.ndarray

    @classmethod
    def empty(cls, facts: Facts) -> Decoded:
        """A block that is still to be filled."""
        block = np.empty(HEAD + facts.count * (8 + math.prod(facts.shape)), np.uint8)
        block[:HEAD] = np.frombuffer(facts.line(), np.uint8)
        return cls(facts, block)

    @property
    def labels(self) -> np.ndarray:
        return self.block[HEAD : HEAD + 8 * self.facts.count].view("<i8")

    @property
    def images(self) -> np.ndarray:
        """The pixels as (number, height, width, channels)."""
        channels, height, width = self.facts.shape
        pixels = self.block[HEAD + 8 * self.facts.count :]
        return pixels.reshape(-1, height, width, channels)

    @cached_property
    def pixels(self) -> str:
        """The hash of the block."""
        return hashlib.sha256(self.block.data).hexdigest()[:DIGITS]


def folder_of(store_url: str) -> Path | None:
    """The folder of a store that keeps decoded images; None where the store is no local folder.

    For a study's own folder, or the folder of its runs, it is that of the store in which the study lies.
    """
    store = open_store(store_url)
    if not isinstance(store, LocalStore):
        return None
    study = store.root.parent if store.root.name == "runs" else store.root
    return (study.parent if (study / "study.json").is_file() else store.root) / FOLDER


class Cache:
    """Blocks in a folder, by checksum of the files and hash of the block.

    What is not there, damaged or cannot be read is decoded anew. A folder that cannot be written to is said.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self.store, self.say = LocalStore(folder.parent, folder.name), say

    def read(self, name: str, facts: Facts) -> Decoded | None:
        """The block of this name, if it is there and has these facts."""
        try:
            content = self.store.read(name, HEAD + facts.count * (8 + math.prod(facts.shape)))
        except FileNotFoundError:
            return None
        except StoreError as error:
            self.say(f"{error} The images are decoded anew.")
            return None
        found = Decoded(facts, np.frombuffer(content, np.uint8))
        if found.pixels != name.rpartition("-")[2]:
            self.say(f"{self.store.where(name)}: is damaged. The images are decoded anew.")
            return None
        return found if content[:HEAD] == facts.line() else None

    def write(self, name: str, decoded: Decoded) -> None:
        try:
            # a file takes any buffer, and a copy as bytes would double the memory
            self.store.write(name, cast("bytes", decoded.block.data))
        except StoreError as error:
            self.say(f"{error} The images are decoded again by the next process that needs them.")
