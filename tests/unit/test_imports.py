"""Imports point one way: `trainer` knows nothing of `sweep`, each engine has its rooms, and the pure rooms need none."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FORBIDDEN = {
    "trainer": {"sweep", "ray", "optuna", "mlflow", "pydantic", "pandas", "tests", "benchmarks"},
    "sweep": {"tests", "benchmarks"},
}
ROOMS = {"optuna": {"proposer"}, "ray": {"driver", "cluster", "tuning"}, "mlflow": {"mlflow_client"}}
"""The modules of `sweep` that import an engine; every other one does without, even inside a function."""
PURE = [
    *(
        "across",
        "analysis",
        "contents",
        "document",
        "forecast",
        "matching",
        "measured",
        "mlflow_page",
        "overview",
        "plan",
        "rungs",
        "sign_flip",
        "space",
        "statistics",
    ),
    *("study", "study_check", "study_shape", "study_tasks", "told", "wording"),
]
ENGINES = {"ray", "optuna", "mlflow", "torch", "pyarrow"}


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


@pytest.mark.parametrize("engine", ROOMS)
def test_an_engine_is_imported_in_its_rooms_alone(engine: str) -> None:
    assert {path.stem for path in (ROOT / "sweep").glob("*.py") if engine in imported(path)} == ROOMS[engine]


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages that come with some modules."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_pure_rooms_come_without_an_engine() -> None:
    assert not loaded_by(*(f"sweep.{module}" for module in PURE)) & ENGINES


def test_every_room_of_the_study_is_held_to_be_pure() -> None:
    assert {path.stem for path in (ROOT / "sweep").glob("study*.py")} <= set(PURE)


def test_the_command_comes_without_ray() -> None:
    """It takes a second, which `status` and `--help` need not."""
    assert not loaded_by("sweep.cli") & {"ray", "optuna", "torch", "mlflow"}


@pytest.mark.parametrize(
    "module", ["trainer.spec", "trainer.policies", "trainer.store", "trainer.run_folder", "trainer.data", "trainer.__main__"]
)
def test_what_needs_no_torch_comes_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_policies_never_touch_torch() -> None:
    assert all("torch" not in imported(path) for path in (ROOT / "trainer" / "policies").glob("*.py"))
