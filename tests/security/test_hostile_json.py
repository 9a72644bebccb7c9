"""Drawn at random: sealed files with hostile names and types in a small finished study, and hostile studies.

Whatever is in them, a command ends with an exit code of its own and without a traceback, and it changes
nothing outside of the store. CASES says how many are drawn in all; `make soak` draws 2,000.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sweep.cli.app import app
from sweep.ledger.lease import Lease
from sweep.study import Study
from sweep.study.contents import Contents
from tests.kept import snapshot
from tests.loops import drive
from tests.security.victim import sweep
from tests.sweeps import study_values
from trainer.__main__ import main as train
from trainer.claims import SILENT_SECONDS, Watch
from trainer.store import open_store, seal, unseal

CASES = int(os.environ.get("CASES", "500"))
KINDS = {
    "study": "study.json",
    "generation": "generations/*.json",
    "lease": "lease/*.json",
    "index": "index.json",
    "failure": "failures/*.json",
    "look": "looks/*.json",
    "outcome": "runs/*/outcome.json",
    "attempt": "runs/*/attempt-1/attempt.json",
    "spec": "runs/*/spec.json",
}
"""The sealed files of a study, and the specs of its runs."""
COMMANDS = ("status", "plan", "doctor", "ready", "report")
SHARE = max(1, CASES // (len(KINDS) + 1))
"""The cases of one test."""
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
SEEN = {"arms": ["additive"], "at": "2026-01-01T00:00:00+00:00", "pairs": 6}
LOST = {"reason": "lost", "node": "a", "attempts": 1, "what": "a run", "log": ["a line"], "at": SEEN["at"]}

names = st.sampled_from(
    [
        *("../../outside/planted", "/etc/passwd", "..", "", ".", "a/../../b", "~", "C:\\a", "x" * 300),
        *("\x1b[2J", "a\nb", "\0", "\ud800"),
        *("attempt-1/../../../../outside/planted", "attempt-2/epochs-1-00.parquet"),
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=8),
    names,
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=4), names), inner, max_size=3),
    ),
    max_leaves=6,
)
deep = st.integers(500, 100_000).map(lambda depth: b"[" * depth + b"]" * depth)
raw = st.one_of(st.binary(max_size=40), deep, st.just(b"{}"), st.just(b'{"a": 1' + b"0" * 5000 + b"}"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another part at a place. `...` takes the part away."""
    if not path:
        return new
    value = copy.deepcopy(value)
    part = value
    for key in path[:-1]:
        part = part[key]
    if new is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = new
    return value


def in_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def in_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()


def as_bytes(content: Any, write: Callable[[Any], bytes]) -> bytes:
    """The content of a file: bytes as they are, or else a value, if it can be written."""
    try:
        return content if isinstance(content, bytes) else write(content)
    except (TypeError, ValueError, yaml.YAMLError):
        return b"null"


@st.composite
def falsified(draw: st.DrawFn, body: dict[str, Any]) -> Any:
    """A JSON object with one part replaced, moved or taken away."""
    path = draw(st.sampled_from([path for path in places(body) if path]))
    return changed(body, path, draw(st.one_of(trees, names, st.just(...))))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study in a store, its file, and a folder beside it that nobody may change."""
    home = tmp_path_factory.mktemp("hostile")
    values = study_values(
        task={"epochs": 1, "evaluate_every": 1},
        search={"budget": 2, "generation": 2, "ladder": [1]},
    )
    assert drive(Study("small", Contents.read(values)), home / "store").complete
    (home / "small.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    ledger = home / "store" / "small"
    for name, body in {"failures/0123456789abcdef.json": LOST, "looks/6-01234567.json": SEEN}.items():
        (ledger / name).parent.mkdir(exist_ok=True)
        (ledger / name).write_bytes(seal(body))
    lease = Lease(open_store(ledger), print)
    lease.acquire()
    lease.release()
    (home / "outside").mkdir()
    (home / "outside" / "secret").write_bytes(b"mine")
    (home / "outside" / "secret").chmod(0o600)
    return home


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a sign of life takes no time."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        return now[0]

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(Watch.__init__, "__defaults__", (clock, SILENT_SECONDS))
    monkeypatch.setattr(Lease.acquire, "__defaults__", (SILENT_SECONDS, clock, sleep))


def ends_well(*arguments: str) -> None:
    """Run a command in this process. It may fail, but with a message."""
    done = CliRunner().invoke(app(), list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 1, 2, 3), (done.exit_code, done.output)
    assert "Traceback" not in done.output
    assert done.exit_code == 0 or done.output.strip()


def assert_untouched(home: Path, before: dict[str, Any]) -> None:
    """Nothing beside the store has changed."""
    beside = {path.name for path in home.iterdir()} - {"store"}
    assert beside == {"outside", "small.yaml"}
    assert snapshot(home / "outside") == before


@pytest.mark.parametrize("kind", KINDS)
def test_no_sealed_file_of_a_study_does_harm(
    kind: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    outside, store = snapshot(made / "outside"), made / "store"
    path = min((store / "small").glob(KINDS[kind]))
    whole = path.read_bytes()
    body = json.loads(whole) if kind == "spec" else unseal(whole)
    kept = Path(shutil.copytree(store, tmp_path / "kept"))
    pick, run = random.Random(kind), store / Path(*path.relative_to(store).parts[:3])

    @settings(max_examples=SHARE, deadline=None, suppress_health_check=UNHURRIED, database=None)
    @given(content=st.one_of(falsified(body), falsified(body), trees, raw))
    def attack(content: Any) -> None:
        content = as_bytes(content, seal if isinstance(content, dict) and kind != "spec" else in_json)
        path.write_bytes(content)
        try:
            command = pick.choice(COMMANDS[: 4 if pick.random() < 0.95 else 5])
            ends_well(command, "small.yaml", "--store", "store")
            if kind in ("outcome", "attempt"):
                more = ["--store", "store/small/runs", "--device", "cpu", "--threads", "1"]
                assert train([str(run / "spec.json"), *more]) in (0, 3)
            assert_untouched(made, outside)
        finally:
            shutil.rmtree(store)
            shutil.copytree(kept, store)

    attack()


def test_no_study_does_harm(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    before = snapshot(made)
    file = made / "small.yaml"
    whole = file.read_bytes()

    @settings(max_examples=SHARE, deadline=None, suppress_health_check=UNHURRIED, database=None)
    @given(content=st.one_of(falsified(study_values()), raw))
    def attack(content: Any) -> None:
        file.write_bytes(as_bytes(content, in_yaml))
        try:
            ends_well("plan", "small.yaml", "--store", "store", "--workers", "1")
            ends_well("status", "small.yaml", "--store", "store")
        finally:
            file.write_bytes(whole)

    attack()
    assert snapshot(made) == before


@pytest.mark.parametrize("kind", ["study", "generation", "outcome"])
def test_the_same_holds_for_a_command_of_its_own(kind: str, made: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(made, tmp_path / "home"))
    path = min((home / "store" / "small").glob(KINDS[kind]))
    body = unseal(path.read_bytes())
    pick = random.Random(kind)
    where = pick.choice([path for path in places(body) if path])
    path.write_bytes(seal(changed(body, where, {"../../outside/planted": ["\x1b[2J", 10**400]})))
    before = snapshot(home / "outside")
    done = sweep("doctor", "small.yaml", "--store", "store", cwd=home)
    assert done.returncode in (0, 2, 3), done
    assert "Traceback" not in done.stderr
    assert_untouched(home, before)
