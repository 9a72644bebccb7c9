"""Draw the two figures of the second paper from a ledger of `papers-tables`.

`python -m benchmarks.paper_tables --store DIR --data-dir DIR` takes a minute. It keeps the numbers in
`results/paper-tables.json`, and the pictures in `docs/findings/`.

- Learning curves: accuracy in training and on the test set over the epochs, on each table.
- Removed neurons: hidden neurons of the first layer are taken out of the final networks, weakest first or
  at random, and the test rows are classified anew. A neuron is weak where the absolute values of its
  incoming weights sum to little. Nothing is trained for that.

Runs that diverged are in neither figure.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.machine import RESULTS, describe
from sweep.ledger.ledger import Ledger
from sweep.views.reading import Reading
from sweep.views.report.courses import courses_of
from trainer import randomness
from trainer.run_folder import RunFolder
from trainer.spec import RunSpec
from trainer.training import Training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = Path(__file__).parents[1] / "docs" / "findings"
ARMS = ("dense", "set", "npset")
"""The arms of the paper's learning curves."""
REMOVED_ON, REMOVED_FROM = "lung-small", ("dense", "static-sparse", "set", "npset")
"""The paper's table for removed neurons (it calls it Lung-discrete), and the arms they are taken from."""
SHARES = tuple(round(0.05 * i, 2) for i in range(20))
"""The shares of the first layer's neurons that are removed."""


def learning_curves(reading: Reading) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The mean curves of each arm on each table: epochs evaluated, training and test accuracy."""
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (method, _), course in courses_of(reading).items():
        arm, _, table = method.partition("@")
        if arm in ARMS:
            test = course.columns["test_accuracy"][0]
            measured = np.isfinite(test)
            curves.setdefault(table, {})[arm] = {
                "epoch": course.epochs[measured].tolist(),
                "training": course.columns["train_accuracy"][0][measured].tolist(),
                "test": test[measured].tolist(),
            }
    return curves


def removed_neurons(reading: Reading, data_dir: Path) -> dict[str, dict[str, list[list[float]]]]:
    """Test accuracy by share of removed neurons, for each arm and order, a list for each search."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for finalist in reading.finalists:
        if finalist.arm.task == REMOVED_ON and finalist.arm.base in REMOVED_FROM:
            by_order = found.setdefault(finalist.arm.base, {"weakest": [], "random": []})
            results = {
                cohort.runs[0]: reading.plan.results.get(cohort.runs[0]) for cohort in finalist.primary
            }
            finished = [run for run, result in results.items() if result and result.outcome != "diverged"]
            for run_id in finished:
                final = _final(reading, run_id, data_dir)
                for order, accuracies in by_order.items():
                    accuracies.append(_accuracies(final, order))
    return found


def _final(reading: Reading, run_id: str, data_dir: Path) -> tuple[Training, Mapping[str, Any]]:
    """A finished run with its final state."""
    runs = reading.ledger.runs
    spec = RunSpec.from_json(runs.read(f"{run_id}/spec.json").decode())
    folder = RunFolder(runs, spec, reading.ledger.say)
    outcome = folder.outcome()
    assert outcome is not None
    state = torch.load(io.BytesIO(folder.table(outcome, "checkpoint")), weights_only=True)
    return Training(spec, data_dir=data_dir), state


def _accuracies(final: tuple[Training, Mapping[str, Any]], order: str) -> list[float]:
    """Test accuracy with more and more neurons of the first layer removed."""
    training, state = final
    training.load(dict(state))
    layer = training.connections.layers[0]
    strength = layer.weight.detach().abs().sum(1).numpy()
    ranked = np.argsort(strength, kind="stable")
    if order == "random":
        ranked = randomness.permutation(len(strength), training.spec.seed, "removal")
    accuracies: list[float] = []
    for share in SHARES:
        training.connections.remove(0, ranked[: round(share * len(ranked))])
        accuracies.append(training.engine.evaluate(training.split.test, 1.0)().accuracy)
    return accuracies


def draw_curves(curves: Mapping[str, Mapping[str, Mapping[str, list[float]]]], path: Path) -> None:
    """A panel for each table: the test accuracy as a line, that in training dashed."""
    figure, axes = _figure(len(curves), 3)
    for panel, (table, arms) in zip(axes, curves.items(), strict=False):
        for i, arm in enumerate(ARMS):
            if arm in arms:
                panel.plot(arms[arm]["epoch"], arms[arm]["test"], color=f"C{i}", label=arm)
                panel.plot(arms[arm]["epoch"], arms[arm]["training"], color=f"C{i}", linestyle=":")
        panel.set_title(table)
        panel.set_ylim(0, 1.02)
    axes[0].legend()
    figure.supxlabel("epoch")
    figure.supylabel("accuracy: on the test rows (lines), in training (dotted)")
    _save(figure, path)


def draw_removal(removed: Mapping[str, Mapping[str, list[list[float]]]], path: Path) -> None:
    """A panel for each order: the mean over the searches, in a band of two standard errors."""
    figure, axes = _figure(2, 2)
    for panel, order in zip(axes, ("weakest", "random"), strict=True):
        for i, (arm, by_order) in enumerate(removed.items()):
            accuracies = np.array(by_order[order])
            mean = accuracies.mean(0)
            error = accuracies.std(0, ddof=1) / np.sqrt(len(accuracies))
            panel.fill_between(SHARES, mean - 2 * error, mean + 2 * error, color=f"C{i}", alpha=0.15, lw=0)
            panel.plot(SHARES, mean, color=f"C{i}", label=arm)
        panel.set_title("weakest first" if order == "weakest" else "at random")
        panel.set_ylim(0, 1.02)
    axes[0].legend()
    figure.supxlabel("share of the first layer's neurons that is removed")
    figure.supylabel("test accuracy")
    _save(figure, path)


def _figure(panels: int, columns: int) -> tuple[Any, list[Axes]]:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    mpl.rcParams.update({"font.size": 8, "svg.hashsalt": "findings", "axes.grid": True, "grid.alpha": 0.25})
    rows = -(-panels // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(8, 2.2 * rows), squeeze=False, layout="constrained", sharex=True
    )
    flat = list(axes.ravel())
    for unused in flat[panels:]:
        unused.set_axis_off()
    return figure, flat[:panels]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Make both figures and keep their numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", required=True, help="the folder with the ledger of papers-tables")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with the tables")
    options = parser.parse_args()
    reading = Reading(Ledger(options.store, "papers-tables", print))
    curves, removed = learning_curves(reading), removed_neurons(reading, options.data_dir)
    draw_curves(curves, FIGURES / "learning-curves.svg")
    draw_removal(removed, FIGURES / "removed-neurons.svg")
    kept = {
        "machine": describe(),
        "declared": reading.declared["hash"],
        "learning_curves": curves,
        "removed_neurons": {"table": REMOVED_ON, "shares": SHARES, "test_accuracy": removed},
    }
    (RESULTS / "paper-tables.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
