"""Imports point one way, and importing changes nothing.

import-linter holds the directions in `make check`. Here each of its contracts is broken on purpose, and what
a module loads is looked at in a process of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PURE = (
    "sweep.study",
    "sweep.statistics",
    "sweep.planning.plan",
    "sweep.planning.forecast",
    "sweep.gains.comparisons",
)
"""What loads no engine; the packages below them are loaded with them."""
ENGINES = {"ray", "optuna", "mlflow", "torch", "pyarrow"}
BREACHES = {
    "In sweep/ a package imports only from packages below it": (
        "sweep/study/contents.py",
        "from sweep.ledger import lease",
    ),
    "No file imports itself through others": ("sweep/study/contents.py", "from sweep.study import rules"),
    "trainer/ knows nothing of sweeps and their engines": ("trainer/spec.py", "import pydantic"),
    "sweep/ knows nothing of tests and benchmarks": (
        "sweep/estimate/measured.py",
        "from benchmarks import gpu",
    ),
    "Only sweep/cluster imports Ray": ("sweep/planning/plan.py", "import ray"),
    "Only sweep/views/mlflow imports MLflow": ("sweep/views/report/page.py", "import mlflow"),
    "Only sweep/planning/proposer imports Optuna": ("sweep/gains/comparisons.py", "import optuna"),
}
"""A file and an import in it that breaks a contract, by the contract's name."""


def contracts(folder: Path) -> str:
    """What import-linter says of the packages in a folder."""
    linter = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(linter, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in ("sweep", "trainer"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_every_contract_has_its_breach() -> None:
    assert set(BREACHES) == {
        line.split("= ")[1]
        for line in (ROOT / ".importlinter").read_text().splitlines()
        if line.startswith("name = ")
    }


@pytest.mark.parametrize("contract", BREACHES)
def test_a_breach_of_a_contract_is_told(copy: Path, contract: str) -> None:
    name, line = BREACHES[contract]
    file = copy / name
    before = file.read_text()
    try:
        for added, verdict in (("", "KEPT"), (f"\n\ndef _breach() -> None:\n    {line}\n", "BROKEN")):
            file.write_text(before + added)  # inside a function counts as well
            assert f"{contract} {verdict}" in contracts(copy)
    finally:
        file.write_text(before)


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages that come with some modules."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_pure_rooms_come_without_an_engine() -> None:
    assert not loaded_by(*PURE) & ENGINES


def test_the_command_comes_without_ray() -> None:
    """It takes a second, which `status` and `--help` need not."""
    assert not loaded_by("sweep.cli.app") & {"ray", "optuna", "torch", "mlflow"}


@pytest.mark.parametrize(
    "module",
    [
        "trainer.spec",
        "trainer.policies",
        "trainer.store",
        "trainer.run_folder",
        "trainer.data",
        "trainer.__main__",
    ],
)
def test_what_needs_no_torch_comes_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_policies_never_touch_torch() -> None:
    assert "torch" not in loaded_by(
        *(f"trainer.policies.{path.stem}" for path in (ROOT / "trainer" / "policies").glob("*.py"))
    )


def test_no_import_changes_the_environment() -> None:
    code = """
import mlflow.tracking, os, pkgutil, ray.tune, sweep, torch, trainer
before = dict(os.environ)
for package in (sweep, trainer):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
print({name for name, value in os.environ.items() if before.get(name) != value})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"
