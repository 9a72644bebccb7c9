"""The report's pictures, as SVG text. They are as wide as a telephone; a wide screen shows two in a row."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.study.arms import without_task
from sweep.views.report.confirmed import Confirmed
from sweep.views.report.courses import Course
from sweep.views.report.findings import Comparison
from sweep.views.report.labels import label
from sweep.views.report.searched import Searched, Tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.0
"""The width of a picture in inches."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    # text stays text, also with a $ in it
    "text.parse_math": False,
    "svg.fonttype": "none",
    # the same study gives the same file
    "svg.hashsalt": "report",
    "axes.axisbelow": True,
}
GREY, BAND = "#777777", 0.18
"""The color of controls, and the opacity of the band between the least and the greatest value."""


def _figure(height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    """An empty figure with some axes below each other."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    mpl.rcParams.update(STYLE)
    figure, axes = pyplot.subplots(
        rows, 1, figsize=(WIDTH, height), sharex=True, squeeze=False, layout="constrained"
    )
    return figure, list(axes[:, 0])


def _svg(figure: Figure) -> str:
    """The finished figure as SVG, without the XML header."""
    from matplotlib import pyplot

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def color(index: int) -> str:
    """The color of an arm, the same in every picture."""
    return f"C{index % 10}"


def gains(rows: Sequence[Comparison], reference: str) -> str:
    """Each gain as a dot, with the interval of its test alone thick and the family's thin.

    A margin is drawn as a grey band. The dot is open where the comparison is not complete.
    """
    with_gain = [row for row in rows if row.gain is not None]
    ends = [
        end for row in with_gain for end in (row.gain, row.family_low, row.family_high) if end is not None
    ]
    # an infinite interval runs off the picture
    reach = 1.2 * (max((abs(end) for end in ends if math.isfinite(end)), default=0.0) or 0.01)
    figure, (axes,) = _figure(0.9 + 0.28 * len(with_gain))
    for y, row in enumerate(reversed(with_gain)):
        color_of_role = {"family": "C0", "control": GREY, "repeat": "C1"}[row.role]
        intervals = ((row.family_low, row.family_high, 1.0), (row.ci_low, row.ci_high, 3.0))
        for low, high, width in intervals:
            if low is not None and high is not None:
                drawn = [100 * max(low, -2 * reach), 100 * min(high, 2 * reach)]
                axes.plot(drawn, [y, y], color=color_of_role, linewidth=width, solid_capstyle="butt")
        filling = "white" if row.ci_low is None else color_of_role
        assert row.gain is not None
        axes.plot(100 * row.gain, y, "o", color=color_of_role, markerfacecolor=filling, markersize=6)
    axes.axvline(0, color="black", linewidth=0.8)
    if with_gain and (margin := with_gain[0].margin):
        axes.axvspan(-100 * margin, 100 * margin, color=GREY, alpha=BAND / 2, linewidth=0)
    axes.set_xlim(-100 * reach, 100 * reach)
    axes.set_yticks(
        range(len(with_gain)), [without_task(label(row), row.task) for row in reversed(with_gain)]
    )
    axes.set_ylim(-0.6, len(with_gain) - 0.4)
    axes.set_xlabel(f"gain over {reference}, points of test accuracy")
    return _svg(figure)


PANES = (
    (("keep_ratio", "keep ratio r"), ("nonzero_rate", "nonzero rate")),
    (("connections", "connections"), ("parameters", "parameters")),
    (("active_neurons", "active neurons"),),
)
"""Columns that are drawn below the accuracy, pane by pane, with their names."""


def course(course: Course, index: int, ratios: bool = True) -> str:
    """An arm's accuracy over the epochs, and below it what its policy changes.

    These are the keep ratio and the nonzero rate with a tick at each reset, or the connections. `ratios`
    says whether keep ratios matter in the study.
    """
    ratios = ratios and "keep_ratio" in course.columns
    panes = [
        [line for line in pane if line[0] in course.columns] for pane in (PANES if ratios else PANES[1:])
    ]
    # without connections the number of parameters is a constant
    panes = [pane for pane in panes if pane and pane[0][0] != "parameters"]
    figure, (above, *below) = _figure(1.8 * (1 + len(panes)), 1 + len(panes))
    by_ratio = [("dense_test_accuracy", "at r = 1"), ("test_accuracy", "at the epoch's r")]
    by_images = [("test_accuracy", "test accuracy"), ("train_accuracy", "in training")]
    _pane(above, course, by_ratio if ratios else by_images, index)
    for axes, lines in zip(below, panes, strict=True):
        _pane(axes, course, lines, index)
        axes.set_ylim(*((-0.02, 1.05) if lines[0] in PANES[0] else (0, None)))
        if lines[0][0] == "keep_ratio":
            epochs = course.epochs[course.resets > 0]
            name = "a seed resets" if len(epochs) else None
            axes.vlines(epochs, 0, 0.06, colors="C3", linewidth=1.2, label=name)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderpad=0)
    above.set_ylabel("test accuracy" if ratios else "accuracy")
    above.xaxis.get_major_locator().set_params(integer=True)
    [above, *below][-1].set_xlabel("epoch")
    return _svg(figure)


def _pane(axes: Axes, course: Course, lines: Sequence[tuple[str, str]], index: int) -> None:
    """Draw some columns of a course, with a legend."""
    for (column, name), shade in zip(lines, (color(index), GREY), strict=False):
        _band(axes, course.epochs, course.columns[column], name, shade)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderpad=0)


def _band(
    axes: Axes, epochs: np.ndarray, column: tuple[np.ndarray, np.ndarray, np.ndarray], label: str, shade: str
) -> None:
    """Draw the mean over the seeds, in a band from the least to the greatest."""
    measured = np.isfinite(column[0])
    mean, low, high = (part[measured] for part in column)
    axes.fill_between(epochs[measured], low, high, color=shade, alpha=BAND, linewidth=0)
    # a line of one point cannot be seen
    dot = "o" if measured.sum() == 1 else None
    axes.plot(epochs[measured], mean, color=shade, linewidth=1.4, label=label, marker=dot, markersize=3)


def by_ratio(arms: Sequence[Confirmed], colors: dict[str, int]) -> str:
    """Test accuracy of the final weights by keep ratio, with the standard error over seeds."""
    figure, (axes,) = _figure(3.4)
    for arm in arms:
        measured = sorted(
            (float(ratio), spread.mean, spread.standard_error or 0.0)
            for ratio, spread in arm.accuracy.items()
            if spread.mean is not None
        )
        if measured:
            ratios, means, errors = zip(*measured, strict=True)
            style = {"marker": "o", "markersize": 3, "linewidth": 1.2, "capsize": 2}
            name = without_task(label(arm), arm.task)
            axes.errorbar(ratios, means, yerr=errors, color=color(colors[arm.arm]), label=name, **style)
    ticks = sorted({float(ratio) for arm in arms for ratio in arm.accuracy})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{ratio:g}" for ratio in ticks])
    axes.minorticks_off()
    axes.set_xlabel("keep ratio r that the final weights are read at")
    axes.set_ylabel("test accuracy")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    return _svg(figure)


def search(searched: Searched, index: int) -> str:
    """The scores of an arm's candidates in the order they were proposed, or search by search.

    A larger dot has more seeds, and a ring marks what was picked. With one search the line is the best score
    so far.
    """
    several = searched.searches > 1
    scored = [
        (tried.search if several else i + 1, tried.score, tried.seeds, bool(tried.picked_for))
        for i, tried in enumerate(searched.candidates)
        if tried.score is not None
    ]
    figure, (axes,) = _figure(2.4)
    if scored:
        places, scores, seeds, picked = (np.array(part, float) for part in zip(*scored, strict=True))
        scores, middle = 100 * scores, float(np.median(100 * scores))
        # without a floor, a collapsed candidate would squeeze all others into a line
        floor = middle - 3 * (float(scores.max()) - middle) - 1
        near, ring = scores >= floor, (scores >= floor) & (picked > 0)
        dots = {"color": color(index), "alpha": 0.7, "linewidth": 0, "label": "candidate"}
        axes.scatter(places[near], scores[near], s=8 + 8 * seeds[near], **dots)
        if not near.all():
            far = {"s": 24, "marker": "v", "color": "C3", "linewidth": 0, "label": "far below"}
            axes.scatter(places[~near], np.full((~near).sum(), floor), **far)
        if ring.any():
            around = {"facecolor": "none", "edgecolor": "black", "linewidth": 1, "label": "picked"}
            axes.scatter(places[ring], scores[ring], s=40 + 8 * seeds[ring], **around)
        if not several:
            # only candidates that climbed the whole ladder are compared with each other
            most = seeds == seeds.max()
            best, name = np.maximum.accumulate(scores[most]), f"best over {seeds.max():g} seeds"
            axes.step(places[most], best, where="post", color="black", linewidth=1, label=name)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderpad=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("search" if several else "candidate, in the order they were proposed")
    axes.set_ylabel("validation accuracy, %")
    return _svg(figure)


def tuning(tunings: Sequence[Tuning], ratio: float, colors: dict[str, int]) -> str:
    """The score that a pick is expected to have at an endpoint, by budget, with its spread as a band.

    A dot stands at the budget of one search.
    """
    figure, (axes,) = _figure(2.8)
    for own in tunings:
        for curve in own.curves:
            if curve.keep_ratio == ratio:
                mean, deviation = 100 * np.array(curve.mean), 100 * np.array(curve.deviation)
                budgets, shade = np.arange(1, len(mean) + 1), color(colors.get(own.arm, 0))
                band = {"color": shade, "alpha": BAND, "linewidth": 0}
                axes.fill_between(budgets, mean - deviation, mean + deviation, **band)
                axes.plot(budgets, mean, color=shade, linewidth=1.4, label=own.arm)
                used = min(own.budget, len(mean))
                axes.plot(used, mean[used - 1], "o", color=shade, markersize=5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("budget, candidates")
    axes.set_ylabel("validation accuracy of the pick, %")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderpad=0)
    return _svg(figure)
