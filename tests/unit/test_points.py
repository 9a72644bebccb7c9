"""Metric points from rows: one value for a key and a step, whenever one looks.

Values that are missing or not numbers are covered too.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import mean, stdev
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.views.mlflow.points import (
    AVERAGED,
    COLUMNS,
    Point,
    cohort_points,
    curves,
    gain_points,
    prefix_points,
    run_points,
    shared_epochs,
)
from sweep.views.reading import RunFiles
from tests.conftest import run_spec
from trainer.rows import WALL, EpochRow, schema, to_parquet
from trainer.spec import RunSpec


@dataclass
class Run:
    """The part of a run that points are made from, without a ledger."""

    rows: list[EpochRow]
    state: str
    spec: RunSpec
    committed: int

    def epochs(self) -> pa.Table | None:
        return pq.read_table(io.BytesIO(to_parquet(EpochRow, self.rows))) if self.rows else None


def row(epoch: int, *, evaluated: bool = True, held_out: bool = True, **values: Any) -> EpochRow:
    """Return an epoch whose figures follow from its number."""
    plain: dict[str, Any] = dict.fromkeys(schema(EpochRow).names, epoch / 100)
    plain |= {
        "run_id": "run",
        "epoch": epoch,
        "nonzero_rate_by_site": [0.5],
        "reset": False,
        "cycle": 0,
        "ended_at": datetime.now(UTC),
    }
    plain |= {"connections": 100 - epoch, "active_neurons": 10, "parameters": 110 - epoch}
    for name in plain:
        if not evaluated and name.startswith(("nonzero_rate", "test_", "dense_", "validation_")):
            plain[name] = None
        if not held_out and "validation" in name:
            plain[name] = None
    return EpochRow(**{**plain, **values})


def run(
    epochs: int,
    *,
    state: str = "completed",
    lost: bool = False,
    every: int = 1,
    validation: float = 0.1,
    shift: float = 0.0,
    **values: Any,
) -> RunFiles:
    """Return a run so far; `lost` makes its last epoch the one in which it diverged."""
    spec = run_spec(epochs=10, evaluate_every=every, validation=validation)
    rows: list[EpochRow] = []
    for epoch in range(1, epochs + 1):
        more = (
            {"test_accuracy": epoch / 100 + shift, "dense_test_accuracy": epoch / 50 + shift}
            if epoch % every == 0
            else {}
        )
        rows.append(row(epoch, evaluated=epoch % every == 0, held_out=validation > 0, **more, **values))
    if lost:
        rows[-1] = row(epochs, evaluated=False, train_loss=math.nan)
    return cast("RunFiles", Run(rows, state, spec, epochs))


def by_key(points: Iterable[Point]) -> dict[tuple[str, int], float]:
    """Return the points by key and step; each may be there once."""
    listed = list(points)
    found = {(point.key, point.step): point.value for point in listed}
    assert len(found) == len(listed)
    return found


def of(runs: Sequence[RunFiles], after: int = 0) -> dict[tuple[str, int], float]:
    return by_key(cohort_points(curves(runs, shared_epochs(runs)), after))


# one run


def test_a_run_gives_every_column_but_wall_and_identity_once_an_epoch() -> None:
    table = run(4).epochs()
    assert table is not None
    found = by_key(run_points(table, 0))
    kept = {name for name in schema(EpochRow).names if name not in WALL} - {
        "run_id",
        "epoch",
        "nonzero_rate_by_site",
    }
    assert set(found) == {(key, step) for key in kept for step in (1, 2, 3, 4)}
    assert by_key(run_points(table, 2)) == {key: value for key, value in found.items() if key[1] > 2}
    assert set(COLUMNS) == kept


def test_null_is_no_point_and_what_is_no_number_stays_what_it_is() -> None:
    table = pa.concat_tables(
        [
            cast("pa.Table", run(1).epochs()),
            pq.read_table(
                io.BytesIO(
                    to_parquet(
                        EpochRow, [row(2, evaluated=False, train_loss=math.inf, train_accuracy=math.nan)]
                    )
                )
            ),
        ]
    )
    found = by_key(run_points(table, 1))
    assert ("test_accuracy", 2) not in found
    assert ("nonzero_rate", 2) not in found
    assert found["train_loss", 2] == math.inf
    assert math.isnan(found["train_accuracy", 2])


def test_a_policy_that_moves_connections_has_points_of_them_and_none_of_a_keep_ratio() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("keep_ratio", "reset", "cycle", "smoothed_train_accuracy"))
    sparse = [run(3, **nothing), run(3, **nothing)]
    found, averages = by_key(run_points(cast("pa.Table", sparse[0].epochs()), 0)), of(sparse)
    for points in (found, averages):
        assert (points["connections", 2], points["active_neurons", 2], points["parameters", 3]) == (
            98,
            10,
            107,
        )
        assert not {key for key, _ in points} & {
            key for name in nothing for key in (name, f"{name}_standard_error")
        }


def test_where_connections_are_left_alone_there_is_no_point_of_them() -> None:
    left: dict[str, Any] = {
        "connections": None,
        "active_neurons": None,
        "parameters": None,
    }  # of rows from before there were any
    plain = [run(3, **left), run(3, **left)]
    assert not {key for key, _ in of(plain)} & set(left)
    assert not {key for key, _ in by_key(run_points(cast("pa.Table", plain[0].epochs()), 0))} & set(left)


# a cohort


def test_mean_and_standard_error_are_those_of_the_seeds() -> None:
    runs = [run(3, shift=shift) for shift in (0.1, 0.25, 0.7)]
    found = of(runs)
    for epoch in (1, 2, 3):
        values = [epoch / 100 + shift for shift in (0.1, 0.25, 0.7)]
        assert found["test_accuracy", epoch] == pytest.approx(mean(values), abs=1e-15)
        assert found["test_accuracy_standard_error", epoch] == pytest.approx(
            stdev(values) / math.sqrt(3), abs=1e-15
        )
    assert {key.removesuffix("_standard_error") for key, _ in found} == set(AVERAGED)


def test_one_seed_has_a_mean_and_no_standard_error() -> None:
    assert not [key for key, _ in of([run(3)]) if key.endswith("_standard_error")]


def test_only_epochs_that_all_seeds_have_are_averaged() -> None:
    runs = [run(5), run(2, state="unfinished"), run(4)]
    assert {step for _, step in of(runs)} == {1, 2}
    assert not of([*runs, run(0, state="unfinished")])


def test_fewer_epochs_than_a_listing_promised_are_averaged_as_far_as_they_can_be_read() -> None:
    short = cast("Any", run(2, state="unfinished"))
    short.committed = 4  # the newest table is damaged: an older one is read
    made = curves([run(5), short], 4)
    assert made.epochs == 2
    assert {step for _, step in by_key(cohort_points(made, 0))} == {1, 2}
    assert curves([run(5), run(0, state="unfinished")], 3).epochs == 0


def test_epochs_without_an_evaluation_have_no_average_of_it() -> None:
    found = of([run(5, every=2), run(5, every=2)])
    assert {step for key, step in found if key == "test_accuracy"} == {2, 4}
    assert {step for key, step in found if key == "train_accuracy"} == {1, 2, 3, 4, 5}


def test_without_images_held_out_there_is_no_validation_average() -> None:
    found = of([run(4, validation=0.0), run(2, lost=True, state="diverged", validation=0.0)])
    assert not [key for key, _ in found if "validation" in key]


# diverged seeds


def test_a_diverged_seed_has_accuracy_0_from_then_on_and_nothing_else() -> None:
    found = of([run(6, every=2, shift=0.5), run(3, every=2, shift=0.5, lost=True, state="diverged")])
    for epoch in (4, 6):
        assert found["test_accuracy", epoch] == pytest.approx((epoch / 100 + 0.5) / 2)
        assert found["validation_accuracy", epoch] == pytest.approx(epoch / 200)
    assert found["test_accuracy", 2] == pytest.approx(2 / 100 + 0.5)
    assert ("test_accuracy", 3) not in found, "an epoch without an evaluation"
    for epoch in (3, 4, 5, 6):
        assert found["train_accuracy", epoch] == pytest.approx(epoch / 200), "there in every epoch"
        for column in ("train_loss", "keep_ratio", "learning_rate"):
            assert found[column, epoch] == pytest.approx(epoch / 100), "the mean of those that have one"
            assert (f"{column}_standard_error", epoch) not in found


def test_a_diverged_seed_that_is_ahead_of_the_others_changes_no_epoch_before() -> None:
    late, others = run(8, lost=True, state="diverged", shift=0.5), [run(10, shift=0.5)]
    whole = of([late, *others])
    for have in (1, 4, 7, 8, 9):
        assert of([late, run(have, state="unfinished", shift=0.5)]) == {
            key: value for key, value in whole.items() if key[1] <= have
        }


def test_a_seed_whose_loss_is_lost_counts_as_diverged_before_its_outcome_says_so() -> None:
    before = of([run(3, lost=True, state="unfinished"), run(6)])
    after = of([run(3, lost=True, state="diverged"), run(6)])
    assert before == {key: value for key, value in after.items() if key[1] <= 3}


def test_a_cohort_that_diverged_altogether_goes_as_far_as_its_last_seed() -> None:
    found = of([run(3, lost=True, state="diverged"), run(5, lost=True, state="diverged")])
    assert {step for key, step in found if key == "test_accuracy"} == {1, 2, 3, 4, 5}
    assert found["test_accuracy", 5] == 0
    assert {step for key, step in found if key == "train_loss"} == {1, 2, 3, 4}


# infinities


def test_an_infinite_seed_makes_the_mean_infinite_and_no_standard_error() -> None:
    found = of([run(2, test_loss=math.inf), run(2)])
    assert found["test_loss", 1] == math.inf
    assert ("test_loss_standard_error", 1) not in found
    assert found["train_loss", 1] == pytest.approx(0.01)


def test_infinities_of_both_signs_are_no_number() -> None:
    assert math.isnan(of([run(1, test_loss=math.inf), run(1, test_loss=-math.inf)])["test_loss", 1])


# gains


def test_the_gain_is_the_mean_of_the_paired_differences_as_far_as_both_go() -> None:
    own, base = [run(5, shift=s) for s in (0.3, 0.1)], [run(3, shift=s) for s in (0.1, 0.2)]
    found = by_key(gain_points(curves(own, 5), curves(base, 3), 0))
    assert {step for _, step in found} == {1, 2, 3}
    assert found["test_accuracy_gain", 3] == pytest.approx(5)
    assert found["test_accuracy_gain_standard_error", 3] == pytest.approx(15)
    assert set(by_key(gain_points(curves(own, 5), curves(base, 3), 2))) == {
        key for key in found if key[1] == 3
    }


def test_overlapping_splits_make_the_error_of_the_gain_the_corrected_one() -> None:
    own, base = [run(3, shift=s) for s in (0.3, 0.1)], [run(3, shift=s) for s in (0.1, 0.2)]
    found = by_key(gain_points(curves(own, 3), curves(base, 3), 0, overlap=0.5))
    assert found["test_accuracy_gain", 3] == pytest.approx(5)
    assert found["test_accuracy_gain_standard_error", 3] == pytest.approx(15 * math.sqrt(2))


def test_a_diverged_half_loses_by_all_the_other_has() -> None:
    found = by_key(gain_points(curves([run(2, lost=True, state="diverged")], 4), curves([run(4)], 4), 0))
    assert found["dense_test_accuracy_gain", 4] == pytest.approx(-100 * 4 / 50)


def test_the_gain_over_k_pairs_stands_at_step_k_in_points() -> None:
    own, base = [0.9, 0.8, 0.7, 0.6], [0.5, 0.6, 0.7, 0.8]
    found = by_key(prefix_points(own, base, "_at_r_0.5"))
    gains = {key: value for key, value in found.items() if key[0] == "gain_at_r_0.5"}
    better = [found["better_at_r_0.5", k] for k in (1, 2, 3, 4)]
    assert [gains["gain_at_r_0.5", k] for k in (1, 2, 3, 4)] == pytest.approx([40, 30, 20, 10])
    assert better == [1, 2, 2, 2], "a difference in the last bits alone is none"
    assert len(found) == len(gains) + len(better)


def test_where_several_runs_are_half_a_pair_the_error_is_that_of_their_means() -> None:
    own, base = [run(2, shift=s) for s in (0.3, 0.1, 0.6, 0.2)], [run(2) for _ in range(4)]
    found = by_key(gain_points(curves(own, 2), curves(base, 2), 0, runs_in_a_pair=2))
    assert found["test_accuracy_gain", 2] == pytest.approx(30)
    assert found["test_accuracy_gain_standard_error", 2] == pytest.approx(stdev([20, 40]) / math.sqrt(2))
    averages = by_key(cohort_points(curves(own, 2), 0, 2))
    assert averages["test_accuracy", 2] == pytest.approx(0.02 + 0.3)
    assert averages["test_accuracy_standard_error", 2] == pytest.approx(stdev([0.2, 0.4]) / math.sqrt(2))


def test_a_half_with_one_lost_run_has_the_mean_of_the_others() -> None:
    runs = [run(3), run(2, lost=True, state="diverged"), *(run(2, lost=True, state="diverged"),) * 2]
    found = by_key(cohort_points(curves(runs, 3), 0, 2))
    assert found["train_loss", 2] == pytest.approx(0.02)
    assert ("train_loss_standard_error", 2) not in found, "the other half has no loss"
    assert found["test_accuracy", 3] == pytest.approx(0.03 / 4)


# whatever the order


def test_what_is_given_in_steps_is_what_is_given_at_once() -> None:
    seed = random.randrange(2**32)
    print(f"the seed is {seed}")
    draw = random.Random(seed)
    ends = [(10, False), (10, False), (draw.randint(1, 10), True), (10, False)]

    def at(have: Sequence[int]) -> list[RunFiles]:
        return [
            run(
                done,
                lost=lost and done == end,
                state="diverged" if lost and done == end else "unfinished",
                every=3,
                shift=i / 10,
            )
            for i, (done, (end, lost)) in enumerate(zip(have, ends, strict=True))
        ]

    have, sent, found = [0, 0, 0, 0], 0, dict[tuple[str, int], float]()
    while any(done < end for done, (end, _) in zip(have, ends, strict=True)):
        i = draw.randrange(4)
        have[i] = min(have[i] + draw.randint(1, 4), ends[i][0])
        runs = at(have)
        if (shared := shared_epochs(runs)) > sent:
            new = by_key(cohort_points(curves(runs, shared), sent))
            assert not new.keys() & found.keys()
            found |= new
            sent = shared
    assert found == of(at(have))
