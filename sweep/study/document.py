"""YAML as plain values, each with the line it stands on. Safe for a file from a stranger: no tags, no aliases, no surprises of YAML 1.1."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sweep.errors import RejectStudy
from trainer.settings import Place

LARGEST = 256 * 1024
DEEPEST = 20
"""A study is six deep. PyYAML's time grows with the square of the depth, so that a small file could keep it busy for hours."""
LONGEST = 30
"""Digits of a whole number; Python refuses to read or show thousands of them."""
Problem = tuple[Place, str]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's words only: `no` and `off` are texts, 010 is ten, and 1e-3 is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


INFINITE = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for tag, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", rf"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|{INFINITE}", "-+.0123456789"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))


@dataclass(frozen=True)
class Document:
    """A file's values, and where each stands."""

    file: str
    values: Any
    lines: dict[Place, int]

    def reject(self, problems: Iterable[Problem]) -> RejectStudy:
        """All problems, from the file's first line to its last: file, line, key and reason."""
        by_line = sorted(
            ((self._line(place), place, reason) for place, reason in problems),
            key=lambda problem: problem[0],
        )
        return RejectStudy(_told(self.file, line, place, reason) for line, place, reason in by_line)

    def _line(self, place: Place) -> int:
        return next(self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines)


def read(path: Path, shown: str) -> Document:
    """The document in a file; RejectStudy, with `shown` as the file's name, where it cannot be had."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise RejectStudy([f"{shown}: cannot be read: {error.strerror}."]) from None
    if len(data) > LARGEST:
        raise RejectStudy([f"{shown}: is larger than the {LARGEST:,} bytes that a study may have."])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RejectStudy([f"{shown}:{line}  is not UTF-8 text."]) from None
    try:
        _refuse_surprises(text, shown)
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RejectStudy(
            [
                _told(
                    shown,
                    mark.line + 1 if mark else 1,
                    (),
                    f"is not YAML: {error.problem or error.context}.",
                )
            ]
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RejectStudy(
            [f"{shown}:{line}  is not YAML: a control character (number {error.character}) stands in it."]
        ) from None
    except RejectStudy:
        raise
    except (
        ValueError,
        OverflowError,
    ):  # PyYAML's own slips: an escape beyond Unicode, a version of thousands of digits
        raise RejectStudy(
            [f"{shown}: is not YAML: a number in an escape or a directive is out of range."]
        ) from None
    problems: list[str] = []
    lines: dict[Place, int] = {(): 1}
    values = _value(node, (), shown, lines, problems) if node else None
    if problems:
        raise RejectStudy(problems)
    return Document(shown, values, lines)


def _refuse_surprises(text: str, shown: str) -> None:
    """Stop at the first thing that a study never has, before anything is built of it."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RejectStudy(
                [f"{shown}:{line}  anchors and aliases (& and *) are not read here. Write the values out."]
            )
        if given := getattr(event, "tag", None):
            raise RejectStudy(
                [_told(shown, line, (), f"tags ({given!r}) are not read here. Write plain values.")]
            )
        if isinstance(event, yaml.ScalarEvent) and re.search("[\ud800-\udfff]", event.value):
            raise RejectStudy(
                [
                    f"{shown}:{line}  an escape stands for half a character (a surrogate). Write the character itself."
                ]
            )
        if depth > DEEPEST:
            raise RejectStudy([f"{shown}:{line}  is nested too deeply."])
        if documents > 1:
            raise RejectStudy([f"{shown}:{line}  a second document begins here; a study is one."])


def _value(node: yaml.Node, place: Place, shown: str, lines: dict[Place, int], problems: list[str]) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(part, (*place, i), shown, lines, problems) for i, part in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        if node.tag.endswith(":int") and len(node.value) > LONGEST:
            problems.append(
                _told(
                    shown,
                    lines[place],
                    place,
                    f"has {len(node.value):,} digits; that is no number for a study.",
                )
            )
            return 0
        return _scalar(node.tag.rsplit(":", 1)[1], node.value)
    found: dict[str, Any] = {}
    for key_node, part in node.value:
        line, key = key_node.start_mark.line + 1, key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"{shown}:{line}  a key must be a plain word.")
        elif key in found:
            problems.append(
                _told(shown, line, (*place, key), f"stands twice; first in line {lines[(*place, key)]}.")
            )
        else:
            lines[(*place, key)] = line
            found[key] = _value(part, (*place, key), shown, lines, problems)
    return found


def _scalar(kind: str, text: str) -> str | int | float | bool | None:
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case _:
            return text


def _told(file: str, line: int, place: Place, reason: str) -> str:
    """One problem for a person."""
    key = ".".join(_harmless(str(part), 60) for part in place)
    return f"{file}:{line}  {f'{key}: ' if key else ''}" + "\n".join(
        _harmless(part, 500) for part in reason.split("\n")
    )


def _harmless(text: str, most: int) -> str:
    """Cut short, and without the codes that would move a terminal's cursor: a study's words may be anything."""
    shown = text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 3 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
