"""A proxy in front of a store that speaks S3, which answers late, wrong, twice, with 503 or not at all."""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.servers import Silent, serving

ANY = ("late", "503 at once", "503 though it was done", "twice", "no answer")
"""What may happen to any request."""
READS = ("cut off", "wrong content", "an older answer")
"""What may happen to the content of a file that is read."""
LISTS = ("cut off", "an entry is missing")
"""What may happen to a listing."""
KINDS = tuple(dict.fromkeys([*ANY, *READS, *LISTS]))
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Answer:
    """What the store behind answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Plan:
    """What happens to each request, drawn from a seed, and what has happened so far."""

    draw: random.Random
    share: float
    """The share of the requests to which something happens."""
    kinds: tuple[str, ...] = KINDS
    done: Counter[str] = field(default_factory=Counter[str])
    older: dict[str, Answer] = field(default_factory=dict[str, Answer])
    """What each path was answered to a reader the last time."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, path: str) -> str:
        """The fault for a request; empty where it is answered as it should be."""
        with self.lock:
            possible = [kind for kind in self.kinds if kind in self._possible(method, path)]
            if not possible or self.draw.random() >= self.share:
                return ""
            kind = self.draw.choice(possible)
            self.done[kind] += 1
            return kind

    def _possible(self, method: str, path: str) -> tuple[str, ...]:
        if method != "GET":
            return ANY
        if "list-type=2" in path:
            return ANY + LISTS
        return ANY + (READS if path in self.older else READS[:2])


@contextmanager
def bad_store(behind: str, plan: Plan) -> Generator[str]:
    """Start the proxy on loopback and a free port; yield its address."""
    target = urlsplit(behind).netloc

    class Between(Silent):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = plan.next(self.command, self.path)
            if kind == "late":
                time.sleep(plan.draw.uniform(0.2, 2))
            if kind == "503 at once":
                self.answer(Answer(503, [("Content-Type", "application/xml")], BUSY))
                return
            answer = self.forward(body)
            older = plan.older.get(self.path, answer)
            if self.command == "GET":
                plan.older[self.path] = answer
            match kind:
                case "twice":
                    answer = self.forward(body)
                case "503 though it was done":
                    answer = Answer(503, [("Content-Type", "application/xml")], BUSY)
                case "no answer":
                    self.close_connection = True
                    return
                case "cut off":
                    self.answer(answer, send=len(answer.body) // 2)
                    self.close_connection = True
                    return
                case "wrong content" if answer.status == 200 and answer.body:
                    answer.body = _altered(answer.body)
                case "an older answer":
                    answer = older
                case "an entry is missing":
                    entries = rb"<Contents>.*?</Contents>"
                    answer.body = re.sub(entries, b"", answer.body, count=1, flags=re.DOTALL)
                case _:
                    pass
            self.answer(answer)

        # the base class's names
        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request  # noqa: N815

        def forward(self, body: bytes) -> Answer:
            connection = http.client.HTTPConnection(target, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            # each connection frames its own body
            own = ("content-length", "transfer-encoding", "connection")
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in own]
            length = answer.headers.get("Content-Length", "0")
            read = Answer(answer.status, headers, answer.read())
            connection.close()
            if self.command == "HEAD":
                read.headers.append(("Content-Length", length))
            return read

        def answer(self, answer: Answer, send: int | None = None) -> None:
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            if self.command != "HEAD" and answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[:send])

    with serving(Between) as address:
        yield address


def _altered(body: bytes) -> bytes:
    """Another content of the same length."""
    changed = bytearray(body)
    changed[len(body) // 2] ^= 1
    return bytes(changed)
