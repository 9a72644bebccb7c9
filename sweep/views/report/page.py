"""The findings as one HTML page that needs no network. Its parts are made in the other modules here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.gains.rows import Compared
from sweep.ledger.looks import GREW
from sweep.study.arms import without_task
from sweep.views.reading import Reading
from sweep.views.report import labels, pictures, sentences, tables, words
from sweep.views.report.courses import Course, Key, courses_of
from sweep.views.report.findings import Comparison, Findings, findings_of
from sweep.views.report.glossary import WORDS, with_links
from sweep.views.report.searched import Searched

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Report:
    """A study's findings, and the course of each confirmed arm."""

    findings: Findings
    courses: dict[Key, Course]

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
        lstrip_blocks=True,
    )
    colors = _colors(findings)
    matrix_header, matrix = tables.verdicts(findings)
    gains = [_gains_table(findings, reference) for reference in tables.references(findings)]
    html = templates.get_template("report.html").render(
        findings=findings,
        study=findings.study,
        searches_drawn=findings.study.search.replicates > 1,
        matrix_header=matrix_header,
        matrix=matrix,
        margins=tables.margins(findings),
        answer=sentences.answer(findings),
        cautions=sentences.cautions(findings),
        across=_table(tables.ACROSS, tables.across_cells(findings)),
        few=tables.FEW,
        tables=gains,
        others=_table_of(tables.over_others(findings)),
        beside=_table_of(tables.beside(findings)),
        spread=_table_of(tables.spread(findings)),
        accuracy=_table_of(tables.accuracy(findings)),
        replication=_table_of(tables.replication(findings)),
        by_ratio=_by_ratio(findings, colors),
        courses=_courses(report, colors),
        searches=[_search(search, colors) for search in findings.search if search.candidates],
        picks=_table_of(tables.picks(findings)),
        tuning=_tuning(findings, colors),
        no_tuning=sorted({tuning.why_not for tuning in findings.tuning if tuning.why_not}),
        before=sentences.seen_before(findings),
        grew=GREW.get(findings.grew_after_look, ""),
        glossary=WORDS,
        declared=json.dumps(findings.declared, indent=1, ensure_ascii=False),
    )
    return with_links(html)


def _colors(findings: Findings) -> dict[str, int]:
    """The color of each arm, by its number: one color on all tasks."""
    arms = findings.study.arms
    named = [*(arm.arm for arm in findings.arms), *(search.arm for search in findings.search)]
    bases = list(dict.fromkeys(arms[name].base for name in named))
    return {name: bases.index(arms[name].base) for name in named}


def _table(header: list[str], rows: list[list[str]], **more: Any) -> dict[str, Any]:
    """A table for the template: the column of what was chosen holds text, and may be broken into lines."""
    return {"header": header, "rows": rows, "text": tables.CHOSEN, **more}


def _table_of(lines: list[list[str]]) -> dict[str, Any]:
    """A table whose first line is its header."""
    return _table(lines[0], lines[1:]) if lines else _table([], [])


def _courses(report: Report, colors: dict[str, int]) -> list[dict[str, str]]:
    """The pictures of the confirmed arms over their epochs."""
    drawn: list[dict[str, str]] = []
    for arm in report.findings.arms:
        if course := report.courses.get((arm.arm, arm.rank)):
            svg = pictures.course(course, colors[arm.arm], report.findings.keep_ratio_matters)
            caption = f"{course.runs} runs" + (f" of {arm.searches} searches" if arm.searches > 1 else "")
            drawn.append({"title": labels.label(arm), "caption": caption, "svg": svg})
    return drawn


def _by_ratio(findings: Findings, colors: dict[str, int]) -> list[dict[str, str]]:
    """Accuracy by keep ratio, a picture for each task. None where only one keep ratio was measured."""
    if len({ratio for arm in findings.arms for ratio in arm.accuracy}) < 2:
        return []
    drawn: list[dict[str, str]] = []
    for task in findings.study.tasks:
        start = f"On {task}: the" if task else "The"
        svg = pictures.by_ratio([arm for arm in findings.arms if arm.task == task], colors)
        caption = (
            f"{start} final weights, read at each measured keep ratio with the largest activations kept."
        )
        if findings.study.search.objective == "each":
            caption += " Each endpoint has the finalists that were picked for it."
        drawn.append({"svg": svg, "caption": caption})
    return drawn


def _search(search: Searched, colors: dict[str, int]) -> dict[str, str]:
    """The picture of an arm's searches."""
    shares = sorted(search.importances.items(), key=lambda item: -item[1])
    of = f" of {search.searches} searches" if search.searches > 1 else ""
    caption = f"{len(search.candidates)} candidates{of}, the larger the dot the more seeds"
    if shares:
        mattered = ", ".join(f"{setting} {100 * share:.0f} %" for setting, share in shares)
        caption += f"; what mattered: {mattered}"
    return {"title": search.arm, "caption": caption, "svg": pictures.search(search, colors[search.arm])}


def _tuning(findings: Findings, colors: dict[str, int]) -> list[dict[str, str]]:
    """The pictures of the tuning curves, one for each task and endpoint that a search measured."""
    drawn: list[dict[str, str]] = []
    arms = findings.study.arms
    for task in findings.study.tasks:
        own = [tuning for tuning in findings.tuning if arms[tuning.arm].task == task]
        for ratio in dict.fromkeys(curve.keep_ratio for tuning in own for curve in tuning.curves):
            start = f"On {task}, p" if task else "P"
            caption = f"{start}icked by validation accuracy{labels.at(findings, ratio)}."
            drawn.append({"svg": pictures.tuning(own, ratio, colors), "caption": caption})
    return drawn


def _gains_table(findings: Findings, reference: str) -> dict[str, Any]:
    """The table of gains over a reference, with its pictures."""
    lines, over_baseline = tables.ranked(findings, reference), reference in findings.study.baselines
    task = findings.study.arms[reference].task
    name = without_task(reference, task)
    on_task = f" on {task}" if task else ""
    return {
        "reference": name,
        "title": f"Gains over {name}{on_task}{'' if over_baseline else ', for comparison'}",
        # a study of many tasks has many of these tables
        "folded": bool(task) and not over_baseline,
        "pictures": _gains_pictures(findings, lines, name),
        "roles": [row.role for rows in lines for row in rows],
        **_table(tables.header(findings), tables.gains(findings, reference)),
    }


def _gains_pictures(findings: Findings, lines: list[list[Comparison]], name: str) -> list[dict[str, str]]:
    """A picture of the gains at each endpoint that has any."""
    drawn: list[dict[str, str]] = []
    for i, ratio in enumerate(findings.study.analysis.endpoints):
        rows = [candidate_rows[i] for candidate_rows in lines]
        if any(row.gain is not None for row in rows):
            at = (
                f"{labels.at(findings, ratio).strip().capitalize()}. " if findings.keep_ratio_matters else ""
            )
            caption = (
                f"{at}Thin: the family's interval; thick: that of the test alone. Blue is tested, grey a "
                "control, orange a repeat. An open dot lacks pairs."
            )
            if any(row.margin for row in rows):
                caption += " The band is the margin."
            drawn.append({"svg": pictures.gains(rows, name), "caption": caption})
    return drawn
