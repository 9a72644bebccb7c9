"""The options of `python -m trainer`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.models import own

COMMIT_SHARE = 0.02
"""The share of a run's time that its commits may take."""


def options_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train one run. The same command again continues it, or prints a finished run's rows. "
        "With --from-stdin, train many.",
        epilog="exit: 0 done (diverged counts as done), 1 a run failed, 2 usage or spec, "
        "3 files, machine or in the hands of another attempt, 130/143/141 stopped",
    )
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN.json", help="the run: task, policy and seed"
    )
    parser.add_argument(
        "--from-stdin",
        action="store_true",
        help="train every run on the lines of stdin, as `sweep ready` prints them, but those in other hands",
    )
    parser.add_argument(
        "--workers",
        type=_whole,
        default=1,
        metavar="N",
        help="with --from-stdin, so many runs at once: as processes, or sharing one GPU (default: 1)",
    )
    parser.add_argument(
        "--store",
        required=True,
        metavar="DIR",
        help="where runs are kept: a folder, or a URL such as s3://bucket/prefix",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: auto, the GPU where there is one",
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where fetched data sets live (default: data)"
    )
    parser.add_argument(
        "--threads",
        type=_whole,
        metavar="N",
        help="CPU threads of a run (default: all cores, or its share of them with --workers); the last bits "
        "of the results depend on it",
    )
    parser.add_argument(
        "--commit-share",
        type=_share,
        default=COMMIT_SHARE,
        metavar="S",
        help="commit at the end of an epoch where commits take at most this share of the time; 1 commits at "
        f"each (default: {COMMIT_SHARE:g})",
    )
    parser.add_argument(
        "--keep-weights", action="store_true", help="keep the final checkpoint when the run is finished"
    )
    parser.add_argument(
        own.OPTION,
        action="append",
        default=[],
        metavar="PACKAGE",
        help="run the code of this package, which builds the network of task.model; may be given again",
    )
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; it is {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1; it is {text!r}")
    return share
