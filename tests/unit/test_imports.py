"""Imports point one way: `trainer` knows nothing of `sweep`, and neither it nor its names need an engine."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FORBIDDEN = {
    "trainer": {"sweep", "ray", "optuna", "mlflow", "pydantic", "pandas", "tests", "benchmarks"},
}


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_none_of_what_stands_above_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): found for path in files if (found := imported(path) & FORBIDDEN[package])}
    assert not wrong


@pytest.mark.parametrize(
    "module", ["trainer.spec", "trainer.policies", "trainer.store", "trainer.run_folder", "trainer.data", "trainer.__main__"]
)
def test_what_needs_no_torch_comes_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_policies_never_touch_torch() -> None:
    assert all("torch" not in imported(path) for path in (ROOT / "trainer" / "policies").glob("*.py"))
