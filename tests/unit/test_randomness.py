"""A random stream is found by its name, and not by how much was drawn before."""

from __future__ import annotations

import numpy as np

from trainer import randomness


def test_streams_are_the_same_for_ever() -> None:
    """Other values here would change every batch of every run."""
    assert randomness.derive(3407, "order", 1) == 0x739B4AE1F6481F53
    assert randomness.permutation(8, 3407, "order", 1).tolist() == [3, 7, 4, 1, 2, 6, 0, 5]


def test_every_seed_stream_and_place_is_its_own() -> None:
    numbers = {
        randomness.derive(seed, stream, *place)
        for seed in (0, 1, 10)
        for stream in ("a", "b")
        for place in ((), (0,), (1,), (1, 0))
    }
    assert len(numbers) == 3 * 2 * 4


def test_a_permutation_holds_each_index_once() -> None:
    assert sorted(randomness.permutation(1000, 1, "order", 2)) == list(range(1000))


def test_permutations_are_uniform_enough() -> None:
    """Each index has its mean position over many draws; six standard errors are never reached by chance."""
    places = np.mean([randomness.permutation(10, seed, "order") for seed in range(2000)], axis=0)
    assert np.abs(places - 4.5).max() < 6 * np.sqrt(99 / 12 / 2000)


def test_uniform_stays_in_its_interval_and_fills_it() -> None:
    draws = [randomness.uniform(1, "r", place) for place in range(2000)]
    assert 0 <= min(draws) < 0.01
    assert 0.99 < max(draws) < 1
