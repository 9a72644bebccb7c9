"""The findings as one page that needs no network. Numbers come from `findings`, sentences from `words`, pictures from `pictures`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.format import points, probability
from sweep.gains.rows import Compared
from sweep.study.arms import without_task
from sweep.views.reading import Reading
from sweep.views.report import pictures, words
from sweep.views.report.findings import Comparison, Course, Findings, Searched, courses, findings
from sweep.views.report.words import label

TEMPLATES = Path(__file__).parent / "templates"
CHOSEN = "chosen"
"""The column of words in the table of accuracies."""


@dataclass(frozen=True)
class Report:
    """What was found, and how the candidates went through their epochs."""

    findings: Findings
    courses: dict[str, Course]

    @classmethod
    def of(cls, reading: Reading, compared: Sequence[Compared] | None = None) -> Report:
        """The report of a study as it stands. Looking is recorded, unless `compared` is given."""
        drawn = courses(reading)
        return cls(findings(reading, drawn, compared), drawn)


def page_and_note(reading: Reading, compared: Sequence[Compared]) -> tuple[str, str]:
    """The page for MLflow, and a description for the experiment's own page."""
    report = Report.of(reading, compared)
    return page(report), words.markdown(report.findings)


def page(report: Report) -> str:
    """One HTML file that needs nothing else. Everything that people wrote is escaped; only our own pictures are not."""
    import jinja2

    found = report.findings
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    references = words.references(found)
    bases = list(dict.fromkeys(found.study.arms[arm.arm].base for arm in found.arms))
    colors = {arm.arm: bases.index(found.study.arms[arm.arm].base) for arm in found.arms}
    return templates.get_template("report.html").render(
        found=found,
        study=found.study,
        answer=words.answer(found),
        cautions=words.cautions(found),
        across={"header": words.ACROSS, "rows": words.across_cells(found), "few": words.FEW},
        tables=[_table(found, reference) for reference in references],
        others=words.over_others(found),
        beside=[
            _beside(row, row.reference_arm in found.study.baselines)
            for reference in references
            for rows in words.ranked(found, reference)
            for row in rows
            if reference in found.study.baselines or row.role == "family"
        ],
        accuracy=_accuracy(found),
        by_ratio=_by_ratio(found, colors),
        courses=[
            {
                "title": label(arm),
                "caption": f"{report.courses[arm.candidate].seeds} seeds",
                "svg": pictures.course(report.courses[arm.candidate], colors[arm.arm], found.keep_ratios),
            }
            for arm in found.arms
            if arm.candidate in report.courses
        ],
        searches=[_search(search, colors) for search in found.search if search.candidates],
        before=words.seen_before(found),
        declared=json.dumps(found.declared, indent=1, ensure_ascii=False),
    )


def _by_ratio(found: Findings, colors: dict[str, int]) -> list[dict[str, str]]:
    """A picture for each task, where more than one keep ratio was measured."""
    if len({ratio for arm in found.arms for ratio in arm.accuracy}) < 2:
        return []
    return [
        {
            "svg": pictures.by_ratio([arm for arm in found.arms if arm.task == task], colors),
            "caption": f"{f'On {task}: the' if task else 'The'} same final weights, read at each measured keep ratio.",
        }
        for task in found.study.tasks
    ]


def _search(search: Searched, colors: dict[str, int]) -> dict[str, str]:
    shares = sorted(search.importances.items(), key=lambda item: -item[1])
    caption = f"{len(search.candidates)} candidates, the larger the dot the more seeds"
    if shares:
        mattered = ", ".join(f"{setting} {100 * share:.0f} %" for setting, share in shares)
        caption += f"; what mattered: {mattered}"
    return {
        "title": search.arm,
        "caption": caption,
        "svg": pictures.search(search, colors.get(search.arm, 0)),
    }


def _table(found: Findings, reference: str) -> dict[str, Any]:
    lines, primary = words.ranked(found, reference), reference in found.study.baselines
    task = found.study.arms[reference].task
    name = without_task(reference, task)
    drawn = [
        {
            "svg": pictures.gains([rows[i] for rows in lines], name),
            "caption": (words.at(found, ratio).strip().capitalize() + ". " if found.keep_ratios else "")
            + "Thick: each interval; thin: of the whole family together. Blue is tested, grey a control, "
            "orange a repeat. An open dot lacks pairs.",
        }
        for i, ratio in enumerate(found.study.analysis.endpoints)
        if any(rows[i].gain is not None for rows in lines)
    ]
    return {
        "reference": name,
        "title": f"Gains over {name}"
        + (f" on {task}" if task else "")
        + ("" if primary else ", for comparison"),
        "folded": bool(task) and not primary,  # a study of many tasks has many of these
        "header": words.header(found),
        "rows": [{"role": rows[0].role, "cells": words.cells(found, rows)} for rows in lines],
        "pictures": drawn,
    }


def _beside(row: Comparison, primary: bool) -> list[str]:
    """A comparison's line in the table of what else can be said of it."""

    def decimals(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    return [
        label(row) + ("" if primary else f" over {row.reference_arm}"),
        f"{row.keep_ratio:g}",
        str(row.pairs),
        decimals(row.effect_size),
        probability(row.p_value) + (f" ± {row.p_error:.1g}" if row.p_error else ""),
        probability(row.welch_p_value),
        probability(row.wilcoxon_p_value),
        decimals(row.correlation),
        words.interval(row.family_low, row.family_high),
        points(row.detectable_gain),
        f"{row.diverged} / {row.reference_diverged}",
        f"{row.collapsed} / {row.reference_collapsed}",
        f"{points(row.gain_without)} ({row.pairs_without} pairs)",
    ]


def _accuracy(found: Findings) -> dict[str, Any]:
    """The table of the confirmed candidates' own figures."""
    ratios = list(dict.fromkeys(ratio for arm in found.arms for ratio in arm.accuracy))
    sized = any(arm.parameters_end for arm in found.arms)
    searched = any(arm.settings for arm in found.arms)

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    def count(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}"

    rows: list[list[str]] = []
    for arm in found.arms:
        cells = [label(arm), f"{arm.finished} of {arm.seeds}"]
        for ratio in ratios:
            mean, error = arm.accuracy[ratio].mean, arm.accuracy[ratio].standard_error
            cells.append(percent(mean) + (f" ± {percent(error)}" if error is not None else ""))
        cells += [percent(arm.best_epoch), percent(arm.last_epoch), points(arm.inflation)]
        cells += [count(arm.parameters_start), count(arm.parameters_end)] if sized else []
        rows.append([*cells, *([_chosen(arm.settings)] if searched else [])])
    columns = [f"r = {ratio}, %" if found.keep_ratios else "accuracy, %" for ratio in ratios]
    more = [*(["parameters at the start", "at the end"] if sized else []), *([CHOSEN] if searched else [])]
    head = ["candidate", "seeds", *columns, "best epoch, %", "last epoch, %", "inflation", *more]
    return {"header": head, "rows": rows}


def _chosen(settings: dict[str, Any]) -> str:
    """A finalist's settings in short, without the part that they belong to; a file of one's own by its name."""

    def short(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3g}"
        return str(value["file"]) if isinstance(value, dict) else str(value)

    return (
        ", ".join(f"{setting.partition('.')[2]} {short(value)}" for setting, value in settings.items())
        or "-"
    )
