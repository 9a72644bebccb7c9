"""A store in a bucket, over the network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Literal, TypeVar

from trainer.stores.contract import LARGEST, Refused, Store, StoreError, parts_of

RETRY_SECONDS = 60
"""How long an object store may fail before it is an error."""
T = TypeVar("T")


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
        parts_of(name)
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
        parts_of(name)
        try:
            self.store.delete(name)
        except FileNotFoundError:
            return
        except self.errors.BaseError as error:
            raise StoreError(f"cannot delete {self.where(name)}: {_first_line(error)}") from error

    def delete_partial(self, folder: str = "") -> None:
        pass  # an interrupted PUT leaves nothing

    def delete_empty(self, folder: str) -> None:
        pass  # a bucket has no folders

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
        parts_of(name)
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
