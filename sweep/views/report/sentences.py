"""The findings in sentences: the answer, cautions, and what was seen before. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sweep.format import counted, points, probability
from sweep.gains.rows import Across, Compared
from sweep.ledger.looks import GREW
from sweep.statistics import tasks_needed
from sweep.study.arms import without_task
from sweep.views.report.findings import Comparison, Findings
from sweep.views.report.labels import (
    all_alike,
    amount,
    at,
    failure_rate,
    holm_alone,
    interval,
    label,
    short_settings,
    shown_interval,
    units,
    within_margin,
)
from sweep.views.report.tables import family_of, sizes_differ


def answer(findings: Findings) -> list[str]:
    """The answer of the declared family: a sentence for each tested comparison.

    Comparisons across tasks come first.
    """
    family = family_of(findings)
    if any(row.verdict is None for row in family):
        return [_lacking(findings, family)]
    return [*_answer_across(findings), *(_verdict(findings, row) for row in family)]


def _lacking(findings: Findings, family: list[Comparison]) -> str:
    """The sentence that the family is not complete, and the first things that it lacks."""
    missing = sorted({line for row in family for line in row.missing})
    complete = sum(row.state == "complete" for row in family)
    first = "; ".join(missing[:3]) + (f"; and {len(missing) - 3} more" if len(missing) > 3 else "")
    return (
        f"Not complete yet: {complete} of the {findings.study.comparisons} comparisons of the family have "
        f"all their pairs. Lacking: {first}."
    )


def _verdict(findings: Findings, row: Comparison) -> str:
    """The sentence about a tested comparison: its verdict, with the family's interval."""
    assert row.gain is not None
    start = f"On {row.task}: " if row.task else ""
    name = without_task(label(row), row.task) + _picked(row.settings)
    reference = without_task(row.reference_arm, row.task) + _picked(row.reference_settings)
    where, alike = at(findings, row.keep_ratio), row.family_low == row.family_high
    span = "" if alike else " " + interval(row.family_low, row.family_high)
    if row.verdict == "equivalent":
        assert row.margin is not None
        said = (
            f"{name} is equivalent to {reference}{where}, within the margin of {amount(row.margin)}: the "
            f"gain is {points(row.gain)} points{span}"
        )
    elif row.verdict == "inconclusive":
        said = (
            f"{name} over {reference}{where}: no difference is shown{'' if alike else '; ' + _may_be(row)}"
        )
        if row.margin is not None:
            said += f" (the margin is {amount(row.margin)})"
    else:
        said = f"{name} is {row.verdict} than {reference}{where} by {100 * abs(row.gain):.2f} points{span}"
        if within_margin(row):
            assert row.margin is not None
            said += f", by less than the margin of {amount(row.margin)}"
    details = [_counted(row), f"p = {probability(row.p_holm)} after Holm over {_tests(findings)}"]
    details.append("over resampled splits" if row.overlap else "on this test set")
    comma = ";" if row.verdict == "inconclusive" else ","
    sentence = f"{start}{said}{comma} {', '.join(details)}{_look(row)}."
    return " ".join([sentence, *_remarks(row, findings.study.analysis.alpha)])


def _picked(settings: dict[str, object] | None) -> str:
    """What one search picked, in brackets; nothing where no search decides, or several do."""
    return f" ({short_settings(settings)}, picked by one search)" if settings else ""


def _tests(findings: Findings) -> str:
    tests = findings.study.comparisons
    return f"{tests} comparison{'s' if tests > 1 else ''}"


def _may_be(row: Comparison) -> str:
    """The words for how large a gain may be that is not shown. No gain exceeds 100 points."""
    low, high = row.family_low, row.family_high
    if low is None or high is None or (low <= -1 and high >= 1):
        return "the true gain may be anything, because so few pairs exclude nothing"
    return f"the true gain may be anything from {points(max(low, -1.0))} to {points(min(high, 1.0))} points"


def _counted(row: Comparison) -> str:
    """The words for how many pairs differ, and in which direction."""
    if row.equal == row.pairs or row.family_low == row.family_high:
        return all_alike(row)
    worse = row.pairs - row.better - row.equal
    word, count = ("worse", worse) if row.verdict == "worse" else ("better", row.better)
    equal = f" and equal in {row.equal}" if row.equal else ""
    return f"{word} in {count} of {row.pairs} {units(row)}{equal}"


def _look(row: Compared) -> str:
    """The words for the look that a comparison is seen at; nothing where the study has one alone."""
    if row.looks == 0:
        return ", by a test that allows looks at any time"
    return f", at look {row.look} of {row.looks}" if row.looks > 1 else ""


def _remarks(row: Comparison, alpha: float) -> Iterator[str]:
    """What a reader of one sentence should know beside it."""
    if row.verdict in ("equivalent", "inconclusive") and row.p_holm is not None and row.p_holm <= alpha:
        yield "Holm's correction alone finds a difference; the verdict goes by the family's wider interval."
    if holm_alone(row):
        if row.looks > 1:
            yield (
                "An earlier look may have found it: at this look the family's interval holds 0, so that no "
                "least gain is shown."
            )
        else:
            yield (
                "Holm's correction finds it, and the family's interval, which is wider, holds 0: the sign "
                "is shown, and no least gain."
            )
    if (failed := row.seeds - row.pairs_without) and row.gain_without is not None:
        yield (
            f"Without the {counted(failed, 'pair')} of runs of which one collapsed or diverged "
            f"the gain is {points(row.gain_without)} points."
        )
    if row.pick_deviation is not None:
        yield (
            f"Another search of as many candidates would move this by about ±{_moved(row)} points, "
            "as far as its own candidates tell."
        )


def _moved(row: Comparison) -> str:
    """How far another search would move a gain, in points without a sign."""
    assert row.pick_deviation is not None
    return f"{100 * row.pick_deviation:.2f}"


def _answer_across(findings: Findings) -> list[str]:
    """The answer of the family across tasks, or why there cannot be one."""
    family = [row for row in findings.across if row.role == "family"]
    if not family:
        return []
    tasks, alpha = len(findings.study.tasks), findings.study.analysis.alpha
    if not family[0].claimable:
        count = f"{len(family)} comparison{'s' if len(family) > 1 else ''}"
        needed = tasks_needed(len(family), alpha)
        return [
            f"{tasks} tasks are too few to claim anything across tasks: "
            f"{count} at {alpha:g} would take {needed}."
        ]
    differing = [
        row
        for row in family
        if row.p_holm is not None and row.p_holm <= alpha and row.median_gain is not None
    ]
    if differing:
        return [_finding_across(findings, row, len(family)) for row in differing]
    return [
        f"Across {tasks} tasks no difference is shown between an arm of the family and what it is held "
        "against; how large one could be on each task, the intervals there say."
    ]


def _finding_across(findings: Findings, row: Across, tests: int) -> str:
    """The sentence about a comparison across tasks that shows a difference."""
    assert row.median_gain is not None
    verdict = "better" if row.median_gain > 0 else "worse"
    return (
        f"Across {len(findings.study.tasks)} tasks {row.arm} is {verdict} than {row.reference_arm}"
        f"{at(findings, row.keep_ratio)}: a median gain of {points(row.median_gain)} points, "
        f"wins on {row.wins}, p = {probability(row.p_holm)} after Holm over {tests}.{_failed_across(row)}"
    )


def _failed_across(row: Across) -> str:
    """What failed runs have to do with a gain across tasks; empty where none failed."""
    if not row.failed_pairs:
        return ""
    said = f" In {row.failed_pairs} of {row.run_pairs} pairs of runs one collapsed or diverged"
    if row.median_gain_without is None:
        return f"{said}; on some task no other pair is left."
    return (
        f"{said}; without those the median gain is {points(row.median_gain_without)} points, and above 0 on "
        f"{counted(row.wins_without or 0, 'task')}."
    )


def cautions(findings: Findings) -> list[str]:
    """What a reader should know before trusting the answer, a sentence each."""
    return list(_cautions(findings))


def _cautions(findings: Findings) -> Iterator[str]:
    if findings.mixed:
        different = ", ".join(findings.mixed)
        yield f"The runs that are compared ran on different things ({different}): see the end of the page."
    for look in findings.looks:
        if look.taken_from:
            yield f"{' '.join(look.said)} They could be seen when it was written: that counts as a look."
    if findings.grew_after_look:
        before = " What was said before stands below." if seen_before(findings) else ""
        grew = GREW[findings.grew_after_look]
        yield f"{grew[0].upper()}{grew[1:]}{before}"
    elif findings.study.analysis.looks == "any":
        yield (
            "The study declares looks at any time: every pair is tested as it comes, and the intervals are "
            "wider than those of a test that is made once."
        )
    if unscored := _unscored(findings):
        first, others = findings.study.analysis.endpoints[0], _listed(unscored)
        yield (
            f"The search scored r = {first:g} alone, and others are tested too: at {others} it is a matter "
            "of luck what was picked."
        )
    if any(sizes_differ(row) for row in findings.comparisons):
        yield (
            "Some arms are held against networks of another size: where that is so, the tables of gains "
            "show both counts of parameters."
        )
    alpha = findings.study.analysis.alpha
    for arm in findings.arms:
        counts = {"diverged": arm.diverged, "collapsed": arm.collapsed}
        if ended := [f"{count} {outcome}" for outcome, count in counts.items() if count]:
            rate = f"{failure_rate(arm)}, with exact limits of the true rate at {100 * (1 - alpha):g} %"
            yield f"{label(arm)}: {' and '.join(ended)}. Diverged or collapsed: {rate}."


def taken_over(findings: Findings) -> list[str]:
    """The runs that other studies of the store have trained, a sentence for each study."""
    phases = {"search": "search run", "confirm": "confirmation run"}
    sentences: list[str] = []
    for name, taken in findings.taken.items():
        runs = " and ".join(counted(taken[phase], noun) for phase, noun in phases.items() if taken[phase])
        sentences.append(f"Trained by the study {name}, and taken over: {runs}.")
    return sentences


def _listed(ratios: list[float]) -> str:
    """Some keep ratios in words: r = 0.3, 0.1 and 0.05."""
    *first, last = [f"{ratio:g}" for ratio in ratios]
    return "r = " + " and ".join([", ".join(first), last] if first else [last])


def _unscored(findings: Findings) -> list[float]:
    """The endpoints that are tested, between arms that are searched, and that the search does not score."""
    study = findings.study
    sides = {name for row in family_of(findings) for name in (row.arm, row.reference_arm)}
    if study.search.objective != "first" or not any(study.arms[name].is_drawn for name in sides):
        return []
    return study.analysis.endpoints[1:]


def seen_before(findings: Findings) -> list[str]:
    """The results of earlier looks, a line each: as kept, or computed again where only pairs were added."""
    lines = [_seen_line(findings, look.pairs, row) for look in findings.earlier for row in look.comparisons]
    grown = [extension["at"] for extension in findings.extensions]
    if findings.grew_after_look == "picks" and grown:
        lines += [
            f"{look.at}: {line}"
            for look in findings.looks
            for line in look.said
            if not look.taken_from and datetime.fromisoformat(look.at) <= datetime.fromisoformat(grown[-1])
        ]
    return lines


def _seen_line(findings: Findings, pairs: int, row: Comparison) -> str:
    first = f"The first {pairs} {'searches' if row.searches > 1 else 'seeds'}"
    what = f"{label(row)} over {row.reference_arm}{at(findings, row.keep_ratio)}"
    verdict = "not complete."
    if row.p_value is not None:
        verdict = f"{points(row.gain)} {shown_interval(row)}, p = {probability(row.p_holm)}."
    return f"{first}: {what}: {verdict}"
