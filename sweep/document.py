"""YAML as plain values, each with the line it stands on. Safe for a file from a stranger: no tags, no aliases, no surprises of YAML 1.1."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LARGEST = 256 * 1024
SCREEN = 20
"""Problems shown at once; the rest are counted."""
Place = tuple[str | int, ...]


class RejectStudy(ValueError):
    """The study can never work. The message holds every problem found, each with file, line and key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        more = len(self.problems) - SCREEN
        shown = self.problems[:SCREEN] + ([f"... and {more} more."] if more > 0 else [])
        super().__init__("\n".join(shown))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's words only: `no` and `off` are texts, 010 is ten, and 1e-3 is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for tag, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("null", r"null|~|", ["n", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))


@dataclass(frozen=True)
class Document:
    """A file's values, and where each stands."""

    file: str
    values: Any
    lines: dict[Place, int]

    def problem(self, place: Place, reason: str) -> str:
        """One line (or a few) for a person: file, line, key and reason."""
        known = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in self.lines or n == 0)
        key = ".".join(map(str, place))
        return f"{self.file}:{self.lines.get(known, 1)}  {f'{key}: ' if key else ''}{reason}"


def read(path: Path, shown: str) -> Document:
    """The document in a file; RejectStudy, with `shown` as the file's name, where it cannot be had."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RejectStudy([f"{shown}: cannot be read: {error.strerror}."]) from None
    if len(data) > LARGEST:
        raise RejectStudy([f"{shown}: is {len(data):,} bytes; a study has at most {LARGEST:,}."])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RejectStudy([f"{shown}: byte {error.start:,} is not UTF-8 text."]) from None
    problems: list[str] = []
    lines: dict[Place, int] = {(): 1}
    try:
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise RejectStudy([f"{shown}:{line}  anchors and aliases (& and *) are not read here. Write the values out."])
            if getattr(event, "tag", None):
                raise RejectStudy([f"{shown}:{line}  tags ({event.tag}) are not read here. Write plain values."])
        loader = _Loader(text)
        node = loader.get_single_node()
        values = _value(loader, node, (), shown, lines, problems) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RejectStudy([f"{shown}:{mark.line + 1 if mark else 1}  is not YAML: {error.problem or error.context}."]) from None
    except yaml.YAMLError as error:
        raise RejectStudy([f"{shown}: is not YAML: {str(error).splitlines()[0]}."]) from None
    except RecursionError:
        raise RejectStudy([f"{shown}: is nested too deeply."]) from None
    if problems:
        raise RejectStudy(problems)
    return Document(shown, values, lines)


def _value(loader: _Loader, node: yaml.Node, place: Place, shown: str, lines: dict[Place, int], problems: list[str]) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, part, (*place, i), shown, lines, problems) for i, part in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    found: dict[str, Any] = {}
    for key_node, part in node.value:
        line, key = key_node.start_mark.line + 1, key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"{shown}:{line}  a key must be a plain word.")
        elif key in found:
            problems.append(f"{shown}:{line}  {'.'.join(map(str, (*place, key)))}: stands twice; first in line {lines[(*place, key)]}.")
        else:
            lines[(*place, key)] = line
            found[key] = _value(loader, part, (*place, key), shown, lines, problems)
    return found
