"""Paired comparisons against SciPy, published numbers and counting.

The p-value by sign flips has tests of its own, in test_sign_flip.py.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as typed_stats

from sweep.errors import NotComparable
from sweep.statistics import Comparison, paired_comparison, sequential_interval, sequential_p_value

stats: Any = typed_stats  # its stubs do not know its results' fields


def drawn(pairs: int, seed: int = 0) -> np.ndarray:
    """Draw two halves of pairs that share something."""
    draw = np.random.default_rng([pairs, seed])
    return draw.normal(0.5, 0.1, pairs) + draw.normal([[0.05], [0.0]], 0.1, (2, pairs))


@pytest.mark.parametrize("pairs", [2, 3, 8, 30])
def test_the_paired_t_test_and_its_intervals_are_scipy_s(pairs: int) -> None:
    candidate, baseline = drawn(pairs)
    found = paired_comparison(candidate, baseline, alpha=0.1, test="paired-t", comparisons=4)
    scipys = stats.ttest_rel(candidate, baseline)
    assert found.p_value == pytest.approx(float(scipys.pvalue), rel=1e-9)
    assert (found.pairs, found.p_error) == (pairs, 0)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(scipys.confidence_interval(0.9)), rel=1e-9)
    assert (found.family_low, found.family_high) == pytest.approx(
        tuple(scipys.confidence_interval(0.975)), rel=1e-9
    )


@pytest.mark.parametrize(("pairs", "overlap"), [(2, 0.5), (10, 1 / 3), (30, 1 / 9)])
def test_the_resampled_t_test_is_scipy_s_of_differences_that_are_spread_as_the_overlap_says(
    pairs: int, overlap: float
) -> None:
    """SciPy's t test gives the corrected t for differences of the same mean and a greater variance.

    The variance is 1 + n * overlap times as great.
    """
    candidate, baseline = drawn(pairs)
    found = paired_comparison(
        candidate, baseline, alpha=0.1, test="resampled-t", comparisons=4, overlap=overlap
    )
    differences = candidate - baseline
    spread = differences.mean() + (differences - differences.mean()) * math.sqrt(1 + pairs * overlap)
    scipys = stats.ttest_1samp(spread, 0)
    assert found.p_value == pytest.approx(float(scipys.pvalue), rel=1e-9)
    assert found.standard_error == pytest.approx(float(stats.sem(spread)), rel=1e-9)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(scipys.confidence_interval(0.9)), rel=1e-9)
    assert (found.family_low, found.family_high) == pytest.approx(
        tuple(scipys.confidence_interval(0.975)), rel=1e-9
    )


def test_a_published_example_of_the_corrected_test_is_computed_alike() -> None:
    """The example is scikit-learn's "Statistical comparison of models using grid search".

    It has 100 splits of 90 and 10 rows; t falls from 2.611 to 0.750.
    """
    differences = np.random.default_rng(3).normal(size=100)
    differences = (differences - differences.mean()) / differences.std(ddof=1) + 2.611 / math.sqrt(100)
    plain = paired_comparison(differences, np.zeros(100), test="resampled-t")
    found = paired_comparison(differences, np.zeros(100), test="resampled-t", overlap=10 / 90)
    assert (plain.gain / plain.standard_error, found.gain / found.standard_error) == pytest.approx(
        (2.611, 0.750), abs=5e-4
    )
    assert (plain.p_value / 2, found.p_value / 2) == pytest.approx((0.005, 0.227), abs=5e-4)


def test_without_overlap_the_resampled_t_test_is_the_paired_one() -> None:
    candidate, baseline = drawn(9)
    found, plain = (
        paired_comparison(candidate, baseline, test=test) for test in ("resampled-t", "paired-t")
    )
    assert found == plain


def test_the_interval_of_the_resampled_t_test_holds_every_gain_that_it_does_not_reject() -> None:
    candidate, baseline = drawn(8)
    found = paired_comparison(candidate, baseline, test="resampled-t", overlap=0.25)
    for end in (found.ci_low, found.ci_high):
        assert paired_comparison(
            candidate - end, baseline, test="resampled-t", overlap=0.25
        ).p_value == pytest.approx(0.05)


def test_over_resampled_splits_the_corrected_test_holds_its_level_and_the_paired_one_does_not() -> None:
    """Two classifiers see half the columns each; neither is better, as the halves are drawn alike.

    400 sets of 60 rows are split anew ten times into 45 and 15. The classifiers go by the nearest mean.
    At 5 % the corrected test may reject 20 of 400. The other tests reject five times as many, since all
    gains are of the same 60 rows.
    """
    draw, sets, rows, splits, tested = np.random.default_rng(11), 400, 60, 10, 15
    p_values: dict[str, list[float]] = {"resampled-t": [], "paired-t": [], "sign-flip": []}
    for _ in range(sets):
        label = np.arange(rows) % 2
        seen = draw.normal(0, 1, (2, rows, 3)) + 0.5 * label[:, None]
        scores = np.zeros((2, splits))
        for i in range(splits):
            order = draw.permutation(rows)
            scores[:, i] = _nearest_mean(
                seen[:, order[tested:]],
                label[order[tested:]],
                seen[:, order[:tested]],
                label[order[:tested]],
            )
        for test, found in p_values.items():
            overlap = tested / (rows - tested) if test == "resampled-t" else 0.0
            found.append(compared_at(scores, test, overlap).p_value)
    rejected = {test: np.mean(np.array(found) <= 0.05) for test, found in p_values.items()}
    assert rejected["resampled-t"] <= 0.08  # of 0.05, with three standard errors of 400 sets
    assert rejected["paired-t"] > 0.15
    assert rejected["sign-flip"] > 0.15


def _nearest_mean(rows: np.ndarray, label: np.ndarray, others: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the accuracy of each of several classifiers that see rows of their own."""
    means = [rows[:, label == it].mean(1, keepdims=True) for it in (0, 1)]
    near = [((others - mean) ** 2).sum(2) for mean in means]
    return ((near[1] < near[0]) == theirs).mean(1)


@pytest.mark.parametrize("pairs", [6, 9, 25])
def test_what_stands_beside_the_test_is_scipy_s(pairs: int) -> None:
    candidate, baseline = drawn(pairs)
    found = paired_comparison(candidate, baseline)
    assert found.gain == pytest.approx(float(candidate.mean() - baseline.mean()), abs=1e-12)
    assert found.standard_error == pytest.approx(float(stats.sem(candidate - baseline)))
    assert found.welch_p_value == pytest.approx(
        float(stats.ttest_ind(candidate, baseline, equal_var=False).pvalue)
    )
    assert found.wilcoxon_p_value == pytest.approx(
        float(stats.wilcoxon(candidate, baseline, method="exact").pvalue)
    )
    assert found.correlation == pytest.approx(float(np.corrcoef(candidate, baseline)[0, 1]))


@pytest.mark.parametrize(
    "images", [[3, 3, -1, 2, 5, 1, -2, 2], [4, -4, 4, 4, 0, 4], [1, 2, 2, 3, 3, 3, 0, 0, -1]]
)
def test_with_ties_wilcoxon_s_p_value_is_the_share_of_sign_patterns_whose_rank_sum_is_as_far_out(
    images: list[int],
) -> None:
    ranks = stats.rankdata(np.abs([d for d in images if d]))
    sums = [abs(np.dot(signs, ranks)) for signs in itertools.product((1, -1), repeat=len(ranks))]
    observed = abs(np.dot(np.sign([d for d in images if d]), ranks))
    baseline = np.array([50, 150, 33, 98, 7, 61, 120, 88, 19][: len(images)])
    found = paired_comparison((baseline + images) / 199, baseline / 199)
    assert found.wilcoxon_p_value == pytest.approx(np.mean(np.array(sums) >= observed - 1e-9))


@pytest.mark.parametrize(
    ("pairs", "factor"), [(3, 1 / math.sqrt(math.pi)), (4, 0.7236), (5, math.sqrt(2 / math.pi)), (10, None)]
)
def test_the_effect_size_is_corrected_by_the_factor_of_hedges(pairs: int, factor: float | None) -> None:
    """The factor is Hedges' table's where it is a known number, else his approximation."""
    candidate, baseline = drawn(pairs)
    differences = candidate - baseline
    raw = float(differences.mean() / differences.std(ddof=1))
    approximate = 1 - 3 / (4 * (pairs - 1) - 1)
    found = paired_comparison(candidate, baseline).effect_size / raw
    assert found == pytest.approx(factor or approximate, abs=5e-5 if factor else 1e-3)


def test_the_family_s_interval_is_the_one_at_alpha_over_the_comparisons() -> None:
    candidate, baseline = drawn(12)
    found, strict = (
        paired_comparison(candidate, baseline, comparisons=5),
        paired_comparison(candidate, baseline, alpha=0.01),
    )
    assert (found.family_low, found.family_high) == (strict.ci_low, strict.ci_high)
    assert found.family_low < found.ci_low < found.gain < found.ci_high < found.family_high


def test_a_generator_drives_the_draws_of_a_comparison_and_without_one_it_is_always_the_same() -> None:
    candidate, baseline = drawn(25)

    def p(seed: int | None) -> float:
        return paired_comparison(
            candidate, baseline, rng=None if seed is None else np.random.default_rng(seed)
        ).p_value

    assert p(None) == p(None)
    assert p(1) == p(1) != p(2)


def compared(candidate: list[float], baseline: list[float], test: str) -> Comparison:
    return paired_comparison(candidate, baseline, test=test)  # type: ignore[arg-type]


def compared_at(scores: np.ndarray, test: str, overlap: float) -> Comparison:
    return paired_comparison(*scores, test=test, overlap=overlap)  # type: ignore[arg-type]


@pytest.mark.parametrize("test", ["sign-flip", "paired-t", "resampled-t"])
def test_equal_differences_are_a_gain_without_a_deviation_that_every_test_takes_to_sign_flips(
    test: str,
) -> None:
    baseline = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.15]
    found = compared([score + 0.1 for score in baseline], baseline, test)
    assert found.p_value == 2 / 2**8
    assert (found.gain, found.ci_low, found.ci_high) == pytest.approx((0.1, 0.1, 0.1))
    assert math.isnan(found.effect_size)
    assert found.correlation == pytest.approx(1)
    assert found.wilcoxon_p_value == pytest.approx(2 / 2**8)


@pytest.mark.parametrize("test", ["sign-flip", "paired-t", "resampled-t"])
def test_too_few_equal_differences_bound_nothing(test: str) -> None:
    found = compared([0.5, 0.6, 0.7], [0.25, 0.35, 0.45], test)
    assert (found.p_value, found.ci_low, found.ci_high) == (2 / 2**3, -math.inf, math.inf)


@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_equal_differences_over_overlapping_splits_reject_nothing(gain: float) -> None:
    found = compared_at(np.array([[0.5 + gain] * 12, [0.5] * 12]), "resampled-t", 0.25)
    assert (found.p_value, found.ci_low, found.ci_high) == (1, -math.inf, math.inf)
    assert found.standard_error == 0


# looks


@pytest.mark.parametrize("test", ["sign-flip", "paired-t"])
def test_at_declared_looks_the_least_p_value_is_taken_times_their_number(test: Any) -> None:
    candidate, baseline = drawn(13)
    found = paired_comparison(candidate, baseline, test=test, looks=[8, 10, 14, 20], comparisons=3)
    eight, ten = (paired_comparison(candidate[:n], baseline[:n], test=test) for n in (8, 10))
    assert found.p_value == pytest.approx(min(1, 4 * min(eight.p_value, ten.p_value)))
    strict = paired_comparison(candidate[:10], baseline[:10], test=test, alpha=0.05 / 4, comparisons=3)
    assert (found.pairs, found.looks, ten.looks) == (10, 4, 1)
    assert (found.ci_low, found.ci_high) == (strict.ci_low, strict.ci_high)
    assert (found.family_low, found.family_high) == pytest.approx((strict.family_low, strict.family_high))
    for figure in ("gain", "standard_error", "effect_size", "correlation", "wilcoxon_p_value"):
        assert getattr(found, figure) == getattr(ten, figure)


def test_an_earlier_look_s_p_value_stands_when_later_pairs_contradict_it() -> None:
    differences = np.array([3, 1, 2, 4, 2, 1, 3, 2, -9, -8]) / 100
    found = paired_comparison(differences, np.zeros(10), looks=[8, 10])
    assert found.p_value == 2 * 2 / 2**8
    assert found.ci_low < 0 < found.ci_high


def test_drawn_flips_at_several_looks_have_the_error_of_the_least_p_value_times_their_number() -> None:
    candidate, baseline = drawn(25)
    found = paired_comparison(candidate, baseline, looks=[22, 25])
    each = [paired_comparison(candidate[:n], baseline[:n]) for n in (22, 25)]
    least = min(each, key=lambda comparison: comparison.p_value)
    assert (found.p_value, found.p_error) == (2 * least.p_value, 2 * least.p_error)


def test_several_looks_reject_a_true_null_no_more_often_than_alpha() -> None:
    """Three looks at 10 % without a correction reject a sixth of 2,000 studies."""
    studies = np.random.default_rng(6).normal(0, 1, (2_000, 10))
    found = [paired_comparison(study, np.zeros(10), looks=[6, 8, 10]).p_value for study in studies]
    naive = [
        min(paired_comparison(study[:n], np.zeros(n)).p_value for n in (6, 8, 10)) for study in studies[:500]
    ]
    assert np.mean(np.array(found) <= 0.1) <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / 2_000)
    assert np.mean(np.array(naive) <= 0.1) > 0.13


def test_looks_at_any_time_are_those_of_the_sequential_test() -> None:
    candidate, baseline = drawn(14)
    found = paired_comparison(candidate, baseline, looks="any", alpha=0.1, comparisons=4)
    differences = candidate - baseline
    assert (found.pairs, found.looks, found.p_error) == (14, 0, 0)
    assert found.p_value == pytest.approx(sequential_p_value(differences))
    assert (found.ci_low, found.ci_high) == pytest.approx(sequential_interval(differences, 0.1))
    assert (found.family_low, found.family_high) == pytest.approx(sequential_interval(differences, 0.025))


@pytest.mark.parametrize("test", ["sign-flip", "paired-t", "resampled-t"])
@pytest.mark.parametrize("scores", [[0.5] * 7, [0.1, 0.5, 0.2, 0.9, 0.3, 0.4, 0.8]])
def test_the_same_scores_are_no_gain_and_nothing_rejects_that(test: str, scores: list[float]) -> None:
    found = compared(scores, scores, test)
    assert (found.gain, found.standard_error, found.ci_low, found.ci_high) == (0, 0, 0, 0)
    assert (found.p_value, found.welch_p_value, found.wilcoxon_p_value) == (1, 1, 1)
    assert math.isnan(found.effect_size)


@pytest.mark.parametrize(
    ("candidate", "baseline", "more", "said"),
    [
        ([0.5, math.nan, 0.5], [0.5] * 3, {}, r"candidate's score 1 \(counted from 0\) is nan"),
        ([0.5] * 3, [0.5, 0.5, math.inf], {}, r"baseline's score 2 \(counted from 0\) is inf"),
        ([0.5] * 3, [0.5] * 4, {}, "candidate has 3 scores and the baseline 4"),
        ([[0.5, 0.5]], [0.5] * 2, {}, r"candidate's scores .* shape \(1, 2\)"),
        ([0.5] * 2, 0.5, {}, r"baseline's scores .* shape \(\)"),
        ([0.5], [0.5], {}, "at least 2 pairs; there are 1"),
        ([], [], {}, "at least 2 pairs; there are 0"),
        ([0.5] * 2, [0.5] * 2, {"alpha": 0.0}, r"alpha must be between 0 and 1; it is 0\.0"),
        ([0.5] * 2, [0.5] * 2, {"alpha": 5}, "alpha must be between 0 and 1; it is 5"),
        ([0.5] * 2, [0.5] * 2, {"alpha": math.nan}, "it is nan"),
        (
            [0.5] * 2,
            [0.5] * 2,
            {"test": "welch"},
            "test must be sign-flip, paired-t or resampled-t; it is 'welch'",
        ),
        (
            [0.5] * 2,
            [0.5] * 2,
            {"overlap": 0.25},
            r"drawn anew .*overlap 0\.25.* sign-flip would find .* Use resampled-t",
        ),
        (
            [0.5] * 2,
            [0.5] * 2,
            {"overlap": 0.25, "test": "paired-t"},
            "paired-t would find gains that are not there",
        ),
        (
            [0.5] * 2,
            [0.5] * 2,
            {"overlap": -1.0, "test": "resampled-t"},
            r"overlap must be test rows over all other rows.* it is -1\.0",
        ),
        ([0.5] * 2, [0.5] * 2, {"overlap": math.nan, "test": "resampled-t"}, "it is nan"),
        ([0.5] * 5, [0.5] * 5, {"looks": [8, 10]}, "first declared look is at 8 pairs; there are 5"),
        ([0.5] * 5, [0.5] * 5, {"looks": []}, r'looks must be "any" or rising .* they are \[\]'),
        ([0.5] * 5, [0.5] * 5, {"looks": [4, 4]}, r"they are \[4, 4\]"),
        ([0.5] * 5, [0.5] * 5, {"looks": [1, 4]}, r"they are \[1, 4\]"),
        ([0.5] * 5, [0.5] * 5, {"looks": "all"}, "they are 'all'"),
        (
            [0.5] * 2,
            [0.5] * 2,
            {"overlap": 0.25, "test": "resampled-t", "looks": "any"},
            r"overlap 0\.25.* looks at any time .* Declare the looks",
        ),
    ],
)
def test_scores_that_are_no_pairs_are_refused_by_what_is_wrong_and_where(
    candidate: Any, baseline: Any, more: Any, said: str
) -> None:
    with pytest.raises(NotComparable, match=said):
        paired_comparison(candidate, baseline, **more)
