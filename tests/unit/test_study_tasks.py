"""Studies over several tasks: every arm on each of them, under its own name, with one correction."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.errors import RejectStudy
from sweep.estimate.warnings import warnings
from sweep.ledger.growth import changes, declaration, growth, identity_hash
from sweep.planning.forecast import play, scattered
from sweep.planning.plan import Plan
from sweep.planning.values import Result, Run
from sweep.study import Candidate, Study, find, from_declared, load, matching
from sweep.study.contents import Contents
from tests.conftest import ROOT
from tests.unit.simulated import trained
from trainer.randomness import uniform
from trainer.store import unseal

RATE = {"low": 0.01, "high": 0.1, "log": True}
BASE: dict[str, Any] = {
    "task": {"model": "mlp-40-40", "epochs": 2, "batch_size": 16, "momentum": 0.5},
    "tasks": {"wine": {"data": "wine"}, "digits": {"data": "digits", "train_size": 100, "momentum": 0.6}},
    "arms": {
        "dense": {"policy": {"name": "dense"}},
        "set": {
            "policy": {"name": "set", "epsilon": {"low": 1, "high": 5}},
            "task": {"learning_rate": RATE, "momentum": 0.7},
            "budget": 3,
        },
        "narrow": {"policy": {"name": "dense"}, "match": {"arm": "set", "at": "end"}},
        "again": {"repeat": "set"},
    },
    "search": {"proposer": "random", "ladder": [1, 2], "validation": 0.25, "generation": 2, "finalists": 2},
    "confirm": {"seeds": 10},
    "analysis": {"baseline": "dense", "endpoints": [1.0]},
}
VALUES = {"policy.epsilon": 2.0, "task.learning_rate": 0.05}
EXPANDED = [f"{arm}@{task}" for task in ("wine", "digits") for arm in ("dense", "set", "narrow", "again")]


def changed(place: str, value: Any) -> dict[str, Any]:
    """Return BASE with one key changed, or taken out where the value is None."""
    whole = json.loads(json.dumps(BASE))
    inner = whole
    *path, last = place.split(".")
    for key in path:
        inner = inner[key]
    inner[last] = value
    if value is None:
        del inner[last]
    return whole


def study(values: dict[str, Any] = BASE) -> Study:
    return Study("made", Contents.read(values))


def refused(folder: Path, values: dict[str, Any]) -> str:
    """Return the message that refuses a study, without the file's name."""
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(RejectStudy) as error:
        load(path)
    return "\n".join(line.replace(str(path), "") for line in error.value.problems)


def test_every_arm_is_on_every_task_task_by_task_in_the_order_of_the_file() -> None:
    it = study()
    assert list(it.arms) == EXPANDED
    assert it.tasks == ["wine", "digits"]
    assert (it.arms["set@wine"].base, it.arms["set@wine"].task) == ("set", "wine")
    assert it.arms["again@wine"].repeats is it.arms["set@wine"]
    assert it.arms["narrow@digits"].follows is it.arms["set@digits"]


def test_a_study_without_tasks_has_one_that_is_not_named() -> None:
    whole = changed("tasks", {})
    it = study({**whole, "task": {**whole["task"], "data": "wine"}})
    assert (it.tasks, list(it.arms), it.baselines, it.arms["set"].baseline) == (
        [""],
        list(BASE["arms"]),
        ["dense"],
        "dense",
    )
    assert (it.arms["set"].task, it.arms["set"].base, it.family, it.comparisons) == (
        "",
        "set",
        ["set", "narrow"],
        3,
    )


def test_a_task_stands_over_what_every_arm_starts_from_and_an_arm_over_its_task() -> None:
    it = study()
    runs = {
        arm: it.run(Candidate(arm, arm, VALUES if "set" in arm else {}), "confirm", 5).task
        for arm in EXPANDED
        if "again" not in arm
    }
    assert [task.data for task in runs.values()] == ["wine"] * 3 + ["digits"] * 3
    assert {arm: task.momentum for arm, task in runs.items() if "narrow" not in arm} == {
        "dense@wine": 0.5,
        "set@wine": 0.7,
        "dense@digits": 0.6,
        "set@digits": 0.7,
    }
    assert (runs["dense@digits"].train_size, runs["dense@wine"].train_size) == (100, None)
    assert it.data == ["digits", "wine"]


def test_gains_are_over_the_baseline_of_the_same_task() -> None:
    it = study()
    assert it.baselines == ["dense@wine", "dense@digits"]
    assert [it.arms[arm].baseline for arm in ("set@wine", "again@digits", "dense@wine")] == [
        "dense@wine",
        "dense@digits",
        "dense@wine",
    ]


def test_the_comparisons_of_all_tasks_finalists_and_endpoints_are_one_family() -> None:
    it = study(changed("analysis.endpoints", [1.0, 0.5]))
    assert it.family == ["set@wine", "narrow@wine", "set@digits", "narrow@digits"]
    assert it.comparisons == 2 * 2 * (2 + 1)
    assert study(changed("analysis.family", ["again"])).family == ["again@wine", "again@digits"]


def test_all_arms_of_all_tasks_share_their_seeds_and_repeats_have_their_own() -> None:
    it = study()
    assert len({tuple(it.arms[arm].seeds) for arm in EXPANDED if "again" not in arm}) == 1
    assert it.arms["again@wine"].seeds == it.arms["again@digits"].seeds
    assert not set(it.arms["again@wine"].seeds) & set(it.arms["set@wine"].seeds)


def test_budgets_finalists_and_generations_are_those_of_the_arm_whatever_the_task() -> None:
    it = study()
    assert [
        (it.arms[arm].budget, it.arms[arm].finalists, it.arms[arm].generations)
        for arm in ("set@wine", "set@digits")
    ] == [(3, 2, [2, 1])] * 2
    assert (it.arms["again@wine"].finalists, it.arms["dense@wine"].finalists) == (2, 1)


IDENTITIES = {
    "quickstart": ("8bf3cc9a4518938a", 124, "4750d4b739b77ad8"),
    "cifar10": ("4dd656be882397ee", 470, "daf942d7c4694f89"),
}
"""Two studies as they were before there were tasks and several searches, kept in tests/data.

Each has its identity, its number of runs and the hash of their ids."""


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_study_of_one_task_and_one_search_is_the_one_that_old_ledgers_were_begun_with(
    name: str,
) -> None:
    it = load(ROOT / "tests" / "data" / "before-searches" / f"{name}.yaml")
    ids: list[str] = []

    def give(run: Run) -> Result:
        ids.append(run.run_id)
        score = {f"{ratio:g}": uniform(0, run.run_id) for ratio in run.spec.task.endpoints}
        return Result("completed", 1, 1.0, 10, score, score)

    play(Plan(it, {}, {}), 8, give, lambda run: run.spec.task.epochs, scattered)
    whole = hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:16]
    assert (identity_hash(it), len(ids), whole) == IDENTITIES[name]


def test_a_ledger_keeps_the_order_of_the_tasks_and_gives_the_study_back() -> None:
    it = study()
    declared = unseal(declaration(it, []))
    assert declared["tasks"] == ["wine", "digits"]
    back = from_declared("made", declared)
    assert (list(back.arms), back.identity) == (EXPANDED, it.identity)
    assert "tasks" not in unseal(declaration(load(find("quickstart")), []))


@pytest.mark.parametrize(
    ("before", "place", "value", "grows"),
    [
        (BASE, "tasks.cancer", {"data": "breast-cancer"}, False),
        (BASE, "tasks.wine.momentum", 0.4, False),
        (BASE, "tasks.wine", {"data": "wine", "train_size": 50}, False),
        (BASE, "arms.set.budget", 4, True),
        (changed("tasks", {}), "tasks", BASE["tasks"], False),
        (BASE, "arms.narrow.match.at", "start", False),
    ],
)
def test_a_study_grows_by_an_arm_and_a_budget_and_never_by_a_task(
    before: dict[str, Any], place: str, value: object, grows: bool
) -> None:
    """More tasks would be more tests of data that has been looked at, until one test across them holds."""
    one, other = study(before).identity, study(changed(place, value)).identity
    assert changes(one, other)
    assert all(growth(one, other)) is grows


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("tasks.digits", None, "tasks: has one task: write it under task."),
        (
            "tasks.Wine",
            {"data": "breast-cancer"},
            "tasks.Wine: a task's name has small letters, digits, - and _; it is 'Wine'.",
        ),
        (
            "tasks.more",
            {"data": "wine"},
            "tasks.more: is the same as the task 'wine': its runs would count twice.",
        ),
        ("tasks.wine.momentum", RATE, "tasks.wine.momentum: is searched, and every arm starts from it."),
        ("tasks.wine.validation", 0.2, "tasks.wine.validation: is declared in search.validation."),
        ("tasks.wine.endpoints", [1.0], "tasks.wine.endpoints: is declared in analysis.endpoints."),
        ("tasks.wine.momentm", 0.4, "tasks.wine.momentm: no such setting. Did you mean 'momentum'?"),
        ("tasks.digits.train_size", 5000, "tasks.digits.train_size: asks for 5,000 images"),
        ("tasks.wine", {"dat": "wine"}, "tasks.wine.dat: no such setting. Did you mean 'data'?"),
        ("tasks.wine", {}, "tasks.wine.data: is missing"),
        ("tasks.wine", 3, "tasks.wine: must be an object; it is 3."),
        ("task.train_size", 1000, "task.train_size: on the task 'wine': asks for 1,000 images"),
        (
            "confirm.seeds",
            7,
            "confirm.seeds: an exact sign-flip test of 7 pairs cannot go below p = 0.016, and 6 comparisons",
        ),
        (
            "arms.narrow.match.arm",
            "again",
            "arms.narrow.match.arm: must be one of the arms dense, set; it is 'again'. An arm is matched",
        ),
        (
            "arms.narrow.match.arm",
            "narrow",
            "arms.narrow.match.arm: must be one of the arms dense, set; it is 'narrow'.",
        ),
        (
            "arms.narrow.match.arm",
            "sett",
            "arms.narrow.match.arm: must be one of the arms dense, set; it is 'sett'. Did you mean 'set'?",
        ),
        (
            "arms.narrow.match.at",
            "middle",
            "arms.narrow.match.at: must be one of start, end; it is 'middle'.",
        ),
        (
            "arms.narrow.match",
            {"arms": "set"},
            "arms.narrow.match.arms: no such setting. Did you mean 'arm'?\n"
            "    match takes: arm, at, settings.",
        ),
        (
            "arms.more",
            {"policy": {"name": "dense"}, "match": {"arm": "narrow"}},
            "arms.more.match.arm: must be one of the arms dense, set;",
        ),
        (
            "arms.narrow.task",
            {"model": {"choice": ["mlp-5-5", "mlp-6-6"]}},
            "arms.narrow.task.model: cannot be searched: its widths",
        ),
        (
            "arms.narrow.task",
            {"model": "wrn-10-1", "data": "digits"},
            "arms.narrow.task.model: 'narrow' is matched by its parameters",
        ),
        ("arms.narrow.policy", {"name": "set"}, "arms.narrow.match: has no use beside the policy 'set'"),
        ("arms.again.match", {"arm": "set"}, "arms.again.match: has no use beside repeat"),
        ("arms.narrow.match.settings", [], "arms.narrow.match.settings: must have at least 1; it has 0."),
        (
            "arms.narrow.match.settings",
            "task.momentum",
            "arms.narrow.match.settings: must be a list; it is 'task.momentum'.",
        ),
        (
            "arms.narrow.match.settings",
            ["task.momentm"],
            "arms.narrow.match.settings.0: must be a setting that 'narrow' and 'set' both have: "
            "none of the policies, or one of the task; it is 'task.momentm'. Did you mean 'task.momentum'?",
        ),
        (
            "arms.more",
            {"policy": {"name": "static-sparse"}, "match": {"arm": "set", "settings": ["policy.zeta"]}},
            "arms.more.match.settings.0: must be a setting that 'more' and 'set' both have: "
            "policy.epsilon, or one of the task; it is 'policy.zeta'.",
        ),
        (
            "arms.more",
            {"policy": {"name": "static-sparse"}, "match": {"arm": "set", "settings": ["epsilon"]}},
            "arms.more.match.settings.0: must be a setting that 'more' and 'set' both have: "
            "policy.epsilon, or one of the task; it is 'epsilon'. Did you mean 'policy.epsilon'?",
        ),
        (
            "arms.narrow.match.settings",
            ["task.momentum", "task.momentum"],
            "arms.narrow.match.settings.1: 'task.momentum' stands twice.",
        ),
        (
            "arms.narrow.match.settings",
            ["task.model"],
            "arms.narrow.match.settings.0: follows from at: the network has as many",
        ),
        (
            "arms.narrow.match.settings",
            ["task.data"],
            "arms.narrow.match.settings.0: must not be 'task.data': arms have their test sets",
        ),
        (
            "arms.more",
            {
                "policy": {"name": "static-sparse", "epsilon": 3},
                "match": {"arm": "set", "settings": ["policy.epsilon"]},
            },
            "arms.more.policy.epsilon: follows from match: it is what 'set' has. Leave it out here.",
        ),
        (
            "arms.more",
            {
                "policy": {"name": "dense"},
                "task": {"learning_rate": RATE},
                "match": {"arm": "set", "settings": ["task.learning_rate"]},
            },
            "arms.more.task.learning_rate: follows from match: it is what 'set' has.",
        ),
        (
            "arms.more",
            {"policy": {"name": "static-sparse"}, "match": {"arm": "sett", "settings": ["policy.epsilon"]}},
            "arms.more.match.arm: must be one of the arms dense, set; it is 'sett'. Did you mean 'set'?",
        ),
        (
            "arms.more",
            {
                "policy": {"name": "static-sparse"},
                "task": {"learning_rate": 0.1},
                "match": {"arm": "set", "settings": ["policy.epsilon"]},
                "budget": 4,
            },
            "arms.more.budget: has no use: nothing is searched in this arm.",
        ),
        (
            "arms.set.task.resample",
            0.2,
            "arms.set.task.resample: decides the test set, which arms have to share to be paired.",
        ),
    ],
)
def test_what_cannot_work_is_told_where_it_is_written(
    tmp_path: Path, place: str, value: object, told: str
) -> None:
    problems = refused(tmp_path, changed(place, value))
    assert f"  {told}" in problems, problems
    keys = {line.split("  ")[1].split(": ")[0] for line in problems.splitlines() if line.startswith(":")}
    assert keys == {told.split(": ")[0]}, problems  # and nothing else


TAKING: dict[str, Any] = {
    "policy": {"name": "static-sparse"},
    "match": {"arm": "set", "settings": ["policy.epsilon"]},
}


@pytest.mark.parametrize(
    ("end", "value", "told"),
    [
        ("low", -1, "arms.set.policy.epsilon.low: must be above 0; it is -1"),
        ("high", "5", "arms.set.policy.epsilon.high: must be a number; it is '5'"),
        ("hihg", 5, "arms.set.policy.epsilon.hihg: no such setting."),
    ],
)
def test_what_is_wrong_with_a_setting_that_is_taken_is_told_where_it_is_written(
    tmp_path: Path, end: str, value: Any, told: str
) -> None:
    values = changed("arms.more", TAKING)
    values["arms"]["set"]["policy"]["epsilon"][end] = value
    problems = refused(tmp_path, values)
    assert f"  {told}" in problems
    assert problems.count("arms.") == 1


def test_what_this_arm_alone_cannot_do_with_a_setting_it_takes_is_told_at_match(tmp_path: Path) -> None:
    """A network with dropout in its own place suits `set`, but a wide ResNet takes none."""
    values = changed("tasks", {})
    values["task"]["data"] = "digits"
    values["arms"]["set"]["task"]["dropout"] = {"low": 0.1, "high": 0.5}
    taking = {"policy": {"name": "dense"}, "match": {"arm": "set", "settings": ["task.dropout"]}}
    values["arms"]["more"] = {**taking, "task": {"model": "wrn-10-1"}}
    assert "  arms.more.match.settings.0: has no use in wrn-10-1; networks that take it are" in refused(
        tmp_path, values
    )


def test_a_match_is_identified_as_ledgers_have_it_from_before_settings_could_be_taken() -> None:
    def identified(match: dict[str, Any]) -> dict[str, Any]:
        it = study(changed("arms.narrow.match", match))
        assert from_declared("made", {"identity": it.identity}).identity == it.identity
        return it.identity["arms"]["narrow"]["match"]

    assert (
        identified({"arm": "set"})
        == identified({"arm": "set", "at": "start"})
        == {"arm": "set", "at": "start"}
    )
    assert identified({"arm": "set", "at": "end"}) == {"arm": "set", "at": "end"}
    assert identified({"arm": "set", "settings": ["task.momentum"]}) == {
        "arm": "set",
        "settings": ["task.momentum"],
    }


def test_a_setting_that_every_arm_overrides_is_fine_in_a_task() -> None:
    values = changed("tasks.wine.learning_rate", 0.3)
    for arm in ("dense", "narrow"):
        values["arms"][arm]["task"] = {"learning_rate": 0.2}
    assert study(values).run(Candidate("dense@wine", "", {}), "confirm", 1).task.learning_rate == 0.2


@pytest.mark.parametrize(("place", "value"), [("task.resample", 0.25), ("tasks.wine.resample", 0.25)])
@pytest.mark.parametrize("test", ["sign-flip", "paired-t"])
def test_splits_that_are_drawn_anew_need_the_test_that_corrects_for_it(
    tmp_path: Path, place: str, value: float, test: str
) -> None:
    values = changed(place, value)
    values["analysis"]["test"] = test
    told = refused(tmp_path, values)
    assert (
        "analysis.test: must be resampled-t, because each seed draws its test set from the same rows"
        f" ({place[: -len('.resample')]}" in told
    )
    assert f"such pairs are not independent, and {test} would" in told


def test_the_corrected_test_needs_splits_that_are_drawn_anew(tmp_path: Path) -> None:
    assert "is resampled-t, and no task resamples" in refused(
        tmp_path, changed("analysis.test", "resampled-t")
    )


def test_the_overlap_is_test_rows_over_all_others_where_the_task_resamples() -> None:
    """A quarter of wine's 178 rows is 44, rounded to even. All others count, trained on or not."""
    values = changed("tasks.wine.resample", 0.25)
    values["analysis"]["test"] = "resampled-t"
    it = study(values)
    assert [it.arms[arm].overlap for arm in ("dense@wine", "set@wine", "again@wine", "narrow@digits")] == [
        44 / 134
    ] * 3 + [0.0]
    values["tasks"]["wine"]["train_size"] = 100
    assert study(values).arms["dense@wine"].overlap == 44 / 134


def test_a_claim_across_tasks_takes_as_many_of_them_as_the_report_will_ask_for() -> None:
    """Two arms are tested, and under Holm at 5 % two signed-rank tests take 7 tasks.

    2 / 2^7 is below 0.05 / 2, and 2 / 2^6 is not.
    """
    told = warnings(study())
    assert "2 tasks: a claim across tasks needs 7" in told[0]
    assert "2 comparisons across tasks" in told[0]
    assert sum("arms" in line for line in told) == len({line for line in told if "arms" in line})

    def tells(count: int, **analysis: Any) -> list[str]:
        values = changed("tasks", {f"t{i}": {"data": "wine", "train_size": 50 + i} for i in range(count)})
        values["analysis"] |= analysis
        return [line for line in warnings(study(values)) if "across tasks" in line]

    assert (len(tells(6)), tells(7)) == (1, [])
    assert tells(6, family=["set"]) == []
    assert "needs 7, because" in tells(6, family=["set"], against={"narrow": ["set"]})[0]
    assert "needs 7, because" in tells(6, family=["set"], endpoints=[1.0, 0.5])[0]


def test_a_pair_that_is_tested_both_ways_is_one_comparison_twice_and_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, changed("analysis.against", {"set": ["narrow"], "narrow": ["set"]}))
    assert (
        "analysis.against.narrow.0: is the comparison that 'set' has with 'narrow', with the other sign:"
        " leave one of them out." in told
    )
    assert study(changed("analysis.against", {"set": ["narrow"]})).comparisons == 10


def of_arms(arms: dict[str, Any], **task: Any) -> list[str]:
    """Return the warnings about arms beside a dense one."""
    values = changed("arms", {"dense": {"policy": {"name": "dense"}}, **arms})
    values["task"] |= task
    return [line for line in warnings(study(values)) if line.startswith("arms.")]


def test_a_sparse_arm_whose_layers_are_all_dense_is_told_with_the_tasks_on_which_it_is() -> None:
    """The middle layer of mlp-40-40 has 1,600 possible connections, which 20 x (40 + 40) fill.

    The first one of digits has 2,560 for 20 x 104.
    """

    def sparse(epsilon: Any) -> dict[str, Any]:
        return {"set": {"policy": {"name": "set", "epsilon": epsilon}}}

    said = (
        "all its layers are dense, so that nothing is removed or rewired;"
        " take a smaller epsilon or a wider network."
    )
    assert of_arms(sparse(19)) == []
    assert of_arms(sparse(20)) == [f"arms.set@wine: {said}"]
    assert of_arms(sparse(40)) == [f"arms.set: {said}"]
    assert of_arms(sparse({"choice": [40, 3]})) == []
    both = {**sparse(40), "static": {"policy": {"name": "static-sparse", "epsilon": 40}}}
    assert of_arms(both) == [f"arms.set, arms.static: {said.replace('its', 'their')}"]


def test_neurons_that_are_never_pruned_are_told() -> None:
    def pruned(start: Any) -> dict[str, Any]:
        return {"npset": {"policy": {"name": "npset-frozen", "epsilon": 2, "start": start}}}

    assert of_arms(pruned(50), epochs=12) == [
        "arms.npset: its neurons are never pruned: policy.start is 50 of 12 epochs."
    ]
    assert len(of_arms(pruned(12), epochs=12)) == 1
    assert of_arms(pruned(11), epochs=12) == of_arms(pruned({"low": 5, "high": 50}), epochs=12) == []


@pytest.mark.parametrize(
    ("policy", "epochs", "lowest", "advice"),
    [
        ({"name": "additive-reset", "step": 0.05}, 13, "0.4", "policy.step to 0.075 or more"),
        ({"name": "multiplicative-reset", "decay": 0.9}, 3, "0.81", "policy.decay to 0.3162 or less"),
        ({"name": "sawtooth", "step": 0.1, "period": 4}, 40, "0.7", "policy.step to 0.3 or more"),
        (
            {"name": "additive-reset", "step": 0.05, "floor": 0.5},
            40,
            "0.5",
            None,
        ),  # where the floor is what keeps it up
    ],
)
def test_a_keep_ratio_that_stays_mild_is_told_with_the_value_that_would_take_it_down(
    policy: dict[str, Any], epochs: int, lowest: str, advice: str | None
) -> None:
    (line,) = of_arms({"ratio": {"policy": policy}}, epochs=epochs)
    mild = (
        f"arms.ratio: its keep ratio stays at {lowest} or above in all {epochs} epochs:"
        " none is trained at high sparsity."
    )
    assert line == (f"{mild} To reach 0.1, set {advice}." if advice else mild)
    if advice:
        setting, value = advice.removeprefix("policy.").split(" to ")
        assert (
            of_arms({"ratio": {"policy": {**policy, setting: float(value.split()[0])}}}, epochs=epochs) == []
        )


def test_arms_of_which_the_same_is_true_are_told_in_one_line() -> None:
    searched = {"policy": {"name": "dense"}, "task": {"learning_rate": RATE}}
    values = changed("arms", {"dense": searched, "other": searched})
    values["search"] |= {"proposer": "tpe", "generation": 16}
    told = [line for line in warnings(study(values)) if "tpe" in line]
    assert told == [
        "arms.dense, arms.other: all their candidates are proposed before a score is known;"
        " tpe needs a smaller search.generation or lag."
    ]


def test_a_matched_arm_s_network_has_the_count_and_the_depth() -> None:
    it = study()
    assert matching.network(it.arms["narrow@wine"], 13 * 40 + 40 + 40 * 40 + 40 + 40 * 3 + 3) == "mlp-40-40"
    assert (
        matching.network(it.arms["narrow@digits"], 64 * 20 + 20 + 20 * 20 + 20 + 20 * 10 + 10) == "mlp-20-20"
    )
    assert it.arms["narrow@wine"].trained.model == "mlp-40-40"


def test_a_study_of_tasks_plays_to_its_end_and_a_matched_arm_waits_for_the_one_on_its_own_task() -> None:
    it = study()
    plan, ends = Plan(it, {}, {}), list[tuple[str, str]]()

    def give(run: Run) -> Result:
        ends.append((run.phase, run.arm))
        return trained(run)

    play(plan, 1, give, lambda _: 1.0, scattered)
    assert plan.complete
    for task in it.tasks:
        first = ends.index(("confirm", f"narrow@{task}"))
        assert max(i for i, end in enumerate(ends) if end == ("search", f"set@{task}")) < first
    assert all(len(plan.confirmed(arm)[0]) == 10 for arm in it.arms)
