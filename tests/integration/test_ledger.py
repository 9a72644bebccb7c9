"""A study's folder, on a local folder and on a bucket.

It holds the study as it was begun, its proposals, its results and its failures.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sweep.cluster.worker import Worker
from sweep.errors import ChangedStudy, DamagedLedger
from sweep.ledger.ledger import Ledger
from sweep.planning.values import Failure, Proposal, Result
from sweep.study import Candidate
from sweep.study.contents import Published
from tests.loops import job_of, study_of, work
from tests.sweeps import study_values
from trainer.store import open_store, seal, unseal


@pytest.fixture(params=["local", "bucket"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


def ledger_in(store_url: str, said: list[str] | None = None) -> Ledger:
    return Ledger(store_url, "small", said.append if said is not None else lambda _: None)


def arms(**more: Any) -> dict[str, Any]:
    return {**study_values()["arms"], **more}


def budgeted(budget: int) -> dict[str, Any]:
    return arms(additive={**study_values()["arms"]["additive"], "budget": budget})


# the study


def test_a_study_is_declared_once_and_the_same_study_is_welcome_again(store_url: str) -> None:
    study = study_of()
    assert ledger_in(store_url).declared() is None
    ledger_in(store_url).declare(study, False)
    first = ledger_in(store_url).store.read("study.json")
    ledger_in(store_url).declare(study_of(resources={"workers": 3}), False)
    assert ledger_in(store_url).store.read("study.json") == first
    assert unseal(first)["identity"] == study.identity


def test_other_words_about_a_study_are_kept_and_change_nothing_else(store_url: str) -> None:
    ledger_in(store_url).declare(study_of(), False)
    before = ledger_in(store_url).declared()
    ledger_in(store_url).declare(study_of(description="other words"), False)
    after = ledger_in(store_url).declared()
    assert before is not None
    assert after == {**before, "description": "other words"}
    published: dict[str, Any] = {"source": "a paper", "accuracy": {"dense": 0.5}, "differs": []}
    ledger_in(store_url).declare(study_of(description="other words", published=published), False)
    assert after is not None
    assert ledger_in(store_url).declared() == {**after, "published": published}
    assert ledger_in(store_url).state().study.contents.published == Published(**published)


def test_a_changed_study_is_refused_with_every_key_that_differs(store_url: str) -> None:
    ledger_in(store_url).declare(study_of(), False)
    before = ledger_in(store_url).store.read("study.json")
    changed = study_of(
        seed=2,
        confirm={"seeds": 8},
        arms={
            "dense": {"policy": {"name": "dense"}},
            "additive": {
                "policy": {"name": "additive-reset", "step": 0.4},
                "task": study_values()["arms"]["additive"]["task"],
            },
            "saw": {"policy": {"name": "sawtooth"}},
        },
    )
    for extend in (False, True):
        with pytest.raises(ChangedStudy) as refused:
            ledger_in(store_url).declare(changed, extend)
        told = str(refused.value).splitlines()
        assert ledger_in(store_url).store.where("study.json") in told[0]
        assert {
            "  seed: 1 -> 2",
            "  confirm.seeds: 6 -> 8",
            "  arms.additive.policy.step: 0.3 -> 0.4",
        } < set(told)
        assert "  arms.saw.policy.name: sawtooth is new" in told
        assert not [line for line in told if "arms.dense" in line or "learning_rate" in line]
        assert "another name" in told[-1]
    assert ledger_in(store_url).store.read("study.json") == before


THREE = arms(third={"policy": {"name": "sawtooth", "step": 0.1, "period": 3}})
FAMILY = {"baseline": "dense", "endpoints": [1.0], "family": ["additive"]}
GROWTH: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"confirm": {"seeds": 8}}, "confirm.seeds: 6 -> 8"),
    ({}, {"search": {"budget": 6}}, "search.budget: 4 -> 6"),
    ({}, {"search": {"finalists": 2}}, "search.finalists: 1 -> 2"),
    ({}, {"arms": budgeted(6)}, "arms.additive.budget: None -> 6"),
    ({"arms": budgeted(2)}, {}, "arms.additive.budget: 2 -> None"),  # then that of the search, 4
    ({}, {"arms": THREE}, "arms.third.policy.name: sawtooth is new"),
    (
        {"arms": THREE, "analysis": FAMILY},
        {"arms": THREE, "analysis": {**FAMILY, "family": ["additive", "third"]}},
        "analysis.family:",
    ),
    (
        {"arms": THREE, "analysis": FAMILY},
        {"arms": THREE, "analysis": {**FAMILY, "family": None}},
        "analysis.family:",
    ),
]


@pytest.mark.parametrize(("before", "after", "line"), GROWTH)
def test_growth_is_refused_without_extend_and_recorded_with_it(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], line: str
) -> None:
    ledger_in(str(tmp_path)).declare(study_of(**before), False)
    with pytest.raises(ChangedStudy, match=r"--extend accepts"):
        ledger_in(str(tmp_path)).declare(study_of(**after), False)
    said: list[str] = []
    ledger_in(str(tmp_path), said).declare(study_of(**after), True)
    assert line in said[0]
    declared = ledger_in(str(tmp_path)).declared()
    assert declared is not None
    assert declared["identity"] == study_of(**after).identity
    (extension,) = declared["extensions"]
    assert extension["confirmed_before"] == 0
    assert any(change.startswith(line) for change in extension["changes"])
    ledger_in(str(tmp_path)).declare(study_of(**after), False)  # from now on it is the study


def test_every_extension_stays_recorded(store_url: str) -> None:
    ledger_in(store_url).declare(study_of(), False)
    for seeds in (7, 9):
        ledger_in(store_url).declare(study_of(confirm={"seeds": seeds}), True)
    declared = ledger_in(store_url).declared()
    assert declared is not None
    assert [(it["confirmed_before"], it["changes"]) for it in declared["extensions"]] == [
        (0, ["confirm.seeds: 6 -> 7"]),
        (0, ["confirm.seeds: 7 -> 9"]),
    ]


CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"confirm": {"seeds": 5}}),
    ({}, {"search": {"budget": 3}}),
    ({}, {"arms": budgeted(3)}),
    ({"arms": budgeted(6)}, {}),
    ({"search": {"finalists": 2}}, {"search": {"finalists": 1}}),
    ({"arms": THREE}, {"arms": arms()}),
    (
        {"arms": THREE, "analysis": {**FAMILY, "family": ["additive", "third"]}},
        {"arms": THREE, "analysis": FAMILY},
    ),
    ({"arms": THREE}, {"arms": THREE, "analysis": FAMILY}),  # from all arms to one
    ({"arms": THREE, "analysis": FAMILY}, {"arms": THREE, "analysis": {**FAMILY, "family": ["third"]}}),
    ({}, {"arms": arms(dense={"policy": {"name": "sawtooth"}})}),
    ({}, {"arms": arms(dense={"policy": {"name": "dense"}, "task": {"learning_rate": 0.2}})}),
    ({}, {"analysis": {"endpoints": [1.0, 0.05]}}),
    ({}, {"analysis": {"curve": [0.5]}}),
    ({}, {"analysis": {"alpha": 0.1}}),
    ({}, {"search": {"ladder": [1, 2, 4]}}),
    ({}, {"search": {"validation": 0.2}}),
    ({}, {"search": {"proposer": "random"}}),
    ({}, {"confirm": {"include": [5]}}),
    ({}, {"confirm": {"seeds": 8}, "seed": 3}),  # growth beside something else
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_what_shrinks_or_changes_is_refused_even_with_extend(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    ledger_in(str(tmp_path)).declare(study_of(**before), False)
    kept = ledger_in(str(tmp_path)).store.read("study.json")
    with pytest.raises(ChangedStudy, match="Only growth can be accepted"):
        ledger_in(str(tmp_path)).declare(study_of(**after), True)
    assert ledger_in(str(tmp_path)).store.read("study.json") == kept


@pytest.mark.parametrize("work_done", ["runs/0123456789abcdef/spec.json", "generations/additive-0.json"])
def test_a_missing_study_file_where_there_is_work_is_damage_and_no_new_beginning(
    store_url: str, work_done: str
) -> None:
    ledger = ledger_in(store_url)
    ledger.store.write(work_done, b"{}")
    with pytest.raises(DamagedLedger, match=re.escape(ledger.store.where("study.json"))):
        ledger.declare(study_of(), True)
    assert ledger.store.names() == [work_done]


# proposals


def test_a_generation_is_recorded_once_and_the_first_stands(store_url: str) -> None:
    study, due = study_of(), Proposal("additive", 0, 2, [({"task.learning_rate": 0.2}, 0.5, 2)])
    first, second = (
        [{"task.learning_rate": 0.05}, {"task.learning_rate": 0.1}],
        [{"task.learning_rate": 0.3}],
    )
    assert ledger_in(store_url).record(study, due, first) == first
    assert ledger_in(store_url).record(study, due, second) == first
    assert ledger_in(store_url).proposals() == {("additive", 0): first}
    body = unseal(ledger_in(store_url).store.read("generations/additive-0.json"))
    assert body["proposed_from"] == [{"values": {"task.learning_rate": 0.2}, "score": 0.5, "seeds": 2}]


def test_a_damaged_generation_is_named_and_never_passed_over(store_url: str) -> None:
    ledger = ledger_in(store_url)
    ledger.record(study_of(), Proposal("additive", 0, 1, []), [{"task.learning_rate": 0.05}])
    ledger.store.write("generations/additive-1.json", ledger.store.read("generations/additive-0.json")[:-20])
    with pytest.raises(DamagedLedger, match=re.escape(ledger.store.where("generations/additive-1.json"))):
        ledger.proposals()


# results


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """A search run, a confirmation run and one that diverges, as their workers reported them."""
    diverging = arms(dense={"policy": {"name": "dense"}, "task": {"learning_rate": 1e30}})
    root, study = tmp_path_factory.mktemp("trained"), study_of(arms=diverging)
    reports: dict[str, Result] = {}
    additive, dense = Candidate("additive", "", {"task.learning_rate": 0.1}), Candidate("dense", "", {})
    for spec in (
        study.run(additive, "search", 1),
        study.run(additive, "confirm", 2),
        study.run(dense, "confirm", 2),
    ):
        report = work(Worker(job_of(str(root / "small" / "runs"), spec)))[-1]
        reports[spec.run_id] = report.result
    return root, reports


@pytest.fixture
def ledger(store_url: str, trained: tuple[Path, dict[str, Result]]) -> Ledger:
    """A ledger that holds the three runs and no index."""
    store = open_store(store_url)
    for path in trained[0].rglob("*"):
        if path.is_file():
            store.write(path.relative_to(trained[0]).as_posix(), path.read_bytes())
    return ledger_in(store_url)


def outcomes(ledger: Ledger) -> list[str]:
    return [name for name in ledger.runs.names() if name.endswith("/outcome.json")]


def rewritten(ledger: Ledger, seconds: float) -> None:
    """An index with the right stamps and a figure that only it holds."""
    runs = unseal(ledger.store.read("index.json"))["runs"]
    ledger.store.write(
        "index.json",
        seal(
            {"runs": {run: [stamp, {**values, "seconds": seconds}] for run, (stamp, values) in runs.items()}}
        ),
    )


def test_results_read_from_the_runs_are_what_the_workers_reported(
    ledger: Ledger, trained: tuple[Path, dict[str, Result]]
) -> None:
    ledger.load()
    assert ledger.results == trained[1]
    assert {result.outcome for result in ledger.results.values()} >= {"diverged"}
    assert not ledger.damaged


def test_the_index_is_believed_where_that_is_asked_for_and_its_stamps_fit(
    store_url: str, ledger: Ledger
) -> None:
    ledger.load()
    rewritten(ledger, 4321.0)
    again = ledger_in(store_url)
    again.load(keep=False, by_index=True)
    assert {result.seconds for result in again.results.values()} == {4321.0}


def test_results_come_from_the_runs_and_an_index_that_says_something_else_is_made_anew(
    store_url: str, ledger: Ledger, trained: tuple[Path, dict[str, Result]]
) -> None:
    ledger.load()
    right = ledger.store.read("index.json")
    rewritten(ledger, 4321.0)
    again = ledger_in(store_url)
    again.load()
    assert again.results == trained[1]
    assert set(again.misquoted) == set(trained[1])
    assert "other figures of 3 runs" in again.misquotation()
    assert again.store.read("index.json") == right
    again.load()
    assert not again.misquoted


def test_what_was_read_from_a_run_is_not_read_again_until_its_outcome_changes(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.load()
    before, read, really = dict(ledger.results), list[str](), ledger.runs.read
    monkeypatch.setattr(ledger.runs, "read", lambda name, *most: read.append(name) or really(name, *most))
    ledger.load()
    assert (ledger.results, read) == (before, [])
    changed = outcomes(ledger)[0]
    ledger.runs.write(changed, seal({**unseal(really(changed)), "written_at": "2030-01-01T00:00:00+00:00"}))
    ledger.load()
    assert ledger.results == before
    assert {name.split("/")[0] for name in read} == {changed.split("/")[0]}


def test_the_index_is_not_believed_of_an_outcome_that_changed_or_vanished(
    store_url: str, ledger: Ledger, trained: tuple[Path, dict[str, Result]]
) -> None:
    ledger.load()
    rewritten(ledger, 4321.0)
    changed, vanished, same = outcomes(ledger)
    ledger.runs.write(
        changed, seal({**unseal(ledger.runs.read(changed)), "written_at": "2030-01-01T00:00:00+00:00"})
    )
    ledger.runs.delete(vanished)
    again = ledger_in(store_url)
    again.load(by_index=True)
    run_id = changed.split("/")[0]
    assert again.results == {
        run_id: trained[1][run_id],
        same.split("/")[0]: replace(trained[1][same.split("/")[0]], seconds=4321.0),
    }
    assert set(unseal(again.store.read("index.json"))["runs"]) == set(again.results)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"runs": {', seal({"runs": {"x": ["stamp", {"made by": "another version"}]}}), seal({"no": 1})],
)
def test_an_index_that_cannot_be_used_is_named_and_made_anew(
    store_url: str, ledger: Ledger, content: bytes, trained: tuple[Path, dict[str, Result]]
) -> None:
    ledger.store.write("index.json", content)
    said: list[str] = []
    again = ledger_in(store_url, said)
    again.load(keep=False)
    assert again.store.read("index.json") == content  # a reader leaves it to the driver
    again.load()
    assert again.results == trained[1]
    assert all(ledger.store.where("index.json") in line for line in said)
    assert said
    assert set(unseal(again.store.read("index.json"))["runs"]) == set(trained[1])


def test_an_index_does_not_hide_that_an_outcome_is_damaged(store_url: str, ledger: Ledger) -> None:
    ledger.load()
    name = outcomes(ledger)[0]
    ledger.runs.write(name, ledger.runs.read(name)[:-9])
    again = ledger_in(store_url)
    again.load()
    run_id = name.split("/")[0]
    assert set(again.damaged) == {run_id}
    assert ledger.runs.where(name) in again.damaged[run_id]
    assert run_id not in again.results
    assert run_id not in unseal(again.store.read("index.json"))["runs"]


def test_a_run_whose_folder_was_moved_away_does_not_stop_the_index_from_being_kept(
    store_url: str, ledger: Ledger
) -> None:
    ledger.load(keep=False)
    ledger.add("0123456789abcdef", next(iter(ledger.results.values())))
    ledger.write_index()
    assert "0123456789abcdef" not in unseal(ledger_in(store_url).store.read("index.json"))["runs"]


# failures


def test_a_failure_is_listed_until_its_run_finishes(
    store_url: str, trained: tuple[Path, dict[str, Result]]
) -> None:
    failure = Failure("its process ended.", "node-1", 3, what="dense, confirm seed 5")
    ledger = ledger_in(store_url)
    for run_id in ("run-1", "run-2"):
        ledger.fail(run_id, failure, [f"line {number}" for number in range(50)])
    again = ledger_in(store_url)
    found = again.failures()
    assert set(found) == {"run-1", "run-2"}
    assert {key: found["run-1"][key] for key in asdict(failure)} == asdict(failure)
    assert found["run-1"]["log"] == [f"line {number}" for number in range(30, 50)]
    again.add("run-1", next(iter(trained[1].values())))
    assert again.store.names("failures") == ["failures/run-2.json"]
    assert set(ledger_in(store_url).failures()) == {"run-2"}


def test_a_damaged_failure_is_passed_over_because_its_run_is_tried_again_anyway(store_url: str) -> None:
    ledger = ledger_in(store_url)
    ledger.store.write("failures/run-1.json", b"{")
    ledger.fail("run-2", Failure("reason"), [])
    assert set(ledger.failures()) == {"run-2"}
