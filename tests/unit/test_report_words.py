"""The sentences, the matrix and the tables of the report, from comparisons that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sweep.gains.comparisons import comparisons
from sweep.gains.rows import Compared
from sweep.ledger.looks import GREW
from sweep.planning.values import Growth, Look
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.views.report.confirmed import Confirmed
from sweep.views.report.findings import Earlier, Findings, shown
from sweep.views.report.glossary import with_links
from sweep.views.report.searched import Tuning, TuningCurve
from sweep.views.report.sentences import answer, cautions, seen_before
from sweep.views.report.tables import accuracy, gains, header, spread, verdicts
from sweep.views.report.words import markdown
from tests.unit.reported import findings_of
from tests.unit.simulated import RATE, TASK, plan_of

ARMS: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "tuned": {"policy": {"name": "dense"}, "task": {"learning_rate": RATE}},
    "additive": {"policy": {"name": "additive-reset"}, "task": {"learning_rate": RATE}},
    "again": {"repeat": "dense"},
}
PLAIN: dict[str, Any] = {
    "baseline": "tuned",
    "family": ["additive"],
    "against": {"additive": ["dense"]},
    "endpoints": [1.0, 0.05],
}


def study(search: dict[str, Any] | None = None, **analysis: Any) -> Study:
    """A study whose family has four comparisons: additive over two arms, at two endpoints."""
    values = {
        "task": TASK,
        "arms": ARMS,
        "search": {"proposer": "random", "budget": 4, "ladder": [1], "validation": 0.2, **(search or {})},
        "confirm": {"seeds": 10},
        "analysis": {**PLAIN, **analysis},
    }
    return Study("simulated", Contents.read(values))


FOUND: dict[str, Any] = {
    "state": "complete",
    "missing": [],
    "unit": "seed",
    "pairs": 10,
    "seeds": 10,
    "better": 9,
    "equal": 0,
    "gain": 0.123,
    "ci_low": 0.05,
    "ci_high": 0.18,
    "family_low": 0.031,
    "family_high": 0.202,
    "p_value": 0.002,
    "p_holm": 0.0078,
    "verdict": "better",
    "look": 1,
    "looks": 1,
    "candidate": "additive-0.1",
    "candidates": ["additive-0.1"],
    "reference": "tuned-0.2",
    "standard_error": 0.01,
}
NOTHING: dict[str, Any] = {
    "gain": 0.004,
    "better": 5,
    "family_low": -0.012,
    "family_high": 0.023,
    "p_holm": 0.6,
    "verdict": "inconclusive",
}
SETTINGS = {
    "additive-0.1": {"task.learning_rate": 0.12, "task.weight_decay": 0.0003},
    "tuned-0.2": {"task.learning_rate": 0.0512345},
}


def rows_of(it: Study, **changes: Any) -> list[Compared]:
    """The study's comparisons: all tested ones alike, with these changes."""
    searches = it.search.replicates
    by_search = {} if searches == 1 else {"unit": "search", "candidate": None, "reference": None}
    values = {**FOUND, **by_search, **changes}
    found = comparisons(plan_of(it))
    return [replace(row, **values) if row.role == "family" else row for row in found]


def told(it: Study, *, parts: Any = None, **changes: Any) -> Findings:
    """The findings with tested comparisons that are changed like this, and `parts` in place of others."""
    return findings_of(it, rows_of(it, **changes), **(parts or {}))


# sentences


def test_with_several_searches_a_sentence_is_about_the_arm_and_counts_searches() -> None:
    found = answer(told(study({"replicates": 10}, against={})))
    assert found[1] == (
        "additive is better than tuned at r = 0.05 by 12.30 points [+3.10, +20.20], better in 9 of 10 "
        "searches, p = 0.0078 after Holm over 2 comparisons, on this test set."
    )
    assert not any("picked by one search" in line for line in found)


def test_with_one_search_a_sentence_names_what_it_picked_and_nothing_where_none_picks() -> None:
    it = study()
    rows = rows_of(it)
    # nothing is searched in `dense`
    rows = [replace(row, reference="dense") if row.reference_arm == "dense" else row for row in rows]
    found = answer(findings_of(it, rows, comparisons=shown(it, rows, SETTINGS)))
    assert found[0].startswith(
        "additive (learning_rate 0.12, weight_decay 0.0003, picked by one search) is better than "
        "tuned (learning_rate 0.0512, picked by one search) at r = 1 by 12.30 points [+3.10, +20.20], "
        "better in 9 of 10 seeds, p = "
    )
    (over_dense,) = [line for line in found if "than dense at r = 1" in line]
    assert over_dense.count("picked by one search") == 1


def test_a_sentence_gives_the_family_s_interval_and_never_the_one_of_the_test_alone() -> None:
    report = told(study())
    assert len(answer(report)) == 4
    assert "+5.00" not in " ".join(answer(report))
    tested = [line for line in gains(report, "tuned") if line[0] == "additive"]
    assert [line[header(report).index("interval")] for line in tested] == ["[+3.10, +20.20]"] * 2


def test_a_control_s_interval_is_its_own() -> None:
    it = study()
    rows = [replace(row, ci_low=-0.01, ci_high=0.02, gain=0.0) for row in rows_of(it)]
    report = findings_of(it, rows)
    column = header(report).index("interval")
    shown_by = {line[0]: line[column] for line in gains(report, "tuned")}
    assert shown_by["dense (control)"] == shown_by["again (repeat)"] == "[-1.00, +2.00]"
    assert shown_by["additive"] == "[+3.10, +20.20]"


def test_nothing_shown_says_what_the_gain_may_be() -> None:
    found = answer(told(study(against={}), **NOTHING))
    assert found[0] == (
        "additive over tuned at r = 1: no difference is shown; the true gain may be anything from -1.20 to "
        "+2.30 points; better in 5 of 10 seeds, p = 0.6 after Holm over 2 comparisons, on this test set."
    )


@pytest.mark.parametrize(("low", "high"), [(-float("inf"), float("inf")), (-1.3, 1.1)])
def test_an_interval_that_excludes_nothing_is_said_to(low: float, high: float) -> None:
    found = answer(told(study(), **{**NOTHING, "family_low": low, "family_high": high}))
    assert all(
        "the true gain may be anything, because so few pairs exclude nothing;" in line for line in found
    )


def test_an_interval_beyond_what_a_gain_can_be_ends_at_100_points() -> None:
    found = answer(told(study(), **{**NOTHING, "family_low": -1.3}))
    assert all("from -100.00 to +2.30 points" in line for line in found)


@pytest.mark.parametrize(("replicates", "words"), [(1, "no seed differed"), (10, "no search differed")])
def test_where_no_pair_differs_the_sentence_says_so(replicates: int, words: str) -> None:
    same = {"gain": 0.0, "better": 0, "equal": 10, "family_low": 0.0, "family_high": 0.0, "p_holm": 1.0}
    report = told(study({"replicates": replicates}, against={}), **same, verdict="inconclusive")
    assert answer(report)[0] == (
        f"additive over tuned at r = 1: no difference is shown; {words}, p = 1 after Holm over 2 "
        "comparisons, on this test set."
    )
    # an interval without width would look like certainty
    assert "[+0.00" not in markdown(report)
    assert {cell.interval for _, line in verdicts(report)[1] for cell in line} == {words}


def test_where_all_pairs_differ_by_the_same_the_sentence_says_so() -> None:
    report = told(study(), gain=0.02, better=10, family_low=0.02, family_high=0.02)
    said = "is better than tuned at r = 1 by 2.00 points, every seed differed by the same, p = "
    assert said in answer(report)[0]


def test_a_loss_counts_the_pairs_that_are_worse() -> None:
    lost = {"gain": -0.123, "better": 1, "equal": 2, "family_low": -0.202, "family_high": -0.031}
    found = answer(told(study(against={}), **lost, verdict="worse"))
    assert "is worse than tuned at r = 1 by 12.30 points [-20.20, -3.10], worse in 7 of 10 seeds" in found[0]


def test_holm_s_verdict_against_the_family_s_interval_is_explained() -> None:
    found = answer(told(study(), family_low=-0.002))
    assert all("holds 0: the sign is shown, and no least gain." in line for line in found)
    assert not any("holds 0" in line for line in answer(told(study())))
    with_margin = told(study(margin=[2, 2]), **{**NOTHING, "p_holm": 0.04}, margin=0.02)
    assert all("Holm's correction alone finds a difference" in line for line in answer(with_margin))
    at_looks = answer(told(study(looks=[8, 10]), family_low=-0.002, look=2, looks=2))
    assert all("An earlier look may have found it" in line for line in at_looks)


@pytest.mark.parametrize(
    ("changes", "sentence", "word"),
    [
        ({"verdict": "better", "margin": 0.01}, "better than", "better"),
        (
            {"verdict": "better", "margin": 0.25},
            "[+3.10, +20.20], by less than the margin of 25 points",
            "better, within the margin",
        ),
        (
            {**NOTHING, "verdict": "equivalent", "margin": 0.025},
            "is equivalent to tuned at r = 1, within the margin of 2.5 points: the gain is +0.40 points "
            "[-1.20, +2.30], better in 5 of 10 seeds",
            "equivalent",
        ),
        (
            {**NOTHING, "margin": 0.01},
            "no difference is shown; the true gain may be anything from -1.20 to +2.30 points "
            "(the margin is 1 point); better in",
            "inconclusive",
        ),
    ],
)
def test_with_a_margin_the_words_are_those_of_the_verdict(
    changes: dict[str, Any], sentence: str, word: str
) -> None:
    report = told(study(margin=[1.0, 1.0]), **changes)
    assert sentence in answer(report)[0]
    assert {cell.word for _, line in verdicts(report)[1] for cell in line} == {word}
    assert {cell.verdict for _, line in verdicts(report)[1] for cell in line} == {word.split(",")[0]}


def test_a_declared_look_is_numbered_and_free_looks_are_said_to_be_free() -> None:
    declared = answer(told(study(looks=[8, 9, 10]), look=2, looks=3))
    assert all(line.endswith("on this test set, at look 2 of 3.") for line in declared)
    free = told(study(looks="any"), look=0, looks=0)
    assert all(
        line.endswith("on this test set, by a test that allows looks at any time.") for line in answer(free)
    )
    assert any(line.startswith("The study declares looks at any time") for line in cautions(free))
    assert all(line.endswith("on this test set.") for line in answer(told(study())))


@pytest.mark.parametrize("how", ["pairs", "picks"])
def test_a_study_that_grew_after_a_look_says_by_which_rules_it_is_tested_and_what_was_said_before(
    how: Growth,
) -> None:
    it = study()
    before = Earlier(8, shown(it, [row for row in rows_of(it) if row.role == "family"]))
    report = told(it, parts={"grew_after_look": how, "earlier": [before]}, look=0, looks=0)
    assert any(
        GREW[how][1:] in line and "What was said before stands below." in line for line in cautions(report)
    )
    assert seen_before(report)[0] == (
        "The first 8 seeds: additive over tuned at r = 1: +12.30 [+3.10, +20.20], p = 0.0078."
    )
    assert "tested alone" not in markdown(report)


def test_what_was_said_before_finalists_were_picked_anew_is_printed_as_it_was_kept() -> None:
    said = "additive over tuned at r = 1: better, +5.00 points [+1.00, +9.00], p = 0.02, 10 pairs"
    looks = [
        Look("2026-01-01T10:00:00+00:00", 10, ["additive"], [said]),
        Look("2026-01-03T10:00:00+00:00", 10, ["additive"], ["of after that"]),
    ]
    extensions = [{"at": "2026-01-02T10:00:00+00:00", "changes": ["search.budget: 2 -> 3"]}]
    parts = {"grew_after_look": "picks", "looks": looks, "extensions": extensions}
    report = told(study(), parts=parts)
    assert f"- 2026-01-01T10:00:00+00:00: {said}" in markdown(report).splitlines()
    assert "of after that" not in markdown(report)


def test_what_was_taken_over_is_said_and_results_older_than_the_study_are_a_caution() -> None:
    line = "2 confirmation runs of additive had finished in old before this study was declared."
    look = Look("2026-01-01T10:00:00+00:00", 10, ["additive"], [line], taken_from="old")
    grown = [{"at": "2026-01-02T10:00:00+00:00", "changes": ["search.budget: 2 -> 3"]}]
    parts = {"looks": [look], "grew_after_look": "picks", "extensions": grown}
    taken = {"old": {"search": 1, "confirm": 2}, "older": {"search": 3, "confirm": 0}}
    report = told(study(), parts={**parts, "taken": taken})
    assert f"{line} They could be seen when it was written: that counts as a look." in cautions(report)
    assert seen_before(report) == []  # no result was said then
    assert markdown(report).splitlines()[-2:] == [
        "Trained by the study old, and taken over: 1 search run and 2 confirmation runs.",
        "Trained by the study older, and taken over: 3 search runs.",
    ]


def test_a_gain_of_one_search_says_how_far_another_search_would_move_it() -> None:
    it = study(against={})
    curves = [TuningCurve(1.0, [0.5, 0.6, 0.7, 0.8], [0.1, 0.08, 0.05, 0.03])]
    other = [TuningCurve(1.0, [0.5, 0.6, 0.7, 0.8], [0.1, 0.08, 0.05, 0.04])]
    tuning = [Tuning("additive", 4, 4, None, curves), Tuning("tuned", 4, 4, None, other)]
    rows = rows_of(it)
    report = findings_of(it, rows, comparisons=shown(it, rows, SETTINGS, tuning), tuning=tuning)
    at_1, at_005 = answer(report)
    assert at_1.endswith(
        "Another search of as many candidates would move this by about ±5.00 points, as far as its own "
        "candidates tell."  # the root of 0.03² + 0.04²
    )
    assert "Another search" not in at_005  # it was not measured there
    assert ["additive", "1", "about 5.00", "-"] in spread(report)
    half = findings_of(it, rows, comparisons=shown(it, rows, SETTINGS, tuning[:1]))
    assert not any("Another search" in line for line in answer(half))


def test_until_the_family_is_whole_there_is_no_verdict() -> None:
    it = study()
    report = findings_of(it, comparisons(plan_of(it)))
    assert answer(report)[0].startswith("Not complete yet: 0 of the 4 comparisons of the family")
    assert {cell.verdict for _, line in verdicts(report)[1] for cell in line} == {"incomplete"}


# the matrix and the tables


def test_the_matrix_has_a_line_for_each_tested_pair_of_arms_and_no_control() -> None:
    head, lines = verdicts(told(study()))
    assert head == ["tested", "at r = 1", "at r = 0.05"]
    assert [pair for pair, _ in lines] == ["additive over tuned", "additive over dense"]
    cell = lines[0][1][1]
    assert (cell.verdict, cell.gain, cell.interval) == ("better", "+12.30", "[+3.10, +20.20]")


def test_failures_stand_beside_their_arm_with_exact_limits() -> None:
    """1 of 20 fails: the limits are 0.1 and 24.9 %, as tables of the binomial distribution have them."""
    arm = Confirmed(
        arm="additive",
        task="",
        rank=1,
        candidate=None,
        finalists=1,
        searches=10,
        settings={},
        settings_by_search=[],
        seeds=20,
        finished=20,
        diverged=0,
        collapsed=1,
        failure_rate=0.05,
        failure_low=0.0012651,
        failure_high=0.2487328,
        accuracy={},
        best_epoch=0.9,
        last_epoch=0.89,
        inflation=0.01,
        best_epoch_own_ratio=0.91,
        parameters_start=None,
        parameters_end=None,
    )
    sound = replace(arm, arm="dense", collapsed=0)
    report = told(study(), parts={"arms": [arm, sound]})
    rate = "1 of 20: 5.0 % [0.1, 24.9]"
    said = (
        f"additive: 1 collapsed. Diverged or collapsed: {rate}, with exact limits of the true rate at 95 %."
    )
    assert said in cautions(report)
    assert not any(line.startswith("dense") for line in cautions(report))
    head, *lines = accuracy(report)
    assert [line[head.index("failed")] for line in lines] == [rate, ""]
    assert "failed" not in accuracy(replace(report, arms=[sound]))[0]


def test_an_endpoint_that_is_tested_and_not_searched_is_warned_of() -> None:
    assert (
        "The search scored r = 1 alone, and others are tested too: at r = 0.05 it is a matter of luck what "
        "was picked." in cautions(told(study()))
    )
    several = cautions(told(study(endpoints=[1.0, 0.3, 0.1, 0.05])))
    assert any("at r = 0.3, 0.1 and 0.05 it is" in line for line in several)
    for objective in ("rank", "each"):
        found = cautions(told(study({"objective": objective})))
        assert not any("scored" in line for line in found)
    assert not any("scored" in line for line in cautions(told(study(endpoints=[1.0]))))


# the glossary


def test_the_first_use_of_a_word_is_linked_and_no_other_and_none_in_headings_tables_and_pictures() -> None:
    body = "<h2>gain</h2><table><td>gain</td></table><svg><text>gain</text></svg><p>a gain &lt; a gain</p>"
    linked = with_links(f"<head><title>gain</title></head><body>{body}</body>")
    assert linked.count("<a ") == linked.count('href="#word-gain"') == 1
    assert linked.index("<a ") > linked.index("<p>a ")
    assert linked.endswith("gain</a> &lt; a gain</p></body>")
