"""Studies that search every arm several times, played without training: seeds, finalists and pairs."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from statistics import fmean
from typing import Any

import pytest

from sweep.gains.comparisons import comparisons, stage
from sweep.gains.progress import overview
from sweep.gains.rows import Compared
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.planning.values import Result, Run
from sweep.statistics import paired_comparison
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.study.rules import check
from tests.unit.simulated import RATE, Sweep, disturbed, plan_of, propose_all, take
from trainer.randomness import uniform
from trainer.settings import written

ENDPOINTS = (1.0, 0.05)
DENSE = {"name": "dense"}
ALONE: dict[str, Any] = {"family": ["additive"], "against": {}}
"""One tested arm, and so two comparisons, for which seven searches are enough."""
VALUES: dict[str, Any] = {
    "task": {"data": "digits", "model": "wrn-10-1", "epochs": 20, "batch_size": 32, "train_size": 200},
    "arms": {
        "dense": {"policy": {"name": "dense"}},
        "tuned": {"policy": {"name": "dense"}, "task": {"learning_rate": RATE}},
        "fixed": {"policy": {"name": "fixed", "ratio": 0.3}},
        "additive": {
            "policy": {"name": "additive-reset", "step": {"low": 0.02, "high": 0.2}},
            "task": {"learning_rate": RATE},
        },
        "again": {"repeat": "tuned"},
    },
    "search": {
        "replicates": 8,
        "proposer": "random",
        "budget": 4,
        "generation": 2,
        "lag": 0,
        "ladder": [1, 2],
        "objective": "each",
    },
    "confirm": {"seeds": 2},
    "analysis": {"baseline": "tuned", "family": ["additive"], "against": {"fixed": ["dense"]}},
}


def study(**parts: dict[str, Any]) -> Study:
    """Return the study, with some values of its parts replaced."""
    values = {key: {**value, **parts.get(key, {})} for key, value in VALUES.items()}
    contents, problems = check(values)
    assert not problems
    assert contents
    return Study("searched", contents)


def given(run: Run) -> Result:
    """Return a result whose scores at the two endpoints have nothing to do with each other."""
    scores = {
        f"{ratio:g}": round(1000 * uniform(5, run.run_id, i)) / 1000
        for i, ratio in enumerate(run.spec.task.endpoints)
    }
    return Result("completed", 20, 20.0, 10, scores, scores, 1000, 1000)


def played(it: Study, stop_after: int | None = None) -> Plan:
    """Play a study to its end, or until so many runs have finished."""
    plan, done = plan_of(it), 0
    propose_all(plan)
    while runs := take(plan):
        for run in runs:
            if done == stop_after:
                return plan
            plan.finish(run.run_id, given(run))
            done += 1
        propose_all(plan)
    return plan


def the(rows: list[Compared], arm: str, reference: str = "tuned", ratio: float = 1.0) -> Compared:
    [row] = [row for row in rows if (row.arm, row.reference_arm, row.keep_ratio) == (arm, reference, ratio)]
    return row


# seeds


def test_no_seed_is_in_two_searches_or_in_two_phases_and_arms_share_those_of_a_search() -> None:
    it = study()
    pools = [
        pool
        for k in ("", *(f"~{k}" for k in range(2, 9)))
        for pool in (
            it.arms[f"tuned{k}"].search_seeds,
            it.arms[f"tuned{k}"].seeds,
            it.arms[f"again{k}"].search_seeds,
            it.arms[f"again{k}"].seeds,
        )
    ]
    assert len(pools) == 32
    assert not [1 for one, other in combinations(map(set, pools), 2) if one & other]
    for k in ("", "~2", "~8"):
        assert it.arms[f"additive{k}"].search_seeds == it.arms[f"tuned{k}"].search_seeds
        assert it.arms[f"additive{k}"].seeds == it.arms[f"dense{k}"].seeds


def test_the_first_search_has_the_seeds_of_a_study_with_one_search() -> None:
    one, several = study(search={"replicates": 1}, confirm={"seeds": 8}), study()
    assert several.arms["additive"].search_seeds == one.arms["additive"].search_seeds
    assert several.arms["additive"].seeds == one.arms["additive"].seeds[:2]


def test_a_study_with_one_search_has_the_identity_of_one_that_does_not_say_how_many() -> None:
    plain = {**VALUES, "confirm": {"seeds": 8}, "search": {"budget": 4}}
    said = {**plain, "search": {"budget": 4, "replicates": 1, "objective": "first"}}
    one, other = (Study("s", Contents.read(values)).identity for values in (plain, said))
    assert one == other
    assert "replicates" not in one["search"]


# candidates


def values_of(plan: Plan, arm: str, setting: str) -> list[object]:
    return [candidate.values[setting] for candidate, _ in plan.searched(arm)]


def test_arms_that_search_a_setting_over_one_range_try_the_same_values_and_every_search_others() -> None:
    plan, rate = played(study()), "task.learning_rate"
    tried = {name: values_of(plan, name, rate) for name, arm in plan.study.arms.items() if arm.searched}
    assert all(len(set(values)) == 4 for values in tried.values())
    for k in ("", "~2", "~8"):
        assert tried[f"additive{k}"] == tried[f"tuned{k}"]
        assert not set(tried[f"again{k}"]) & set(tried[f"tuned{k}"])
    assert not set(tried["tuned"]) & set(tried["tuned~2"])


def test_the_drawn_values_fill_their_range_evenly_in_their_own_scale() -> None:
    plan = played(study(search={"budget": 400, "generation": 400, "replicates": 8, "ladder": [1]}))
    rates = [float(str(value)) for value in values_of(plan, "tuned", "task.learning_rate")]
    steps = [float(str(value)) for value in values_of(plan, "additive", "policy.step")]
    assert sum(rate < (0.03 * 0.3) ** 0.5 for rate in rates) == pytest.approx(200, abs=30)
    assert sum(step < 0.11 for step in steps) == pytest.approx(200, abs=30)
    assert min(rates) >= 0.03
    assert max(rates) <= 0.3


def test_a_whole_number_is_drawn_as_often_at_the_ends_of_its_range_as_in_the_middle() -> None:
    arms = {
        **VALUES["arms"],
        "tuned": {"policy": {"name": "dense"}, "task": {"epochs": {"low": 3, "high": 5}}},
    }
    it = study(arms=arms, search={"budget": 300, "generation": 300, "ladder": [1]})
    values = values_of(played(it), "tuned", "task.epochs")
    assert {value: values.count(value) for value in (3, 4, 5)} == pytest.approx(
        dict.fromkeys((3, 4, 5), 100), abs=25
    )


# finalists


@pytest.mark.parametrize("ratio", ENDPOINTS)
def test_with_each_every_endpoint_has_the_finalist_that_is_best_there_among_those_on_the_last_rung(
    ratio: float,
) -> None:
    plan = played(study())
    for name in ("additive", "tuned~3", "again~8"):
        arm = plan.study.arms[name]
        means = {
            candidate.name: fmean(
                given_score(plan, candidate.values, name, seed, ratio) for seed in arm.search_seeds
            )
            for candidate, scores in plan.searched(name)
            if len(scores) == 2
        }
        [(finalist, results)] = plan.picked(name, ratio)
        assert finalist.name == max(means, key=lambda key: means[key])
        assert len(results) == 2


def given_score(plan: Plan, values: dict[str, Any], arm: str, seed: int, ratio: float) -> float:
    spec = plan.study.arms[arm].run(values, "search", seed)
    return plan.results[spec.run_id].score("validation", ratio)


def test_with_rank_the_finalist_has_the_best_mean_rank_and_of_equals_the_better_first_endpoint() -> None:
    plan = played(study(search={"objective": "rank", "ladder": [1], "generation": 4, "budget": 4}))
    for name in ("additive", "tuned~3", "tuned~4", "tuned~5", "again~8"):
        [seed] = plan.study.arms[name].search_seeds
        scores = [
            [given_score(plan, candidate.values, name, seed, ratio) for ratio in ENDPOINTS]
            for candidate, _ in plan.searched(name)
        ]
        ranks = [sum(1 + sum(other[e] > own[e] for other in scores) for e in (0, 1)) for own in scores]
        best = min(range(4), key=lambda i: (ranks[i], -scores[i][0]))
        for ratio in ENDPOINTS:
            [(finalist, _)] = plan.picked(name, ratio)
            assert finalist.name == plan.searched(name)[best][0].name


def test_the_search_of_every_endpoint_measures_each_of_them_and_one_of_the_first_does_not() -> None:
    each, first = study(), study(search={"objective": "first"})
    [spec] = {each.run(end, "search", 0).task.endpoints for end in each.arms["tuned"].ends[:1]}
    assert tuple(spec) == ENDPOINTS
    assert tuple(first.arms["tuned"].run({"task.learning_rate": 0.1}, "search", 0).task.endpoints) == (1.0,)


def test_a_matched_arm_follows_the_finalist_of_the_same_search() -> None:
    arms = {
        "tuned": {"policy": {"name": "dense"}, "task": {"learning_rate": RATE}},
        "additive": VALUES["arms"]["additive"],
        "control": {
            "policy": {"name": "sawtooth", "period": 5},
            "match": {"arm": "additive", "settings": ["policy.step", "task.learning_rate"]},
        },
    }
    it = study(arms=arms, analysis={"family": ["additive"], "against": {"additive": ["control"]}})
    plan = played(it)
    for k in ("", "~2", "~8"):
        partner, control = plan.finalists(f"additive{k}")[0], plan.finalists(f"control{k}")[0]
        assert control.values == partner.values
    assert the(comparisons(plan), "additive", "control").unit == "search"


# pairs


def scores_of(plan: Plan, arm: str, k: int, ratio: float) -> list[float]:
    name = arm if k == 1 else f"{arm}~{k}"
    [(_, results)] = plan.picked(name, ratio)
    return [results[place].score("test", ratio) for place in range(2)]


@pytest.mark.parametrize("ratio", ENDPOINTS)
def test_a_pair_is_a_search_by_its_mean_where_a_side_is_searched_and_a_seed_elsewhere(ratio: float) -> None:
    plan = played(study())
    rows, searches = comparisons(plan), range(1, 9)
    own, base = ([fmean(scores_of(plan, arm, k, ratio)) for k in searches] for arm in ("additive", "tuned"))
    row, expected = the(rows, "additive", ratio=ratio), paired_comparison(own, base, comparisons=4)
    assert (row.unit, row.pairs, row.seeds, row.searches) == ("search", 8, 16, 8)
    assert row.better == sum(a > b for a, b in zip(own, base, strict=True))
    assert (row.gain, row.p_value, row.family_low) == pytest.approx(
        (expected.gain, expected.p_value, expected.family_low)
    )
    assert row.candidate is None
    assert row.candidates[2] == plan.picked("additive~3", ratio)[0][0].name
    own, base = (
        [score for k in searches for score in scores_of(plan, arm, k, ratio)] for arm in ("fixed", "dense")
    )
    row, expected = the(rows, "fixed", "dense", ratio), paired_comparison(own, base, comparisons=4)
    assert (row.unit, row.pairs, row.seeds) == ("seed", 16, 16)
    assert row.p_value == expected.p_value
    # a fixed arm beside a searched one varies with the other's search
    assert (the(rows, "fixed").unit, the(rows, "again").unit) == ("search", "search")
    assert the(rows, "again").role == "repeat"


def test_how_much_a_gain_varies_from_search_to_search_is_shown_where_a_search_has_several_seeds() -> None:
    rows = comparisons(played(study()))
    several = the(rows, "additive")
    assert several.seed_deviation is not None
    assert several.seed_deviation > 0
    assert the(rows, "fixed", "dense").seed_deviation is None
    assert the(comparisons(played(study(confirm={"seeds": 1}))), "additive").seed_deviation is None


def test_a_search_that_is_under_way_is_named_and_never_a_smaller_sample() -> None:
    whole = played(study())
    plan = played(study(), stop_after=len(whole.results) - 3)
    row = the(comparisons(plan), "additive")
    assert (row.state, row.p_value, row.verdict) == ("incomplete", None, None)
    assert row.missing
    assert all("~8" in line for line in row.missing)
    assert row.pairs < 8 or row.seeds < 16


def test_the_progress_of_an_arm_is_that_of_all_its_searches() -> None:
    plan = played(study())
    view = overview(plan, forecast(plan_of(plan.study), 1).runs, {})
    arm = {arm.arm: arm for arm in view.arms}
    assert list(arm) == ["dense", "tuned", "fixed", "additive", "again"]
    assert arm["additive"].search_done == arm["additive"].search_total == 8 * (4 + 2)
    assert arm["dense"].confirm_done == arm["dense"].confirm_total == 16
    assert arm["additive"].gains["1"].mean == pytest.approx(the(comparisons(plan), "additive").gain)
    assert view.done == view.total


def test_every_task_has_its_own_searches_and_all_tasks_share_their_seeds_and_values() -> None:
    values = {**VALUES, "tasks": {"easy": {}, "hard": {"train_size": 100}}}
    values["search"] = {**VALUES["search"], "replicates": 9}
    contents, problems = check({**values, "analysis": {**VALUES["analysis"], **ALONE}})
    assert not problems
    assert contents
    plan = played(Study("tasks", contents))
    assert [row.task for row in comparisons(plan) if row.arm.startswith("additive@")][:4] == [
        "easy",
        "easy",
        "easy",
        "easy",
    ]
    easy, hard = plan.study.arms["additive@easy~3"], plan.study.arms["additive@hard~3"]
    assert easy.seeds == hard.seeds
    rate = "task.learning_rate"
    assert values_of(plan, easy.name, rate) == values_of(plan, hard.name, rate)
    row = the(comparisons(plan), "additive@hard", "tuned@hard")
    assert (row.unit, row.pairs, row.p_holm is not None) == ("search", 9, True)


# kills and growth


@pytest.mark.parametrize("seed", range(4))
def test_a_study_that_is_killed_again_and_again_has_the_candidates_pairs_and_numbers_of_an_undisturbed_one(
    seed: int,
) -> None:
    it = study(
        search={"replicates": 7}, confirm={"seeds": 1}, analysis={"family": ["additive"], "against": {}}
    )
    plain = disturbed(it, 100, random.Random(0), losses=0, restarts=0)
    chance = random.Random(seed)
    found = disturbed(it, chance.choice([1, 3, 17]), chance, losses=0.2, restarts=0.2)
    assert isinstance(found, Sweep)
    assert found == plain


def test_more_searches_leave_those_that_there_were_as_they_are() -> None:
    fewer, more = (played(study(search={"replicates": k}, analysis=ALONE)) for k in (7, 8))
    for name in fewer.study.arms:
        assert [c for c, _ in fewer.searched(name)] == [c for c, _ in more.searched(name)]
        assert fewer.finalists(name) == more.finalists(name)
    assert set(fewer.results) < set(more.results)


# looks


def means_of(plan: Plan, arm: str, searches: int) -> list[float]:
    return [fmean(scores_of(plan, arm, k, 1.0)) for k in range(1, searches + 1)]


def test_a_declared_look_tests_all_pairs_so_far_and_pays_for_every_look() -> None:
    it = study(
        search={"replicates": 14},
        analysis={"looks": [9, 11, 14], **ALONE},
    )
    plan = played(it)
    own, base = (
        [fmean(scores_of(plan, arm, k, 1.0)) for k in range(1, 15)] for arm in ("additive", "tuned")
    )
    each = [paired_comparison(own[:n], base[:n]).p_value for n in (9, 11, 14)]
    row = the(comparisons(plan), "additive")
    assert (row.look, row.looks, row.pairs) == (3, 3, 14)
    assert row.p_value == pytest.approx(min(1, 3 * min(each)))
    wider = paired_comparison(own, base, comparisons=2 * 3)
    assert (row.family_low, row.family_high) == pytest.approx((wider.family_low, wider.family_high))


def test_between_two_looks_the_comparisons_are_those_of_the_last_one() -> None:
    it = study(
        search={"replicates": 14},
        analysis={"looks": [9, 11, 14], **ALONE},
    )
    whole, plan = played(it), plan_of(it)
    propose_all(plan)
    while stage(plan).look < 2:
        run = plan.queue.next(0.0)
        assert run
        plan.finish(run.run_id, given(run))
        propose_all(plan)
    row = the(comparisons(plan), "additive")
    assert (row.look, row.pairs, row.state) == (2, 11, "complete")
    assert row.gain == pytest.approx(
        fmean(
            fmean(scores_of(whole, "additive", k, 1.0)) - fmean(scores_of(whole, "tuned", k, 1.0))
            for k in range(1, 12)
        )
    )


def better(run: Run) -> Result:
    """Return a result that shows at once that `additive` is better at every endpoint."""
    more = 0.1 if run.arm.startswith("additive") else 0.0
    scores = {key: 0.5 + 0.01 * score + more for key, score in given(run).test.items()}
    return replace(given(run), test=scores)


def test_a_study_that_may_end_early_ends_at_the_first_look_at_which_all_is_decided() -> None:
    parts: dict[str, Any] = {
        "search": {"replicates": 14},
        "confirm": {"stop": "decided"},
        "analysis": {"looks": [9, 11, 14], **ALONE},
    }
    it = study(**parts)
    plan = plan_of(it)
    propose_all(plan)
    while runs := take(plan):
        for run in runs:
            plan.finish(run.run_id, better(run))
        propose_all(plan)
    assert plan.complete
    assert plan.decided
    row = the(comparisons(plan), "additive")
    assert (row.pairs, row.searches, len(row.candidates), row.verdict) == (9, 9, 9, "better")
    assert not plan.searched("additive~10")
    # where nothing is decided it goes to its last look
    undecided = played(it)
    assert undecided.complete
    assert not undecided.decided
    assert the(comparisons(undecided), "additive").pairs == 14


def test_after_growth_that_picks_finalists_anew_p_is_ten_times_and_intervals_are_at_a_tenth_of_alpha() -> (
    None
):
    plan = plan_of(study(search={"replicates": 14}, analysis=ALONE))
    propose_all(plan)
    while runs := take(plan):
        for run in runs:
            plan.finish(run.run_id, better(run))
        propose_all(plan)
    pairs, picks = (the(comparisons(plan, grew_after_look=how), "additive") for how in ("pairs", "picks"))
    own, base = (means_of(plan, arm, 14) for arm in ("additive", "tuned"))
    plain = paired_comparison(own, base, looks="any", comparisons=2)
    tenth = paired_comparison(own, base, looks="any", comparisons=2, alpha=0.005)
    assert (pairs.p_value, pairs.family_low) == (plain.p_value, plain.family_low)
    assert plain.p_value < 0.05
    assert picks.p_value == pytest.approx(10 * plain.p_value)
    assert (picks.family_low, picks.family_high) == (tenth.family_low, tenth.family_high)


def test_margins_make_the_family_s_interval_the_verdict() -> None:
    it = study(analysis={**ALONE, "margin": [5.0, 0.001]})
    plan = plan_of(it)
    propose_all(plan)
    while runs := take(plan):
        for run in runs:
            test = {key: 0.5 + score / 1000 for key, score in given(run).test.items()}
            plan.finish(run.run_id, replace(given(run), test=test))
        propose_all(plan)
    rows = comparisons(plan)
    assert (the(rows, "additive").verdict, the(rows, "additive").margin) == ("equivalent", 0.05)
    assert the(rows, "additive", ratio=0.05).verdict == "inconclusive"


# rules


@pytest.mark.parametrize(
    ("parts", "place", "said"),
    [
        ({"search": {"replicates": 6}}, "search.replicates", "at least 8 searches"),
        ({"analysis": {"looks": [7, 8]}}, "analysis.looks", "A first look takes at least 9 pairs"),
        ({"analysis": {"looks": [8, 8]}}, "analysis.looks", "must rise"),
        (
            {"analysis": {"looks": [8, 9]}},
            "analysis.looks",
            "must not go beyond search.replicates, which is 8",
        ),
        (
            {"analysis": {"looks": "sometimes"}},
            "analysis.looks",
            "must be a list, or any; it is 'sometimes'",
        ),
        ({"analysis": {"looks": "any", "test": "paired-t"}}, "analysis.looks", "paired-t is declared"),
        ({"analysis": {"margin": [1.0]}}, "analysis.margin", "has 1 number for 2 endpoints"),
        ({"confirm": {"stop": "decided"}}, "confirm.stop", "only at a look"),
    ],
)
def test_what_cannot_work_is_refused_with_what_could(parts: dict[str, Any], place: str, said: str) -> None:
    values = {key: {**value, **parts.get(key, {})} for key, value in VALUES.items()}
    _, problems = check(values)
    found = {".".join(map(str, where)): reason for where, reason in problems}
    assert said in found.get(place, f"nothing of {place}; only {found}")


def test_several_searches_of_nothing_are_refused() -> None:
    arms = {"dense": {"policy": {"name": "dense"}}, "fixed": {"policy": {"name": "fixed", "ratio": 0.3}}}
    values = {**VALUES, "arms": arms, "analysis": {"baseline": "dense"}}
    _, problems = check(values)
    assert [where for where, _ in problems] == [("search", "replicates")]


def test_a_study_keeps_what_it_says_through_its_identity() -> None:
    it = study(analysis={"looks": [8], "margin": [1.0, 2.0]})
    assert Contents.read(it.identity) == replace(it.contents, description="")
    assert written(it.contents)["search"]["replicates"] == 8
