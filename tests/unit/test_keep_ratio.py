"""Every policy over sequences worked by hand; accuracies at an edge are binary fractions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import BRISK
from trainer.policies import POLICIES
from trainer.policies.base import BasePolicy
from trainer.policies.keep_ratio import (
    AdditiveReset,
    Dense,
    FixedKeep,
    KeepRatioPolicy,
    MultiplicativeReset,
    RandomKeep,
    Sawtooth,
)


def play(policy: BasePolicy, accuracies: list[float]) -> list[float]:
    """Return the ratio of every epoch: one more than there are accuracies."""
    ratios = [policy.keep_ratio]
    for accuracy in accuracies:
        policy.after_epoch(accuracy)
        ratios.append(policy.keep_ratio)
    return ratios


def made(name: str, **settings: Any) -> KeepRatioPolicy:
    policy = POLICIES[name](**settings)
    assert isinstance(policy, KeepRatioPolicy)
    return policy


def test_dense_keeps_everything_and_fixed_keeps_its_share() -> None:
    assert play(Dense(), [0.1, 0.9]) == [1, 1, 1]
    assert play(FixedKeep(0.3), [0.1, 0.9]) == [0.3, 0.3, 0.3]


def test_additive_takes_a_step_an_epoch_and_lands_on_whole_hundredths() -> None:
    rising = [0.5 + 0.001 * epoch for epoch in range(40)]
    assert play(AdditiveReset(), rising) == [round(1 - 0.01 * epoch, 2) for epoch in range(41)]


def test_additive_resets_when_the_smoothed_accuracy_falls_by_exactly_drop() -> None:
    # s: 0.5, then 0.5 * 0.5 + 0.5 * 0.25 = 0.375: a fall of exactly 0.125
    policy = AdditiveReset(step=0.25, ema=0.5, drop=0.125)
    assert play(policy, [0.5, 0.25]) == [1, 0.75, 1]
    assert policy.reset
    assert policy.smoothed == 0.375


def test_additive_does_not_reset_when_the_fall_is_a_little_less_than_drop() -> None:
    policy = AdditiveReset(step=0.25, ema=0.5, drop=0.125)
    assert play(policy, [0.5, 0.2500001]) == [1, 0.75, 0.5]
    assert not policy.reset


def test_additive_compares_with_the_epoch_before_and_not_with_the_best() -> None:
    # s: 0.75, 0.6875, 0.640625, ...: each fall is under 0.125, their sum is not
    policy = AdditiveReset(step=0.125, ema=0.75, drop=0.125)
    assert play(policy, [0.75, 0.5, 0.5, 0.5, 0.5]) == [1, 0.875, 0.75, 0.625, 0.5, 0.375]


def test_additive_with_the_papers_constants_resets_on_a_collapse() -> None:
    # s is 0.9 after 50 epochs at 0.9. An epoch at 0.79 makes it 0.889, a fall of 0.011, above 0.01;
    # one at 0.81 makes it 0.891, a fall of 0.009, below 0.01.
    assert play(AdditiveReset(step=0.01, ema=0.9, drop=0.01), [0.9] * 50 + [0.79])[-2:] == [0.5, 1]
    assert play(AdditiveReset(step=0.01, ema=0.9, drop=0.01), [0.9] * 50 + [0.81])[-2:] == [0.5, 0.49]


def test_the_reset_applies_to_the_next_epoch_and_leaves_the_smoothing_alone() -> None:
    policy = AdditiveReset(step=0.25, ema=0.5, drop=0.125)
    play(policy, [0.5, 0.25])
    policy.after_epoch(0.5)  # s: 0.5 * 0.375 + 0.5 * 0.5
    assert (policy.smoothed, policy.keep_ratio, policy.reset) == (0.4375, 0.75, False)


def test_a_reset_of_r_and_ema_starts_the_smoothing_anew_with_the_next_accuracy() -> None:
    policy = AdditiveReset(step=0.25, ema=0.5, drop=0.125, on_reset="r+ema")
    play(policy, [0.5, 0.25])
    assert policy.smoothed == 0.375  # what it acted on stays to be seen
    policy.after_epoch(0.5)
    assert (policy.smoothed, policy.keep_ratio) == (0.5, 0.75)
    policy.after_epoch(0.25)  # 0.5 -> 0.375 is a fall of 0.125 again
    assert policy.reset


def test_a_smoothing_that_starts_from_zero_is_pulled_up() -> None:
    policy = AdditiveReset(ema=0.5, ema_start="zero")
    play(policy, [0.5, 0.5])
    assert policy.smoothed == 0.375


def test_multiplicative_shrinks_by_its_factor() -> None:
    ratios = play(MultiplicativeReset(), [0.9] * 100)
    assert ratios == pytest.approx([0.98**epoch for epoch in range(101)])


def test_multiplicative_resets_when_the_smoothed_accuracy_is_more_than_drop_below_the_best() -> None:
    # best 0.75; s: 0.75, 0.5625 (gap 0.1875: stays), 0.46875 (gap 0.28125 > 0.25: resets)
    policy = MultiplicativeReset(decay=0.5, ema=0.5, drop=0.25)
    assert play(policy, [0.75, 0.375, 0.375]) == [1, 0.5, 0.25, 1]


def test_multiplicative_at_a_gap_of_exactly_drop_does_not_reset() -> None:
    # best 0.75, s: 0.5 * 0.75 + 0.5 * 0.25 = 0.5: a gap of exactly 0.25
    assert play(MultiplicativeReset(decay=0.5, ema=0.5, drop=0.25), [0.75, 0.25]) == [1, 0.5, 0.25]


def test_the_best_is_of_raw_accuracies_by_default_and_of_smoothed_ones_on_request() -> None:
    # s: 0.25, 0.5, 0.375. Raw best 0.75: gap 0.375 > 0.25. Smoothed best 0.5: gap 0.125.
    accuracies = [0.25, 0.75, 0.25]
    assert play(MultiplicativeReset(decay=0.5, ema=0.5, drop=0.25), accuracies)[-1] == 1
    assert (
        play(MultiplicativeReset(decay=0.5, ema=0.5, drop=0.25, best_of="smoothed"), accuracies)[-1] == 0.125
    )


def test_the_best_outlives_a_reset() -> None:
    # after the reset s = 0.375 stays far below the best, 1: it resets again at once, and r never moves
    policy = MultiplicativeReset(decay=0.5, ema=0.5, drop=0.25)
    assert play(policy, [1, 0.25, 0.25, 0.25]) == [1, 0.5, 1, 1, 1]


@pytest.mark.parametrize(
    ("at_floor", "expected"),
    [("reset", [1, 0.75, 0.5, 0.25, 1, 0.75]), ("hold", [1, 0.75, 0.5, 0.25, 0.2, 0.2])],
)
def test_under_its_floor_a_ratio_resets_or_holds(at_floor: str, expected: list[float]) -> None:
    policy = AdditiveReset(step=0.25, floor=0.2, at_floor=at_floor)  # type: ignore[arg-type]
    assert play(policy, [0.5] * 5) == expected


def test_the_published_additive_cycle_reaches_its_floor_after_a_hundred_epochs() -> None:
    ratios = play(AdditiveReset(), [0.9] * 101)
    assert ratios[99] == 0.01
    assert ratios[100] == 1


def test_a_cycle_is_a_reset_from_under_one_half() -> None:
    policy = AdditiveReset(step=0.3, ema=0.5, drop=0.1)
    play(policy, [0.9, 0.1])  # from 0.7
    assert (policy.reset, policy.cycle) == (True, 0)
    play(policy, [0.5, 0.5, 0.5, 0.5])  # 0.7, 0.4, 0.1, and under the floor
    assert (policy.reset, policy.cycle) == (True, 1)


def test_a_sawtooth_has_its_period_whatever_the_accuracy() -> None:
    assert play(Sawtooth(period=3, step=0.25), [0.9, 0.1, 0.5, 0.2]) == [1, 0.75, 0.5, 1, 0.75]
    assert play(Sawtooth(period=2, decay=0.5), [0, 0, 0]) == [1, 0.5, 1, 0.5]


def test_random_ratios_stay_in_their_range_and_belong_to_the_seed() -> None:
    ratios = play(RandomKeep(low=0.2, high=0.4, seed=1), [0.5] * 50)
    assert all(0.2 <= ratio <= 0.4 for ratio in ratios)
    assert len(set(ratios)) == 51
    assert ratios == play(RandomKeep(low=0.2, high=0.4, seed=1), [0.9] * 50)
    assert ratios != play(RandomKeep(low=0.2, high=0.4, seed=2), [0.5] * 50)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_continues_from_its_state_as_if_nothing_had_happened(name: str) -> None:
    accuracies = [0.5, 0.9, 0.2, 0.7, 0.7, 0.1, 0.8, 0.3]
    whole, part, rest = (POLICIES[name](**BRISK.get(name, {}), seed=3) for _ in range(3))
    play(part, accuracies[:4])
    rest.load(part.state())
    assert play(whole, accuracies)[4:] == play(rest, accuracies[4:])
    assert whole.state() == rest.state()
