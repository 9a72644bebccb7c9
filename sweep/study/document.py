"""YAML as plain values, each with its line.

A file from a stranger is safe to read: tags, aliases and the surprises of YAML 1.1 are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sweep.errors import RejectStudy
from trainer.settings import Place
from trainer.store import read_file

LARGEST = 256 * 1024
"""The most bytes of a study."""
DEEPEST = 20
"""The deepest nesting of a study; a usual one has six levels.

PyYAML's time grows with the square of the depth, so that a small file could keep it busy for hours."""
LONGEST = 30
"""The most digits of a whole number. Python refuses to read or show thousands of them."""
Problem = tuple[Place, str]
"""Where something is wrong, as the keys that lead there, and the reason."""


class _Loader(yaml.SafeLoader):
    """A loader with the words of YAML 1.2 alone: `no` and `off` are texts, 010 is ten, 1e-3 is a number."""

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
    """The values of a file, and the line of each."""

    file: str
    values: Any
    lines: dict[Place, int]

    def reject(self, problems: Iterable[Problem]) -> RejectStudy:
        """The error with all problems, in the order of the file's lines: file, line, key and reason."""
        with_lines = [(self._line(where), where, reason) for where, reason in problems]
        by_line = sorted(with_lines, key=lambda problem: problem[0])
        return RejectStudy(_message(self.file, line, where, reason) for line, where, reason in by_line)

    def _line(self, where: Place) -> int:
        """The line of a value; for one that the file lacks, the line of the part in which it is missing."""
        return next(self.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.lines)


def read(path: Path, name: str) -> Document:
    """The document in a file, or a RejectStudy that calls the file `name`."""
    text = _text(path, name)
    node = _parsed(text, name)
    problems: list[str] = []
    lines: dict[Place, int] = {(): 1}
    values = _value(node, (), name, lines, problems) if node else None
    if problems:
        raise RejectStudy(problems)
    return Document(name, values, lines)


def _text(path: Path, name: str) -> str:
    """The text of a file that is not too large."""
    try:
        data = read_file(path, LARGEST)
    except OSError as error:
        raise RejectStudy([f"{name}: cannot be read: {error.strerror}."]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RejectStudy([f"{name}:{line}  is not UTF-8 text."]) from None


def _parsed(text: str, name: str) -> yaml.Node | None:
    """The YAML node of a text; None for an empty one."""
    try:
        _refuse_surprises(text, name)
        return _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, reason = mark.line + 1 if mark else 1, f"is not YAML: {error.problem or error.context}."
        raise RejectStudy([_message(name, line, (), reason)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"is not YAML: a control character (number {error.character}) stands in it."
        raise RejectStudy([f"{name}:{line}  {reason}"]) from None
    except RejectStudy:
        raise
    except (ValueError, OverflowError):
        # Errors that PyYAML does not catch: an escape beyond Unicode, a version of thousands of digits.
        reason = "is not YAML: a number in an escape or a directive is out of range."
        raise RejectStudy([f"{name}: {reason}"]) from None


def _refuse_surprises(text: str, name: str) -> None:
    """Stop at the first thing that no study has, before any value is built from the text."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            reason = "anchors and aliases (& and *) are not read here. Write the values out."
            raise RejectStudy([f"{name}:{line}  {reason}"])
        if tag := getattr(event, "tag", None):
            reason = f"tags ({tag!r}) are not read here. Write plain values."
            raise RejectStudy([_message(name, line, (), reason)])
        if isinstance(event, yaml.ScalarEvent) and re.search("[\ud800-\udfff]", event.value):
            reason = "an escape stands for half a character (a surrogate). Write the character itself."
            raise RejectStudy([f"{name}:{line}  {reason}"])
        if depth > DEEPEST:
            raise RejectStudy([f"{name}:{line}  is nested too deeply."])
        if documents > 1:
            raise RejectStudy([f"{name}:{line}  a second document begins here; a study is one."])


def _value(node: yaml.Node, where: Place, name: str, lines: dict[Place, int], problems: list[str]) -> Any:
    """The plain value of a node. It adds to `lines` and `problems`."""
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(part, (*where, i), name, lines, problems) for i, part in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, where, name, lines, problems)
    if node.tag.endswith(":int") and len(node.value) > LONGEST:
        reason = f"has {len(node.value):,} digits; that is no number for a study."
        problems.append(_message(name, lines[where], where, reason))
        return 0
    return _scalar(node.tag.rsplit(":", 1)[1], node.value)


def _mapping(
    node: yaml.MappingNode, where: Place, name: str, lines: dict[Place, int], problems: list[str]
) -> dict[str, Any]:
    """The plain value of a mapping, in which every key must be a word of its own."""
    values: dict[str, Any] = {}
    for key_node, part in node.value:
        line, key = key_node.start_mark.line + 1, key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"{name}:{line}  a key must be a plain word.")
        elif key in values:
            reason = f"stands twice; first in line {lines[(*where, key)]}."
            problems.append(_message(name, line, (*where, key), reason))
        else:
            lines[(*where, key)] = line
            values[key] = _value(part, (*where, key), name, lines, problems)
    return values


def _scalar(kind: str, text: str) -> str | int | float | bool | None:
    """The plain value of a scalar, by the last part of its YAML tag."""
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


def _message(file: str, line: int, where: Place, reason: str) -> str:
    """A problem as a message for people."""
    key = ".".join(_harmless(str(part), 60) for part in where)
    words = "\n".join(_harmless(part, 500) for part in reason.split("\n"))
    return f"{file}:{line}  {key}: {words}" if key else f"{file}:{line}  {words}"


def _harmless(text: str, most: int) -> str:
    """A text of a study, cut short and without the codes that would move a terminal's cursor."""
    short = text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 3 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)
