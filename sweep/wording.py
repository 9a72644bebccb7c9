"""The findings in words: the answer, what to be careful of, and the table of gains in Markdown. Numbers come from `findings`."""

from __future__ import annotations

import math
from typing import Any

ORDER = ("family", "control", "repeat")


def points(value: float | None, digits: int = 2) -> str:
    """A share in points, with its sign."""
    return "-" if value is None else f"{100 * value:+.{digits}f}" if math.isfinite(value) else ("+∞" if value > 0 else "-∞")


def probability(value: float | None) -> str:
    """Three digits."""
    return "-" if value is None else f"{value:.3g}"


def interval(row: dict[str, Any], low: str = "ci_low", high: str = "ci_high") -> str:
    """In points."""
    return "-" if row[low] is None else f"[{points(row[low])}, {points(row[high])}]"


def label(row: dict[str, Any]) -> str:
    """How a candidate is called: by its arm, and by its own name where the arm has several finalists."""
    return row["arm"] if row["finalists"] == 1 else row["candidate"] or row["arm"]


def answer(numbers: dict[str, Any]) -> list[str]:
    """What the declared family says, a sentence for each comparison that was found to differ."""
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
    said = [
        f"{label(row)} is {'better' if row['gain'] > 0 else 'worse'} than {row['reference_arm']} at r = {row['keep_ratio']:g} by "
        f"{100 * abs(row['gain']):.2f} points {interval(row)}, p = {probability(row['p_holm'])} after Holm "
        f"over {analysis['comparisons']} comparisons, {row['pairs']} pairs, on this test set."
        for row in found
    ]
    if rest := len(family) - len(found):
        which = f"The other {rest if rest > 1 else 'one'}" if found else f"All {rest}" if rest > 1 else "The one"
        said.append(f"{which} comparison{'s' if rest > 1 else ''} of the family show{'' if rest > 1 else 's'} no difference beyond chance.")
    return said


def cautions(numbers: dict[str, Any]) -> list[str]:
    """What a reader should know before believing it."""
    told: list[str] = []
    if numbers["mixed"]:
        told.append(f"The runs that are compared ran on different things ({', '.join(numbers['mixed'])}): see the end of the page.")
    fresh = {row["first_place"] for row in numbers["comparisons"] if row["first_place"]}
    if fresh:
        told.append(
            f"The first {max(fresh)} seeds had been seen before more were added; only the seeds after them are tested here. "
            "What the earlier ones said stands below as an earlier look: believe neither more than the other, and count both."
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
        key=lambda rows: (ORDER.index(rows[0]["role"]), -(rows[0]["gain"] if rows[0]["gain"] is not None else -math.inf)),
    )


def header(numbers: dict[str, Any]) -> list[str]:
    """Of the table of gains."""
    return ["arm", *(cell for r in numbers["analysis"]["endpoints"] for cell in (f"gain at r = {r:g}", "p", "interval", "±")), "pairs"]


def cells(numbers: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """A candidate's line in it; what was found stands between asterisks."""
    first = rows[0]
    name = label(first) if first["candidate"] else f"{first['arm']} (searching)"
    beside = first["reference_arm"] != numbers["analysis"]["baseline"]  # there, nothing is tested, and a method is no control
    line = [name + ("" if first["role"] == "family" or beside else f" ({first['role']})")]
    for row in rows:
        mark = "**" if row["p_holm"] is not None and row["p_holm"] <= numbers["analysis"]["alpha"] else ""
        both = f" ({100 * row['two_way_standard_error']:.2f})" if row["two_way_standard_error"] is not None else ""
        error = "-" if row["standard_error"] is None else f"{100 * row['standard_error']:.2f}{both}"
        line += [f"{mark}{points(row['gain'])}{mark}", f"{mark}{probability(row['p_holm'])}{mark}", interval(row), error]
    declared = numbers["analysis"]["pairs"] - first["first_place"]
    return [*line, str(first["pairs"]) if first["pairs"] == declared else f"{first['pairs']} of {declared}"]


def seen_before(numbers: dict[str, Any]) -> list[str]:
    """What the tests said at earlier looks, a line each."""
    return [
        f"Seeds {row['first_place'] + 1} to {look['pairs']}: {label(row)} over {row['reference_arm']} at r = {row['keep_ratio']:g}: "
        + (f"{points(row['gain'])} {interval(row)}, p = {probability(row['p_holm'])}." if row["p_value"] is not None else "not complete.")
        for look in numbers["earlier"]
        for row in look["comparisons"]
    ]


def references(numbers: dict[str, Any]) -> list[str]:
    """The arms that others are held against, the baseline first."""
    return list(dict.fromkeys(row["reference_arm"] for row in numbers["comparisons"]))


def markdown(numbers: dict[str, Any]) -> str:
    """The answer and the table of gains over the baseline."""
    lines = [*answer(numbers), *cautions(numbers), ""]
    names = header(numbers)
    lines += ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    lines += [
        "| " + " | ".join(_escaped(cell) for cell in cells(numbers, rows)) + " |"
        for rows in ranked(numbers, numbers["analysis"]["baseline"])
    ]
    lines += ["", "Earlier looks:", "", *(f"- {line}" for line in seen_before(numbers))] if numbers["earlier"] else []
    analysis = numbers["analysis"]
    lines.append(
        f"\nGains over {analysis['baseline']} in points of test accuracy, paired by seed; ± standard error over seeds (and images); "
        f"interval and p by {analysis['test']}, p after Holm over the family of {analysis['comparisons']}. "
        f"Declared analysis {numbers['hash']}."
    )
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
