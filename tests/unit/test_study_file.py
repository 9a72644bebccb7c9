"""A study's file: how its YAML is read, how it is found, and that no file crashes the reader.

The shipped studies and their schema are tested too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.errors import RejectStudy
from sweep.study import document, find, load, schema, shipped
from tests.conftest import ROOT
from tests.unit.test_study import BASE

FOLDER = ROOT / "search_spaces"
NAMES, SHIPPED = list(shipped()), list(shipped().values())


def values_of(text: str, folder: Path) -> Any:
    path = folder / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return document.read(path, "any.yaml").values


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_a_shipped_study_loads(path: Path) -> None:
    it = load(path)
    for arm in it.arms:
        if not it.arms[arm].repeats:
            assert [it.run(candidate, "confirm", 1) for candidate in it.arms[arm].ends]


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_a_shipped_study_says_in_a_comment_what_each_key_is(path: Path) -> None:
    explained: dict[str, bool] = {}
    above = ""
    for line in path.read_text().splitlines():
        if key := re.match(r" *([a-z0-9_-]+):", line):
            explained[key[1]] = (
                explained.get(key[1], False) or " #" in line or above.lstrip().startswith("#")
            )
        above = line
    assert [key for key, said in explained.items() if not said] == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("+1.5e+2", 150.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("010", 10),
        ("-09", -9),
        ("+7", 7),
        ("no", "no"),
        ("Off", "Off"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("'1'", "1"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("{<<: {b: 1}}", {"<<": {"b": 1}}),
        ("{1: x, null: y}", {"1": "x", "null": "y"}),
    ],
)
def test_yaml_is_read_by_the_words_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    """0x10 and 0o10 stay texts: a study has no use for them."""
    read = values_of(f"a: {text}", tmp_path)["a"]
    assert read == value
    assert type(read) is type(value)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    assert values_of("\ufeffa: 1\r\nb: 2\r\n", tmp_path) == {"a": 1, "b": 2}


def test_the_schema_in_the_repository_is_that_of_the_code() -> None:
    assert (FOLDER / "schema.json").read_text() == schema(), "To write it anew: make schema"


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_a_shipped_study_fits_the_schema(path: Path) -> None:
    values = document.read(path, path.name).values
    checker = jsonschema.Draft202012Validator(json.loads(schema()))
    checker.check_schema(checker.schema)
    checker.validate(values)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ((), "sed"),
        (("task",), "epoch"),
        (("search",), "buget"),
        (("arms", "dense"), "polcy"),
        (("arms", "dense", "policy"), "stp"),
    ],
)
def test_the_schema_refuses_a_key_that_the_study_would_refuse(part: tuple[str, ...], key: str) -> None:
    values = json.loads(json.dumps(BASE))
    inner = values
    for name in part:
        inner = inner[name]
    inner[key] = 1
    errors = list(jsonschema.Draft202012Validator(json.loads(schema())).iter_errors(values))
    assert [key in error.message for error in errors] == [True]


def test_a_study_is_found_by_its_path_and_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()  # a folder of that name is no study, and hides none
    Path("mine").write_text("a: 1")
    assert find("quickstart") == FOLDER / "quickstart.yaml"
    assert find("some/where.yaml") == Path("some/where.yaml")
    assert find("mine") == Path("mine")


def test_an_unknown_name_is_told_with_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RejectStudy, match=r"^quikstart: no such study\. .* Did you mean 'quickstart'\?$"):
        find("quikstart")
    with pytest.raises(RejectStudy, match=r"^\.: is a folder"):
        find(".")


WORDS = st.sampled_from(
    [
        *BASE,
        "policy",
        "name",
        "dense",
        "repeat",
        "low",
        "high",
        "log",
        "step",
        "choice",
        "epochs",
        "additive-reset",
        "",
    ]
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5)
ANY = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def check_study_or_reason(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(path)
    except RejectStudy as error:
        told = str(error)
    else:
        return
    assert "Input should" not in told
    assert all(line.isprintable() for line in told.split("\n")), told


@settings(max_examples=150)
@given(st.text() | st.text(alphabet="[]{}:,-?&*!|>'\"#%@\n ab1\\", max_size=30))
def test_any_text_is_a_study_or_a_reason(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    check_study_or_reason(tmp_path_factory.getbasetemp() / "text.yaml", text)


@settings(max_examples=250)
@given(
    st.sampled_from(
        [
            (),
            *((key,) for key in BASE),
            *((key, inner) for key, value in BASE.items() if isinstance(value, dict) for inner in value),
        ]
    )
    | st.sampled_from([("arms", "additive", key) for key in ("policy", "task", "budget", "repeat")])
    | st.sampled_from(
        [
            ("arms", "additive", "task", key)
            for key in ("learning_rate", "epochs", "data", "model", "momentum")
        ]
    )
    | st.sampled_from([("arms", "additive", "policy", key) for key in ("name", "step", "floor")]),
    ANY,
)
def test_any_value_anywhere_is_a_study_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, ...], value: object
) -> None:
    whole: Any = {"": json.loads(json.dumps(BASE))}
    inner = whole
    for key in ("", *place)[:-1]:
        inner = inner[key]
    inner[("", *place)[-1]] = value
    check_study_or_reason(
        tmp_path_factory.getbasetemp() / "value.yaml",
        json.dumps(whole[""]).replace("NaN", ".nan").replace("Infinity", ".inf"),
    )
