"""The plan's work on a Ray cluster. Nothing else imports Ray, which takes a second: its modules are imported when needed."""

from __future__ import annotations

import os


def prepare(address: str | None) -> None:
    """Set what Ray and Tune read from their environment; call it before either is imported.

    `address` is that of a cluster, or None for one of our own.
    """
    os.environ |= {
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its handler makes fit() return as if all were well
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # the driver counts the slots
        "RAY_AIR_NEW_OUTPUT": "0",  # a banner on stdout
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # what it will do by default; until then it warns
    if not address:
        os.environ.setdefault(
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
        )  # a cluster of our own stays on loopback
