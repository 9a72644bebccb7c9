"""Text that strangers wrote, made harmless for a terminal.

File names, logs, reasons and descriptions may hold escape sequences, which move the cursor, change what was
printed before or set the title, and controls of direction, which show text in another order than it has.
"""

from __future__ import annotations

import sys
import unicodedata


def harmless(text: str) -> str:
    r"""The text with each character that a terminal would obey, or not show, as an escape such as \x1b.

    Line breaks stay, because messages have several lines.
    """
    if text.isprintable():
        return text
    return "".join(sign if _is_shown(sign) else sign.encode("unicode_escape").decode() for sign in text)


def _is_shown(sign: str) -> bool:
    # to Python no space but the plain one is printable
    return sign.isprintable() or sign == "\n" or unicodedata.category(sign) == "Zs"


def one_line(text: str) -> str:
    r"""The harmless text with \n for a line break, so that it cannot pass for a message of ours."""
    return harmless(text).replace("\n", "\\n")


def say(text: object) -> None:
    """Print text to stderr."""
    print(harmless(str(text)), file=sys.stderr)
