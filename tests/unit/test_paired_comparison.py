"""Pairs compared: against SciPy, published numbers and counting. The p-value by sign flips has tests of its own, in test_sign_flip.py."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as typed_stats

from sweep.statistics import Comparison, NotComparable, paired_comparison

stats: Any = typed_stats  # its stubs do not know its results' fields


def drawn(pairs: int, seed: int = 0) -> np.ndarray:
    """Two halves of pairs that share something."""
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
    assert (found.family_low, found.family_high) == pytest.approx(tuple(scipys.confidence_interval(0.975)), rel=1e-9)


@pytest.mark.parametrize("pairs", [6, 9, 25])
def test_what_stands_beside_the_test_is_scipy_s(pairs: int) -> None:
    candidate, baseline = drawn(pairs)
    found = paired_comparison(candidate, baseline)
    assert found.gain == pytest.approx(float(candidate.mean() - baseline.mean()), abs=1e-12)
    assert found.standard_error == pytest.approx(float(stats.sem(candidate - baseline)))
    assert found.welch_p_value == pytest.approx(float(stats.ttest_ind(candidate, baseline, equal_var=False).pvalue))
    assert found.wilcoxon_p_value == pytest.approx(float(stats.wilcoxon(candidate, baseline, method="exact").pvalue))
    assert found.correlation == pytest.approx(float(np.corrcoef(candidate, baseline)[0, 1]))


@pytest.mark.parametrize("images", [[3, 3, -1, 2, 5, 1, -2, 2], [4, -4, 4, 4, 0, 4], [1, 2, 2, 3, 3, 3, 0, 0, -1]])
def test_with_ties_wilcoxon_s_p_value_is_the_share_of_sign_patterns_whose_rank_sum_is_as_far_out(images: list[int]) -> None:
    ranks = stats.rankdata(np.abs([d for d in images if d]))
    sums = [abs(np.dot(signs, ranks)) for signs in itertools.product((1, -1), repeat=len(ranks))]
    observed = abs(np.dot(np.sign([d for d in images if d]), ranks))
    baseline = np.array([50, 150, 33, 98, 7, 61, 120, 88, 19][: len(images)])
    found = paired_comparison((baseline + images) / 199, baseline / 199)
    assert found.wilcoxon_p_value == pytest.approx(np.mean(np.array(sums) >= observed - 1e-9))


@pytest.mark.parametrize(("pairs", "factor"), [(3, 1 / math.sqrt(math.pi)), (4, 0.7236), (5, math.sqrt(2 / math.pi)), (10, None)])
def test_the_effect_size_is_corrected_by_the_factor_of_hedges(pairs: int, factor: float | None) -> None:
    """By his table where it is a known number, else by his approximation."""
    candidate, baseline = drawn(pairs)
    differences = candidate - baseline
    raw = float(differences.mean() / differences.std(ddof=1))
    approximate = 1 - 3 / (4 * (pairs - 1) - 1)
    found = paired_comparison(candidate, baseline).effect_size / raw
    assert found == pytest.approx(factor or approximate, abs=5e-5 if factor else 1e-3)


def test_the_family_s_interval_is_the_one_at_alpha_over_the_comparisons() -> None:
    candidate, baseline = drawn(12)
    found, strict = paired_comparison(candidate, baseline, comparisons=5), paired_comparison(candidate, baseline, alpha=0.01)
    assert (found.family_low, found.family_high) == (strict.ci_low, strict.ci_high)
    assert found.family_low < found.ci_low < found.gain < found.ci_high < found.family_high


def test_a_generator_drives_the_draws_of_a_comparison_and_without_one_it_is_always_the_same() -> None:
    candidate, baseline = drawn(25)

    def p(seed: int | None) -> float:
        return paired_comparison(candidate, baseline, rng=None if seed is None else np.random.default_rng(seed)).p_value

    assert p(None) == p(None)
    assert p(1) == p(1) != p(2)


def compared(candidate: list[float], baseline: list[float], test: str) -> Comparison:
    return paired_comparison(candidate, baseline, test=test)  # type: ignore[arg-type]


@pytest.mark.parametrize(("test", "p_value"), [("sign-flip", 2 / 2**8), ("paired-t", 0.0)])
def test_equal_differences_are_a_gain_without_a_deviation(test: str, p_value: float) -> None:
    baseline = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.15]
    found = compared([score + 0.1 for score in baseline], baseline, test)
    assert found.p_value == p_value
    assert (found.gain, found.ci_low, found.ci_high) == pytest.approx((0.1, 0.1, 0.1))
    assert math.isnan(found.effect_size)
    assert found.correlation == pytest.approx(1)
    assert found.wilcoxon_p_value == pytest.approx(2 / 2**8)


@pytest.mark.parametrize("test", ["sign-flip", "paired-t"])
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
        ([0.5] * 2, [0.5] * 2, {"test": "welch"}, "test must be sign-flip or paired-t; it is 'welch'"),
    ],
)
def test_scores_that_are_no_pairs_are_refused_by_what_is_wrong_and_where(candidate: Any, baseline: Any, more: Any, said: str) -> None:
    with pytest.raises(NotComparable, match=said):
        paired_comparison(candidate, baseline, **more)
