"""MLflow's pages and the report as a person sees them, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sweep.format import points
from sweep.ledger.ledger import Ledger
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.views.reading import Reading
from sweep.views.report.page import Report
from sweep.views.report.page import page as html_of
from tests.loops import drive, short_values
from tests.sweeps import sweep

pytestmark = [pytest.mark.browser]
GAIN = ".ag-row [col-id='metrics.`gain`']"


@pytest.fixture(scope="module")
def reading(store: Path) -> Reading:
    return Reading(Ledger(str(store), "small", print))


def gains(reading: Reading) -> dict[str, float]:
    """Return the gain of each candidate at r = 1, in points."""
    return {
        str(row.candidate): 100 * (row.gain or 0.0)
        for row in reading.compare()
        if row.reference_arm == "dense" and row.keep_ratio == 1
    }


def test_the_link_opens_the_gains_best_first_with_the_seeds_below(
    page: Page, opened: str, reading: Reading
) -> None:
    known = {"dense": 0.0, **gains(reading)}
    page.goto(opened)
    expect(page.locator(GAIN)).to_have_count(len(known))
    shown = [float(text.split()[0]) for text in page.locator(GAIN).all_inner_texts()]
    assert shown == pytest.approx(sorted(known.values(), reverse=True))
    assert page.title() != "taken over"
    first = max(known, key=lambda name: known[name])
    arm = next(it.candidate.arm for it in reading.cohorts if it.candidate.name == first)
    shown_as = {"dense": "dense (baseline)", "dense-again": "dense-again (repeat)"}.get(arm, arm)
    page.locator(
        f"[row-id='tag.shown_as.{shown_as}'] [col-id='attributes.`Run Name`'] span[role=button]"
    ).first.click()
    for seed in reading.study.arms[arm].seeds:
        expect(page.get_by_text(f"{first} seed {seed}").first).to_be_visible()


def test_the_curves_of_the_seed_averages_are_drawn(page: Page, opened: str) -> None:
    page.goto(
        opened.replace("viewStateShareKey=gains", "viewStateShareKey=curves").replace("=TABLE", "=CHART")
    )
    cards = page.locator("[data-testid='experiment-view-compare-runs-card'] .js-plotly-plot .trace")
    expect(cards.first).to_be_visible()
    assert cards.count() >= 4  # a line for each candidate


def test_a_parent_has_its_charts_and_its_description(page: Page, opened: str) -> None:
    page.goto(opened)
    group = page.locator(
        "[row-id='tag.shown_as.sparse'] [col-id='attributes.`Run Name`'] span[role=button]"
    ).first
    group.click()
    page.get_by_text("sparse (confirm, 7 seeds)").first.click()
    expect(page.get_by_text("averages over 7 seeds")).to_be_visible()
    page.goto(
        page.url.split("?")[0].removesuffix("/overview") + "/model-metrics?workflowType=machine_learning"
    )
    expect(page.locator(".js-plotly-plot .trace").first).to_be_visible()


def test_the_report_is_an_artifact_that_is_shown(page: Page, opened: str, reading: Reading) -> None:
    page.goto(opened)
    link = page.get_by_role("link", name="Report").first
    link.wait_for()
    page.goto(opened.split("#")[0] + (link.get_attribute("href") or ""))
    report = page.frame_locator("iframe.mlflow-html-iframe")
    expect(report.locator("h1")).to_have_text("small")
    expect(report.get_by_text("<script>document.title = 'taken over'</script>").first).to_be_visible()
    assert report.locator("figure svg").count() >= 6
    shown = report.locator("table.cards").first.inner_text()
    assert all(points(gain / 100) in shown for gain in gains(reading).values())
    # controls and repeats stand below, and not among the verdicts
    tested = report.locator("table.matrix tbody th").all_inner_texts()
    assert sorted(tested) == ["additive over dense", "sparse over dense"]


@pytest.mark.parametrize("width", [360, 390, 1200])
def test_the_report_can_be_read_on_a_telephone_and_without_a_network(
    page: Page, store: Path, tmp_path: Path, width: int
) -> None:
    told = sweep("report", "small.yaml", "--store", store, "--to", tmp_path / "report.html")
    assert told.returncode == 0, told.stderr
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    expect(page.locator("h1")).to_have_text("small")
    assert asked == [(tmp_path / "report.html").as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "small: gains over dense"


WIDE: dict[str, Any] = {
    "arms": {
        "dense-as-published": {"policy": {"name": "dense"}},
        "additive-with-a-long-name": {
            "policy": {"name": "additive-reset", "step": 0.3},
            "task": {
                "learning_rate": {"low": 0.03, "high": 0.3, "log": True},
                "weight_decay": {"low": 1e-4, "high": 1e-2, "log": True},
            },
        },
        "set-of-connections": {"policy": {"name": "set", "epsilon": 4}},
        "hot": {"policy": {"name": "dense"}, "task": {"learning_rate": 1e18}},
    },
    "search": {"budget": 2, "generation": 2, "lag": 0, "ladder": [1], "proposer": "random"},
    "confirm": {"seeds": 9},
    "analysis": {
        "baseline": "dense-as-published",
        "family": ["additive-with-a-long-name", "set-of-connections"],
        "endpoints": [1.0, 0.3, 0.1, 0.05],
        "margin": [1, 5, 5, 60],
    },
}
"""Four endpoints, long names, networks of two sizes, and runs that diverge: as wide as tables become."""


@pytest.fixture(scope="module")
def wide_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    values = {**short_values(**WIDE), "arms": WIDE["arms"]}
    assert drive(Study("wide", Contents.read(values)), folder).complete
    file = folder / "page.html"
    file.write_text(html_of(Report.of(Reading(Ledger(str(folder), "wide", print)))))
    return file


@pytest.mark.parametrize("width", [390, 1200])
def test_no_table_of_many_endpoints_is_wider_than_the_screen(
    page: Page, wide_page: Path, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(wide_page.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(
        "[...document.querySelectorAll('.wide')].map(it => [it.scrollWidth, it.clientWidth])"
    )
    assert [(inner, outer) for inner, outer in boxes if inner > outer] == []
    matrix = page.locator("table.matrix")
    box = matrix.bounding_box()
    assert box
    assert box["x"] + box["width"] <= width
    expect(matrix.locator("tbody td")).to_have_count(8)


def test_a_verdict_is_told_by_color_and_by_word(page: Page, wide_page: Path) -> None:
    page.goto(wide_page.as_uri())
    colors: dict[str, set[str]] = {}
    for cell in page.locator("table.matrix tbody td").all():
        word = cell.locator("b").inner_text().split(",")[0]
        colors.setdefault(word, set()).add(cell.evaluate("it => getComputedStyle(it).backgroundColor"))
    assert len(colors) > 1
    assert all(len(own) == 1 for own in colors.values())
    assert len(set.union(*colors.values())) == len(colors)


def test_a_linked_word_leads_to_its_meaning(page: Page, wide_page: Path) -> None:
    page.goto(wide_page.as_uri())
    link = page.locator("a.word", has_text="family").first
    link.click()
    expect(page.locator("#word-family:target + dd")).to_contain_text("tested together")
