"""The findings in tables: verdicts, gains, further figures, accuracies. Nothing is computed here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweep.format import points, probability
from sweep.gains.comparisons import declared_pairs
from sweep.gains.rows import Across, Compared
from sweep.study.arms import without_task
from sweep.views.report.confirmed import Confirmed
from sweep.views.report.findings import Comparison, Findings
from sweep.views.report.labels import (
    amount,
    at,
    failure_rate,
    interval,
    label,
    percent,
    short_settings,
    shown_interval,
    units,
    verdict_word,
)
from sweep.views.report.replication import Replicated

ORDER = ("family", "control", "repeat")
"""The roles in the order in which tables list them."""
ACROSS = ["arm", "over", "tasks", "wins", "ties", "median gain", "p", "pairs that failed", "gain without"]
FEW = "too few tasks to claim anything"
NO_BREAK = "\u00a0"
CHOSEN = "chosen"
"""The name of the column of settings in the table of accuracies."""


@dataclass(frozen=True)
class VerdictCell:
    """A tested comparison in the matrix of verdicts."""

    verdict: str
    """better, worse, equivalent, inconclusive or incomplete: what its color goes by."""
    word: str
    gain: str
    interval: str


def family_of(findings: Findings) -> list[Comparison]:
    """The tested comparisons."""
    return [row for row in findings.comparisons if row.role == "family"]


def verdicts(findings: Findings) -> tuple[list[str], list[tuple[str, list[VerdictCell]]]]:
    """The matrix of verdicts: a header, and a line for each tested pair of arms with a cell per endpoint."""
    lines: dict[tuple[str, int, str], list[Comparison]] = {}
    for row in family_of(findings):
        lines.setdefault((row.arm, row.rank, row.reference_arm), []).append(row)
    ratios = findings.study.analysis.endpoints
    header = ["tested", *(at(findings, ratio).strip() or "gain" for ratio in ratios)]
    return header, [(_pair(rows[0]), [_verdict_cell(row) for row in rows]) for rows in lines.values()]


def _pair(row: Comparison) -> str:
    """The two arms of a comparison, for people."""
    own, other = without_task(label(row), row.task), without_task(row.reference_arm, row.task)
    return f"{own} over {other}" + (f", on {row.task}" if row.task else "")


def _verdict_cell(row: Comparison) -> VerdictCell:
    word = verdict_word(row)
    span = f"{row.pairs} pairs so far" if row.state == "incomplete" else shown_interval(row)
    return VerdictCell(row.verdict or "incomplete", word, points(row.gain), span)


def references(findings: Findings) -> list[str]:
    """The arms that others are compared with, the baseline first."""
    return list(dict.fromkeys(row.reference_arm for row in findings.comparisons))


def ranked(findings: Findings, reference: str) -> list[list[Comparison]]:
    """The comparisons over a reference, a list for each finalist.

    The family comes first, and the greatest gain at the primary endpoint is on top.
    """
    by_finalist: dict[tuple[str, int], list[Comparison]] = {}
    for row in findings.comparisons:
        if row.reference_arm == reference:
            by_finalist.setdefault((row.arm, row.rank), []).append(row)

    def order(rows: list[Comparison]) -> tuple[int, float]:
        gain = rows[0].gain
        return ORDER.index(rows[0].role), math.inf if gain is None else -gain

    return sorted(by_finalist.values(), key=order)


def sizes_differ(row: Compared) -> bool:
    """Whether a candidate and its reference are known to differ in their number of parameters."""
    own, other = row.parameters, row.reference_parameters
    return own is not None and other is not None and own != other


def sizes(row: Compared) -> str:
    """The parameters of a candidate and of its reference at the end; empty where they do not differ."""
    return f"{row.parameters:,.0f} / {row.reference_parameters:,.0f}" if sizes_differ(row) else ""


def header(findings: Findings) -> list[str]:
    """The first line of a table of gains."""
    ratio = ["r"] if findings.keep_ratio_matters else []
    more = ["parameters"] if any(sizes_differ(row) for row in findings.comparisons) else []
    return ["arm", *ratio, "gain", "interval", "p", "±", "better in", *more]


def cells(findings: Findings, row: Comparison) -> list[str]:
    """A comparison's line in a table of gains. What is found stands between asterisks."""
    name = label(row) if row.candidates else f"{row.arm} (searching)"
    # over another reference than the baseline the role says nothing: a method would be called a control
    has_role = row.role != "family" and row.reference_arm in findings.study.baselines
    line = [without_task(name, row.task) + (f" ({row.role})" if has_role else "")]
    if findings.keep_ratio_matters:
        line.append(f"{row.keep_ratio:g}")
    mark = "**" if row.verdict in ("better", "worse") else ""
    gain, p = f"{mark}{points(row.gain)}{mark}", f"{mark}{probability(row.p_holm)}{mark}"
    declared = declared_pairs(findings.study, row)
    enough = row.pairs == declared or findings.decided
    line += [
        gain,
        shown_interval(row),
        p,
        _errors(row),
        _better(row) + ("" if enough else f"; {declared} declared"),
    ]
    return [*line, sizes(row)] if "parameters" in header(findings) else line


def _better(row: Compared) -> str:
    if not row.pairs:
        return f"no {units(row)} yet"
    equal = f", {row.equal} equal" if row.equal else ""
    return f"{row.better} of {row.pairs} {units(row)}{equal}"


def _errors(row: Compared) -> str:
    """The standard error of a gain in points, and in brackets the two-way one."""
    if row.standard_error is None:
        return "-"
    two_way = row.two_way_standard_error
    return f"{100 * row.standard_error:.2f}" + (f" ({100 * two_way:.2f})" if two_way is not None else "")


def gains(findings: Findings, reference: str) -> list[list[str]]:
    """The lines of the table of gains over a reference."""
    return [cells(findings, row) for rows in ranked(findings, reference) for row in rows]


def over_others(findings: Findings) -> list[list[str]]:
    """The table of tested gains over other arms than the baseline: a header, then a line for each gain."""
    lines = [
        [label(row), row.reference_arm, *cells(findings, row)[1:]]
        for reference in references(findings)
        if reference not in findings.study.baselines
        for rows in ranked(findings, reference)
        for row in rows
        if row.role == "family"
    ]
    return [["arm", "over", *header(findings)[1:]], *lines] if lines else []


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
    found = row.p_holm is not None and row.p_holm <= findings.study.analysis.alpha
    mark = "**" if family and row.claimable and found else ""
    return [
        row.arm + ("" if family else f" ({row.role})"),
        row.reference_arm + at(findings, row.keep_ratio),
        str(row.tasks) if row.tasks == listed else f"{row.tasks} of {listed}",
        str(row.wins),
        str(row.ties),
        f"{mark}{points(row.median_gain)}{mark}",
        f"{mark}{p}{mark}",
        f"{row.failed_pairs} of {row.run_pairs}",
        "" if row.median_gain_without is None else points(row.median_gain_without),
    ]


BESIDE = ["arm", "pairs", "effect size", "p alone", "interval alone", "Welch", "Wilcoxon", "correlation"]
BESIDE_LAST = "found with 80 %"


def beside(findings: Findings) -> list[list[str]]:
    """The table of each comparison's further figures: a header, then a line for each comparison."""
    head = [*_with_ratio(findings, BESIDE), BESIDE_LAST]
    return [head, *(_beside(findings, row) for row in _listed(findings))]


def _listed(findings: Findings) -> list[Comparison]:
    """The comparisons that are over the baseline or tested, reference by reference."""
    return [
        row
        for reference in references(findings)
        for rows in ranked(findings, reference)
        for row in rows
        if reference in findings.study.baselines or row.role == "family"
    ]


def _with_ratio(findings: Findings, names: list[str]) -> list[str]:
    """The names of columns, with the keep ratio after the arm where it matters."""
    return [names[0], *(["r"] if findings.keep_ratio_matters else []), *names[1:]]


def _start(findings: Findings, row: Comparison) -> list[str]:
    over = "" if row.reference_arm in findings.study.baselines else f" over {row.reference_arm}"
    return [label(row) + over, *([f"{row.keep_ratio:g}"] if findings.keep_ratio_matters else [])]


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _beside(findings: Findings, row: Comparison) -> list[str]:
    return [
        *_start(findings, row),
        str(row.pairs),
        _decimals(row.effect_size),
        probability(row.p_value) + (f" ± {row.p_error:.1g}" if row.p_error else ""),
        interval(row.ci_low, row.ci_high),
        probability(row.welch_p_value),
        probability(row.wilcoxon_p_value),
        _decimals(row.correlation),
        points(row.detectable_gain),
    ]


def spread(findings: Findings) -> list[list[str]]:
    """The table of failed runs and of what the gains vary with: a header, then a line for each comparison.

    Only comparisons with anything to say have a line.
    """
    rows = [row for row in _listed(findings) if _ended(row) or _has_spread(row)]
    failed, varies = any(map(_ended, rows)), any(map(_has_spread, rows))
    names = ["diverged", "collapsed", "gain without those"] if failed else []
    names += ["from search to search", "from seed to seed"] if varies else []
    lines = [
        [*_start(findings, row), *(_failures(row) if failed else []), *(_varies(row) if varies else [])]
        for row in rows
    ]
    return [_with_ratio(findings, ["arm", *names]), *lines] if rows else []


def _ended(row: Compared) -> int:
    return row.diverged + row.collapsed + row.reference_diverged + row.reference_collapsed


def _has_spread(row: Comparison) -> bool:
    return row.search_deviation is not None or row.pick_deviation is not None


def _failures(row: Compared) -> list[str]:
    without = f"{points(row.gain_without)} ({row.pairs_without} pairs)" if _ended(row) else ""
    return [
        f"{row.diverged} / {row.reference_diverged}",
        f"{row.collapsed} / {row.reference_collapsed}",
        without,
    ]


def _varies(row: Comparison) -> list[str]:
    searches = _limits(row.search_deviation, row.search_deviation_low, row.search_deviation_high)
    if row.pick_deviation is not None:
        searches = f"about {100 * row.pick_deviation:.2f}"
    return [searches, _limits(row.seed_deviation, row.seed_deviation_low, row.seed_deviation_high)]


def _limits(deviation: float | None, low: float | None, high: float | None) -> str:
    """A deviation in points, with its interval."""
    if deviation is None:
        return "-"
    return f"{100 * deviation:.2f}" + ("" if low is None else f" [{percent(low)}, {percent(high)}]")


def accuracy(findings: Findings) -> list[list[str]]:
    """The table of the confirmed arms' own figures: a header, then a line for each finalist."""
    ratios = list(dict.fromkeys(ratio for arm in findings.arms for ratio in arm.accuracy))
    sized = any(arm.parameters_end for arm in findings.arms)
    failed = any(arm.failed for arm in findings.arms)
    names = [f"r = {ratio}, %" if findings.keep_ratio_matters else "accuracy, %" for ratio in ratios]
    head = ["arm", "runs", *names, "best epoch, %", "last epoch, %", "inflation"]
    head += ["failed"] if failed else []
    head += ["parameters"] if sized else []
    head += [CHOSEN] if any(arm.settings for arm in findings.arms) else []
    return [head, *(_accuracy_line(head, ratios, arm) for arm in findings.arms)]


def _accuracy_line(head: list[str], ratios: list[str], arm: Confirmed) -> list[str]:
    line = [label(arm), f"{arm.finished}{NO_BREAK}of{NO_BREAK}{arm.seeds}"]
    for ratio in ratios:
        mean, error = arm.accuracy[ratio].mean, arm.accuracy[ratio].standard_error
        line.append(percent(mean) + (f" ±{NO_BREAK}{percent(error)}" if error is not None else ""))
    line += [percent(arm.best_epoch), percent(arm.last_epoch), points(arm.inflation)]
    if "failed" in head:
        line.append(failure_rate(arm))
    if "parameters" in head:
        line.append(_counts(arm.parameters_start, arm.parameters_end))
    if CHOSEN in head:
        line.append(_chosen(arm))
    return line


def replication(findings: Findings) -> list[list[str]]:
    """The table of a paper's figures beside ours: a header, then a line for each arm."""
    if not findings.replication:
        return []
    ratios = findings.keep_ratio_matters
    best, last = "ours: best epoch", "ours: last epoch"
    head = ["arm", "published, %", f"{best} at its own r, %" if ratios else f"{best}, %", "at epoch"]
    head += ["r there", "nonzero there"] if ratios else []
    head += [f"{last} at r = 1, %" if ratios else f"{last}, %", "training less test, points"]
    return [head, *(_replicated(arm, ratios) for arm in findings.replication)]


def _replicated(arm: Replicated, ratios: bool) -> list[str]:
    line = [arm.arm, percent(arm.published), percent(arm.best), f"{arm.epoch:.0f}"]
    if ratios:
        shares = (arm.keep_ratio, arm.nonzero_rate)
        line += ["-" if share is None else f"{share:.2f}" for share in shares]
    return [*line, percent(arm.last), points(arm.gap)]


def _counts(start: float | None, end: float | None) -> str:
    """The number of parameters, at the start and at the end where these differ."""
    if start is None or end is None:
        return "-"
    return f"{end:,.0f}" if start == end else f"{start:,.0f} → {end:,.0f}"


def _chosen(arm: Confirmed) -> str:
    """What the only search picked: once where it is the same for all endpoints, else for each."""
    picked = arm.settings_by_search[0] if arm.settings_by_search else {}
    if len({short_settings(settings) for settings in picked.values()}) > 1:
        return "; ".join(f"r = {ratio}: {short_settings(own)}" for ratio, own in picked.items())
    return short_settings(arm.settings) or "-"


def picks(findings: Findings) -> list[list[str]]:
    """The table of what each of several searches picked: a header, and a line for each arm and search."""
    lines: list[list[str]] = []
    for arm in findings.arms:
        for number, picked in enumerate(arm.settings_by_search, start=1):
            endpoints: dict[str, list[str]] = {}
            for ratio, settings in picked.items():
                endpoints.setdefault(short_settings(settings), []).append(ratio)
            for settings, ratios in endpoints.items():
                if settings:
                    lines.append([label(arm), str(number), " and ".join(ratios), settings])
    several = findings.study.search.replicates > 1
    return [["arm", "search", "for r", CHOSEN], *lines] if lines and several else []


def margins(findings: Findings) -> str:
    """The declared margins in words; empty where there are none."""
    study = findings.study
    listed = [(ratio, study.margin(ratio)) for ratio in study.analysis.endpoints]
    return ", ".join(
        f"{amount(margin)}{at(findings, ratio)}" for ratio, margin in listed if margin is not None
    )
