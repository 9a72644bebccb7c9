"""Tables and progress for a terminal. Their figures are computed in `sweep.gains.progress`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.format import counted, duration
from sweep.gains.progress import ArmView, Overview
from sweep.statistics import Gain
from trainer.plain import one_line
from trainer.terminal import Terminal

LINE_SECONDS, REFRESH_SECONDS = 10.0, 0.5
"""Time between two lines of progress, and between two drawings on a terminal."""
WIDE = 200
"""Columns that tables get where no terminal says how many it has."""


def console(*, stderr: bool = False) -> Terminal:
    """A console as wide as its terminal. Rich would take 80 columns where there is no terminal."""
    terminal = Terminal(stderr=stderr)
    return terminal if terminal.is_terminal else Terminal(stderr=stderr, width=WIDE)


def arms_table(view: Overview, ratios: list[float], *, now: bool = False) -> Table:
    """A table with one line per arm: its progress, its accuracy, and its gain over the baseline so far.

    A gain is in points, with its standard error. With `now` it also says how many of its runs are under way.
    """
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("arm", no_wrap=True)
    for name in ("search", "confirm", *(["now"] if now else []), "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for ratio in ratios:
        table.add_column(f"r = {ratio:g}", justify="right", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
    for arm in view.arms:
        table.add_row(*_row(arm, ratios, now))
    return table


def _row(arm: ArmView, ratios: list[float], now: bool) -> list[str]:
    search = f"{arm.search_done}/{arm.search_total}" if arm.search_total else "-"
    confirm = f"{arm.confirm_done}/{arm.confirm_total}"
    running = [str(arm.running or "-")] if now else []
    cells = [arm.arm, search, confirm, *running, str(arm.failed or "-")]
    for ratio in ratios:
        accuracy, gain = arm.endpoints[f"{ratio:g}"], arm.gains.get(f"{ratio:g}")
        cells.append("-" if accuracy is None else f"{100 * accuracy:.1f} %")
        cells.append(gain_text(gain) if gain else "baseline")
    return cells


def gain_text(gain: Gain) -> str:
    """A gain in points of accuracy, with its standard error."""
    if not gain.pairs:
        return "-"
    error = f" ± {100 * gain.standard_error:.1f}" if math.isfinite(gain.standard_error) else ""
    return f"{100 * gain.mean:+.1f}{error}"


def failures_table(failures: dict[str, dict[str, Any]]) -> RenderableType:
    """Each failed run with its reason and the end of its log."""
    parts: list[RenderableType] = []
    for run_id, failure in failures.items():
        where = f" on {failure['node']}" if failure["node"] else ""
        attempts = counted(failure["attempts"], "attempt")
        text = f"run {run_id} ({failure['what']}) failed after {attempts}{where}: {failure['reason']}"
        parts.append(Text(one_line(text), style="bold"))
        parts += [Text(f"    {one_line(line)}") for line in failure["log"]]
    return Group(*parts)


def time_left(view: Overview, slots: int) -> str:
    """How long a study will still take on so many slots."""
    if view.seconds_left is None:
        return "time left not known yet"
    return f"about {duration(view.seconds_left / max(slots, 1))} left"


class Screen:
    """A sweep's progress on stderr: a live table on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, ratios: list[float]) -> None:
        self.ratios = ratios
        self.console = console(stderr=True)
        self.started = time.monotonic()
        self._last_shown = -math.inf
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        self.console.print(line)

    def show(self, state: Callable[[], tuple[Overview, int]]) -> None:
        """Show a study's progress, if it is time to.

        `state` returns how far the study is and how many slots it has. It is called only then, because that
        takes time.
        """
        now = time.monotonic()
        if now - self._last_shown < (REFRESH_SECONDS if self._live else LINE_SECONDS):
            return
        self._last_shown = now
        view, slots = state()
        line = (
            f"{view.done}/{counted(view.total, 'run')} done, {view.running} running, {view.failed} failed, "
            f"{duration(now - self.started)} so far, {time_left(view, slots)}"
        )
        if self._live:
            bar = ProgressBar(total=max(view.total, 1), completed=view.done, width=40)
            self._live.update(Group(arms_table(view, self.ratios, now=True), bar, Text(line)), refresh=True)
        else:
            self.say(line)
