"""What every store promises, and what it refuses."""

from __future__ import annotations

from abc import ABC, abstractmethod

LARGEST = 2 * 2**30
"""The most bytes of a file: a checkpoint of 260 million parameters with their momentum."""


class StoreError(RuntimeError):
    """The error for a file that cannot be read or written. The message says what failed, where and why."""


class Refused(StoreError):
    """The error for what no store of ours has: a link, a pipe, a file that is too large, a name with ..."""


def parts_of(name: str) -> list[str]:
    """The parts of a file's name. StoreError where it could lead out of the store, or upset a terminal."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise Refused(f"{name!a} is no name of a file in a store.")
    return parts


class Store(ABC):
    """Files by name. A name is a relative path with forward slashes that leads nowhere else."""

    @abstractmethod
    def where(self, name: str = "") -> str:
        """The path or URL of a file, for messages."""

    @abstractmethod
    def read(self, name: str, most: int = LARGEST) -> bytes:
        """The content of a file of at most so many bytes. FileNotFoundError says that there is none."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file, completely or not at all. After this returns, it survives a power cut."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists. Returns whether this call wrote it."""

    @abstractmethod
    def stamps(self, folder: str = "") -> dict[str, str]:
        """Every complete file under a folder, with a stamp that changes with the file. Reads no file."""

    def names(self, folder: str = "") -> list[str]:
        """Names of all complete files under a folder, sorted."""
        return sorted(self.stamps(folder))

    @abstractmethod
    def folders(self) -> list[str]:
        """Names of the folders at the top of the store, sorted."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file. A missing file is no error."""

    @abstractmethod
    def delete_partial(self, folder: str = "") -> None:
        """Delete incomplete files that killed writers left under a folder. Nobody may be writing there."""

    @abstractmethod
    def delete_empty(self, folder: str) -> None:
        """Delete a folder at the top of the store and those in it, where no file is left in them."""
