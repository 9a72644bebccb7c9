"""The findings as one HTML page that needs no network, made from `findings`, `words` and `pictures`."""

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
from sweep.views.report.courses import Course, courses_of
from sweep.views.report.findings import Comparison, Findings, Searched, findings_of
from sweep.views.report.words import label

TEMPLATES = Path(__file__).parent / "templates"
CHOSEN = "chosen"
"""The name of the column of settings in the table of accuracies."""


@dataclass(frozen=True)
class Report:
    """A study's findings, and the course of each confirmed candidate."""

    findings: Findings
    courses: dict[str, Course]

    @classmethod
    def of(cls, reading: Reading, compared: Sequence[Compared] | None = None) -> Report:
        """The report of a study so far. A look is recorded, unless the caller gives the comparisons."""
        courses = courses_of(reading)
        return cls(findings_of(reading, courses, compared), courses)


def page_and_note(reading: Reading, compared: Sequence[Compared]) -> tuple[str, str]:
    """The page for MLflow, and the note for its experiment."""
    report = Report.of(reading, compared)
    return page(report), words.markdown(report.findings)


def page(report: Report) -> str:
    """The page as one HTML file. All text is escaped, because people wrote it; our own pictures are not."""
    import jinja2

    findings = report.findings
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    arms, baselines = findings.study.arms, findings.study.baselines
    references = words.references(findings)
    bases = list(dict.fromkeys(arms[arm.arm].base for arm in findings.arms))
    colors = {arm.arm: bases.index(arms[arm.arm].base) for arm in findings.arms}
    return templates.get_template("report.html").render(
        findings=findings,
        study=findings.study,
        answer=words.answer(findings),
        cautions=words.cautions(findings),
        across={"header": words.ACROSS, "rows": words.across_cells(findings), "few": words.FEW},
        tables=[_gains_table(findings, reference) for reference in references],
        others=words.over_others(findings),
        beside=[
            _more_figures(row, over_baseline=reference in baselines)
            for reference in references
            for rows in words.ranked(findings, reference)
            for row in rows
            if reference in baselines or row.role == "family"
        ],
        accuracy=_accuracy_table(findings),
        by_ratio=_by_ratio(findings, colors),
        courses=_courses(report, colors),
        searches=[_search(search, colors) for search in findings.search if search.candidates],
        before=words.seen_before(findings),
        declared=json.dumps(findings.declared, indent=1, ensure_ascii=False),
    )


def _courses(report: Report, colors: dict[str, int]) -> list[dict[str, str]]:
    """The pictures of the confirmed candidates over their epochs."""
    drawn: list[dict[str, str]] = []
    for arm in report.findings.arms:
        if course := report.courses.get(arm.candidate):
            svg = pictures.course(course, colors[arm.arm], report.findings.keep_ratio_matters)
            drawn.append({"title": label(arm), "caption": f"{course.seeds} seeds", "svg": svg})
    return drawn


def _by_ratio(findings: Findings, colors: dict[str, int]) -> list[dict[str, str]]:
    """Accuracy by keep ratio, a picture for each task. None where only one keep ratio was measured."""
    if len({ratio for arm in findings.arms for ratio in arm.accuracy}) < 2:
        return []
    drawn: list[dict[str, str]] = []
    for task in findings.study.tasks:
        start = f"On {task}: the" if task else "The"
        svg = pictures.by_ratio([arm for arm in findings.arms if arm.task == task], colors)
        caption = f"{start} same final weights, read at each measured keep ratio."
        drawn.append({"svg": svg, "caption": caption})
    return drawn


def _search(search: Searched, colors: dict[str, int]) -> dict[str, str]:
    """The picture of an arm's search."""
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


def _gains_table(findings: Findings, reference: str) -> dict[str, Any]:
    """The table of gains over a reference, with its pictures."""
    lines, over_baseline = words.ranked(findings, reference), reference in findings.study.baselines
    task = findings.study.arms[reference].task
    name = without_task(reference, task)
    on_task = f" on {task}" if task else ""
    return {
        "reference": name,
        "title": f"Gains over {name}{on_task}{'' if over_baseline else ', for comparison'}",
        # a study of many tasks has many of these tables
        "folded": bool(task) and not over_baseline,
        "header": words.header(findings),
        "rows": [{"role": rows[0].role, "cells": words.cells(findings, rows)} for rows in lines],
        "pictures": _gains_pictures(findings, lines, name),
    }


def _gains_pictures(findings: Findings, lines: list[list[Comparison]], name: str) -> list[dict[str, str]]:
    """A picture of the gains at each endpoint that has any."""
    drawn: list[dict[str, str]] = []
    for i, ratio in enumerate(findings.study.analysis.endpoints):
        rows = [candidate_rows[i] for candidate_rows in lines]
        if any(row.gain is not None for row in rows):
            at = f"{words.at(findings, ratio).strip().capitalize()}. " if findings.keep_ratio_matters else ""
            caption = (
                f"{at}Thick: each interval; thin: of the whole family together. Blue is tested, grey a "
                "control, orange a repeat. An open dot lacks pairs."
            )
            drawn.append({"svg": pictures.gains(rows, name), "caption": caption})
    return drawn


def _more_figures(row: Comparison, *, over_baseline: bool) -> list[str]:
    """A comparison's line in the table of further figures."""

    def decimals(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    return [
        label(row) + ("" if over_baseline else f" over {row.reference_arm}"),
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


def _accuracy_table(findings: Findings) -> dict[str, Any]:
    """The table of the confirmed candidates' own figures."""
    ratios = list(dict.fromkeys(ratio for arm in findings.arms for ratio in arm.accuracy))
    sized = any(arm.parameters_end for arm in findings.arms)
    searched = any(arm.settings for arm in findings.arms)

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    def count(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}"

    rows: list[list[str]] = []
    for arm in findings.arms:
        cells = [label(arm), f"{arm.finished} of {arm.seeds}"]
        for ratio in ratios:
            mean, error = arm.accuracy[ratio].mean, arm.accuracy[ratio].standard_error
            cells.append(percent(mean) + (f" ± {percent(error)}" if error is not None else ""))
        cells += [percent(arm.best_epoch), percent(arm.last_epoch), points(arm.inflation)]
        if sized:
            cells += [count(arm.parameters_start), count(arm.parameters_end)]
        if searched:
            cells.append(_short_settings(arm.settings))
        rows.append(cells)
    accuracies = [f"r = {ratio}, %" if findings.keep_ratio_matters else "accuracy, %" for ratio in ratios]
    header = ["candidate", "seeds", *accuracies, "best epoch, %", "last epoch, %", "inflation"]
    if sized:
        header += ["parameters at the start", "at the end"]
    if searched:
        header.append(CHOSEN)
    return {"header": header, "rows": rows}


def _short_settings(settings: dict[str, Any]) -> str:
    """A finalist's settings in short: names without the part before the dot, and files by their name."""

    def short(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3g}"
        return str(value["file"]) if isinstance(value, dict) else str(value)

    parts = [f"{setting.partition('.')[2]} {short(value)}" for setting, value in settings.items()]
    return ", ".join(parts) or "-"
