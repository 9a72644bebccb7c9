"""The findings in words: the answer, what to be careful of, and the table of gains in Markdown. Numbers come from `findings`."""

from __future__ import annotations

import math
from typing import Any

from sweep.statistics.paired import tasks_needed

ON = "@"

ORDER = ("family", "control", "repeat")


def points(value: float | None, digits: int = 2) -> str:
    """A share in points, with its sign."""
    return (
        "-"
        if value is None
        else f"{100 * value:+.{digits}f}"
        if math.isfinite(value)
        else ("+∞" if value > 0 else "-∞")
    )


def probability(value: float | None) -> str:
    """Three digits."""
    return "-" if value is None else f"{value:.3g}"


def interval(row: dict[str, Any], low: str = "ci_low", high: str = "ci_high") -> str:
    """In points."""
    return "-" if row[low] is None else f"[{points(row[low])}, {points(row[high])}]"


def label(row: dict[str, Any]) -> str:
    """How a candidate is called: by its arm, and by its own name where the arm has several finalists."""
    return row["arm"] if row["finalists"] == 1 else row["candidate"] or row["arm"]


def plain(name: str, task: str) -> str:
    """An arm's or a candidate's name where the place says on which task it is."""
    return name.replace(f"{ON}{task}", "", 1) if task else name


def at(numbers: dict[str, Any], ratio: float) -> str:
    """The keep ratio of a figure, where the study has several or a policy moves it."""
    return f" at r = {ratio:g}" if numbers["keep_ratios"] else ""


def answer(numbers: dict[str, Any]) -> list[str]:
    """What the declared family says, a sentence for each comparison that was found to differ, and one for each across tasks."""
    analysis = numbers["analysis"]
    family = [row for row in numbers["comparisons"] if row["role"] == "family"]
    if any(row["p_holm"] is None for row in family):
        lacking = sorted({line for row in family for line in row["missing"]})
        whole = sum(row["state"] == "complete" for row in family)
        shown = "; ".join(lacking[:3]) + (f"; and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        return [
            f"Not complete yet: {whole} of the {analysis['comparisons']} comparisons of the family have all their pairs. Lacking: {shown}."
        ]
    found = [row for row in family if row["p_holm"] <= analysis["alpha"]]
    said = [*_across_tasks(numbers), *(_finding(numbers, row) for row in found)]
    if rest := len(family) - len(found):
        # never that they are equal: a test that finds nothing says so little
        which, intervals = (
            (f"{rest} comparisons", "their intervals say")
            if rest > 1
            else ("comparison", "its interval says")
        )
        said.append(
            (f"In the {'other ' if found else ''}{which}" if found or rest == 1 else f"In all {which}")
            + f" of the family no difference is shown; how large one could be, {intervals}."
        )
    return said


def _finding(numbers: dict[str, Any], row: dict[str, Any]) -> str:
    task = row["task"]
    return (
        (f"On {task}: " if task else "")
        + f"{plain(label(row), task)} is {'better' if row['gain'] > 0 else 'worse'} than {plain(row['reference_arm'], task)}"
        + f"{at(numbers, row['keep_ratio'])} by {100 * abs(row['gain']):.2f} points {interval(row)}, p = {probability(row['p_holm'])} "
        + f"after Holm over {numbers['analysis']['comparisons']} comparisons, {row['pairs']} pairs, "
        + ("over resampled splits." if row["overlap"] else "on this test set.")
    )


def _across_tasks(numbers: dict[str, Any]) -> list[str]:
    """What the family's comparisons across tasks found, or why they may find nothing."""
    family = [row for row in numbers["across"] if row["role"] == "family"]
    if not family:
        return []
    tasks, alpha = len(numbers["tasks"]), numbers["analysis"]["alpha"]
    if not family[0]["claimable"]:
        few = f"{tasks} tasks are too few to claim anything across tasks"
        return [
            f"{few}: {len(family)} comparison{'s' if len(family) > 1 else ''} at {alpha:g} would take {tasks_needed(len(family), alpha)}."
        ]
    found = [row for row in family if row["p_holm"] is not None and row["p_holm"] <= alpha]
    said = [
        f"Across {tasks} tasks {row['arm']} is {'better' if row['median_gain'] > 0 else 'worse'} than {row['reference_arm']}"
        f"{at(numbers, row['keep_ratio'])}: a median gain of {points(row['median_gain'])} points, wins on {row['wins']}, "
        f"p = {probability(row['p_holm'])} after Holm over {len(family)}."
        for row in found
    ]
    return said or [
        f"Across {tasks} tasks no difference is shown between an arm of the family and what it is held against; how large one could be on "
        "each task, the intervals there say."
    ]


def cautions(numbers: dict[str, Any]) -> list[str]:
    """What a reader should know before believing it."""
    told: list[str] = []
    if numbers["mixed"]:
        told.append(
            f"The runs that are compared ran on different things ({', '.join(numbers['mixed'])}): see the end of the page."
        )
    fresh = {row["first_place"] for row in numbers["comparisons"] if row["first_place"]}
    if fresh:
        told.append(
            f"The first {max(fresh)} seeds had been seen before more were added; only the seeds after them are tested here. "
            "What the earlier ones said stands below as an earlier look: believe neither more than the other, and count both."
        )
    if any(sizes_differ(row) for row in numbers["comparisons"]):
        told.append(
            "Some arms are held against networks of another size: where that is so, the tables of gains show both counts of parameters."
        )
    for arm in numbers["arms"]:
        if ended := [f"{arm[kind]} {kind}" for kind in ("diverged", "collapsed") if arm[kind]]:
            told.append(f"{label(arm)}: {' and '.join(ended)} of {arm['finished']} runs.")
    return told


def ranked(numbers: dict[str, Any], reference: str) -> list[list[dict[str, Any]]]:
    """A reference's comparisons, candidate by candidate: the family first, the greatest primary gain on top."""
    by_candidate: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for row in numbers["comparisons"]:
        if row["reference_arm"] == reference:
            by_candidate.setdefault((row["arm"], row["candidate"]), []).append(row)
    return sorted(
        by_candidate.values(),
        key=lambda rows: (
            ORDER.index(rows[0]["role"]),
            -(rows[0]["gain"] if rows[0]["gain"] is not None else -math.inf),
        ),
    )


def sizes_differ(row: dict[str, Any]) -> bool:
    """Whether a candidate and its reference are known to have different numbers of parameters."""
    own, other = row["parameters"], row["reference_parameters"]
    return own is not None and other is not None and own != other


def sizes(row: dict[str, Any]) -> str:
    """Parameters of a candidate and of its reference, at the end of their runs."""
    return f"{row['parameters']:,.0f} / {row['reference_parameters']:,.0f}" if sizes_differ(row) else ""


def header(numbers: dict[str, Any]) -> list[str]:
    """Of the table of gains."""
    ratios = numbers["analysis"]["endpoints"]
    more = ["parameters"] if any(sizes_differ(row) for row in numbers["comparisons"]) else []
    return [
        "arm",
        *(cell for r in ratios for cell in (f"gain{at(numbers, r)}", "p", "interval", "±")),
        *more,
        "pairs",
    ]


def cells(numbers: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """A candidate's line in it; what was found stands between asterisks."""
    first = rows[0]
    name = plain(label(first) if first["candidate"] else f"{first['arm']} (searching)", first["task"])
    beside = first["reference_arm"] not in numbers["baselines"]  # there, a method is no control
    line = [name + ("" if first["role"] == "family" or beside else f" ({first['role']})")]
    for row in rows:
        mark = "**" if row["p_holm"] is not None and row["p_holm"] <= numbers["analysis"]["alpha"] else ""
        both = (
            f" ({100 * row['two_way_standard_error']:.2f})"
            if row["two_way_standard_error"] is not None
            else ""
        )
        error = "-" if row["standard_error"] is None else f"{100 * row['standard_error']:.2f}{both}"
        line += [
            f"{mark}{points(row['gain'])}{mark}",
            f"{mark}{probability(row['p_holm'])}{mark}",
            interval(row),
            error,
        ]
    line += [sizes(first)] if "parameters" in header(numbers) else []
    declared = numbers["analysis"]["pairs"] - first["first_place"]
    return [*line, str(first["pairs"]) if first["pairs"] == declared else f"{first['pairs']} of {declared}"]


ACROSS = ["arm", "over", "tasks", "wins", "ties", "median gain", "p"]
FEW = "too few tasks to claim anything"


def across_cells(numbers: dict[str, Any]) -> list[list[str]]:
    """The comparisons across tasks that are tested or over the baseline (the export has all), a line each: reference by reference, the
    baseline first, and the family before the others."""
    listed, baseline = len(numbers["tasks"]), numbers["analysis"]["baseline"]
    shown = [row for row in numbers["across"] if row["role"] == "family" or row["reference_arm"] == baseline]
    over = list(dict.fromkeys(row["reference_arm"] for row in shown))

    def order(row: dict[str, Any]) -> tuple[int, int, float]:
        gain = row["median_gain"]
        return (
            over.index(row["reference_arm"]),
            ORDER.index(row["role"]),
            -gain if gain is not None else math.inf,
        )

    lines: list[list[str]] = []
    for row in sorted(shown, key=order):
        family = row["role"] == "family"
        p = (
            ""
            if not family
            else FEW
            if not row["claimable"] and not row["missing"]
            else probability(row["p_holm"])
        )
        mark = (
            "**"
            if family
            and row["claimable"]
            and row["p_holm"] is not None
            and row["p_holm"] <= numbers["analysis"]["alpha"]
            else ""
        )
        count = str(row["tasks"]) if row["tasks"] == listed else f"{row['tasks']} of {listed}"
        role = "" if family else f" ({row['role']})"
        gain = f"{mark}{points(row['median_gain'])}{mark}"
        reference = row["reference_arm"] + at(numbers, row["keep_ratio"])
        lines.append(
            [
                row["arm"] + role,
                reference,
                count,
                str(row["wins"]),
                str(row["ties"]),
                gain,
                f"{mark}{p}{mark}",
            ]
        )
    return lines


def seen_before(numbers: dict[str, Any]) -> list[str]:
    """What the tests said at earlier looks, a line each."""
    return [
        f"Seeds {row['first_place'] + 1} to {look['pairs']}: {label(row)} over {row['reference_arm']}{at(numbers, row['keep_ratio'])}: "
        + (
            f"{points(row['gain'])} {interval(row)}, p = {probability(row['p_holm'])}."
            if row["p_value"] is not None
            else "not complete."
        )
        for look in numbers["earlier"]
        for row in look["comparisons"]
    ]


def references(numbers: dict[str, Any]) -> list[str]:
    """The arms that others are held against, the baseline first."""
    return list(dict.fromkeys(row["reference_arm"] for row in numbers["comparisons"]))


def over_others(numbers: dict[str, Any]) -> list[list[str]]:
    """The gains over other arms than the baseline that are tested, a line for each candidate and reference; their header comes first."""
    found = [
        [label(rows[0]), rows[0]["reference_arm"], *cells(numbers, rows)[1:]]
        for reference in references(numbers)
        if reference not in numbers["baselines"]
        for rows in ranked(numbers, reference)
        if rows[0]["role"] == "family"
    ]
    return [["arm", "over", *header(numbers)[1:]], *found] if found else []


def markdown(numbers: dict[str, Any]) -> str:
    """The answer and the tables of gains: over the baseline, task by task, and those over other arms that are tested."""
    lines = [*answer(numbers), *cautions(numbers)]
    if numbers["across"]:
        lines += ["", "Across tasks:", "", *_table(ACROSS, across_cells(numbers))]
    for baseline in numbers["baselines"]:
        task = baseline.partition(ON)[2]
        lines += ["", *([f"On {task}:", ""] if task else [])]
        lines += _table(header(numbers), [cells(numbers, rows) for rows in ranked(numbers, baseline)])
    if others := over_others(numbers):
        lines += ["", "Tested over other arms, in the same family:", "", *_table(others[0], others[1:])]
    lines += (
        ["", "Earlier looks:", "", *(f"- {line}" for line in seen_before(numbers))]
        if numbers["earlier"]
        else []
    )
    analysis = numbers["analysis"]
    spread = "with what overlapping splits add" if numbers["resampled"] else "(and images)"
    lines.append(
        f"\nGains over {analysis['baseline']} in points of test accuracy, paired by seed; ± standard error over seeds {spread}; "
        f"interval and p by {analysis['test']}: p is corrected over the family of {analysis['comparisons']} (Holm), and the interval is "
        "that of the test by itself (the family's interval stands on the page). "
        f"Declared analysis {numbers['hash']}."
    )
    return "\n".join(lines)


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    head = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    return head + ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
