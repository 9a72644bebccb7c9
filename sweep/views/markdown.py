"""Text that strangers wrote, made harmless in Markdown: it is shown as it is.

The page of MLflow would fetch an image, which tells its sender who reads it. A link would lead away, and
a `|` would break a table.
"""

from __future__ import annotations

import re

from trainer.plain import one_line

MARKUP = re.compile(
    r"[\\`|]"
    r"|(?<=!)\["  # an image
    r"|(?<=\])\s*[\[(:]"  # a link, or the address of one. Some readers of Markdown allow a space
    r"|:(?=//)|(?<=www)\."  # an address that becomes a link by itself
)
"""The signs that begin something other than text, each where it does. Few are, because people also read this
on a terminal."""


def escaped(text: str) -> str:
    """The text as one line of Markdown that has no image, no link, no HTML and no end of a table's cell."""
    marked = MARKUP.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", one_line(text))
    return marked.replace("<", "&lt;")


def code(text: str) -> str:
    """The text as code in Markdown."""
    inside = one_line(text).replace("`", "'")
    return f"`{inside}`"
