"""The console of every table and bar. What it shows is harmless, and never read as rich's markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from trainer.plain import harmless


class Terminal(Console):
    """A rich console that shows strangers' text as it is."""

    def __init__(self, *, stderr: bool = False, **more: Any) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False, **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything that is printed comes through here; what moves the cursor for rich is its control."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(harmless(part.text), part.style)
