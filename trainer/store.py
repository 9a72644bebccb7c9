"""Storage of files in a local folder or an object store, under one contract.

A file appears complete or not at all, and `create` never replaces one. A local folder does this with a
temporary file in the same folder, fsync, rename and fsync of the folder. An object store does it with one
PUT of the whole buffer, which is conditional for `create`.

Whoever can write a store may have put anything there. So names stay below the store, links and pipes are
refused, and nothing is read that is larger than what is ever written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

TEMPORARY = ".partial"
LARGEST = 2 * 2**30
"""The most bytes of a file: a checkpoint of 260 million parameters with their momentum."""
LARGEST_SEALED = 64 * 2**20
"""The most bytes of a sealed file: the index of 100,000 runs."""
DEEPEST = 16
"""The most folders in one another. A sweep has four."""
RETRY_SECONDS = 60
"""How long an object store may fail before it is an error."""
T = TypeVar("T")


class StoreError(RuntimeError):
    """The error for a file that cannot be read or written. The message says what failed, where and why."""


class Refused(StoreError):
    """The error for what no store of ours has: a link, a pipe, a file that is too large, a name with ..."""


class _NoFile(OSError):
    """The error for what is there in the place of a file or a folder."""


def digest(data: bytes) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(data).hexdigest()


def seal(body: dict[str, Any]) -> bytes:
    """The bytes of a JSON file that carries a hash of its own content."""
    return _json({**body, "check": digest(_json(body))})


def unseal(data: bytes) -> dict[str, Any]:
    """The content of a sealed file. ValueError says that the file was altered, or was never one of ours.

    Numbers are finite and texts can be printed. `trainer.sealed` checks which fields there are.
    """
    try:
        body = json.loads(data.decode(), parse_float=_finite, parse_constant=_finite)
        if not isinstance(body, dict) or body.pop("check", None) != digest(_json(body)):
            raise ValueError("its content does not match its hash")
        json.dumps(body, ensure_ascii=False).encode()  # fails where an escape is half a character
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeError:
        raise ValueError("it is not UTF-8 text") from None
    return body


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text} is no number")


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def read_file(path: Path, most: int) -> bytes:
    """The content of a file that a person named. OSError where it is no file, or larger than `most` bytes.

    A pipe is refused and not waited for.
    """
    return _content(os.open(path, _FILE), most)


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


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # without O_NONBLOCK, opening a pipe waits for its writer
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class LocalStore(Store):
    """A folder on a POSIX file system: `below` in the folder `home`.

    `home` may be a link or reached through links. Below it none is followed.
    """

    def __init__(self, home: Path, below: str = "") -> None:
        self.home, self.below = home.absolute(), _parts(below) if below else []
        self.root = self.home.joinpath(*self.below)

    def where(self, name: str = "") -> str:
        return str(self.root / name)

    def read(self, name: str, most: int = LARGEST) -> bytes:
        *folders, last = _parts(name)
        try:
            with self._open(folders) as folder:
                return _content(_open_inside(folder, last, _FILE), most)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._error("read", name, error) from error

    def write(self, name: str, data: bytes) -> None:
        self._publish(name, data, _rename)

    def create(self, name: str, data: bytes) -> bool:
        return self._publish(name, data, _link)

    def stamps(self, folder: str = "") -> dict[str, str]:
        return {
            name: f"{facts.st_size}-{facts.st_mtime_ns}"
            for name, facts in self._files(folder)
            if not name.endswith(TEMPORARY)
        }

    def folders(self) -> list[str]:
        try:
            with self._open([]) as root, os.scandir(root) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error("list", "", error) from error

    def delete(self, name: str) -> None:
        *folders, last = _parts(name)
        try:
            with self._open(folders) as folder:
                os.unlink(last, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("delete", name, error) from error

    def delete_partial(self, folder: str = "") -> None:
        for name, _ in self._files(folder):
            if name.endswith(TEMPORARY):
                self.delete(name)

    def _files(self, folder: str) -> list[tuple[str, os.stat_result]]:
        """What lies under a folder and is no folder. Links are listed, so that reading one can refuse it."""
        parts = _parts(folder) if folder else []
        try:
            with self._open(parts) as handle:
                return list(_walk(handle, "".join(f"{part}/" for part in parts)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error("list", folder, error) from error

    @contextlib.contextmanager
    def _open(self, folders: list[str], make: bool = False) -> Generator[int]:
        """A handle of a folder in the store. `make` makes what is missing, durably."""
        if make:
            _make_folder(self.home)
        handle = os.open(self.home, _FOLDER)
        try:
            for part in (*self.below, *folders):
                if make:
                    _make_inside(handle, part)
                inner = _open_inside(handle, part, _FOLDER)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _publish(self, name: str, data: bytes, move: Callable[[int, str, str], bool]) -> bool:
        *folders, last = _parts(name)
        temporary = f".{last}.{secrets.token_hex(6)}{TEMPORARY}"
        try:
            with self._open(folders, make=True) as folder:
                try:
                    with os.fdopen(os.open(temporary, _NEW_FILE, 0o666, dir_fd=folder), "wb") as file:
                        file.write(data)
                        file.flush()
                        os.fsync(file.fileno())
                    made = move(folder, temporary, last)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=folder)
                os.fsync(folder)
            return made
        except OSError as error:
            raise self._error("write", name, error, " What was there before is untouched.") from error

    def _error(self, verb: str, name: str, error: OSError, more: str = "") -> StoreError:
        kind = Refused if isinstance(error, _NoFile) else StoreError
        return kind(f"cannot {verb} {self.where(name)}: {error.strerror}.{more}")


def _parts(name: str) -> list[str]:
    """The parts of a file's name. StoreError where it could lead out of the store, or upset a terminal."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise Refused(f"{name!a} is no name of a file in a store.")
    return parts


def _content(handle: int, most: int) -> bytes:
    """The content of an open file, which is closed then."""
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise _NoFile(errno.EINVAL, "it is no file, but a folder, a pipe or a device")
        if facts.st_size > most:
            reason = f"it has {facts.st_size:,} bytes, and at most {most:,} are read"
            raise _NoFile(errno.EFBIG, reason)
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(facts.st_size)
    finally:
        os.close(handle)


def _open_inside(folder: int, name: str, flags: int) -> int:
    """A handle of a file or folder in a folder. OSError where it is a link."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            reason = f"{name} is a link, which is not followed in a store. Put there what it leads to"
            raise _NoFile(errno.ELOOP, reason) from None
        raise


def _walk(folder: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """The names and facts of what lies under a folder and is no folder."""
    if prefix.count("/") > DEEPEST:
        raise OSError(errno.ELOOP, f"there are more than {DEEPEST} folders in one another")
    with os.scandir(folder) as entries:
        for entry in entries:
            # a file or a folder may be deleted after it is listed
            with contextlib.suppress(FileNotFoundError):
                if not entry.is_dir(follow_symlinks=False):
                    yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)
                    continue
                inner = _open_inside(folder, entry.name, _FOLDER)
                try:
                    yield from _walk(inner, f"{prefix}{entry.name}/")
                finally:
                    os.close(inner)


def _rename(folder: int, temporary: str, name: str) -> bool:
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    return True


def _link(folder: int, temporary: str, name: str) -> bool:
    try:
        # a link refuses to replace a file; a rename does not
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        return _rename_to_new(folder, temporary, name)
    return True


def _rename_to_new(folder: int, temporary: str, name: str) -> bool:
    """Rename a file unless the new name is taken, where the file system has no hard links, as exFAT."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux alone has it
    if call and call(folder, os.fsencode(temporary), folder, os.fsencode(name), _NO_REPLACE) == 0:
        return True
    if call and ctypes.get_errno() == errno.EEXIST:
        return False
    reason = (
        "its file system has no hard links, and cannot rename a file without replacing another. One of "
        "these is needed, or two processes could begin the same work. Keep the store on another disk or in "
        "a bucket"
    )
    raise OSError(errno.EOPNOTSUPP, reason)


_NO_REPLACE = 1
"""RENAME_NOREPLACE of <linux/fs.h>."""


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        parent = os.open(folder.parent, _FOLDER)
        try:
            _make_inside(parent, folder.name)
        finally:
            os.close(parent)


def _make_inside(folder: int, name: str) -> None:
    """Make a folder in a folder, unless there is something of that name, and make the name durable.

    Without the second part a power cut may undo what was made.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
        os.fsync(folder)


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
                self.url,
                retry_config={"max_retries": 100, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
            )
        except exceptions.BaseError as error:
            raise StoreError(f"{url} is no store that can be opened: {_first_line(error)}") from error

    def where(self, name: str = "") -> str:
        return f"{self.url}/{name}"

    def read(self, name: str, most: int = LARGEST) -> bytes:
        _parts(name)
        try:
            return self._whole(lambda: self._get(name, most))
        except self.errors.BaseError as error:
            raise StoreError(f"cannot read {self.where(name)}: {_first_line(error)}") from error

    def write(self, name: str, data: bytes) -> None:
        self._put(name, data, "overwrite")

    def create(self, name: str, data: bytes) -> bool:
        try:
            self._put(name, data, "create")
        except self.errors.AlreadyExistsError:
            # the client repeats a PUT whose answer was lost; then the file that exists is our own
            with contextlib.suppress(FileNotFoundError):
                return self.read(name) == data
            return False  # it existed, and was deleted since
        return True

    def stamps(self, folder: str = "") -> dict[str, str]:
        try:
            pages = self._whole(lambda: list(self.store.list(folder or None)))
            return {entry["path"]: f"{entry['size']}-{entry['e_tag']}" for page in pages for entry in page}
        except (self.errors.BaseError, FileNotFoundError) as error:
            raise StoreError(f"cannot list {self.where(folder)}: {_first_line(error)}") from error

    def folders(self) -> list[str]:
        try:
            prefixes = self._whole(self.store.list_with_delimiter)["common_prefixes"]
        except (self.errors.BaseError, FileNotFoundError) as error:
            raise StoreError(f"cannot list {self.where()}: {_first_line(error)}") from error
        return sorted(prefix.strip("/") for prefix in prefixes)

    def delete(self, name: str) -> None:
        _parts(name)
        try:
            self.store.delete(name)
        except FileNotFoundError:
            return
        except self.errors.BaseError as error:
            raise StoreError(f"cannot delete {self.where(name)}: {_first_line(error)}") from error

    def delete_partial(self, folder: str = "") -> None:
        pass  # an interrupted PUT leaves nothing

    def _get(self, name: str, most: int) -> bytes:
        found = self.store.get(name)
        if (size := found.meta["size"]) > most:
            raise Refused(
                f"cannot read {self.where(name)}: it has {size:,} bytes, and at most {most:,} are read."
            )
        return bytes(found.bytes())

    def _whole(self, ask: Callable[[], T]) -> T:
        """An answer that arrived whole. The client repeats requests, but not where an answer breaks off."""
        end = time.monotonic() + RETRY_SECONDS
        for pause in (0.1, 0.2, 0.4, 0.8):
            try:
                return ask()
            except self.errors.GenericError:
                # then the client itself has given up after as long
                if time.monotonic() >= end:
                    raise
                time.sleep(pause)
        return ask()

    def _put(self, name: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        _parts(name)
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


def open_store(place: str | Path, within: str | Path | None = None) -> Store:
    """Open the store at a folder's path, or at a URL such as s3://bucket/prefix.

    A folder in another store is opened `within` that one: then links on the way to it are refused.
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
    if within is not None:
        home = Path(within).expanduser()
        return LocalStore(home, folder.relative_to(home).as_posix())
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; a store is a folder, or a URL such as s3://bucket/prefix.")
    return LocalStore(folder)
