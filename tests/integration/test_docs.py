"""The documents: generated pages are current, links lead somewhere, examples work, the README is short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sweep.study import load
from sweep.study.reference import STUDY, reference, settings
from tests.conftest import ROOT
from trainer.spec import RunSpec

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINES, WORDS = 200, 1_500
WIDTH = 109


def blocks(page: str, language: str) -> list[str]:
    """The code of a page that is marked as being in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def test_the_reference_in_the_repository_is_that_of_the_code() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), "To write it anew: make reference"


def test_every_setting_has_a_meaning() -> None:
    found = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(found) > 100
    assert [line for line in found if line.split(" | ")[-1].strip(" |.") == ""] == []


def test_every_part_of_a_study_is_in_the_reference() -> None:
    parts = {cls.__name__ for _, cls, _ in STUDY}
    assert parts == {
        "Contents",
        "Arm",
        "Match",
        "Range",
        "Choice",
        "Search",
        "Confirm",
        "Analysis",
        "Published",
        "Resources",
    }
    assert all(settings(cls) for _, cls, _ in STUDY)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= LINES
    assert len(text.split()) <= WORDS


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    relative = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in relative if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_link_to_a_heading_leads_to_one(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", page.read_text()):
        file, _, heading = link.partition("#")
        if not re.match(r"[a-z]+:", link):
            target = (page.parent / file) if file else page
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("page", NAMES)
def test_lines_end_before_column_110_outside_tables(page: str) -> None:
    lines = (ROOT / page).read_text().splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("|")] == []


def test_the_study_of_the_readme_has_ten_lines_and_is_planned(tmp_path: Path) -> None:
    (text,) = blocks("README.md", "yaml")
    name, *lines = text.splitlines()
    assert len(lines) == 10
    path = tmp_path / name.removeprefix("# ")
    path.write_text(text)
    assert load(path).baselines == ["dense"]
    plan = [
        sys.executable,
        "-m",
        "sweep",
        "plan",
        str(path),
        "--store",
        str(tmp_path / "store"),
        "--workers",
        "2",
    ]
    done = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "About 113 runs" in done.stdout
    assert "warning" not in done.stdout


def test_the_parts_of_a_study_in_the_guide_make_one(tmp_path: Path) -> None:
    arms, tasks = map(yaml.safe_load, blocks("docs/studies.md", "yaml"))
    arms["arms"]["dense"] = {"policy": {"name": "dense"}}
    study = {
        "task": {"model": "mlp-20", "epochs": 4},
        **arms,
        **tasks,
        "search": {"budget": 8},
        "analysis": {"baseline": "dense"},
    }
    path = tmp_path / "guide.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    assert list(load(path).arms["additive@wine"].searched) == [
        "policy.step",
        "policy.ema",
        "task.learning_rate",
    ]


def test_the_run_of_its_page_is_one() -> None:
    (run,) = blocks("docs/one-run.md", "json")
    assert RunSpec.from_json(run).policy.name == "additive-reset"


def test_the_code_of_the_page_of_gains_runs() -> None:
    (code,) = blocks("docs/gains.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) == pytest.approx(0.08 / 6)


def test_the_words_of_the_glossary_are_unique_and_sorted() -> None:
    words = re.findall(r"^## (.*)$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 40
    assert words == sorted(set(words), key=str.lower)


def test_every_test_and_benchmark_that_a_page_names_is_there() -> None:
    for page in (
        "README.md",
        "CONTRIBUTING.md",
        "tests/README.md",
        *[it for it in NAMES if it.startswith("docs/")],
    ):
        text = (ROOT / page).read_text()
        named = re.findall(r"\b(?:tests|benchmarks|trainer|sweep)/[\w/]+(?:\.py|/)(?=[`\s;,)])", text)
        modules = [f"benchmarks/{name}.py" for name in re.findall(r"-m benchmarks\.(\w+)", text)]
        made = (
            ("tests/unit/test_convnet.py", "trainer/models/convnet.py") if page == "CONTRIBUTING.md" else ()
        )
        assert [it for it in (*named, *modules) if not (ROOT / it).exists() and it not in made] == []
