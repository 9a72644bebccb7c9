"""The report's pictures, as SVG text. Drawn at the width of a telephone; a wide screen shows two beside each other."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.views.report.findings import Course
from sweep.views.report.words import label, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.0
"""Inches."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "report",  # the same study draws the same file
    "axes.axisbelow": True,
}
GREY, BAND = "#777777", 0.18


def _figure(height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    mpl.rcParams.update(STYLE)
    figure, axes = pyplot.subplots(
        rows, 1, figsize=(WIDTH, height), sharex=True, squeeze=False, layout="constrained"
    )
    return figure, list(axes[:, 0])


def _svg(figure: Figure) -> str:
    from matplotlib import pyplot

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def color(index: int) -> str:
    """Of an arm, the same in every picture."""
    return f"C{index % 10}"


def gains(rows: Sequence[dict[str, Any]], reference: str) -> str:
    """Each candidate's gain as a dot: its interval thick, the family's thin; open where the comparison is not complete."""
    known = [row for row in rows if row["gain"] is not None]
    ends = [
        abs(row[end])
        for row in known
        for end in ("gain", "family_low", "family_high")
        if row[end] is not None and math.isfinite(row[end])
    ]
    reach = 1.2 * (max(ends, default=0.0) or 0.01)  # an interval without an end runs off the picture
    figure, (axes,) = _figure(0.9 + 0.28 * len(known))
    for y, row in enumerate(reversed(known)):
        whole = row["ci_low"] is not None
        kind = {"family": "C0", "control": GREY, "repeat": "C1"}[row["role"]]
        if whole:
            for low, high, width in (("family_low", "family_high", 1.0), ("ci_low", "ci_high", 3.0)):
                drawn = [100 * max(row[low], -2 * reach), 100 * min(row[high], 2 * reach)]
                axes.plot(drawn, [y, y], color=kind, linewidth=width, solid_capstyle="butt")
        axes.plot(
            100 * row["gain"], y, "o", color=kind, markerfacecolor=kind if whole else "white", markersize=6
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(-100 * reach, 100 * reach)
    axes.set_yticks(range(len(known)), [plain(label(row), row["task"]) for row in reversed(known)])
    axes.set_ylim(-0.6, len(known) - 0.4)
    axes.set_xlabel(f"gain over {reference}, points of test accuracy")
    return _svg(figure)


PANES = (
    (("keep_ratio", "keep ratio r"), ("nonzero_rate", "nonzero rate")),
    (("connections", "connections"), ("parameters", "parameters")),
    (("active_neurons", "active neurons"),),
)
"""What is drawn below the accuracy, where a policy moves it."""


def course(found: Course, index: int, ratios: bool = True) -> str:
    """A candidate's accuracy, and below it what its policy moves: keep ratio and nonzero rate with a tick at each reset, or connections.

    `ratios` says whether the study has anything to do with keep ratios.
    """
    ratios = ratios and "keep_ratio" in found.columns
    moved = [[it for it in pane if it[0] in found.columns] for pane in (PANES if ratios else PANES[1:])]
    moved = [pane for pane in moved if pane and pane[0][0] != "parameters"]  # alone, they are a constant
    figure, (above, *below) = _figure(1.8 * (1 + len(moved)), 1 + len(moved))
    both = [("dense_test_accuracy", "at r = 1"), ("test_accuracy", "at the epoch's r")]
    told = both if ratios else [("test_accuracy", "test accuracy")]
    for axes, lines in zip((above, *below), (told, *moved), strict=True):
        for (column, name), shade in zip(lines, (color(index), GREY), strict=False):
            _band(axes, found.epochs, found.columns[column], name, shade)
        if lines is not told:
            axes.set_ylim(*((-0.02, 1.05) if lines[0] in PANES[0] else (0, None)))
        if lines[0][0] == "keep_ratio":
            resets = found.resets > 0
            axes.vlines(
                found.epochs[resets],
                0,
                0.06,
                colors="C3",
                linewidth=1.2,
                label="a seed resets" if resets.any() else None,
            )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderpad=0)
    above.set_ylabel("test accuracy")
    [above, *below][-1].set_xlabel("epoch")
    return _svg(figure)


def _band(
    axes: Axes, epochs: np.ndarray, column: tuple[np.ndarray, np.ndarray, np.ndarray], label: str, shade: str
) -> None:
    measured = np.isfinite(column[0])
    mean, low, high = (part[measured] for part in column)
    axes.fill_between(epochs[measured], low, high, color=shade, alpha=BAND, linewidth=0)
    dot = "o" if measured.sum() == 1 else None  # a line of one point is not seen
    axes.plot(epochs[measured], mean, color=shade, linewidth=1.4, label=label, marker=dot, markersize=3)


def by_ratio(arms: Sequence[dict[str, Any]], colors: dict[str, int]) -> str:
    """Test accuracy of the final weights against the keep ratio they are read at, with the standard error over the seeds."""
    figure, (axes,) = _figure(3.4)
    for arm in arms:
        measured = sorted(
            (float(ratio), it["mean"], it["standard_error"] or 0.0)
            for ratio, it in arm["accuracy"].items()
            if it["mean"] is not None
        )
        if measured:
            ratios, means, errors = zip(*measured, strict=True)
            axes.errorbar(
                ratios,
                means,
                yerr=errors,
                marker="o",
                markersize=3,
                linewidth=1.2,
                capsize=2,
                color=color(colors[arm["arm"]]),
                label=plain(label(arm), arm["task"]),
            )
    shown = sorted({float(ratio) for arm in arms for ratio in arm["accuracy"]})
    axes.set_xscale("log")
    axes.set_xticks(shown, [f"{ratio:g}" for ratio in shown])
    axes.minorticks_off()
    axes.set_xlabel("keep ratio r that the final weights are read at")
    axes.set_ylabel("test accuracy")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    return _svg(figure)


def search(found: dict[str, Any], index: int) -> str:
    """An arm's candidates in the order they were proposed: the more seeds, the larger the dot; the best so far as a line."""
    scored = [
        (i, it["score"], it["seeds"]) for i, it in enumerate(found["candidates"]) if it["score"] is not None
    ]
    figure, axes = _figure(2.4)
    if scored:
        places, scores, seeds = (np.array(part, float) for part in zip(*scored, strict=True))
        middle = float(np.median(scores))
        floor = (
            middle - 3 * (float(scores.max()) - middle) - 0.01
        )  # one that collapsed would squeeze all others into a line
        inside = scores >= floor
        axes[0].scatter(
            places[inside] + 1,
            scores[inside],
            s=8 + 8 * seeds[inside],
            color=color(index),
            alpha=0.7,
            linewidth=0,
            label="candidate",
        )
        if not inside.all():
            axes[0].scatter(
                places[~inside] + 1,
                np.full((~inside).sum(), floor),
                s=24,
                marker="v",
                color="C3",
                linewidth=0,
                label="far below",
            )
        most = (
            seeds == seeds.max()
        )  # only candidates that climbed the whole ladder are compared with each other
        best = np.maximum.accumulate(scores[most])
        axes[0].step(
            places[most] + 1,
            best,
            where="post",
            color="black",
            linewidth=1,
            label=f"best over {seeds.max():g} seeds",
        )
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderpad=0)
    axes[0].set_xlabel("candidate, in the order they were proposed")
    axes[0].set_ylabel("validation accuracy")
    return _svg(figure)
