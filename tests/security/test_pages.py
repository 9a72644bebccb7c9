"""What strangers wrote stands in pages, notes and exports as text: no image, link, script, formula or code.

| attack on a function | in 15d2fea | now |
| --- | --- | --- |
| a formula in an arm's name | sweep.pictures.tuning | sweep.views.report.pictures.tuning |

What a browser makes of them is in tests/browser/test_hostile_pages.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from sweep.views.markdown import code, escaped
from sweep.views.report import pictures
from sweep.views.report.searched import Tuning, TuningCurve
from tests.kept import STUDY, falsify
from tests.security.handed import forge_failure, store_with_a_failure
from tests.security.victim import sweep

FETCHED = (
    "![seen](http://127.0.0.1:9/seen.png)",
    "![seen] (http://127.0.0.1:9/seen.png)",
    "![seen][id]\n\n[id]: http://127.0.0.1:9/seen.png",
    "[a link](http://127.0.0.1:9/)",
    "<img src=http://127.0.0.1:9/seen.png>",
    "<script>document.title = 'taken over'</script>",
    "\\![seen](http://127.0.0.1:9/seen.png)",
    "`code` ![seen](http://127.0.0.1:9/seen.png) `",
    "https://127.0.0.1:9/ and www.example.org",
)
HOSTILE = " ".join(FETCHED)


def made_of(markdown: str) -> list[str]:
    """Return the kinds of everything but text that a reader of Markdown finds in it."""
    reader = MarkdownIt("commonmark").enable("table")
    kinds: list[str] = []
    for token in reader.parse(markdown):
        kinds += [child.type for child in token.children or [token]]
    return [kind for kind in kinds if kind in ("image", "link_open", "html_inline", "html_block")]


@pytest.mark.parametrize("text", FETCHED)
def test_escaped_markdown_is_text(text: str) -> None:
    assert made_of(escaped(text)) == []
    assert made_of(f"a [b {escaped(text)}") == []
    assert made_of(code(text)) == []
    assert "\n" not in escaped(text)


def test_escaped_text_ends_no_cell_of_a_table() -> None:
    table = f"| arm | gain |\n| --- | --- |\n| {escaped('a | b')} | 1 |\n"
    parts = MarkdownIt("commonmark").enable("table").parse(table)
    assert sum(part.type == "td_open" for part in parts) == 2


@pytest.mark.parametrize(
    "text", ["by 2.00 points [+1.00, +3.00], better in 8 of 8 pairs", "r = 0.05: p < 5 %"]
)
def test_our_own_sentences_stay_readable_on_a_terminal(text: str) -> None:
    assert escaped(text) == text.replace("<", "&lt;")


def hostile_store(folder: Path) -> Path:
    """Return a store in which a failure's reason and the description are hostile."""
    store = store_with_a_failure(folder)
    forge_failure(store, HOSTILE, [])
    falsify(store / "kept" / "study.json", lambda body: body.update(description=HOSTILE))
    return store


def test_the_report_and_with_it_the_note_in_mlflow_has_no_image_and_no_link(tmp_path: Path) -> None:
    told = sweep("report", STUDY, "--store", hostile_store(tmp_path), cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "seen.png" in told.stdout
    assert made_of(told.stdout) == []


def test_the_readme_of_an_export_has_no_image_and_no_link(tmp_path: Path) -> None:
    told = sweep("export", STUDY, "--store", hostile_store(tmp_path), "--to", tmp_path / "to", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    readme = (tmp_path / "to" / "README.md").read_text()
    assert "seen.png" in readme
    assert made_of(readme) == []


def test_the_page_forbids_every_fetch_and_script(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    told = sweep("report", STUDY, "--store", hostile_store(tmp_path), "--to", page, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    text = page.read_text()
    head = text[: text.index("<title>")]
    assert "Content-Security-Policy" in head
    assert "default-src 'none'" in head
    assert "<script" not in text
    assert "<img" not in text


def test_no_text_of_a_study_becomes_code_of_the_notebook(tmp_path: Path) -> None:
    notebooks: list[dict[str, Any]] = []
    for name in ("plain", "hostile"):
        (tmp_path / name).mkdir()
        make = store_with_a_failure if name == "plain" else hostile_store
        to = tmp_path / name / "to"
        told = sweep("export", STUDY, "--store", make(tmp_path / name), "--to", to, cwd=tmp_path)
        assert told.returncode == 0, told.stderr
        notebooks.append(json.loads((to / "significance.ipynb").read_text()))
    assert notebooks[0] == notebooks[1]


@pytest.mark.parametrize("name", ["$\\frac$", "$\\undefined{$", "a_$b$_c"])
def test_a_formula_in_a_name_is_drawn_as_it_stands(name: str) -> None:
    curve = TuningCurve(1.0, [0.5, 0.6], [0.1, 0.1])
    drawn = pictures.tuning([Tuning(name, 2, 2, None, [curve])], 1.0, {name: 0})
    assert name in drawn
