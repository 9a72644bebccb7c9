"""A store in a folder. Whoever can write there may have put links, pipes and huge files into it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from trainer.stores.contract import LARGEST, Refused, Store, StoreError, parts_of

TEMPORARY = ".partial"
DEEPEST = 16
"""The most folders in one another. A sweep has four."""


class _NoFile(OSError):
    """The error for what is there in the place of a file or a folder."""


def read_file(path: Path, most: int) -> bytes:
    """The content of a file that a person named. OSError where it is no file, or larger than `most` bytes.

    A pipe is refused and not waited for.
    """
    return _content(os.open(path, _FILE), most)


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # without O_NONBLOCK, opening a pipe waits for its writer
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class LocalStore(Store):
    """A folder on a POSIX file system: `below` in the folder `home`.

    `home` may be a link or reached through links. Below it none is followed.
    """

    def __init__(self, home: Path, below: str = "") -> None:
        self.home, self.below = home.absolute(), parts_of(below) if below else []
        self.root = self.home.joinpath(*self.below)

    def where(self, name: str = "") -> str:
        return str(self.root / name)

    def read(self, name: str, most: int = LARGEST) -> bytes:
        *folders, last = parts_of(name)
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
        *folders, last = parts_of(name)
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

    def delete_empty(self, folder: str) -> None:
        (name,) = parts_of(folder)
        with contextlib.suppress(OSError), self._open([]) as home:
            for _, inner, _, handle in os.fwalk(name, topdown=False, dir_fd=home):
                for empty in inner:
                    with contextlib.suppress(OSError):
                        os.rmdir(empty, dir_fd=handle)
            os.rmdir(name, dir_fd=home)

    def _files(self, folder: str) -> list[tuple[str, os.stat_result]]:
        """What lies under a folder and is no folder. Links are listed, so that reading one can refuse it."""
        parts = parts_of(folder) if folder else []
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
        *folders, last = parts_of(name)
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
