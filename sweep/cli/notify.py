"""Notifications: one POST of JSON to an address of the user's for each event of a sweep.

The address is a secret, because whoever has it can write there. It comes from the environment alone. No
message repeats it, and no process that the command starts has it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from sweep.cli.secret_file import first_line
from sweep.errors import RejectStudy

URL, URL_FILE = "SWEEP_NOTIFY_URL", "SWEEP_NOTIFY_URL_FILE"
"""The variables with the address, and with the name of a file that has it on its first line."""
PAUSES = (0, 1, 2, 4, 8, 16, 32, 64)
"""The seconds before each try to deliver a notification."""
ANSWER_SECONDS = 10.0
"""The time that a server has to answer."""
END_SECONDS = 5.0
"""The time that a command waits at its end for its notifications to be delivered."""

Tell = Callable[[dict[str, Any]], None]
"""What delivers a message some time soon. Its `event` is its name."""


def address() -> str:
    """The address in the environment; empty where there is none. It is taken out of the environment.

    Raises RejectStudy where it is no address.
    """
    url, file = os.environ.pop(URL, ""), os.environ.pop(URL_FILE, "")
    if file and not url:
        url = first_line(Path(file), URL_FILE)
    if url and not _is_web_address(url):
        raise RejectStudy(
            [f"{URL if not file else URL_FILE}: is no address that begins with https:// or http://."]
        )
    return url


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.username is None
    except ValueError:
        return False


class _NoRedirects(HTTPRedirectHandler):
    """A handler that follows no redirect: the address is for the server that the user chose."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


@contextmanager
def notifying(url: str, say: Callable[[str], None]) -> Generator[Tell]:
    """What tells the server at an address, until exit. Without an address it tells nobody."""
    notifier = Notifier(url, say) if url else None
    try:
        yield notifier.tell if notifier else lambda _: None
    finally:
        if notifier:
            notifier.finish()


class Notifier:
    """Delivers notifications in a thread of its own, in order, and tries again where that fails.

    `say` is told of each that could not be delivered.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._url, self._say = url, say
        self._messages: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._ending = Event()
        self._problem = "the server has not answered"
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def tell(self, message: dict[str, Any]) -> None:
        """Deliver a message some time soon."""
        self._messages.put(message)

    def finish(self) -> None:
        """Wait for the messages to be delivered, but not for long."""
        self._messages.put(None)
        self._ending.set()
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            self._say(f"notify: not everything was delivered: {self._problem}.")

    def _work(self) -> None:
        while (message := self._messages.get()) is not None:
            self._deliver(message)

    def _deliver(self, message: dict[str, Any]) -> None:
        for pause in PAUSES:
            if self._ending.wait(pause):
                # it hurries, because the command ends
                time.sleep(min(pause, 1.0))
            self._problem = self._post(message)
            if not self._problem:
                return
        self._say(f"notify: {message['event']!r} was not delivered: {self._problem}.")

    def _post(self, message: dict[str, Any]) -> str:
        """Send a message once. Returns why that failed, without the address; empty where it did not."""
        headers = {"Content-Type": "application/json"}
        try:
            # the scheme was checked
            request = Request(self._url, json.dumps(message).encode(), headers)  # noqa: S310
            with build_opener(_NoRedirects).open(request, timeout=ANSWER_SECONDS):
                return ""
        except HTTPError as error:
            return f"the server answered {error.code}"
        except URLError as error:
            reason = error.reason
            return (isinstance(reason, OSError) and reason.strerror) or type(reason).__name__
        except (OSError, HTTPException, ValueError) as error:
            # its text may hold the address
            return type(error).__name__
