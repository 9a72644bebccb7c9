"""Rows about gains: a comparison on one task, and one across tasks.

The columns and their meanings go into the exported tables as they stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One candidate compared with one reference at one keep ratio.

    Accuracies and gains are shares, not points.
    """

    arm: Annotated[str, "of the study"]
    task: Annotated[str, "that both are run on; empty where the study lists no tasks"]
    rank: Annotated[int, "place of the candidate among the arm's finalists, from 1"]
    candidate: Annotated[
        str | None, "the arm's finalist; null while its search is under way, and with several searches"
    ]
    candidates: Annotated[list[str], "the finalist of each search, in order; empty while one is under way"]
    reference_arm: Annotated[str, "the arm it is held against"]
    reference: Annotated[str | None, "that arm's first finalist; null likewise"]
    references: Annotated[list[str], "its first finalist in each search"]
    keep_ratio: Annotated[float, "of the final weights that are compared"]
    role: Annotated[
        str,
        "family: tested, under the correction; control: shown, not tested; "
        "repeat: the baseline's or an arm's own null",
    ]
    state: Annotated[
        str, "complete, or incomplete: then there is no test, and the gain is that of the pairs so far"
    ]
    missing: Annotated[list[str], "what an incomplete comparison lacks"]
    unit: Annotated[
        str,
        "what one pair is: seed, a run of each side; or search, the means over the seeds of one search",
    ]
    pairs: Annotated[int, "complete pairs among those compared"]
    seeds: Annotated[int, "pairs of runs behind them"]
    searches: Annotated[int, "searches of each arm; 1: the gain is of the settings that one search picked"]
    look: Annotated[int, "number of the look that is shown, from 1; 0: before the first, or at any time"]
    looks: Annotated[int, "number of looks that are paid for; 0: any number of them"]
    better: Annotated[int, "pairs in which the candidate is the better half"]
    equal: Annotated[int, "pairs without a difference"]
    overlap: Annotated[
        float,
        "test rows over all other rows, where each seed draws its own test rows; 0 where all have the same",
    ]
    accuracy: Annotated[float | None, "mean over the pairs, of the candidate"]
    reference_accuracy: Annotated[float | None, "mean over the pairs, of the reference"]
    parameters: Annotated[
        float | None,
        "of the candidate's networks at the end of their runs, mean over the pairs; null where unknown",
    ]
    reference_parameters: Annotated[float | None, "of the reference's"]
    gain: Annotated[float | None, "mean difference over the pairs"]
    standard_error: Annotated[
        float | None,
        "of the gain, over the pairs; with what overlapping splits add, where each seed draws its own",
    ]
    two_way_standard_error: Annotated[
        float | None,
        "of the gain, were other seeds and other test images drawn; "
        "null where each seed has its own test images",
    ]
    ci_low: Annotated[
        float | None, "lower end of the interval that inverts the test at alpha, for this comparison alone"
    ]
    ci_high: Annotated[float | None, "its upper end"]
    family_low: Annotated[
        float | None,
        "lower end at alpha over the comparisons of the family: all such intervals hold together; "
        "the verdict and the sentences give this one",
    ]
    family_high: Annotated[float | None, "its upper end"]
    p_value: Annotated[
        float | None,
        "of the declared test, by itself; of several looks: their number times the smallest so far",
    ]
    p_error: Annotated[float | None, "Monte Carlo standard error of p_value; 0 where it is exact"]
    p_holm: Annotated[
        float | None, "corrected over the family; null outside it and until all of it is complete"
    ]
    margin: Annotated[float | None, "largest difference that was declared not to matter; null without one"]
    verdict: Annotated[
        str | None,
        "of the family: better, worse, equivalent or inconclusive; by the family's interval where a margin "
        "is declared, by p_holm elsewhere; null outside the family and until all of it is complete",
    ]
    effect_size: Annotated[
        float | None, "gain over the standard deviation of the differences, corrected for few pairs"
    ]
    welch_p_value: Annotated[
        float | None, "Welch's t test, as if seeds were no pairs: beside, for sensitivity"
    ]
    wilcoxon_p_value: Annotated[float | None, "Wilcoxon's signed-rank test: beside, for sensitivity"]
    correlation: Annotated[float | None, "of the two halves of the pairs"]
    detectable_gain: Annotated[
        float | None,
        "the gain that so many pairs find with a chance of 80 % at the strictest step of the correction",
    ]
    search_deviation: Annotated[
        float | None,
        "standard deviation of the gain from search to search; null with one seed or one search",
    ]
    search_deviation_low: Annotated[float | None, "lower end of its interval at alpha"]
    search_deviation_high: Annotated[float | None, "upper end"]
    seed_deviation: Annotated[float | None, "standard deviation of the gain from seed to seed of one search"]
    seed_deviation_low: Annotated[float | None, "lower end of its interval at alpha"]
    seed_deviation_high: Annotated[float | None, "upper end"]
    diverged: Annotated[int, "diverged runs of the candidate among the pairs; they score 0"]
    collapsed: Annotated[
        int, "collapsed runs of the candidate: their final training loss is that of a guess"
    ]
    reference_diverged: Annotated[int, "diverged runs of the reference"]
    reference_collapsed: Annotated[int, "collapsed runs of the reference"]
    pairs_without: Annotated[int, "pairs in which neither half diverged or collapsed"]
    gain_without: Annotated[float | None, "mean difference over those"]
    standard_error_without: Annotated[float | None, "its standard error"]


@dataclass(frozen=True, kw_only=True)
class Across:
    """One arm compared with one reference over all tasks, by the first finalist of each.

    Gains are shares, not points.
    """

    arm: Annotated[str, "of the study, whatever the task"]
    reference_arm: Annotated[str, "the arm it is held against, on every task"]
    keep_ratio: Annotated[float, "of the final weights that are compared"]
    role: Annotated[
        str, "family: tested, under the correction; control: shown, not tested; repeat: an arm's own null"
    ]
    tasks: Annotated[int, "on which the comparison is complete"]
    missing: Annotated[list[str], "the other tasks, and how many pairs each has"]
    median_gain: Annotated[float | None, "over those tasks, of the mean gain over a task's pairs"]
    wins: Annotated[int, "tasks with a gain above 0"]
    ties: Annotated[int, "tasks with a gain of 0; the test leaves them out"]
    p_value: Annotated[
        float | None,
        "Wilcoxon's signed-rank test of the tasks' gains, exact; null until every task is complete",
    ]
    p_holm: Annotated[float | None, "corrected over the family's comparisons across tasks; null outside it"]
    claimable: Annotated[
        bool,
        "whether so many tasks could show anything at alpha after the correction; never with fewer than six",
    ]
    run_pairs: Annotated[int, "pairs of runs on those tasks"]
    failed_pairs: Annotated[int, "of those pairs, the ones of which a run diverged or collapsed"]
    median_gain_without: Annotated[
        float | None,
        "as median_gain, without failed pairs; null where none failed, or a task has no other pair",
    ]
    wins_without: Annotated[int | None, "as wins, likewise"]
