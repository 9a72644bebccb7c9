"""The report of a hostile study in a real browser: nothing is fetched, and no script runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.kept import STUDY
from tests.security.test_pages import hostile_store
from tests.security.victim import sweep
from tests.servers import Silent, serving

pytestmark = [pytest.mark.browser]


@pytest.fixture
def listening() -> Iterator[tuple[str, list[str]]]:
    """Listen on loopback; yield the address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(Silent):
        def look(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = look  # noqa: N815  (the base class's name)

    with serving(Handler) as address:
        yield address, asked


@pytest.fixture
def report(tmp_path: Path) -> Path:
    file = tmp_path / "page.html"
    told = sweep("report", STUDY, "--store", hostile_store(tmp_path), "--to", file, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    return file


def visit(page: Page, file: Path) -> None:
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")


def test_what_a_hostile_study_says_is_text_on_the_page(page: Page, report: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    visit(page, report)
    assert asked == [report.as_uri()]
    assert page.title() != "taken over"
    assert page.get_by_text("seen.png").count()


def test_the_policy_of_the_page_stops_what_gets_into_it_all_the_same(
    page: Page, report: Path, listening: tuple[str, list[str]]
) -> None:
    address, asked = listening
    smuggled = (
        f"<body><img src='{address}/image'><p style='background: url({address}/style)'>text</p>"
        "<script>document.title = 'taken over'</script>"
    )
    report.write_text(report.read_text().replace("<body>", smuggled, 1))
    visit(page, report)
    assert asked == []
    assert page.title() != "taken over"
    report.write_text(report.read_text().replace("Content-Security-Policy", "x-no-policy", 1))
    visit(page, report)
    assert sorted(asked) == ["/image", "/style"]
    assert page.title() == "taken over"
