"""The exit codes of both commands, `python -m trainer` and `sweep`; a signal adds 128 to its number."""

DONE = 0
FAILED = 1
"""A run could not be finished."""
USAGE = 2
"""The command, the run or the study is wrong."""
INFRASTRUCTURE = 3
"""Files, the machine, the cluster or a tracker failed."""
