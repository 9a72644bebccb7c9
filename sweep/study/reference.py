"""The reference of every setting, docs/settings.md, made from the code: type, range, default and meaning."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import types
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sweep.study.contents import (
    DECLARED_ELSEWHERE,
    Analysis,
    Arm,
    Choice,
    Confirm,
    Contents,
    Match,
    Published,
    Range,
    Resources,
    Search,
)
from trainer.data import DATASETS
from trainer.images import Images
from trainer.models import FAMILIES
from trainer.policies import POLICIES
from trainer.settings import Within, default_of, descriptions, settings_of
from trainer.spec import Task
from trainer.tables import Table

HEAD = """\
# Settings

This page is generated from the code by `make reference`. Edit the code, not this page.

A study is a YAML file of these parts. [How to write a study](studies.md) explains them in order, and
[the glossary](glossary.md) explains the words. A key that is not listed here is an error, and the error
names the nearest key that is.
"""
STUDY: tuple[tuple[str, type, str], ...] = (
    ("A study", Contents, "These are the keys at the top of the file."),
    ("`arms.NAME`", Arm, "An arm is a policy and what it changes in the task."),
    (
        "`arms.NAME.match`",
        Match,
        "A matched arm waits for the finalist of another arm on the same task, and takes something from it.",
    ),
    (
        "A searched setting: a range",
        Range,
        "A setting of an arm's `policy` or `task` is searched where it is a mapping: "
        "`{low: 0.03, high: 0.3, log: true}`.",
    ),
    ("A searched setting: a choice", Choice, "Or `{choice: [16, 32, 64]}`."),
    ("`search`", Search, "The search picks the finalists. It reads validation accuracy alone."),
    (
        "`confirm`",
        Confirm,
        "The confirmation trains the finalists on the whole training set and fresh seeds.",
    ),
    (
        "`published`",
        Published,
        "What a paper reports. It is shown beside what is found here, and may change at any time.",
    ),
    ("`analysis`", Analysis, "What is compared, and how. It is fixed before the first confirmation run."),
    ("`resources`", Resources, "How runs are carried out. It may change at any time."),
)


@dataclass(frozen=True)
class Setting:
    """A setting as a row of the reference shows it."""

    name: str
    annotation: Any
    default: Any
    meaning: str


def reference() -> str:
    """The text of docs/settings.md."""
    parts = [HEAD]
    for title, cls, words in STUDY:
        parts.append(_section(title, words, settings(cls)))
    elsewhere = " and ".join(f"`{key}` (`{place}`)" for key, place in DECLARED_ELSEWHERE.items())
    parts.append(
        _section(
            "`task`",
            "A task is what is trained. `task`, `tasks.NAME` and `arms.NAME.task` take these settings,"
            f" and so does `task` in a RUN.json. A study declares {elsewhere} elsewhere.\n\n{_names()}",
            settings(Task),
        )
    )
    parts.append(
        _section(
            "`task.data` as a table of your own",
            "`python -m trainer.data FILE --target COLUMN` prints this mapping.",
            settings(Table),
        )
    )
    parts.append(
        _section(
            "`task.data` as images of your own",
            "`python -m trainer.data FOLDER` prints this mapping, and so it does for a `.npz` or, with "
            "`--image COLUMN`, for a `.parquet`.",
            settings(Images),
        )
    )
    parts.append(
        "## Policies\n\nA policy is its name and its settings: `{name: additive-reset, step: 0.08}`.\n"
    )
    for name, policy in POLICIES.items():
        parts.append(_section(f"`{name}`", _flat(inspect.getdoc(policy)), settings(policy), level=3))
    return "\n".join(parts)


def settings(cls: type) -> list[Setting]:
    """The settings of a dataclass that is read from YAML, in their order."""
    meanings = descriptions(cls)
    return [
        Setting(name, annotation, default_of(cls, name), meanings.get(name, ""))
        for name, annotation in settings_of(cls).items()
    ]


def _section(title: str, words: str, listed: Sequence[Setting], level: int = 2) -> str:
    """A section with a heading, a text, and a table of settings if there are any."""
    lines = [f"{'#' * level} {title}", "", "\n\n".join(_wrapped(part) for part in words.split("\n\n"))]
    if listed:
        lines += ["", "| setting | value | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [_row(setting) for setting in listed]
    return "\n".join([*lines, ""])


def _row(setting: Setting) -> str:
    """A setting as a row of the table."""
    cells = (
        f"`{setting.name}`",
        kind(setting.annotation),
        _default(setting.default),
        _sentence(setting.meaning),
    )
    return f"| {' | '.join(cells)} |"


def _wrapped(words: str) -> str:
    """A paragraph broken into lines, but never inside code."""
    joined = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), words)
    return textwrap.fill(joined, 108, break_on_hyphens=False, break_long_words=False).replace("\0", " ")


def _names() -> str:
    """The data sets and the models that a task can name."""
    data = ", ".join(f"`{name}`" for name in DATASETS)
    models = "; ".join(family.form for family in FAMILIES.values())
    return f"Data sets: {data}. Models: {models}."


def kind(annotation: Any, many: bool = False) -> str:
    """A type and its range in words; `many` for the parts of a list."""
    s, each = ("s", "each ") if many else ("", "")
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [words for check in parts[1:] if (words := _bounds(check))]
        return ", ".join([kind(parts[0], many), *(each + words for words in bounds)])
    if origin in (Union, types.UnionType):
        words = " or ".join(kind(part, many) for part in parts if part is not type(None))
        return f"{words}; or `null`" if type(None) in parts else words
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is tuple or origin is list:
        return f"list{s} of {kind(parts[0], many=True)}"
    if origin is dict:
        return f"mapping{s}" if parts[1] is Any else f"mapping{s} of names to {kind(parts[1], many=True)}"
    plain = {bool: "`true` or `false`", int: f"whole number{s}", float: f"number{s}", str: f"text{s}"}
    return plain.get(annotation, f"mapping{s}, below")


def _bounds(check: object) -> str:
    """A check's legal interval in words; empty where the check is no interval."""
    return str(check).replace(f"{2**63:g}", "2^63") if isinstance(check, Within) else ""


def _default(value: Any) -> str:
    """A default in the words of the reference."""
    if value is MISSING:
        return "required"
    if is_dataclass(value):
        return "as below"
    return (f"`{value}`" if value else "empty") if isinstance(value, str) else f"`{json.dumps(value)}`"


def _flat(text: str | None) -> str:
    """A text in one line, fit for a cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def _sentence(meaning: str) -> str:
    flat = _flat(meaning)
    return f"{flat[:1].upper()}{flat[1:].removesuffix('.')}."
