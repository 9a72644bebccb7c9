"""The findings in Markdown: what `sweep report` prints, and the note in MLflow.

Sentences and cells hold names and reasons that strangers wrote.
"""

from __future__ import annotations

from sweep.views.markdown import escaped
from sweep.views.report.findings import Findings
from sweep.views.report.sentences import answer, cautions, seen_before, taken_over
from sweep.views.report.tables import ACROSS, across_cells, gains, header, over_others


def markdown(findings: Findings) -> str:
    """The verdicts in sentences, the cautions, and the tables of gains."""
    lines = [escaped(line) for line in (*answer(findings), *cautions(findings))]
    if findings.across:
        lines += ["", "Across tasks:", "", *_table(ACROSS, across_cells(findings))]
    for baseline in findings.study.baselines:
        task = findings.study.arms[baseline].task
        lines += ["", *([f"On {escaped(task)}:", ""] if task else [])]
        lines += _table(header(findings), gains(findings, baseline))
    if others := over_others(findings):
        lines += ["", "Tested over other arms, in the same family:", "", *_table(others[0], others[1:])]
    if before := seen_before(findings):
        lines += ["", "Earlier looks:", "", *(f"- {escaped(line)}" for line in before)]
    analysis = findings.study.analysis
    any_time = any(row.looks == 0 for row in findings.comparisons)
    test = "a test that allows looks at any time" if any_time else analysis.test
    spread = (
        "with what overlapping splits add"
        if findings.resampled
        else "(in parentheses: counting the choice of test images too)"
    )
    lines.append(
        f"\nGains over {escaped(analysis.baseline)} in points of test accuracy; ± standard error over pairs "
        f"{spread}; p by {test}, corrected over the family of {findings.study.comparisons} (Holm). "
        "The interval of a tested gain is the family's: all of these hold together. "
        f"That of a control is its own. Declared analysis {escaped(findings.hash)}."
    )
    return "\n".join([*lines, *map(escaped, taken_over(findings))])


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    return head + ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]
