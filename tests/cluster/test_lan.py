"""The network of the drills: its cables carry, lose and delay as they say, and nothing of it stays."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import bad_cable
from tests.cluster.lan import Host, Lan
from tests.conftest import ROOT

REACH = "import socket, sys; socket.create_connection((sys.argv[1], 9), 1)"


def reaches(host: Host, other: Host) -> bool:
    """Say whether a packet and its answer get through: a closed port answers too."""
    done = host.call(sys.executable, "-c", REACH, other.address)
    return "ConnectionRefusedError" in done.stderr


def test_a_host_is_reached_until_its_cable_is_out(lan: Lan) -> None:
    one, other = lan.add(), lan.add()
    assert reaches(one, other)
    other.cable_out()
    assert not reaches(one, other)
    other.cable_in()
    assert reaches(one, other)


def test_a_host_has_its_own_name_and_processes_and_is_new_after_a_loss_of_power(lan: Lan) -> None:
    host = lan.add()
    sleeping = host.spawn(Path("/dev/null"), "sleep", "1000")
    host.off()
    assert sleeping.wait(10)
    host.on()
    assert host.call("hostname").stdout.strip() == host.name
    assert not any(b"sleep\x001000" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in host.processes())


def test_a_bad_cable_delays_both_ways(lan: Lan) -> None:
    one, other = lan.add(), lan.add()
    other.off()
    try:
        other.on(delay=0.2)
    except OSError as reason:
        pytest.skip(f"this machine allows no tap devices: {reason}")
    took = "import time; began = time.monotonic()\n" + REACH.replace("; socket.", "\ntry: socket.")
    end = "\nexcept ConnectionRefusedError: print(time.monotonic() - began)"
    done = one.call(sys.executable, "-c", took.replace(", 1)", ", 9)") + end, other.address)
    assert float(done.stdout) >= 0.4, done.stderr


def test_a_bad_cable_loses_the_share_of_frames_that_it_should() -> None:
    (ours, left), (right, theirs) = (socket.socketpair(type=socket.SOCK_SEQPACKET) for _ in range(2))
    with left, right, theirs:
        with ours:
            for _ in range(200):
                ours.send(b"frame")
        bad_cable.forward((left.fileno(), right.fileno()), 0.25, 0, random.Random(1))
        right.close()
        arrived = len(list(iter(partial(theirs.recv, 100), b"")))
    draws = random.Random(1)
    assert arrived == sum(draws.random() >= 0.25 for _ in range(200))
    assert 130 < arrived < 170


def test_the_kernel_ends_all_hosts_when_the_process_that_made_them_is_killed() -> None:
    code = (
        "import sys, time\nfrom tests.cluster.lan import Lan\n"
        "with Lan() as lan:\n    host = lan.add()\n    host.cable_out()\n"
        "    print(host.pid, lan.pid, flush=True)\n    time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    pids = process.stdout.readline().split()
    process.kill()
    process.communicate()
    if not pids:
        pytest.skip("this machine allows no network namespaces")
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
