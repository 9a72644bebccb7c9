"""Addresses of MLflow: the tracking URI, and the folder for artifacts. Nothing here talks to MLflow.

An address may hold a password. Whatever is shown of one, or of an error that may name one, is made here.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote, unquote_plus

NONE = "none"
"""The URI that stands for no MLflow at all."""
NAMES = (NONE, "databricks", "databricks-uc", "uc")
"""The URIs that are a word, and not the path of a folder."""
SQLITE = "sqlite:///"
SHORTEST_SECRET = 4


def uri_of(given: str | None, place: str) -> str:
    """The tracking URI: `given`, or else a SQLite database.

    The database is in the store's folder, or in ./results where the store is a bucket. A relative path is
    made absolute: the processes that write to MLflow work in other folders.
    """
    if not given:
        return f"{SQLITE}{_home(place) / 'mlflow.db'}"
    if given.startswith(SQLITE):
        file, mark, options = given.removeprefix(SQLITE).partition("?")
        return f"{SQLITE}{Path(file).absolute()}{mark}{options}"
    if given in NAMES or re.match(r"(?!file:[^/])\w[\w+.-]*:", given):
        return given
    return str(Path(given.removeprefix("file:")).absolute())


def public_uri(uri: str) -> str:
    """An address without user, password and query, as a browser may be given it."""
    scheme, mark, rest = uri.partition("://")
    return f"{scheme}{mark}{_split(rest)[1]}"


def shown_uri(uri: str) -> str:
    """An address to be shown: `***` stands for user and password, and for a query, which may hold them."""
    scheme, mark, rest = uri.partition("://")
    user, public, query = _split(rest) if mark else ("", *_halves(scheme))
    return f"{scheme if mark else ''}{mark}{'***@' if user else ''}{public}{'?***' if query else ''}"


def without_secrets(message: str, uri: str) -> str:
    """A message of MLflow or of a library below it, without what is hidden in an address."""
    for secret in sorted(_secrets_of(uri), key=len, reverse=True):
        message = message.replace(secret, "***")
    return re.sub(r"\b[A-Za-z][\w+.-]*://[^\s'\"<>]+", lambda found: shown_uri(found[0]), message)


def _split(rest: str) -> tuple[str, str, str]:
    """User and password, host and path, and the query of what follows `://`.

    A password may hold each of the signs that divide an address, though it should not.
    """
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    port = authority.rpartition(":")[2]
    has_port = port.isdigit() or port.endswith("]") or ":" not in authority
    user, at, public = rest.rpartition("@")
    if not at or ("@" not in authority and has_port):
        user, public = "", rest
    return user, *_halves(public)


def _halves(public: str) -> tuple[str, str]:
    """What stands before a query, and the query."""
    before = re.split("[?#]", public, maxsplit=1)[0]
    return before, public[len(before) + 1 :]


def _secrets_of(uri: str) -> set[str]:
    """What an address hides, as a library may write it. A word of three letters hides nothing."""
    user, _, query = _split(uri.partition("://")[2])
    parts = {user, *user.split(":", 1), *(item.partition("=")[2] for item in re.split("[&;#]", query))}
    forms = {
        form for part in parts for form in (part, quote(part, safe=""), unquote(part), unquote_plus(part))
    }
    return {form for form in forms if len(form) >= SHORTEST_SECRET}


def artifacts_of(uri: str, place: str, study: str) -> str | None:
    """The folder for a study's artifacts; None for a server, which decides by itself."""
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    if "://" in place:
        return f"{place.rstrip('/')}/mlflow-artifacts/{study}"
    return (_home(place) / "mlflow-artifacts" / study).as_uri()


def _home(place: str) -> Path:
    """The local folder that MLflow's files are kept in, given the store."""
    return Path("results").absolute() if "://" in place else Path(place)
