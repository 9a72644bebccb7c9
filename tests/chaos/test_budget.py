"""Runs that are killed every few seconds, and sweeps whose GPU time is limited."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import command, unread

pytestmark = pytest.mark.chaos
MOST_KILLS = 25
"""An attempt that keeps its first epoch alone needs sixteen of them."""


@pytest.mark.slow
def test_a_run_that_is_killed_every_three_to_six_seconds_ends(write_run: Any, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"schedule seed: {seed}")
    draw = random.Random(seed)
    # an epoch takes half a second, and the run nine
    run, store = write_run(model="wrn-16-4", epochs=16), tmp_path / "runs"
    for kill in range(MOST_KILLS):
        process = unread(command(run, store))
        assert process.stderr
        while (line := process.stderr.readline()) and "at epoch 1" not in line and "continues" not in line:
            pass  # it imports, which takes seconds on a busy machine
        killer = threading.Timer(draw.uniform(3, 6), process.kill)
        killer.start()
        process.communicate()
        killer.cancel()
        if process.returncode == 0:
            break
    assert kill > 0, "it ended before it was killed"
    assert list(store.rglob("outcome.json"))
