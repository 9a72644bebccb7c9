"""The words of the page that a stranger may not know, and how their first use is linked to their meaning."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word, the pattern of its forms in a text, and what it means."""

    name: str
    forms: str
    meaning: str


WORDS = (
    Word("arm", r"\barms?\b", "One thing that the study compares: a policy and changes to the task."),
    Word(
        "collapsed",
        r"\b[Cc]ollapsed\b",
        "A run whose final training loss is that of a guess. It scores the accuracy that it has.",
    ),
    Word(
        "diverged",
        r"\b[Dd]iverged\b",
        "A run whose loss became infinite or no number. It is a result, and scores 0.",
    ),
    Word("endpoint", r"\b[Ee]ndpoints?\b", "A keep ratio at which the final weights are judged and tested."),
    Word(
        "family", r"\bfamily\b", "The comparisons that are tested together, and corrected for their number."
    ),
    Word(
        "finalist",
        r"\bfinalists?\b",
        "A candidate that a search picked. It is confirmed on seeds that no search has seen.",
    ),
    Word(
        "gain",
        r"\b[Gg]ains?\b",
        "The mean difference in test accuracy between an arm and the one that it is compared with.",
    ),
    Word(
        "interval",
        r"\b[Ii]ntervals?\b",
        "Every gain that the declared test does not reject. The intervals of the family hold all together.",
    ),
    Word(
        "keep ratio",
        r"\b[Kk]eep ratios?\b|\br(?= = )",
        "The share of the activations that may stay, called r. The others become 0; at r = 1 all stay.",
    ),
    Word(
        "look",
        r"\b[Ll]ooks?\b(?! like| closer)",
        "The comparisons could be seen while the study could still grow.",
    ),
    Word("margin", r"\bmargins?\b", "The largest difference that was declared not to matter."),
    Word("points", r"\bpoints?\b", "Hundredths of accuracy: from 93 % to 94.5 % is 1.5 points."),
    Word(
        "search",
        r"\b[Ss]earch(?:es)?\b",
        "The trial of an arm's candidates on validation images, which picks its finalist. With several "
        "searches each one has seeds of its own, and is a pair of the comparisons.",
    ),
    Word(
        "seed",
        r"\b[Ss]eeds?\b",
        "A number that decides the first weights, the order of batches and the split. Arms share their "
        "seeds.",
    ),
)
CLOSED = ("style", "svg", "title", "a", "h1", "h2", "h3", "summary", "pre", "code", "table", "script")
"""Elements in which no word is linked."""


def with_links(page: str) -> str:
    """The page with the first use of each word linked to the glossary, where the word's meaning stands."""
    body = page.index("<body>")
    parts, waiting, closed = re.split(r"(<[^>]*>)", page[body:]), list(WORDS), list[str]()
    for i, part in enumerate(parts):
        if part.startswith("<"):
            _enter(part, closed)
        elif not closed and waiting:
            parts[i] = _linked(part, waiting)
    return page[:body] + "".join(parts)


def _enter(tag: str, closed: list[str]) -> None:
    """Keep the list of open elements in which no word is linked."""
    name = re.sub(r"</?([a-zA-Z0-9]+).*", r"\1", tag, flags=re.DOTALL).lower()
    if name in CLOSED or (closed and name == closed[-1]):
        if tag.startswith("</"):
            if closed and closed[-1] == name:
                closed.pop()
        elif not tag.endswith("/>"):
            closed.append(name)


def _linked(text: str, waiting: list[Word]) -> str:
    """A text with its first use of each waiting word linked; these words wait no more."""
    found = [(match, word) for word in waiting if (match := re.search(word.forms, text))]
    last_end, linked = 0, ""
    for match, word in sorted(found, key=lambda pair: pair[0].start()):
        waiting.remove(word)
        anchor, meaning = word.name.replace(" ", "-"), html.escape(word.meaning)
        link = f'<a class="word" href="#word-{anchor}" title="{meaning}">{match[0]}</a>'
        linked += text[last_end : match.start()] + link
        last_end = match.end()
    return linked + text[last_end:]
