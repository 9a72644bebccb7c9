"""What a drill changes in a host's processes: a clock that is off, and a count of the trained epochs.

Python imports this file in every process that has this folder on its PYTHONPATH.
"""

from __future__ import annotations

import os
import socket
import time
from types import SimpleNamespace
from typing import Any

if off := os.environ.get("CLOCK_OFF"):
    # only the clock that the driver asks a node for: Ray itself breaks with another one
    from sweep.cluster import preflight

    seconds = float(off)
    setattr(preflight, "time", SimpleNamespace(time=lambda: time.time() + seconds))  # noqa: B010

if folder := os.environ.get("EPOCHS_TRAINED"):
    # each epoch that a policy hears of is a byte in a file of this process
    from trainer.policies.keep_ratio import KeepRatioPolicy

    hear = KeepRatioPolicy.after_epoch

    def hear_and_count(self: KeepRatioPolicy, *arguments: Any, **named: Any) -> None:
        with open(f"{folder}/{socket.gethostname()}-{os.getpid()}", "ab") as count:  # noqa: PTH123
            count.write(b".")
        hear(self, *arguments, **named)

    KeepRatioPolicy.after_epoch = hear_and_count
