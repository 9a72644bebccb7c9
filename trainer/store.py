"""Storage of files in a local folder or an object store, under one contract.

A file appears complete or not at all, and `create` never replaces one. A local folder does this with a
temporary file in the same folder, fsync, rename and fsync of the folder. An object store does it with one
PUT of the whole buffer, which is conditional for `create`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

TEMPORARY = ".partial"


class StoreError(RuntimeError):
    """The error for a file that cannot be read or written. The message says what failed, where and why."""


def digest(data: bytes) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(data).hexdigest()


def seal(body: dict[str, Any]) -> bytes:
    """The bytes of a JSON file that carries a hash of its own content."""
    return _json({**body, "check": digest(_json(body))})


def unseal(data: bytes) -> dict[str, Any]:
    """The content of a sealed file. ValueError says that the file was altered."""
    body = json.loads(data)
    if not isinstance(body, dict) or body.pop("check", None) != digest(_json(body)):
        raise ValueError("its content does not match its hash")
    return body


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


class Store(ABC):
    """Files by name. A name is a relative path with forward slashes."""

    @abstractmethod
    def where(self, name: str = "") -> str:
        """The path or URL of a file, for messages."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file. FileNotFoundError says that there is none."""

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


class LocalStore(Store):
    """A folder on a POSIX file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def where(self, name: str = "") -> str:
        return str(self.root / name)

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"cannot read {self.where(name)}: {error.strerror}.") from error

    def write(self, name: str, data: bytes) -> None:
        self._publish(name, data, _rename)

    def create(self, name: str, data: bytes) -> bool:
        return self._publish(name, data, _link)

    def stamps(self, folder: str = "") -> dict[str, str]:
        found: dict[str, str] = {}
        for path in self._files(folder):
            if not path.name.endswith(TEMPORARY):
                with contextlib.suppress(FileNotFoundError):  # a file may be deleted after it is listed
                    facts = path.stat()
                    found[path.relative_to(self.root).as_posix()] = f"{facts.st_size}-{facts.st_mtime_ns}"
        return found

    def folders(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False))

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def delete_partial(self, folder: str = "") -> None:
        for path in self._files(folder):
            if path.name.endswith(TEMPORARY):
                path.unlink(missing_ok=True)

    def _files(self, folder: str) -> list[Path]:
        return [Path(at) / file for at, _, files in os.walk(self.root / folder) for file in files]

    def _publish(self, name: str, data: bytes, move: Callable[[Path, Path], bool]) -> bool:
        path = self.root / name
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{TEMPORARY}")
        try:
            self._make_folder(path.parent)
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                made = move(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(path.parent)
            return made
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror}. What was there before is untouched."
            ) from error

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)


def _rename(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    return True


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)  # a link refuses to replace a file; a rename does not
    except FileExistsError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Without this a power cut may undo a rename."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BucketStore(Store):
    """A prefix in an object store with conditional writes, such as S3, GCS, Azure and compatible stores."""

    def __init__(self, url: str) -> None:
        try:
            from obstore import exceptions
            from obstore.store import from_url
        except ImportError as error:
            raise StoreError(f"{url} needs the package obstore, which is not installed: {error}.") from error
        self.url, self.errors = url.rstrip("/"), exceptions
        try:
            # a short failure of the network must not end the run
            self.store = from_url(
                self.url, retry_config={"max_retries": 100, "retry_timeout": timedelta(seconds=60)}
            )
        except exceptions.BaseError as error:
            raise StoreError(f"{url} is no store that can be opened: {_first_line(error)}") from error

    def where(self, name: str = "") -> str:
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        try:
            return bytes(self.store.get(name).bytes())
        except self.errors.BaseError as error:
            raise StoreError(f"cannot read {self.where(name)}: {_first_line(error)}") from error

    def write(self, name: str, data: bytes) -> None:
        self._put(name, data, "overwrite")

    def create(self, name: str, data: bytes) -> bool:
        try:
            self._put(name, data, "create")
        except self.errors.AlreadyExistsError:
            # the client repeats a PUT whose answer was lost; then the file that exists is our own
            return self.read(name) == data
        return True

    def stamps(self, folder: str = "") -> dict[str, str]:
        try:
            return {
                entry["path"]: f"{entry['size']}-{entry['e_tag']}"
                for page in self.store.list(folder or None)
                for entry in page
            }
        except (self.errors.BaseError, FileNotFoundError) as error:
            raise StoreError(f"cannot list {self.where(folder)}: {_first_line(error)}") from error

    def folders(self) -> list[str]:
        try:
            prefixes = self.store.list_with_delimiter()["common_prefixes"]
        except (self.errors.BaseError, FileNotFoundError) as error:
            raise StoreError(f"cannot list {self.where()}: {_first_line(error)}") from error
        return sorted(prefix.strip("/") for prefix in prefixes)

    def delete(self, name: str) -> None:
        try:
            self.store.delete(name)
        except FileNotFoundError:
            return
        except self.errors.BaseError as error:
            raise StoreError(f"cannot delete {self.where(name)}: {_first_line(error)}") from error

    def delete_partial(self, folder: str = "") -> None:
        pass  # an interrupted PUT leaves nothing

    def _put(self, name: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        try:
            self.store.put(name, data, mode=mode, use_multipart=False)
        except self.errors.AlreadyExistsError:
            raise
        except (self.errors.BaseError, FileNotFoundError) as error:  # "not found" means a missing bucket
            raise StoreError(
                f"cannot write {self.where(name)}: {_first_line(error)} What was there before is untouched."
            ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def open_store(place: str | Path) -> Store:
    """Open the store at a folder's path, or at a URL such as s3://bucket/prefix.

    Credentials and endpoint of an object store come from the environment.
    """
    text = str(place)
    if re.search(r"://[^@/]*:[^/]*@|://.*[?#]", text):
        raise StoreError(
            "a store's URL may hold neither a password nor a query, because it is shown. Credentials come "
            "from the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if "://" in text:
        return BucketStore(text)
    if not text or re.match(r"\w{2,}:/", text):
        raise StoreError(
            f"{text!r} is no store: give a folder, or a URL with two slashes such as s3://bucket/prefix."
        )
    folder = Path(text).expanduser()
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; a store is a folder, or a URL such as s3://bucket/prefix.")
    return LocalStore(folder)
