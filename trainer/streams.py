"""CUDA streams, each with one user at a time.

Torch hands out 32 streams of a device in turn, and then the same ones again. Where
two runs had one stream, the recording of one would take in the work of the other.
"""

from __future__ import annotations

import threading
import weakref

import torch

MOST = 32
"""Number of different streams that torch has for a device."""
_lock = threading.RLock()  # a collection of garbage may give a stream back at any point
_free: dict[torch.device, list[torch.cuda.Stream]] = {}
_made: dict[torch.device, int] = {}


def lend(user: object, device: torch.device) -> torch.cuda.Stream:
    """A stream that nobody else has while `user` lives."""
    with _lock:
        free = _free.setdefault(device, [])
        if not free:
            made = _made[device] = _made.get(device, 0) + 1
            if made > MOST:
                raise RuntimeError(
                    f"all {MOST} streams of {device} are in use, three for a run: let fewer share a GPU"
                )
            free.append(torch.cuda.Stream(device))
        stream = free.pop()
    weakref.finalize(user, _give_back, device, stream).atexit = False
    return stream


def leave_default(user: object) -> None:
    """Give the calling thread a CUDA stream for as long as `user` lives.

    On the default one, the runs of several threads wait for each other.
    """
    if torch.cuda.current_stream() == torch.cuda.default_stream():
        torch.cuda.set_stream(lend(user, torch.cuda.current_stream().device))


def _give_back(device: torch.device, stream: torch.cuda.Stream) -> None:
    with _lock:
        _free[device].append(stream)
