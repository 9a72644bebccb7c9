"""Every error that a command of `sweep` reports as a message, named by what the caller does about it."""

from __future__ import annotations

from collections.abc import Iterable

SCREEN_LINES = 20
"""How many lines of problems are shown at once; the rest are counted."""


class RejectStudy(ValueError):
    """The study or the command can never work. The message holds every problem found, each with file, line and key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        shown, lines = list[str](), 0
        for problem in self.problems:
            lines += problem.count("\n") + 1
            if lines > SCREEN_LINES:
                break
            shown.append(problem)
        more = len(self.problems) - len(shown)
        super().__init__("\n".join([*shown, *([f"... and {more} more."] if more else [])]))


class NothingBegun(RejectStudy):
    """The ledger holds no study yet; `sweep run` begins it."""

    def __init__(self, where: str) -> None:
        super().__init__([f"{where} holds no study yet."])


class ChangedStudy(ValueError):
    """The study is not the one that its ledger was begun with; the message shows the difference."""


class NotComparable(ValueError):
    """Two sets of scores do not form pairs; the message names what is wrong where."""


class DamagedLedger(RuntimeError):
    """Files that the sweep cannot go on without are damaged; the message names them. Nothing was deleted."""


class Held(RuntimeError):
    """Another driver holds the study; the message says who, and since when."""


class AbortSweep(RuntimeError):
    """Nothing can run here, or not any more; the message says why and what to do."""


class TrackerDown(RuntimeError):
    """MLflow did not do what was asked of it. Nothing is lost: everything can be sent again."""
