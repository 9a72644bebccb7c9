"""Frozen dataclasses read from untrusted JSON or YAML: all that is wrong with the values is told at once.

A setting is a field: `name: type` or `name: Annotated[type, check, ...]`. A check returns why a value will
not do, or None. A type may be a list or a mapping of others, or another such dataclass, alone or beside a
plain type. The text under a field says what the setting means.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import math
import re
import textwrap
import types
from collections.abc import Iterable, Mapping, Sized
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")


Place = tuple[str | int, ...]
"""The keys and the list indexes that lead to a value."""


class Problem(NamedTuple):
    """What is wrong at one place."""

    place: Place
    reason: str

    @property
    def path(self) -> str:
        """The place as it is shown: dotted, as in `policy.step`."""
        return ".".join(map(str, self.place))

    def __str__(self) -> str:
        return f"{self.path}  {self.reason}" if self.path else self.reason


class SpecError(ValueError):
    """The error for settings that can never work. `problems` holds every reason found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class SettingError(ValueError):
    """The error of a `__post_init__` whose settings are valid one by one but not together."""

    def __init__(self, setting: str, reason: str) -> None:
        self.setting, self.reason = setting, reason
        super().__init__(f"{setting}  {reason}")


@dataclasses.dataclass(frozen=True)
class Within:
    """A number's legal interval; `above` and `below` exclude their end. Its text is the words for it."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def __call__(self, value: float) -> str | None:
        good = (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )
        return None if good else f"must be {self}; it is {value!r}."

    def __str__(self) -> str:
        bounds = ((key.replace("_", " "), bound) for key, bound in vars(self).items())
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


@dataclasses.dataclass(frozen=True)
class Filled:
    """The least number of parts of a list or a mapping."""

    at_least: int

    def __call__(self, value: Sized) -> str | None:
        short = len(value) < self.at_least
        return f"must have at least {self.at_least}; it has {len(value)}." if short else None


WITHOUT_POINT = "written without a point"
"""Annotates a whole number that has to be written as one: 4, and not 4.0."""


class Excerpt:
    """A dataclass of this kind names the keys that it needs of an object, and passes over all others."""


Share = Annotated[float, Within(above=0, at_most=1)]
"""A keep ratio, or another share above 0."""


def nearest(word: str, legal: Iterable[str]) -> str:
    """A hint such as `" Did you mean 'step'?"`, or an empty text if no legal word is near."""
    spelt = {name.lower(): name for name in legal}
    close = difflib.get_close_matches(word.lower(), list(spelt), n=1, cutoff=0.5)
    return f" Did you mean {spelt[close[0]]!r}?" if close else ""


def one_of(word: object, legal: Iterable[str]) -> str | None:
    """The reason why `word` is not a legal one, or None."""
    legal = list(legal)
    if word in legal:
        return None
    return f"must be one of {', '.join(legal)}; it is {word!r}.{nearest(str(word), legal)}"


@cache
def settings_of(cls: type) -> dict[str, Any]:
    """Each setting of a dataclass with its annotation. Fields not filled at construction are state."""
    hints = get_type_hints(cls, include_extras=True)
    own_first = sorted(dataclasses.fields(cls), key=lambda f: bool(f.kw_only))
    return {f.name: hints[f.name] for f in own_first if f.init and not f.metadata.get("hidden")}


def default_of(cls: type, key: str) -> Any:
    """The default of a setting; dataclasses.MISSING where it has to be given."""
    field = next(field for field in dataclasses.fields(cls) if field.name == key)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@cache
def descriptions(cls: type) -> dict[str, str]:
    """What the settings of a dataclass mean: the text under each, where there is one."""
    found: dict[str, str] = {}
    for owner in reversed([owner for owner in cls.__mro__ if dataclasses.is_dataclass(owner)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        for pair in itertools.pairwise(cast("ast.ClassDef", tree).body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[key] = " ".join(text.split())
                case _:
                    pass
    return found


def whole_number(cls: type, key: str) -> bool:
    """Whether a setting is declared as a whole number. False for an unknown setting."""
    declared = settings_of(cls).get(key)
    options = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
    return any(
        (get_args(option)[0] if get_origin(option) is Annotated else option) is int for option in options
    )


def read(cls: type[T], given: object, place: Place = (), takes: str = "") -> T:
    """Build `cls` from a mapping, or raise SpecError with every problem.

    `takes` is who takes the keys, in messages: the name of the class, where it is not given.
    """
    fields = settings_of(cls)
    takes = takes or cls.__name__.lower()
    if not isinstance(given, Mapping):
        raise SpecError(
            [Problem(place, f"must be an object with the keys {', '.join(fields)}; it is {_shown(given)}.")]
        )
    given = cast("Mapping[str, object]", given)
    legal = ", ".join(fields) or "no settings"
    problems = [
        Problem((*place, key), f"no such setting.{nearest(key, fields)}\n    {takes} takes: {legal}.")
        for key in map(str, given)
        if key not in fields and not issubclass(cls, Excerpt)
    ]
    values: dict[str, Any] = {}
    for key, annotation in fields.items():
        if key in given:
            values[key], wrong = _value(annotation, given[key], (*place, key))
            problems += wrong
        elif default_of(cls, key) is dataclasses.MISSING:
            problems.append(Problem((*place, key), f"is missing; {takes} needs it."))
    if problems:
        raise SpecError(problems)
    try:
        return cls(**values)
    except SettingError as error:
        raise SpecError([Problem((*place, error.setting), error.reason)]) from None


def written(settings: Any) -> Any:
    """The JSON value of a settings object: the inverse of `read`.

    A field added after runs were made carries `metadata={"added": True}`, and its default is what was meant
    before it was there. At its default it is left out, so that the same work keeps its id and an old spec
    still reads as what it was.
    """
    if isinstance(settings, list | tuple):
        return [written(part) for part in cast("list[Any]", settings)]
    if isinstance(settings, dict):
        return {key: written(part) for key, part in cast("dict[str, Any]", settings).items()}
    if not dataclasses.is_dataclass(settings):
        return settings
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if field.name in settings_of(type(settings)):
            value = getattr(settings, field.name)
            if not (field.metadata.get("added") and value == default_of(type(settings), field.name)):
                values[field.name] = written(value)
    return values


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _value(annotation: Any, value: object, place: Place) -> tuple[Any, list[Problem]]:
    """The value as its declared type, and why it will not do."""
    if get_origin(annotation) in (Union, types.UnionType):
        options = get_args(annotation)
        if value is None and type(None) in options:
            return None, []
        options = [option for option in options if option is not type(None)]
        objects = [option for option in options if dataclasses.is_dataclass(option)]
        if isinstance(value, Mapping):  # the one that has most of the keys is meant
            objects.sort(key=lambda option: -len(settings_of(option).keys() & value.keys()))
        words = [option for option in options if get_origin(option) is Literal]
        fitting = objects if isinstance(value, Mapping) else words if isinstance(value, str) else []
        typed, problems = _value((fitting or options)[0], value, place)
        if problems and fitting == words and words and len(options) > 1:
            legal = ", ".join(map(str, get_args(words[0])))
            problems = [Problem(place, f"must be a list, or {legal}; it is {_shown(value)}.")]
        return typed, problems
    if dataclasses.is_dataclass(annotation):
        try:
            return read(cast("type[Any]", annotation), value, place), []
        except SpecError as error:
            return None, list(error.problems)
    extra: list[Any] = []
    if get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
    if get_origin(annotation) in (list, dict, tuple):
        typed, problems = _parts(annotation, value, place)
    else:
        typed, reason = _typed(annotation, value)
        if WITHOUT_POINT in extra and isinstance(value, float) and value.is_integer():
            reason = f"must be a whole number; it is {value!r}. Write it as {value:.0f}."
        problems = [Problem(place, reason)] if reason else []
    checks = [] if problems else [check for check in extra if check != WITHOUT_POINT]
    return typed, problems + [Problem(place, reason) for check in checks if (reason := check(typed))]


def _parts(annotation: Any, value: object, place: Place) -> tuple[Any, list[Problem]]:
    """A list or a mapping as its declared type, part by part, and why it will not do."""
    origin, args = get_origin(annotation), get_args(annotation)
    named = origin is dict
    if not isinstance(value, Mapping if named else list | tuple):
        return None, [
            Problem(place, f"must be {'an object' if named else 'a list'}; it is {_shown(value)}.")
        ]
    given = cast("Mapping[str, object]", value if named else dict(enumerate(value)))
    found = {key: _value(args[named], part, (*place, key)) for key, part in given.items()}
    typed = {key: part for key, (part, _) in found.items()}
    problems = [problem for _, wrong in found.values() for problem in wrong]
    if origin is tuple and problems:  # a run's spec has its tuples' problems in one message
        reasons = (f"[{problem.place[-1]}] {problem.reason}" for problem in problems)
        problems = [Problem(place, " ".join(reasons))]
    return typed if named else origin(typed.values()), problems


def _typed(annotation: Any, value: object) -> tuple[Any, str]:
    if annotation is Any:
        return value, ""
    if get_origin(annotation) is Literal:
        return value, one_of(value, get_args(annotation)) or ""
    if annotation is bool:
        return value, "" if isinstance(value, bool) else f"must be true or false; it is {_shown(value)}."
    if annotation is str:
        return value, "" if isinstance(value, str) else f"must be a text; it is {_shown(value)}."
    return _number(annotation, value)


def _number(annotation: Any, value: object) -> tuple[Any, str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "a whole number" if annotation is int else "a number"
        quoted = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", value)
        hint = " Write it without quotes." if quoted else ""
        return None, f"must be {kind}; it is {_shown(value)}.{hint}"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return None, f"must be a finite number; it is {_shown(value)}."
    if annotation is float:
        return number + 0.0, ""  # + 0.0 makes -0.0 the 0.0 it equals
    if not number.is_integer():
        return None, f"must be a whole number; it is {value!r}."
    return int(value), ""
