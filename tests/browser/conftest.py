"""A real browser, and MLflow with a finished study behind it, started as a user would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.loops import drive, study_of
from tests.sweeps import environment, sweep_command

NAMES = ("chromium", "chromium-browser", "google-chrome")
STUDY: dict[str, Any] = {
    "description": "Does <script>document.title = 'taken over'</script> cycling ¿help? ∑ & “quotes”",
    "arms": {
        "dense": {"policy": {"name": "dense"}},
        "sparse": {"policy": {"name": "fixed", "ratio": 0.02}},
        "additive": {
            "policy": {"name": "additive-reset", "step": 0.3},
            "task": {"learning_rate": {"low": 0.03, "high": 0.3, "log": True}},
        },
        "dense-again": {"repeat": "dense"},
    },
    "confirm": {"seeds": 7},
}
LONG = 60_000
"""The milliseconds that a page may take. Playwright's five seconds are too few on a busy machine."""
expect.set_options(timeout=LONG)
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
"""A panel that covers a third of the page on the first visit."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(f"no browser: none of {', '.join(NAMES)} is installed")
        pytest.skip(f"no browser: install one of {', '.join(NAMES)} to see the pages tested")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1500, "height": 900})
    context.add_init_script(NO_ASSISTANT)
    context.set_default_timeout(LONG)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study's store."""
    folder = tmp_path_factory.mktemp("seen")
    assert drive(study_of(**STUDY), folder).complete
    return folder


@pytest.fixture(scope="session")
def opened(store: Path) -> Iterator[str]:
    """The link that `sweep ui` gives."""
    log = store / "ui.log"
    with log.open("w") as out:
        command = sweep_command("ui", "small.yaml", "--store", store, "--port", "0")
        shown = {"MLFLOW_TRACKING_URI": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=out, env=environment(shown), cwd=ROOT, text=True
        )
    with process:
        try:
            assert process.stdout
            link = process.stdout.readline().strip()
            assert link.startswith("http://127.0.0.1:"), f"{link!r}\n{log.read_text()}"
            yield link
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
