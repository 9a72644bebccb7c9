"""Reading of frozen dataclasses from untrusted JSON. All problems are reported at once.

Problems are unknown keys, wrong types and values out of range. A field is `name: type` or
`name: Annotated[type, check, ...]`. A check returns the reason why a value is refused, or None. A type may
be another such dataclass, alone or in a union with a plain type; its value is then a JSON object.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem at one key. `path` is dotted, as in `policy.step`."""

    path: str
    reason: str

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
    """A number's legal interval; `above` and `below` exclude their end."""

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
        if good:
            return None
        bounds = (
            ("above", self.above),
            ("at least", self.at_least),
            ("below", self.below),
            ("at most", self.at_most),
        )
        legal = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        return f"must be {legal}; it is {value!r}."


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
    """The annotation of each setting of a dataclass. Fields with `init=False` are state, not settings."""
    hints = get_type_hints(cls, include_extras=True)
    own_first = sorted(dataclasses.fields(cls), key=lambda f: bool(f.kw_only))
    return {f.name: hints[f.name] for f in own_first if f.init and not f.metadata.get("hidden")}


def whole_number(cls: type, key: str) -> bool:
    """Whether a setting is declared as a whole number. False for an unknown setting."""
    declared = settings_of(cls).get(key)
    options = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
    return any(
        (get_args(option)[0] if get_origin(option) is Annotated else option) is int for option in options
    )


def read(cls: type[T], given: object, path: str = "", takes: str = "") -> T:
    """Build `cls` from a mapping, or raise SpecError with every problem found.

    Messages call the owner of the keys `takes`.
    """
    fields = settings_of(cls)
    takes = takes or cls.__name__.lower()
    if not isinstance(given, Mapping):
        raise SpecError(
            [Problem(path, f"must be an object with the keys {', '.join(fields)}; it is {_shown(given)}.")]
        )
    given = cast("Mapping[str, object]", given)
    legal = f"{takes} takes: {', '.join(fields) or 'no settings'}."
    problems = [
        Problem(_join(path, key), f"no such setting.{nearest(key, fields)}\n    {legal}")
        for key in map(str, given)
        if key not in fields
    ]
    values: dict[str, Any] = {}
    for key, annotation in fields.items():
        if key in given:
            values[key], wrong = _value(annotation, given[key], _join(path, key))
            problems += wrong
        elif _required(cls, key):
            problems.append(Problem(_join(path, key), f"is missing; {takes} needs it."))
    if problems:
        raise SpecError(problems)
    try:
        return cls(**values)
    except SettingError as error:
        raise SpecError([Problem(_join(path, error.setting), error.reason)]) from None


def written(settings: Any) -> dict[str, Any]:
    """The JSON value of a settings object. This is the inverse of `read`.

    A field added in a later release carries `metadata={"added": True}`. Its default is the behaviour before
    it was added, and at this default it is left out. So ids and the meaning of old specs never change.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if field.name in settings_of(type(settings)):
            value = getattr(settings, field.name)
            if not (field.metadata.get("added") and value == field.default):
                values[field.name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in cast("tuple[Any, ...]", value)]
    return written(value) if dataclasses.is_dataclass(value) else value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _required(cls: type, key: str) -> bool:
    field = next(f for f in dataclasses.fields(cls) if f.name == key)
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _value(annotation: Any, value: object, path: str) -> tuple[Any, list[Problem]]:
    """The value as its declared type, and the problems found in it."""
    if get_origin(annotation) in (Union, types.UnionType):
        options = get_args(annotation)
        if value is None and type(None) in options:
            return None, []
        options = [option for option in options if option is not type(None)]
        objects = [option for option in options if dataclasses.is_dataclass(option)]
        return _value((objects if objects and isinstance(value, Mapping) else options)[0], value, path)
    if dataclasses.is_dataclass(annotation):
        try:
            return read(cast("type[Any]", annotation), value, path), []
        except SpecError as error:
            return None, list(error.problems)
    checks: tuple[Callable[[Any], str | None], ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        checks = tuple(extra)
    coerced, reason = _typed(annotation, value)
    if reason:
        return None, [Problem(path, reason)]
    return coerced, [Problem(path, reason) for check in checks if (reason := check(coerced))]


def _typed(annotation: Any, value: object) -> tuple[Any, str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return value, one_of(value, args) or ""
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return None, f"must be a list; it is {_shown(value)}."
        parts = [_value(args[0], part, "") for part in cast("list[object]", value)]
        reasons = [f"[{i}] {reason}" for i, (_, why) in enumerate(parts) for reason in why]
        return tuple(part for part, _ in parts), " ".join(reasons)
    if annotation is bool:
        return value, "" if isinstance(value, bool) else f"must be true or false; it is {_shown(value)}."
    if annotation is str:
        return value, "" if isinstance(value, str) else f"must be a text; it is {_shown(value)}."
    return _number(annotation, value)


def _number(annotation: Any, value: object) -> tuple[Any, str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "a whole number" if annotation is int else "a number"
        hint = " Write it without quotes." if isinstance(value, str) and _numeric(value) else ""
        return None, f"must be {kind}; it is {_shown(value)}.{hint}"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return None, f"must be a finite number; it is {_shown(value)}."
    if annotation is float:
        return number + 0.0, ""  # adding 0.0 turns -0.0 into 0.0, so that equal specs have equal JSON
    if number != int(value):
        return None, f"must be a whole number; it is {value!r}."
    return int(value), ""


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
