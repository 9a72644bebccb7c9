"""CONTRIBUTING.md's examples (a policy, a data set, a model), done to copies of this repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, command, run_values

FOLDERS = ("trainer", "sweep", "search_spaces", "tests", "docs", "examples", "benchmarks")
MAKE = 'make() { command make -o .venv/.ready "$@"; }'
"""The environment of a copy is a link to this one, which is not the copy's to renew."""


class Copy:
    """A copy of this repository to which a section of CONTRIBUTING.md is done, block by block."""

    def __init__(self, folder: Path, title: str) -> None:
        self.folder = folder
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "Makefile"):
            shutil.copy(ROOT / file, folder)
        (folder / ".venv").symlink_to(sys.prefix)
        section = (ROOT / "CONTRIBUTING.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
        self.changed: list[str] = []
        self.output: list[str] = []
        for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
            if language == "python":
                self._write(*text.split("\n", 1))
            else:
                self.output += [self._shell(line) for line in text.splitlines()]

    def _write(self, header: str, code: str) -> None:
        """Put code where its first line says."""
        found = re.fullmatch(r"# (\S+): (a new file|at the end|above (\w+)|in (\w+))", header)
        assert found, header
        path = self.folder / found[1]
        self.changed.append(found[1])
        if found[2] == "a new file":
            assert not path.exists()
            path.write_text(code)
            return
        before = path.read_text()
        if table := found[3] or found[4]:
            start = re.search(rf"^{table}\b", before, re.MULTILINE)
            assert start, header
            at, code = (
                (start.start(), f"{code}\n\n")
                if found[3]
                else (before.index("\n}\n", start.end()) + 1, code)
            )
            path.write_text(before[:at] + code + before[at:])
        else:
            path.write_text(f"{before}\n\n{code}")

    def _shell(self, line: str) -> str:
        done = self.run("bash", "-c", f"{MAKE}\n{line}")
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments, cwd=self.folder, capture_output=True, text=True, check=False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the section's last command, a run, printed."""
        return [json.loads(row) for row in self.output[-1].splitlines()]

    def is_clean(self) -> None:
        """The changed files are formatted, and pass lint and types; what is generated is current."""
        # the width of an example's lines is tested with the page's, in test_docs.py
        for check in (
            ["ruff", "format", "--check"],
            ["ruff", "check", "--ignore", "E501"],
            ["basedpyright"],
        ):
            done = self.run(sys.executable, "-m", *check, *sorted(set(self.changed)))
            assert done.returncode == 0, done.stdout
        tests = ["tests/unit/test_study_file.py", "tests/integration/test_docs.py"]
        done = self.run(sys.executable, "-m", "pytest", "-q", "-n0", *tests, "-k", "in_the_repository")
        assert done.returncode == 0, done.stdout
        assert "2 passed" in done.stdout


@pytest.mark.slow
def test_a_policy_takes_one_class_one_line_in_one_table_one_test_and_one_command(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "To add a policy")
    copy.is_clean()
    assert "2 passed" in copy.output[1]  # its own, and the one that continues every policy from its state
    assert [row["keep_ratio"] for row in copy.rows[:5]] == [1, 0.55, 0.1, 0.55, 1]
    assert '"triangle"' in (tmp_path / "search_spaces" / "schema.json").read_text()
    assert (
        "| `low` | number, above 0 and at most 1 | `0.1` | The keep ratio in the middle of a period. |"
        in (tmp_path / "docs" / "settings.md").read_text()
    )
    run = tmp_path / "misspelt.json"
    run.write_text(json.dumps(run_values({"name": "triangle", "perid": 2})))
    refused = copy.run(*command(run, tmp_path / "runs"))
    assert refused.returncode == 2
    assert "Did you mean 'period'?" in refused.stderr


@pytest.mark.slow
def test_a_data_set_takes_one_function_one_line_in_one_table_one_test_and_one_command(
    tmp_path: Path,
) -> None:
    copy = Copy(tmp_path, "To add a data set")
    copy.is_clean()
    assert "1 passed" in copy.output[1]
    assert copy.rows[-1]["test_accuracy"] > 0.8  # three kinds of flowers: a guess is a third
    assert '"iris"' in (tmp_path / "search_spaces" / "schema.json").read_text()


@pytest.mark.slow
def test_a_model_takes_one_class_one_family_one_test_and_one_command(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "To add a model")
    copy.is_clean()
    assert " passed" in copy.output[1]
    assert copy.rows[-1]["dense_test_accuracy"] > 0.5  # ten digits: a guess is a tenth
    assert "convnet-WIDTH, as in convnet-16" in " ".join(
        (tmp_path / "docs" / "settings.md").read_text().split()
    )


def test_what_was_not_renewed_is_told_with_the_command(tmp_path: Path) -> None:
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file in ("search_spaces/schema.json", "docs/settings.md"):
        (tmp_path / file).write_text("{}")
    tests = ["tests/unit/test_study_file.py", "tests/integration/test_docs.py", "-k", "in_the_repository"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", *tests],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "To write it anew: make schema" in done.stdout
    assert "To write it anew: make reference" in done.stdout


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
