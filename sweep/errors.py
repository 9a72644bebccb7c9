"""The errors that a command of `sweep` reports as a message, named by what the caller does about them."""

from __future__ import annotations

from collections.abc import Iterable

SCREEN_LINES = 20
"""The most lines of problems that a message shows. It gives the number of the other problems."""


class RejectStudy(ValueError):
    """The study or the command can never work.

    The message lists every problem that was found, each with its file, line and key.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        listed, lines = list[str](), 0
        for problem in self.problems:
            lines += problem.count("\n") + 1
            if lines > SCREEN_LINES:
                break
            listed.append(problem)
        if more := len(self.problems) - len(listed):
            listed.append(f"... and {more} more.")
        super().__init__("\n".join(listed))


class NothingBegun(RejectStudy):
    """The ledger holds no study yet. `sweep run` begins one."""

    def __init__(self, where: str) -> None:
        super().__init__([f"{where} holds no study yet."])


class ChangedStudy(ValueError):
    """The study differs from the one that its ledger was begun with. The message shows the difference."""


class NotComparable(ValueError):
    """Two sets of scores do not form pairs. The message says what is wrong, and where."""


class DamagedLedger(RuntimeError):
    """Files that the sweep needs are damaged. The message names them. Nothing was deleted."""


class HalfRemoved(RuntimeError):
    """The study was being removed, and some of its files are left. `sweep remove` ends that."""

    def __init__(self, where: str, since: str) -> None:
        super().__init__(f"{where} is being removed since {since}, and is no study any more.")


class Held(RuntimeError):
    """Another driver holds the study. The message says which one, and since when."""


class AbortSweep(RuntimeError):
    """No run can start, or none any more. The message says why, and what to do."""


class TrackerDown(RuntimeError):
    """A request to MLflow failed. Nothing is lost: everything can be sent again."""
