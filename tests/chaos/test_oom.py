"""A machine that is short of memory, whose kernel kills training processes at random moments.

The sweep has the rows of an undisturbed one. A run whose process was killed in every try of a command is
reported, and the next command finishes it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.tally import ROUNDS, assert_whole
from tests.sweeps import UNHURRIED, sweep, write_study

pytestmark = pytest.mark.chaos
SHARE = 0.35
"""The share of the attempts that is killed, unless they end before."""
TRIES = 3
"""The tries at a run before it is given up for now; the study does not say, so that is the default."""
COMMANDS = 8
"""After so many commands the sweep has to be over; each run is given up in one of 23 of them."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("_", range(ROUNDS))
def test_attempts_that_the_kernel_kills_are_made_again_and_those_killed_in_every_try_are_reported(
    _: int, tmp_path: Path, undisturbed: Path
) -> None:
    study = write_study(tmp_path, **UNHURRIED)
    begun, killed = 0, 0
    for _command in range(COMMANDS):
        attempts = tmp_path / f"seed-{os.urandom(4).hex()}"
        attempts.mkdir()
        print(attempts.name)
        env = {"OUT_OF_MEMORY": str(attempts), "OUT_OF_MEMORY_SHARE": str(SHARE)}
        done = sweep("run", study, "--store", tmp_path, env=env, timeout=600)
        kills = Counter(path.name.split("-")[0] for path in attempts.glob("*.killed"))
        begun, killed = begun + len(list(attempts.glob("*.begun"))), killed + kills.total()
        given_up = {run_id for run_id, number in kills.items() if number == TRIES}
        assert max(kills.values(), default=0) <= TRIES
        assert done.returncode == (1 if given_up else 0), done.stderr
        status = json.loads(sweep("status", study, "--store", tmp_path, "--json").stdout)
        assert status["failures"].keys() == given_up
        for failure in status["failures"].values():
            assert failure["attempts"] == TRIES
            assert "killed, or ran out of memory" in failure["reason"]
        if done.returncode == 0:
            break
    print(f"{killed} of {begun} attempts were killed")
    assert killed
    assert_whole("attempts killed for memory", killed, tmp_path, undisturbed)
