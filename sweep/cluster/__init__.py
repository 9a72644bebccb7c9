"""The work of a plan on a Ray cluster.

No other package imports Ray. Importing it takes a second, so these modules are imported only when needed.
"""

from __future__ import annotations

import os


def prepare(address: str | None) -> None:
    """Set the environment variables that Ray and Tune read. Call it before either is imported.

    `address` is the address of a cluster, or None for a cluster that this process starts.
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
    # Ray's future default, about which it warns until then
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not address:
        # a cluster of our own listens on loopback only
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def in_job() -> bool:
    """Whether this process was started by Ray for a study that was handed in."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
