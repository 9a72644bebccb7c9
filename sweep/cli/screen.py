"""What a person sees: tables, and the live view of a sweep. Figures come from `overview`; nothing is computed here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.format import duration
from sweep.gains.progress import ArmView, Overview
from sweep.statistics.paired import Gain

LINE_SECONDS, REFRESH_SECONDS = 10.0, 0.5
WIDE = 200


def console(*, stderr: bool = False) -> Console:
    """Tables are not squeezed into 80 columns where no terminal asks for it."""
    made = Console(stderr=stderr, soft_wrap=True)
    return made if made.is_terminal else Console(stderr=stderr, soft_wrap=True, width=WIDE)


def arms_table(view: Overview, ratios: list[float]) -> Table:
    """One line per arm: how far it is, its accuracy and its gain over the baseline so far, in points, with the standard error."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("arm", no_wrap=True)
    for name in ("search", "confirm", "now", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for ratio in ratios:
        table.add_column(f"r = {ratio:g}", justify="right", no_wrap=True)
        table.add_column("gain", justify="right", no_wrap=True)
    for arm in view.arms:
        table.add_row(*_row(arm, ratios))
    return table


def _row(arm: ArmView, ratios: list[float]) -> list[str]:
    search = f"{arm.search_done}/{arm.search_total}" if arm.search_total else "-"
    cells = [
        arm.arm,
        search,
        f"{arm.confirm_done}/{arm.confirm_total}",
        str(arm.running or "-"),
        str(arm.failed or "-"),
    ]
    for ratio in ratios:
        accuracy, gain = arm.endpoints[f"{ratio:g}"], arm.gains.get(f"{ratio:g}")
        cells += [
            f"{100 * accuracy:.1f} %" if accuracy is not None else "-",
            gain_text(gain) if gain else "baseline",
        ]
    return cells


def gain_text(gain: Gain) -> str:
    """In points of accuracy, with its standard error."""
    if not gain.pairs:
        return "-"
    error = f" ± {100 * gain.standard_error:.1f}" if math.isfinite(gain.standard_error) else ""
    return f"{100 * gain.mean:+.1f}{error}"


def failures_table(failures: dict[str, dict[str, Any]]) -> RenderableType:
    """Each failed run with its reason and the end of its log."""
    parts: list[RenderableType] = []
    for run_id, failure in failures.items():
        where = f" on {failure['node']}" if failure["node"] else ""
        told = f"run {run_id} ({failure['what']}) failed after {failure['attempts']} attempts{where}: {failure['reason']}"
        parts.append(Text(told, style="bold"))
        parts += [Text(f"    {line}") for line in failure["log"]]
    return Group(*parts)


class Screen:
    """The sweep under way: a table that moves on a terminal, a line every ten seconds elsewhere. Always on stderr."""

    def __init__(self, ratios: list[float]) -> None:
        self.ratios = ratios
        self.console = console(stderr=True)
        self.started = time.monotonic()
        self._shown = -math.inf
        self._live = (
            Live(console=self.console, auto_refresh=False, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)

    def show(self, state: Callable[[], tuple[Overview, int]]) -> None:
        """Draw what `state` gives: how far the study is and how many slots it has; asked only when it is time to draw."""
        now = time.monotonic()
        if now - self._shown < (REFRESH_SECONDS if self._live else LINE_SECONDS):
            return
        self._shown = now
        view, slots = state()
        left = duration(view.seconds_left / max(slots, 1) if view.seconds_left is not None else None)
        line = f"{view.done}/{view.total} runs, {view.running} now, {view.failed} failed, {duration(now - self.started)} so far, {left} left"
        if self._live:
            bar = ProgressBar(total=max(view.total, 1), completed=view.done, width=40)
            self._live.update(Group(arms_table(view, self.ratios), bar, Text(line)), refresh=True)
        else:
            self.say(line)
