"""The seal of a study: the same for the same numbers, and another one where anything was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sweep.errors import RejectStudy
from sweep.ledger.doctor import examine
from sweep.ledger.growth import hash_of
from sweep.ledger.ledger import Ledger
from sweep.views.reading import Reading
from sweep.views.seal import Seal, differences, parts_of, seal_before, seal_of
from tests.kept import unpack
from tests.loops import begin, drive, short_values, study_of
from tests.sweeps import sweep
from trainer.store import seal, unseal

PUBLISHED = {
    "kept": "pairsweep-seal:1:0d18e5dd180c99d270e4fc6fbc9caf088df6a8bd712640c4d283996d72646549"
    ":58764ae256353dbfef66679089ffed629a6906f9f99aaa22df9cb795d8349beb",
    "kept-tasks": "pairsweep-seal:1:3522c4ffc6a020d25428547a56cd575d9c581ad6b95e0115daec8e02b67c4d08"
    ":dfced3f6d96e13ae7b72031917dd5d7a0a898816a65c0a81abb0f4b206b46f32",
}
"""Seals of the kept ledgers. A later version that gives other ones makes all published seals void."""


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished study."""
    root = tmp_path_factory.mktemp("once")
    assert drive(study_of(), root).complete
    return root


@pytest.fixture
def store(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "store"))


def ledger_in(store: Path, said: list[str] | None = None) -> Ledger:
    return Ledger(str(store), "small", (lambda _: None) if said is None else said.append)


def sealed(store: Path) -> Seal:
    return seal_of(Reading(ledger_in(store)))


def differing(store: Path, line: str, said: list[str] | None = None) -> list[str]:
    """Return the parts that differ, by their first words."""
    found = differences(Reading(ledger_in(store, said)), *parts_of(line))
    return [part.removeprefix("the ").split()[0] for part in found]


def reseal(path: Path, **changes: Any) -> None:
    path.write_bytes(seal({**unseal(path.read_bytes()), **changes}))


@pytest.mark.parametrize("study", PUBLISHED)
def test_a_seal_that_was_published_fits_for_ever(study: str, tmp_path: Path) -> None:
    found = seal_of(Reading(Ledger(str(unpack(tmp_path)), study, print)))
    assert found.line == PUBLISHED[study]


def test_the_same_numbers_elsewhere_have_the_same_seal_whatever_was_interrupted(
    store: Path, tmp_path: Path
) -> None:
    drive(study_of(), tmp_path / "other", most=7)
    part = sealed(tmp_path / "other")
    assert drive(study_of(description="other words", resources={"workers": 1}), tmp_path / "other").complete
    whole = sealed(tmp_path / "other")
    assert whole.line == sealed(store).line
    assert (part.declaration, part.runs, whole.runs) == (whole.declaration, 7, 18)
    assert part.results != whole.results


def test_a_declaration_can_be_sealed_before_anything_ran_and_its_seal_still_fits_at_the_end(
    store: Path, tmp_path: Path
) -> None:
    before = seal_before(study_of())
    ledger_in(tmp_path / "other").declare(study_of(), False)
    assert sealed(tmp_path / "other").line == before.line
    assert before.results is None
    assert sealed(store).line.startswith(before.line)
    assert differing(store, before.line) == []
    assert differing(store, seal_before(study_of(seed=2)).line) == ["declaration"]


def test_a_look_changes_no_seal(store: Path) -> None:
    before = sealed(store)
    Reading(ledger_in(store)).compare()
    after = sealed(store)
    assert (before.looks, after.looks) == (0, 1)
    assert after.line == before.line


# what is changed


def other_alpha(ledger: Path) -> None:
    path = ledger / "study.json"
    body = unseal(path.read_bytes())
    body["identity"]["analysis"]["alpha"] = 0.5
    body["hash"] = hash_of(body)
    path.write_bytes(seal(body))
    for name in (ledger / "generations").iterdir():
        reseal(name, study=body["hash"])


def fresh_seeds(ledger: Path) -> None:
    """Let the confirmation avoid seeds, as if another study had had them."""
    path = ledger / "study.json"
    body = {**unseal(path.read_bytes()), "taken_seeds": [123]}
    path.write_bytes(seal({**body, "hash": hash_of(body)}))


def confirmed(ledger: Path) -> Path:
    """Return the folder of a run of the confirmation."""
    tables = sorted((ledger / "runs").glob("*/endpoints.parquet"))
    return next(path.parent for path in tables if pq.read_table(path)["split"].to_pylist() == ["test"])


def better_run(ledger: Path) -> None:
    """Give a run of the confirmation a better score, in every file that holds it."""
    path = confirmed(ledger) / "outcome.json"
    table = pq.read_table(path.with_name("endpoints.parquet"))
    accuracy = pa.array([score / 2 + 0.5 for score in table["accuracy"].to_pylist()])
    at = table.column_names.index("accuracy")
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(at, table.schema.field("accuracy"), accuracy), sink)
    data = sink.getvalue().to_pybytes()
    hashed, body = sha256(data).hexdigest(), unseal(path.read_bytes())
    name = f"{body['files']['endpoints']['name'].rsplit('-', 1)[0]}-{hashed[:16]}.parquet"
    (path.parent / body["files"]["endpoints"]["name"]).unlink()
    for file in (name, "endpoints.parquet"):
        (path.parent / file).write_bytes(data)
    body["files"]["endpoints"] = {"name": name, "bytes": len(data), "sha256": hashed}
    path.write_bytes(seal(body))


def no_run(ledger: Path) -> None:
    """Take a run of the confirmation away."""
    shutil.rmtree(confirmed(ledger))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (other_alpha, "declaration"),
        (fresh_seeds, "declaration"),
        (better_run, "results"),
        (no_run, "results"),
    ],
)
def test_a_published_seal_tells_which_part_was_changed_although_every_file_is_whole(
    change: Callable[[Path], None], part: str, store: Path
) -> None:
    published = sealed(store).line
    change(store / "small")
    assert part in differing(store, published)
    if part == "results":
        assert examine(study_of(), ledger_in(store)) == []
        assert "declaration" not in differing(store, published)


# growth


def grow(store: Path, *, looked: bool) -> None:
    if looked:
        Reading(ledger_in(store)).compare()
    begin(study_of(confirm={"seeds": 12}), ledger_in(store), extend=True)


def test_a_declaration_sealed_before_the_study_grew_fits_and_the_growth_is_said(
    store: Path,
) -> None:
    before, said = seal_before(study_of()).line, list[str]()
    grow(store, looked=False)
    assert differing(store, before, said) == []
    assert "before the study grew: confirm.seeds: 6 -> 12" in " ".join(said)
    assert sealed(store).declaration != sealed(store).line.removeprefix(before)


def test_growth_that_was_removed_and_a_look_before_it_that_was_removed_change_the_seal(store: Path) -> None:
    grow(store, looked=True)
    published = sealed(store).line
    assert differing(store, published) == []
    for look in (store / "small" / "looks").iterdir():
        look.unlink()
    assert differing(store, published) == ["declaration"]
    reseal(store / "small" / "study.json", extensions=[])
    assert differing(store, published) == ["declaration"]


def test_the_doctor_is_content_with_a_study_that_grew_by_searches_and_budget(tmp_path: Path) -> None:
    drive(study_of(search={"budget": 3}), tmp_path)
    grown = study_of(search={"budget": 6, "replicates": 2, "finalists": 2})
    begin(grown, ledger_in(tmp_path), extend=True)
    assert drive(grown, tmp_path).complete
    assert examine(grown, ledger_in(tmp_path)) == []


# the command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(short_values(), sort_keys=False))
    return path


def test_the_command_prints_one_line_to_publish_and_the_doctor_compares_it(store: Path, file: Path) -> None:
    done = sweep("seal", file, "--store", store)
    line = done.stdout.removesuffix("\n")
    assert (done.returncode, line) == (0, sealed(store).line), done.stderr
    assert "18 finished runs" in done.stderr
    told = json.loads(sweep("seal", file, "--store", store, "--json").stdout)
    assert (told["seal"], told["runs"], told["generations"], told["looks"]) == (line, 18, 2, 0)
    fits = sweep("doctor", file, "--store", store, "--seal", line)
    assert (fits.returncode, fits.stdout) == (0, "every file is whole.\n")
    assert "the seal fits." in fits.stderr
    better_run(store / "small")
    differs = sweep("doctor", file, "--store", store, "--seal", line)
    assert differs.returncode == 3
    assert "the results differ" in differs.stdout
    assert "the declaration differs" not in differs.stdout


def test_the_command_seals_a_study_that_is_not_begun_and_refuses_what_is_no_seal(
    tmp_path: Path, file: Path, store: Path
) -> None:
    done = sweep("seal", file, "--store", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (0, f"{seal_before(study_of()).line}\n"), done.stderr
    assert "the declaration alone is sealed" in done.stderr
    assert not (tmp_path / "nothing").exists()
    wrong = sweep("doctor", file, "--store", store, "--seal", "abc")
    assert wrong.returncode == 2
    assert "is no seal" in wrong.stderr


def test_a_line_is_a_seal_only_as_a_whole() -> None:
    line = seal_before(study_of()).line
    assert parts_of(f"{line}\n") == (line.rsplit(":", 1)[1], None)
    for wrong in (line[:-1], f"{line}:", f"x{line}", line.upper()):
        with pytest.raises(RejectStudy, match="is no seal"):
            parts_of(wrong)
