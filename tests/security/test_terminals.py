"""What strangers wrote reaches a terminal as text: it moves no cursor, sets no title and forges no line.

| attack on a function | in 15d2fea | now |
| --- | --- | --- |
| markup in an arm's name | sweep.screen.arms_table | sweep.cli.screen.arms_table |
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.cli.screen import arms_table, console
from sweep.gains.progress import ArmView, Overview
from tests.kept import STUDY, falsify
from tests.security.handed import forge_failure, store_with_a_failure
from tests.security.victim import PATIENCE_SECONDS, arguments, environment, sweep
from tests.sweeps import write_study
from trainer.plain import harmless, one_line

TITLE, CLEAR, C1, TURNED = "\x1b]0;owned\x07", "\x1b[2J\r", "\x9b31m", "\u202egnp.exe"
HOSTILE = f"{TITLE}{CLEAR}{C1}{TURNED}"
OBEYED = ("\x1b", "\x07", "\r", "\x9b", "\u202e", "\x08", "\u2066")


def obeyed(text: str) -> list[str]:
    """Return what a terminal would obey in a text."""
    return [sign for sign in OBEYED if sign in text]


def test_the_reason_and_the_log_of_a_failure_are_shown_as_text(tmp_path: Path) -> None:
    store = store_with_a_failure(tmp_path)
    forge_failure(store, HOSTILE, [HOSTILE])
    told = sweep("status", STUDY, "--store", store, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert obeyed(told.stdout + told.stderr) == []
    assert "\\x1b]0;owned\\x07" in told.stdout


def test_a_reason_forges_no_line_of_ours(tmp_path: Path) -> None:
    store = store_with_a_failure(tmp_path)
    forge_failure(store, "lost\nevery file is whole.", ["a line\nevery file is whole."])
    told = sweep("status", STUDY, "--store", store, cwd=tmp_path)
    assert "every file is whole." not in told.stdout.splitlines()


def test_json_has_no_character_that_a_terminal_obeys(tmp_path: Path) -> None:
    store = store_with_a_failure(tmp_path)
    run = forge_failure(store, HOSTILE, [HOSTILE])
    told = sweep("status", STUDY, "--store", store, "--json", cwd=tmp_path)
    assert obeyed(told.stdout) == []
    assert json.loads(told.stdout)["failures"][run]["reason"] == HOSTILE


def test_the_host_of_a_driver_is_shown_as_text(tmp_path: Path) -> None:
    store = store_with_a_failure(tmp_path)
    (lease,) = (store / "kept" / "lease").glob("*.json")
    # on another machine, so that nobody can say whether it lives
    falsify(lease, lambda body: body.update(state="held", boot="elsewhere", host=f"elsewhere{HOSTILE}"))
    told = sweep("status", STUDY, "--store", store, cwd=tmp_path)
    assert obeyed(told.stdout + told.stderr) == []


def test_the_doctor_names_files_as_text(tmp_path: Path) -> None:
    store = store_with_a_failure(tmp_path)
    (store / "kept" / "failures" / f"a{HOSTILE}\nevery file is whole..json").write_text("{}")
    told = sweep("doctor", STUDY, "--store", store, cwd=tmp_path)
    assert obeyed(told.stdout + told.stderr) == []
    assert "every file is whole." not in told.stdout.splitlines()


def test_a_study_that_is_refused_is_quoted_as_text(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    study.write_text(study.read_text() + '"\\e]0;owned\\a": 1\n"\\x9b31m\\u202e": 2\n')
    told = sweep("plan", study, cwd=tmp_path)
    assert told.returncode == 2
    assert obeyed(told.stdout + told.stderr) == []


def test_names_of_files_of_images_are_shown_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set" / f"class{TITLE}"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "a.png")
    (folder / f"b{CLEAR}\nall there.png").write_bytes(b"no image")
    told = subprocess.run(
        arguments("trainer.data", "set"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert told.returncode == 3
    assert obeyed(told.stderr) == []
    assert len(told.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve ± ∑ 漢字 🙂", "naïve ± ∑ 漢字 🙂"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("a\u2028b\x85c\x00d", "a\\u2028b\\x85c\\x00d"),
        ("not UTF-8: \udcff", "not UTF-8: \\udcff"),
        ("2\u00a0of\u00a08", "2\u00a0of\u00a08"),
    ],
)
def test_what_can_be_shown_stays_and_the_rest_is_an_escape(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(shown) == shown


def test_a_line_break_stays_in_a_message_and_not_in_a_line() -> None:
    assert (harmless("a\nb"), one_line("a\nb")) == ("a\nb", "a\\nb")


def test_markup_in_a_name_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[link=https://evil.example]safe[/link] :smile:"
    arm = ArmView(name, None, {}, 0, 0, 0, 1, 0, 0, 0, 0, {"1": None}, {})
    view = Overview([arm], done=0, total=1, running=0, failed=0, seconds_spent=0, seconds_left=None)
    console().print(arms_table(view, [1.0]))
    assert name in capsys.readouterr().out
