"""A cable that loses packets and delays them: a process between two devices, since not every kernel can.

`start` makes a device in the host's network namespace and one at the switch; the process passes on what each
of them sends. As a command it is that process.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

SET_DEVICE, TAP, NO_HEADER = 0x400454CA, 0x0002, 0x1000
"""From linux/if_tun.h: make a device, which carries whole frames, without a header of its own."""
CLONE_NEWNET = 0x40000000
FRAME = 65536


def start(
    enter: list[str], switch: int, host: int, port: str, loss: float, delay: float, seed: int
) -> subprocess.Popen[bytes]:
    """Start a cable between the namespaces of two processes; return once both of its ends are there.

    `enter` comes before its command. Raises OSError where this machine has no such devices.
    """
    values = map(str, (switch, host, port, loss, delay, seed))
    command = ["setpriv", "--pdeathsig", "KILL", *enter, sys.executable, __file__, *values]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    with process.stdout as said:
        if said.readline() != b"ready\n":
            process.wait()
            raise OSError("the bad cable did not start")
    return process


def _device(pid: int, name: str) -> int:
    """Make a device in the network namespace of a process, and return the file that carries its frames."""
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, SET_DEVICE, struct.pack("16sH22x", name.encode(), TAP | NO_HEADER))
    return device


def forward(ends: tuple[int, int], loss: float, delay: float, draws: random.Random) -> None:
    """Pass frames between two files until one is at its end; each frame is lost or late on its own."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, end, frame = heapq.heappop(waiting)
            try:
                os.write(end, frame)
            except OSError:
                continue  # the device is down: the cable is out
        patience = max(0.0, waiting[0][0] - now) if waiting else None
        for end in select.select(ends, (), (), patience)[0]:
            try:
                frame = os.read(end, FRAME)
            except OSError:
                continue
            if not frame:
                return
            if draws.random() >= loss:
                count += 1
                heapq.heappush(waiting, (time.monotonic() + delay, count, other[end], frame))


def main() -> None:
    """Make both ends and forward between them."""
    switch, host, port, loss, delay, seed = sys.argv[1:]
    ends = _device(int(switch), port), _device(int(host), "eth0")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    forward(ends, float(loss), float(delay), random.Random(int(seed)))


if __name__ == "__main__":
    main()
