"""CONTRIBUTING.md's example of a new policy, applied as written to a copy of this repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, command, run_values


def blocks() -> dict[str, str]:
    """Return the example's code by the file that it goes into."""
    found = re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert len(found) == 3
    return dict(found)


@pytest.mark.slow
def test_a_policy_takes_one_class_one_line_in_one_table_one_test_and_one_command(tmp_path: Path) -> None:
    for folder in ("trainer", "sweep", "search_spaces", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / file, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    code = blocks()
    table = code["trainer/policies/__init__.py"]
    assert len(table.splitlines()) == 1
    for name, text in code.items():
        path = tmp_path / name
        before = path.read_text()
        path.write_text(
            before.replace("\n}\n", f"\n{table}}}\n") if text == table else f"{before}\n\n{text}"
        )
        assert path.read_text() != before

    tested = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "tests/unit/test_keep_ratio.py",
        "-k",
        "triangle",
    ]
    done = subprocess.run(tested, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout  # its own, and the one that continues every policy from its state

    schema = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "tests/unit/test_study_file.py",
        "-k",
        "schema_in_the_repository",
    ]
    done = subprocess.run(schema, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "To write it anew: make schema" in done.stdout
    assert "```sh\nmake schema\n```" in (ROOT / "CONTRIBUTING.md").read_text()
    # -o: the environment is a link to this one, which is not the copy's to renew
    subprocess.run(["make", "-o", ".venv/.ready", "schema"], cwd=tmp_path, capture_output=True, check=True)
    done = subprocess.run(schema, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert '"triangle"' in (tmp_path / "search_spaces" / "schema.json").read_text()

    for check in (["ruff", "format", "--check"], ["ruff", "check"], ["basedpyright"]):
        changed = [name for name in code if name.endswith(".py")]
        checked = subprocess.run(
            [sys.executable, "-m", *check, *changed],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout

    run = tmp_path / "run.json"
    run.write_text(json.dumps(run_values({"name": "triangle", "period": 2, "low": 0.5})))
    trained = subprocess.run(
        command(run, tmp_path / "runs"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stderr
    assert [json.loads(row)["keep_ratio"] for row in trained.stdout.splitlines()] == [1, 0.5, 1]

    run.write_text(json.dumps(run_values({"name": "triangle", "perid": 2})))
    refused = subprocess.run(
        command(run, tmp_path / "runs"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "Did you mean 'period'?" in refused.stderr


def made_by(*arguments: str) -> list[str]:
    """Return the commands of a Makefile target as they would run."""
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "-o", ".venv/.ready", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_make_export_and_make_notebook_write_where_make_check_does_not_look(tmp_path: Path) -> None:
    (export,) = made_by("export", "STUDY=studies/mine.yaml")
    place = export.split(" --to ")[1]
    assert place == "results/mine-export"
    written, *_, opened = made_by("notebook", "STUDY=studies/mine.yaml")
    assert (written, opened) == (export, f".venv/bin/jupyter lab {place}/significance.ipynb")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("studies", place):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "unused.py").write_text("import os\n")
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "studies/unused.py" in checked.stdout
    assert "results/" not in checked.stdout
