"""One row of figures for each candidate in a phase. The report and the export share it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from sweep.planning.values import Cohort
from sweep.views.reading import Reading


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """One candidate in one phase.

    In the export each searched setting follows as a column of its own, named as in the study.
    """

    candidate: Annotated[str, "the key, with phase"]
    arm: Annotated[str, "of the study"]
    task: Annotated[str, "that the arm is run on; empty where the study lists no tasks"]
    phase: Annotated[str, "search or confirm"]
    seeds: Annotated[int, "runs that it was given so far: the first so many of the phase's pool"]
    finished: Annotated[int, "of them"]
    score: Annotated[
        float | None,
        "mean over the seeds at the primary endpoint, once all have finished: "
        "of validation images in search, of test images in confirm",
    ]
    score_standard_error: Annotated[float | None, "of it, over the seeds"]
    diverged: Annotated[int, "of its runs; they score 0"]
    collapsed: Annotated[int, "of its runs: their final training loss is that of a guess"]
    run_ids: Annotated[list[str], "by place in the pool"]


def candidate_row(reading: Reading, cohort: Cohort) -> CandidateRow:
    """The row of a candidate in a phase, from what is finished so far."""
    scores = np.array(cohort.scores)
    seeds = len(scores)
    finished = int(np.isfinite(scores).sum())
    score = math.fsum(scores) / seeds if seeds and finished == seeds else None
    error = float(scores.std(ddof=1)) / math.sqrt(seeds) if score is not None and seeds > 1 else None
    outcomes = [result.outcome for run_id in cohort.runs if (result := reading.plan.results.get(run_id))]
    return CandidateRow(
        candidate=cohort.candidate.name,
        arm=cohort.candidate.arm,
        task=reading.study.arms[cohort.candidate.arm].task,
        phase=cohort.phase,
        seeds=seeds,
        finished=finished,
        score=score,
        score_standard_error=error,
        diverged=outcomes.count("diverged"),
        collapsed=outcomes.count("collapsed"),
        run_ids=list(cohort.runs),
    )
