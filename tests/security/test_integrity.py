"""Somebody who can write the store changes what a study says of itself, and seals the file anew.

Every file of a ledger can be sealed again by anybody. What must not happen is that one file says something
else than the others and nobody is told. All attacks are on a ledger of commit 15d2fea, through the command
line. Where all files were changed alike, only a published seal tells: tests/integration/test_seal.py.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kept import DATA, STUDY, falsify
from tests.security.victim import sweep
from trainer.store import unseal

Change = Callable[[dict[str, Any]], Any]


def reseal(path: Path, change: Change) -> None:
    """Falsify a sealed file, and give it the time that it had."""
    times = path.stat()
    falsify(path, change)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def json_of(store: Path, command: str, *more: str, study: Path = STUDY) -> Any:
    """Run a command with --json that must not fail; return what it says."""
    done = sweep(command, study, "--store", store, "--json", *more, cwd=store.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def doctor(store: Path) -> tuple[int, str]:
    """Return the doctor's exit code, and all it says."""
    done = sweep("doctor", STUDY, "--store", store, cwd=store.parent)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


# the declaration


def ask_less(body: dict[str, Any]) -> None:
    """Declare a test that is easily passed, under the hash of what was declared before."""
    body["identity"]["analysis"].update(alpha=0.5, test="paired-t")


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("plan", "--workers", "1"),
        ("run", "--mlflow-uri", "none"),
        ("report",),
        ("export", "--to", "out"),
        ("sync",),
        ("ui", "--port", "0"),
    ],
    ids=lambda command: command[0],
)
def test_a_declaration_that_its_hash_does_not_fit_is_damaged_for_every_command(
    command: tuple[str, ...], store: Path
) -> None:
    reseal(store / "kept" / "study.json", ask_less)
    values = yaml.safe_load(STUDY.read_text())
    values["analysis"].update(alpha=0.5, test="paired-t")
    changed_alike = store.parent / "kept.yaml"
    changed_alike.write_text(yaml.safe_dump(values, sort_keys=False))
    name, *more = command
    done = sweep(name, changed_alike, "--store", store, *more, cwd=store.parent)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "study.json is damaged" in done.stderr
    assert "sweep doctor" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (store.parent / "out").exists()


def test_the_doctor_names_a_declaration_that_its_hash_does_not_fit(store: Path) -> None:
    path = store / "kept" / "study.json"
    reseal(path, ask_less)
    changed = path.read_bytes()
    code, said = doctor(store)
    assert (code, path.read_bytes()) == (3, changed)
    assert f"damaged: {path}" in said


def test_another_study_does_not_take_seeds_from_a_declaration_that_its_hash_does_not_fit(
    store: Path,
) -> None:
    reseal(store / "kept" / "study.json", ask_less)
    other = store.parent / "other.yaml"
    other.write_text(STUDY.read_text().replace("seeds: 8", "seeds: 9"))
    done = sweep("plan", other, "--store", store, "--workers", "1", "--json", cwd=store.parent)
    assert done.returncode == 0, done.stderr
    assert f"{store / 'kept' / 'study.json'} is damaged" in done.stderr
    assert not [line for line in json.loads(done.stdout)["warnings"] if "kept" in line]


# the index


def flatter(body: dict[str, Any]) -> None:
    """Give the runs with the worst scores the best ones."""
    for _, result in body["runs"].values():
        for split in ("validation", "test"):
            result[split] = {ratio: 1 - score for ratio, score in result[split].items()}


@pytest.mark.parametrize("command", [("report",), ("plan", "--workers", "1")], ids=lambda it: it[0])
def test_no_figure_comes_from_the_index(command: tuple[str, ...], store: Path) -> None:
    name, *more = command
    before = json_of(store, name, *more)
    reseal(store / "kept" / "index.json", flatter)
    after = json_of(store, name, *more)
    if name == "plan":  # it measures how fast this machine is
        before, after = (
            {key: it[key] for key in ("runs", "runs_done", "runs_left")} for it in (before, after)
        )
    assert after == before


def test_an_export_has_no_figure_from_the_index(store: Path) -> None:
    reseal(store / "kept" / "index.json", flatter)
    json_of(store, "export", "--to", "out")
    expected = json.loads((DATA / "expected-15d2fea" / "kept" / "report.json").read_text())
    found = json.loads((store.parent / "out" / "report.json").read_text())
    gains = [[row["gain"] for row in report["comparisons"]] for report in (expected, found)]
    assert gains[1] == pytest.approx(gains[0])


def test_the_doctor_names_an_index_that_says_something_else_than_the_runs(store: Path) -> None:
    path = store / "kept" / "index.json"
    before = unseal(path.read_bytes())
    reseal(path, flatter)
    code, said = doctor(store)
    assert code == 0
    assert f"repaired: {path}" in said
    assert unseal(path.read_bytes()) == before
    assert doctor(store)[1] == "every file is whole.\n"


# the generations


def other_candidates(body: dict[str, Any]) -> None:
    for values in body["candidates"]:
        values["task.learning_rate"] = round(values["task.learning_rate"] * 1.1, 6)


def fewer_candidates(body: dict[str, Any]) -> None:
    del body["candidates"][1:]


@pytest.mark.parametrize("change", [other_candidates, fewer_candidates])
@pytest.mark.parametrize("number", [0, 1])
def test_a_generation_with_other_candidates_is_found_and_the_right_ones_come_back(
    number: int, change: Change, store: Path
) -> None:
    path = store / "kept" / "generations" / f"additive-{number}.json"
    before = unseal(path.read_bytes())
    reseal(path, change)
    changed = path.read_bytes()
    code, said = doctor(store)
    assert f"repaired: {path}" in said
    assert code == 0
    after = unseal(path.read_bytes())
    assert (after["candidates"], after["proposed_from"]) == (before["candidates"], before["proposed_from"])
    assert path.with_name(f"{path.name}.damaged").read_bytes() == changed
    assert doctor(store) == (0, "every file is whole.\n")
    assert json_of(store, "status")["complete"]


def test_a_generation_from_other_scores_than_those_of_the_runs_is_named(store: Path) -> None:
    path = store / "kept" / "generations" / "additive-1.json"
    reseal(path, lambda body: body["proposed_from"][0].update(score=0.5))
    code, said = doctor(store)
    assert code == 3
    assert f"damaged: {path}" in said
    assert "are not those of the runs here" in said


def test_runs_that_no_candidate_has_are_counted_by_status_and_named_by_the_doctor(store: Path) -> None:
    search = {path.name for path in (store / "kept" / "runs").iterdir() if is_search_of_additive(path)}
    path = store / "kept" / "generations" / "additive-1.json"
    reseal(path, other_candidates)
    lost = set(json_of(store, "status")["orphans"])
    assert lost & search
    done = sweep("status", STUDY, "--store", store, cwd=store.parent)
    assert f"{len(lost)} runs that no candidate has" in " ".join(done.stdout.split())
    said = doctor(store)[1]
    assert f"repaired: {path}" in said


def is_search_of_additive(folder: Path) -> bool:
    spec = json.loads((folder / "spec.json").read_text())
    return spec["policy"]["name"] == "additive-reset" and spec["task"]["validation"] > 0


def test_a_run_from_elsewhere_in_a_finished_study_is_named(store: Path) -> None:
    runs = store / "kept" / "runs"
    stray = next((store / "kept-tasks" / "runs").iterdir())
    shutil.copytree(stray, runs / stray.name)
    code, said = doctor(store)
    assert code == 3
    assert f"damaged: {runs / stray.name}: no candidate has this run" in said
    assert json_of(store, "status")["orphans"] == [stray.name]


# what held, and must go on holding


def test_a_ledger_that_was_moved_and_whose_index_fits_no_time_says_the_same(store: Path) -> None:
    before = json_of(store, "report")
    moved = shutil.copytree(store, store.parent / "elsewhere", copy_function=shutil.copyfile)
    after = json_of(moved, "report")
    assert {**after, "store": ""} == {**before, "store": ""}
    assert doctor(moved)[0] == 0
