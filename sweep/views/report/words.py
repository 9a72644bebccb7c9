"""The findings in words: the answer, cautions, and tables of gains in Markdown. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from sweep.format import points, probability
from sweep.gains.comparisons import declared_pairs
from sweep.gains.rows import Across, Compared
from sweep.ledger.looks import GREW
from sweep.statistics import tasks_needed
from sweep.study.arms import without_task
from sweep.views.report.findings import Comparison, Findings

ORDER = ("family", "control", "repeat")
"""The roles in the order in which tables list them."""
ACROSS = ["arm", "over", "tasks", "wins", "ties", "median gain", "p"]
FEW = "too few tasks to claim anything"


class Labelled(Protocol):
    """A row about one candidate of an arm."""

    @property
    def arm(self) -> str: ...
    @property
    def candidate(self) -> str | None: ...
    @property
    def finalists(self) -> int: ...


def label(row: Labelled) -> str:
    """A candidate's name for people: its arm's name, or its own where the arm has several finalists."""
    return row.arm if row.finalists == 1 else row.candidate or row.arm


def interval(low: float | None, high: float | None) -> str:
    """An interval in points."""
    return "-" if low is None else f"[{points(low)}, {points(high)}]"


def at(findings: Findings, ratio: float) -> str:
    """The keep ratio of a figure in words; nothing where keep ratios do not matter."""
    return f" at r = {ratio:g}" if findings.keep_ratio_matters else ""


def answer(findings: Findings) -> list[str]:
    """The answer of the declared family: a sentence for each comparison that shows a difference.

    Comparisons across tasks come first. One sentence covers all comparisons that show no difference.
    """
    family = [row for row in findings.comparisons if row.role == "family"]
    tests = findings.study.comparisons
    if any(row.p_holm is None for row in family):
        missing = sorted({line for row in family for line in row.missing})
        complete = sum(row.state == "complete" for row in family)
        first = "; ".join(missing[:3]) + (f"; and {len(missing) - 3} more" if len(missing) > 3 else "")
        return [
            f"Not complete yet: {complete} of the {tests} comparisons of the family have all their pairs. "
            f"Lacking: {first}."
        ]
    differing = [row for row in family if _is_significant(findings, row)]
    sentences = [*_answer_across(findings), *(_finding(findings, row) for row in differing)]
    if rest := len(family) - len(differing):
        sentences.append(_nothing_shown(rest, others=bool(differing)))
    return sentences


def _is_significant(findings: Findings, row: Compared | Across) -> bool:
    """Whether the corrected p-value is at most alpha."""
    return row.p_holm is not None and row.p_holm <= findings.study.analysis.alpha


def _nothing_shown(rest: int, *, others: bool) -> str:
    """The sentence about the comparisons that show no difference.

    It never says that two arms are equal, because such a test does not show that.
    """
    several = rest > 1
    which = f"{rest} comparisons" if several else "comparison"
    start = f"In the {'other ' if others else ''}{which}" if others or not several else f"In all {which}"
    intervals = "their intervals say" if several else "its interval says"
    return f"{start} of the family no difference is shown; how large one could be, {intervals}."


def _finding(findings: Findings, row: Comparison) -> str:
    """The sentence about a comparison that shows a difference."""
    assert row.gain is not None
    where = f"On {row.task}: " if row.task else ""
    name, reference = without_task(label(row), row.task), without_task(row.reference_arm, row.task)
    verdict = "better" if row.gain > 0 else "worse"
    return (
        f"{where}{name} is {verdict} than {reference}{at(findings, row.keep_ratio)} "
        f"by {100 * abs(row.gain):.2f} points "
        f"{interval(row.ci_low, row.ci_high)}, p = {probability(row.p_holm)} after Holm over "
        f"{findings.study.comparisons} comparisons, {row.pairs} pairs, "
        + ("over resampled splits." if row.overlap else "on this test set.")
    )


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
    differing = [row for row in family if _is_significant(findings, row) and row.median_gain is not None]
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
        f"wins on {row.wins}, p = {probability(row.p_holm)} after Holm over {tests}."
    )


def cautions(findings: Findings) -> list[str]:
    """What a reader should know before trusting the answer, a sentence each."""
    lines: list[str] = []
    if findings.mixed:
        different = ", ".join(findings.mixed)
        lines.append(
            f"The runs that are compared ran on different things ({different}): see the end of the page."
        )
    if grown := GREW.get(findings.grew_after_look):
        lines.append(f"{grown[0].upper()}{grown[1:]} What was said before stands below as an earlier look.")
    if any(sizes_differ(row) for row in findings.comparisons):
        lines.append(
            "Some arms are held against networks of another size: where that is so, the tables of gains "
            "show both counts of parameters."
        )
    for arm in findings.arms:
        counts = {"diverged": arm.diverged, "collapsed": arm.collapsed}
        if ended := [f"{count} {outcome}" for outcome, count in counts.items() if count]:
            lines.append(f"{label(arm)}: {' and '.join(ended)} of {arm.finished} runs.")
    return lines


def ranked(findings: Findings, reference: str) -> list[list[Comparison]]:
    """The comparisons over a reference, a list for each candidate.

    The family comes first, and the greatest gain at the primary endpoint is on top.
    """
    by_candidate: dict[tuple[str, int], list[Comparison]] = {}
    for row in findings.comparisons:
        if row.reference_arm == reference:
            by_candidate.setdefault((row.arm, row.rank), []).append(row)

    def order(rows: list[Comparison]) -> tuple[int, float]:
        gain = rows[0].gain
        return ORDER.index(rows[0].role), math.inf if gain is None else -gain

    return sorted(by_candidate.values(), key=order)


def sizes_differ(row: Compared) -> bool:
    """Whether a candidate and its reference are known to differ in their number of parameters."""
    own, other = row.parameters, row.reference_parameters
    return own is not None and other is not None and own != other


def sizes(row: Compared) -> str:
    """The parameters of a candidate and of its reference at the end; empty where they do not differ."""
    return f"{row.parameters:,.0f} / {row.reference_parameters:,.0f}" if sizes_differ(row) else ""


def header(findings: Findings) -> list[str]:
    """The first line of a table of gains."""
    ratios = findings.study.analysis.endpoints
    columns = [cell for ratio in ratios for cell in (f"gain{at(findings, ratio)}", "p", "interval", "±")]
    more = ["parameters"] if any(sizes_differ(row) for row in findings.comparisons) else []
    return ["arm", *columns, *more, "pairs"]


def cells(findings: Findings, rows: Sequence[Comparison]) -> list[str]:
    """A candidate's line in a table of gains. Significant gains stand between asterisks."""
    first = rows[0]
    name = label(first) if first.candidates else f"{first.arm} (searching)"
    # over another reference than the baseline the role says nothing: a method would be called a control
    has_role = first.role != "family" and first.reference_arm in findings.study.baselines
    line = [without_task(name, first.task) + (f" ({first.role})" if has_role else "")]
    for row in rows:
        mark = "**" if _is_significant(findings, row) else ""
        gain, p = f"{mark}{points(row.gain)}{mark}", f"{mark}{probability(row.p_holm)}{mark}"
        line += [gain, p, interval(row.ci_low, row.ci_high), _errors(row)]
    if "parameters" in header(findings):
        line.append(sizes(first))
    declared = declared_pairs(findings.study, first)
    return [*line, str(first.pairs) if first.pairs == declared else f"{first.pairs} of {declared}"]


def _errors(row: Compared) -> str:
    """The standard error of a gain in points, and in brackets the two-way one."""
    if row.standard_error is None:
        return "-"
    two_way = row.two_way_standard_error
    return f"{100 * row.standard_error:.2f}" + (f" ({100 * two_way:.2f})" if two_way is not None else "")


def across_cells(findings: Findings) -> list[list[str]]:
    """The comparisons across tasks that are tested or over the baseline, a line each.

    The baseline is the first reference, and the family comes before the other roles. The export has all
    comparisons.
    """
    baseline = findings.study.analysis.baseline
    rows = [row for row in findings.across if row.role == "family" or row.reference_arm == baseline]
    over = list(dict.fromkeys(row.reference_arm for row in rows))

    def order(row: Across) -> tuple[int, int, float]:
        gain = row.median_gain
        return over.index(row.reference_arm), ORDER.index(row.role), math.inf if gain is None else -gain

    return [_across_line(findings, row) for row in sorted(rows, key=order)]


def _across_line(findings: Findings, row: Across) -> list[str]:
    listed, family = len(findings.study.tasks), row.role == "family"
    too_few = not row.claimable and not row.missing
    p = (FEW if too_few else probability(row.p_holm)) if family else ""
    mark = "**" if family and row.claimable and _is_significant(findings, row) else ""
    return [
        row.arm + ("" if family else f" ({row.role})"),
        row.reference_arm + at(findings, row.keep_ratio),
        str(row.tasks) if row.tasks == listed else f"{row.tasks} of {listed}",
        str(row.wins),
        str(row.ties),
        f"{mark}{points(row.median_gain)}{mark}",
        f"{mark}{p}{mark}",
    ]


def seen_before(findings: Findings) -> list[str]:
    """The results of earlier looks, a line each."""
    return [_seen_line(findings, look.pairs, row) for look in findings.earlier for row in look.comparisons]


def _seen_line(findings: Findings, pairs: int, row: Comparison) -> str:
    seeds = f"The first {pairs} {'searches' if row.searches > 1 else 'seeds'}"
    what = f"{label(row)} over {row.reference_arm}{at(findings, row.keep_ratio)}"
    verdict = "not complete."
    if row.p_value is not None:
        verdict = f"{points(row.gain)} {interval(row.ci_low, row.ci_high)}, p = {probability(row.p_holm)}."
    return f"{seeds}: {what}: {verdict}"


def references(findings: Findings) -> list[str]:
    """The arms that others are compared with, the baseline first."""
    return list(dict.fromkeys(row.reference_arm for row in findings.comparisons))


def over_others(findings: Findings) -> list[list[str]]:
    """The table of tested gains over other arms than the baseline: a header, then a line for each gain."""
    lines = [
        [label(rows[0]), rows[0].reference_arm, *cells(findings, rows)[1:]]
        for reference in references(findings)
        if reference not in findings.study.baselines
        for rows in ranked(findings, reference)
        if rows[0].role == "family"
    ]
    return [["arm", "over", *header(findings)[1:]], *lines] if lines else []


def markdown(findings: Findings) -> str:
    """The answer, the cautions and the tables of gains: what `sweep report` prints."""
    lines = [*answer(findings), *cautions(findings)]
    if findings.across:
        lines += ["", "Across tasks:", "", *_table(ACROSS, across_cells(findings))]
    for baseline in findings.study.baselines:
        task = findings.study.arms[baseline].task
        lines += ["", *([f"On {task}:", ""] if task else [])]
        lines += _table(header(findings), [cells(findings, rows) for rows in ranked(findings, baseline)])
    if others := over_others(findings):
        lines += ["", "Tested over other arms, in the same family:", "", *_table(others[0], others[1:])]
    if findings.earlier:
        lines += ["", "Earlier looks:", "", *(f"- {line}" for line in seen_before(findings))]
    analysis = findings.study.analysis
    spread = "with what overlapping splits add" if findings.resampled else "(and images)"
    lines.append(
        f"\nGains over {analysis.baseline} in points of test accuracy, paired by seed; ± standard error "
        f"over seeds {spread}; interval and p by {analysis.test}: p is corrected over the family of "
        f"{findings.study.comparisons} (Holm), and the interval is that of the test by itself (the family's "
        f"interval stands on the page). Declared analysis {findings.hash}."
    )
    return "\n".join(lines)


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    return head + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
