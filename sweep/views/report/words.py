"""The findings in words: the answer, what to be careful of, and the tables of gains in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from sweep.format import points, probability
from sweep.gains.rows import Across, Compared
from sweep.statistics import tasks_needed
from sweep.study.arms import without_task
from sweep.views.report.findings import Comparison, Findings

ORDER = ("family", "control", "repeat")
ACROSS = ["arm", "over", "tasks", "wins", "ties", "median gain", "p"]
FEW = "too few tasks to claim anything"


class Labelled(Protocol):
    """A row of one candidate of an arm."""

    @property
    def arm(self) -> str: ...
    @property
    def candidate(self) -> str | None: ...
    @property
    def finalists(self) -> int: ...


def label(row: Labelled) -> str:
    """A candidate's name for people: its arm's, and its own where the arm has several finalists."""
    return row.arm if row.finalists == 1 else row.candidate or row.arm


def interval(low: float | None, high: float | None) -> str:
    """An interval in points."""
    return "-" if low is None else f"[{points(low)}, {points(high)}]"


def at(found: Findings, ratio: float) -> str:
    """The keep ratio of a figure, where that matters."""
    return f" at r = {ratio:g}" if found.keep_ratios else ""


def answer(found: Findings) -> list[str]:
    """What the declared family says: a sentence for each comparison that differs, and one for each across tasks."""
    family = [row for row in found.comparisons if row.role == "family"]
    tests = found.study.comparisons
    if any(row.p_holm is None for row in family):
        missing = sorted({line for row in family for line in row.missing})
        complete = sum(row.state == "complete" for row in family)
        first = "; ".join(missing[:3]) + (f"; and {len(missing) - 3} more" if len(missing) > 3 else "")
        return [
            f"Not complete yet: {complete} of the {tests} comparisons of the family have all their pairs. "
            f"Lacking: {first}."
        ]
    differing = [row for row in family if _is_found(found, row)]
    sentences = [*_answer_across(found), *(_finding(found, row) for row in differing)]
    if rest := len(family) - len(differing):
        sentences.append(_nothing_shown(rest, others=bool(differing)))
    return sentences


def _is_found(found: Findings, row: Compared | Across) -> bool:
    return row.p_holm is not None and row.p_holm <= found.study.analysis.alpha


def _nothing_shown(rest: int, *, others: bool) -> str:
    """What is said of the comparisons that found nothing: never that two arms are equal, since a test says so little."""
    several = rest > 1
    which = f"{rest} comparisons" if several else "comparison"
    start = f"In the {'other ' if others else ''}{which}" if others or not several else f"In all {which}"
    intervals = "their intervals say" if several else "its interval says"
    return f"{start} of the family no difference is shown; how large one could be, {intervals}."


def _finding(found: Findings, row: Comparison) -> str:
    assert row.gain is not None
    where = f"On {row.task}: " if row.task else ""
    name, reference = without_task(label(row), row.task), without_task(row.reference_arm, row.task)
    verdict = "better" if row.gain > 0 else "worse"
    return (
        f"{where}{name} is {verdict} than {reference}{at(found, row.keep_ratio)} by {100 * abs(row.gain):.2f} points "
        f"{interval(row.ci_low, row.ci_high)}, p = {probability(row.p_holm)} after Holm over "
        f"{found.study.comparisons} comparisons, {row.pairs} pairs, "
        + ("over resampled splits." if row.overlap else "on this test set.")
    )


def _answer_across(found: Findings) -> list[str]:
    """What the family's comparisons across tasks found, or why they may find nothing."""
    family = [row for row in found.across if row.role == "family"]
    if not family:
        return []
    tasks, alpha = len(found.study.tasks), found.study.analysis.alpha
    if not family[0].claimable:
        count = f"{len(family)} comparison{'s' if len(family) > 1 else ''}"
        needed = tasks_needed(len(family), alpha)
        return [
            f"{tasks} tasks are too few to claim anything across tasks: {count} at {alpha:g} would take {needed}."
        ]
    differing = [row for row in family if _is_found(found, row) and row.median_gain is not None]
    return [_finding_across(found, row, len(family)) for row in differing] or [
        f"Across {tasks} tasks no difference is shown between an arm of the family and what it is held against; how "
        "large one could be on each task, the intervals there say."
    ]


def _finding_across(found: Findings, row: Across, tests: int) -> str:
    assert row.median_gain is not None
    verdict = "better" if row.median_gain > 0 else "worse"
    return (
        f"Across {len(found.study.tasks)} tasks {row.arm} is {verdict} than {row.reference_arm}"
        f"{at(found, row.keep_ratio)}: a median gain of {points(row.median_gain)} points, wins on {row.wins}, "
        f"p = {probability(row.p_holm)} after Holm over {tests}."
    )


def cautions(found: Findings) -> list[str]:
    """What a reader should know before believing it."""
    lines: list[str] = []
    if found.mixed:
        different = ", ".join(found.mixed)
        lines.append(
            f"The runs that are compared ran on different things ({different}): see the end of the page."
        )
    if first := max((row.first_place for row in found.comparisons), default=0):
        lines.append(
            f"The first {first} seeds had been seen before more were added; only the seeds after them are tested "
            "here. What the earlier ones said stands below as an earlier look: believe neither more than the other, "
            "and count both."
        )
    if any(sizes_differ(row) for row in found.comparisons):
        lines.append(
            "Some arms are held against networks of another size: where that is so, the tables of gains show both "
            "counts of parameters."
        )
    for arm in found.arms:
        counts = {"diverged": arm.diverged, "collapsed": arm.collapsed}
        if ended := [f"{count} {outcome}" for outcome, count in counts.items() if count]:
            lines.append(f"{label(arm)}: {' and '.join(ended)} of {arm.finished} runs.")
    return lines


def ranked(found: Findings, reference: str) -> list[list[Comparison]]:
    """A reference's comparisons, candidate by candidate: the family first, the greatest primary gain on top."""
    by_candidate: dict[tuple[str, str | None], list[Comparison]] = {}
    for row in found.comparisons:
        if row.reference_arm == reference:
            by_candidate.setdefault((row.arm, row.candidate), []).append(row)

    def order(rows: list[Comparison]) -> tuple[int, float]:
        gain = rows[0].gain
        return ORDER.index(rows[0].role), math.inf if gain is None else -gain

    return sorted(by_candidate.values(), key=order)


def sizes_differ(row: Compared) -> bool:
    """Whether a candidate and its reference are known to have different numbers of parameters."""
    own, other = row.parameters, row.reference_parameters
    return own is not None and other is not None and own != other


def sizes(row: Compared) -> str:
    """Parameters of a candidate and of its reference, at the end of their runs, where they differ."""
    return f"{row.parameters:,.0f} / {row.reference_parameters:,.0f}" if sizes_differ(row) else ""


def header(found: Findings) -> list[str]:
    """The first line of a table of gains."""
    ratios = found.study.analysis.endpoints
    columns = [cell for ratio in ratios for cell in (f"gain{at(found, ratio)}", "p", "interval", "±")]
    more = ["parameters"] if any(sizes_differ(row) for row in found.comparisons) else []
    return ["arm", *columns, *more, "pairs"]


def cells(found: Findings, rows: Sequence[Comparison]) -> list[str]:
    """A candidate's line in a table of gains; what was found stands between asterisks."""
    first = rows[0]
    name = label(first) if first.candidate else f"{first.arm} (searching)"
    # beside another reference than the baseline, a method is no control
    role = first.role != "family" and first.reference_arm in found.study.baselines
    line = [without_task(name, first.task) + (f" ({first.role})" if role else "")]
    for row in rows:
        mark = "**" if _is_found(found, row) else ""
        both = f" ({100 * row.two_way_standard_error:.2f})" if row.two_way_standard_error is not None else ""
        error = "-" if row.standard_error is None else f"{100 * row.standard_error:.2f}{both}"
        gain, p = f"{mark}{points(row.gain)}{mark}", f"{mark}{probability(row.p_holm)}{mark}"
        line += [gain, p, interval(row.ci_low, row.ci_high), error]
    line += [sizes(first)] if "parameters" in header(found) else []
    declared = found.study.confirm.seeds - first.first_place
    return [*line, str(first.pairs) if first.pairs == declared else f"{first.pairs} of {declared}"]


def across_cells(found: Findings) -> list[list[str]]:
    """The comparisons across tasks that are tested or over the baseline, a line each; the export has all of them.

    Reference by reference, the baseline first, and the family before the others.
    """
    baseline = found.study.analysis.baseline
    rows = [row for row in found.across if row.role == "family" or row.reference_arm == baseline]
    over = list(dict.fromkeys(row.reference_arm for row in rows))

    def order(row: Across) -> tuple[int, int, float]:
        gain = row.median_gain
        return over.index(row.reference_arm), ORDER.index(row.role), math.inf if gain is None else -gain

    return [_across_line(found, row) for row in sorted(rows, key=order)]


def _across_line(found: Findings, row: Across) -> list[str]:
    listed, family = len(found.study.tasks), row.role == "family"
    p = "" if not family else FEW if not row.claimable and not row.missing else probability(row.p_holm)
    mark = "**" if family and row.claimable and _is_found(found, row) else ""
    return [
        row.arm + ("" if family else f" ({row.role})"),
        row.reference_arm + at(found, row.keep_ratio),
        str(row.tasks) if row.tasks == listed else f"{row.tasks} of {listed}",
        str(row.wins),
        str(row.ties),
        f"{mark}{points(row.median_gain)}{mark}",
        f"{mark}{p}{mark}",
    ]


def seen_before(found: Findings) -> list[str]:
    """What the tests said at earlier looks, a line each."""
    return [_seen_line(found, look.pairs, row) for look in found.earlier for row in look.comparisons]


def _seen_line(found: Findings, pairs: int, row: Comparison) -> str:
    seeds = f"Seeds {row.first_place + 1} to {pairs}"
    what = f"{label(row)} over {row.reference_arm}{at(found, row.keep_ratio)}"
    verdict = "not complete."
    if row.p_value is not None:
        verdict = f"{points(row.gain)} {interval(row.ci_low, row.ci_high)}, p = {probability(row.p_holm)}."
    return f"{seeds}: {what}: {verdict}"


def references(found: Findings) -> list[str]:
    """The arms that others are held against, the baseline first."""
    return list(dict.fromkeys(row.reference_arm for row in found.comparisons))


def over_others(found: Findings) -> list[list[str]]:
    """The tested gains over other arms than the baseline, a line for each candidate and reference after a header."""
    lines = [
        [label(rows[0]), rows[0].reference_arm, *cells(found, rows)[1:]]
        for reference in references(found)
        if reference not in found.study.baselines
        for rows in ranked(found, reference)
        if rows[0].role == "family"
    ]
    return [["arm", "over", *header(found)[1:]], *lines] if lines else []


def markdown(found: Findings) -> str:
    """The answer and the tables of gains: over the baseline, task by task, and the tested ones over other arms."""
    lines = [*answer(found), *cautions(found)]
    if found.across:
        lines += ["", "Across tasks:", "", *_table(ACROSS, across_cells(found))]
    for baseline in found.study.baselines:
        task = found.study.arms[baseline].task
        lines += ["", *([f"On {task}:", ""] if task else [])]
        lines += _table(header(found), [cells(found, rows) for rows in ranked(found, baseline)])
    if others := over_others(found):
        lines += ["", "Tested over other arms, in the same family:", "", *_table(others[0], others[1:])]
    if found.earlier:
        lines += ["", "Earlier looks:", "", *(f"- {line}" for line in seen_before(found))]
    analysis = found.study.analysis
    spread = "with what overlapping splits add" if found.resampled else "(and images)"
    lines.append(
        f"\nGains over {analysis.baseline} in points of test accuracy, paired by seed; ± standard error over seeds "
        f"{spread}; interval and p by {analysis.test}: p is corrected over the family of {found.study.comparisons} "
        "(Holm), and the interval is that of the test by itself (the family's interval stands on the page). "
        f"Declared analysis {found.hash}."
    )
    return "\n".join(lines)


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    head = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    return head + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
