"""The findings as one page without a network. Numbers come from `findings`, words from `wording`, pictures from `pictures`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.gains.rows import Compared

ON = "@"
from sweep.views.reading import Reading
from sweep.views.report import pictures
from sweep.views.report.findings import Course, courses, findings
from sweep.views.report.words import (
    ACROSS,
    FEW,
    across_cells,
    answer,
    at,
    cautions,
    cells,
    header,
    interval,
    label,
    markdown,
    over_others,
    plain,
    points,
    probability,
    ranked,
    references,
    seen_before,
)

TEMPLATES = Path(__file__).parent / "templates"
CHOSEN = "chosen"
"""The column of words in the table of accuracies."""


@dataclass(frozen=True)
class Report:
    """What was found, and how the candidates went through their epochs."""

    numbers: dict[str, Any]
    drawn: dict[str, Course]

    @classmethod
    def of(cls, reading: Reading, compared: Sequence[Compared] | None = None) -> Report:
        """Of a study as it stands. Looking is recorded."""
        drawn = courses(reading)
        return cls(findings(reading, reading.compare() if compared is None else compared, drawn), drawn)


def page_and_note(reading: Reading, compared: Sequence[Compared]) -> tuple[str, str]:
    """For MLflow: the page, and a description for the experiment's own."""
    report = Report.of(reading, compared)
    return page(report), markdown(report.numbers)


def page(report: Report) -> str:
    """One HTML file that needs nothing else. Everything that people wrote is escaped; only our own pictures are not."""
    import jinja2

    numbers = report.numbers
    rooms = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    bases = list(dict.fromkeys(it["arm"].partition(ON)[0] for it in numbers["arms"]))
    colors = {it["arm"]: bases.index(it["arm"].partition(ON)[0]) for it in numbers["arms"]}
    return rooms.get_template("report.html").render(
        it=numbers,
        answer=answer(numbers),
        cautions=cautions(numbers),
        across={"header": ACROSS, "rows": across_cells(numbers), "few": FEW},
        tables=[_table(numbers, reference) for reference in references(numbers)],
        others=over_others(numbers),
        beside=[
            _beside(row, row["reference_arm"] in numbers["baselines"])
            for reference in references(numbers)
            for rows in ranked(numbers, reference)
            for row in rows
            if reference in numbers["baselines"] or row["role"] == "family"
        ],
        accuracy=_accuracy(numbers),
        by_ratio=_by_ratio(numbers, colors),
        courses=[
            {
                "title": label(arm),
                "caption": f"{report.drawn[arm['candidate']].seeds} seeds",
                "svg": pictures.course(
                    report.drawn[arm["candidate"]], colors[arm["arm"]], numbers["keep_ratios"]
                ),
            }
            for arm in numbers["arms"]
            if arm["candidate"] in report.drawn
        ],
        searches=[_search(it, colors) for it in numbers["search"] if it["candidates"]],
        before=seen_before(numbers),
        declared=json.dumps(numbers["analysis"], indent=1, ensure_ascii=False),
    )


def _by_ratio(numbers: dict[str, Any], colors: dict[str, int]) -> list[dict[str, str]]:
    """A picture for each task, where more than one keep ratio was measured."""
    if len({ratio for arm in numbers["arms"] for ratio in arm["accuracy"]}) < 2:
        return []
    return [
        {
            "svg": pictures.by_ratio([arm for arm in numbers["arms"] if arm["task"] == task], colors),
            "caption": f"{f'On {task}: the' if task else 'The'} same final weights, read at each measured keep ratio.",
        }
        for task in numbers["tasks"] or [""]
    ]


def _search(found: dict[str, Any], colors: dict[str, int]) -> dict[str, str]:
    shares = sorted(found["importances"].items(), key=lambda it: -it[1])
    mattered = (
        "; what mattered: " + ", ".join(f"{setting} {100 * share:.0f} %" for setting, share in shares)
        if shares
        else ""
    )
    told = f"{len(found['candidates'])} candidates, the larger the dot the more seeds{mattered}"
    return {
        "title": found["arm"],
        "caption": told,
        "svg": pictures.search(found, colors.get(found["arm"], 0)),
    }


def _table(numbers: dict[str, Any], reference: str) -> dict[str, Any]:
    lines, primary = ranked(numbers, reference), reference in numbers["baselines"]
    task = reference.partition(ON)[2]
    name = plain(reference, task)
    drawn = [
        {
            "svg": pictures.gains([rows[i] for rows in lines], name),
            "caption": (at(numbers, ratio).strip().capitalize() + ". " if numbers["keep_ratios"] else "")
            + "Thick: each interval; thin: of the whole family together. Blue is tested, grey a control, "
            "orange a repeat. An open dot lacks pairs.",
        }
        for i, ratio in enumerate(numbers["analysis"]["endpoints"])
        if any(rows[i]["gain"] is not None for rows in lines)
    ]
    rows = [{"role": rows[0]["role"], "cells": cells(numbers, rows)} for rows in lines]
    title = f"Gains over {name}" + (f" on {task}" if task else "") + ("" if primary else ", for comparison")
    folded = bool(task) and not primary  # a study of many tasks has many of these
    return {
        "reference": name,
        "title": title,
        "folded": folded,
        "header": header(numbers),
        "rows": rows,
        "pictures": drawn,
    }


def _beside(row: dict[str, Any], primary: bool) -> list[str]:
    def plain(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    without = f"{points(row['gain_without'])} ({row['pairs_without']} pairs)"
    ended = [f"{row[kind]} / {row[f'reference_{kind}']}" for kind in ("diverged", "collapsed")]
    return [
        label(row) + ("" if primary else f" over {row['reference_arm']}"),
        f"{row['keep_ratio']:g}",
        str(row["pairs"]),
        plain(row["effect_size"]),
        probability(row["p_value"]) + (f" ± {row['p_error']:.1g}" if row["p_error"] else ""),
        probability(row["welch_p_value"]),
        probability(row["wilcoxon_p_value"]),
        plain(row["correlation"]),
        interval(row, "family_low", "family_high"),
        points(row["detectable_gain"]),
        *ended,
        without,
    ]


def _accuracy(numbers: dict[str, Any]) -> dict[str, Any]:
    ratios = list(dict.fromkeys(ratio for arm in numbers["arms"] for ratio in arm["accuracy"]))
    sized = any(arm["parameters_end"] for arm in numbers["arms"])
    searched = any(arm["settings"] for arm in numbers["arms"])

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    def count(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}"

    rows: list[list[str]] = []
    for arm in numbers["arms"]:
        cells = [label(arm), f"{arm['finished']} of {arm['seeds']}"]
        for ratio in ratios:
            spread = arm["accuracy"][ratio]
            cells.append(
                percent(spread["mean"])
                + (f" ± {percent(spread['standard_error'])}" if spread["standard_error"] is not None else "")
            )
        cells += [percent(arm["best_epoch"]), percent(arm["last_epoch"]), points(arm["inflation"])]
        cells += [count(arm["parameters_start"]), count(arm["parameters_end"])] if sized else []
        rows.append([*cells, *([_chosen(arm["settings"])] if searched else [])])
    named = [f"r = {r}, %" for r in ratios] if numbers["keep_ratios"] else ["accuracy, %" for _ in ratios]
    more = [*(["parameters at the start", "at the end"] if sized else []), *([CHOSEN] if searched else [])]
    return {
        "header": ["candidate", "seeds", *named, "best epoch, %", "last epoch, %", "inflation", *more],
        "rows": rows,
    }


def _chosen(settings: dict[str, Any]) -> str:
    """A finalist's settings in short, without the part that they belong to; a file of one's own by its name."""

    def short(value: Any) -> str:
        return (
            f"{value:.3g}"
            if isinstance(value, float)
            else str(value["file"])
            if isinstance(value, dict)
            else str(value)
        )

    return (
        ", ".join(f"{setting.partition('.')[2]} {short(value)}" for setting, value in settings.items())
        or "-"
    )
