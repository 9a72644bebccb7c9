"""Where the processes that a command starts look for code: where the user said, not where they stand.

A folder that somebody works in may hold a stranger's files. Python runs a `yaml.py` in it if it can.
"""

from __future__ import annotations

import os
from pathlib import Path

PATH, SAFE = "PYTHONPATH", "PYTHONSAFEPATH"


def guard_children() -> None:
    """Let no process that this one starts import code from its working folder.

    PYTHONPATH goes on meaning what it means here: its relative folders are made absolute, because those
    processes stand elsewhere, and empty ones, which mean the working folder, are left out.
    """
    named = [Path(entry).absolute() for entry in os.environ.get(PATH, "").split(os.pathsep) if entry]
    # they have to run the code that runs here, which need not be installed
    ours = Path(__file__).parents[2]
    if ours.name != "site-packages" and ours not in named:
        named.append(ours)
    os.environ |= {PATH: os.pathsep.join(map(str, named)), SAFE: "1"}
    if not named:
        del os.environ[PATH]
