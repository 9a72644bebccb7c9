"""Storage of files in a local folder or an object store, under one contract.

A file appears complete or not at all, and `create` never replaces one. A local folder does this with a
temporary file in the same folder, fsync, rename and fsync of the folder. An object store does it with one
PUT of the whole buffer, which is conditional for `create`.

Whoever can write a store may have put anything there. So names stay below the store, links and pipes are
refused, and nothing is read that is larger than what is ever written.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from trainer.stores.bucket import BucketStore
from trainer.stores.contract import LARGEST as LARGEST
from trainer.stores.contract import Refused as Refused
from trainer.stores.contract import Store as Store
from trainer.stores.contract import StoreError as StoreError
from trainer.stores.local import LocalStore as LocalStore
from trainer.stores.local import read_file as read_file

LARGEST_SEALED = 64 * 2**20
"""The most bytes of a sealed file: the index of 100,000 runs."""


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
