"""Synthetic images with CIFAR-10's number and shape, made from a seed alone."""

from __future__ import annotations

import numpy as np

from trainer import randomness


def images() -> tuple[np.ndarray, np.ndarray]:
    """Images on a scale from 0 to 1, as (N, H, W, C), and their classes.

    Each class has four soft patterns. An image is one of them, shifted in both directions, mixed with
    another pattern and with noise. The task can be learnt, but neither a pixel nor a mean colour tells the
    class. The images are for benchmarks; results on them say nothing about photographs.
    """
    classes, variants, total = 10, 4, 60_000
    words = np.random.PCG64(randomness.derive(0, "synthetic-cifar"))
    coarse = (
        words.random_raw(classes * variants * 3 * 8)
        .view(np.uint8)
        .reshape(classes * variants, 8, 8, 3)
        .astype(np.float32)
        / 255
    )
    soft = coarse.repeat(4, axis=1).repeat(4, axis=2)
    for axis in (1, 2):
        soft = np.mean([np.roll(soft, shift, axis) for shift in range(-2, 3)], axis=0)
    soft += 0.5 - soft.mean((1, 2), keepdims=True)
    # indexed by [pattern, down, right]
    shifted = np.lib.stride_tricks.sliding_window_view(np.tile(soft, (1, 2, 2, 1)), (32, 32), axis=(1, 2))
    draws = (words.random_raw(2 * total) >> np.uint64(1)).astype(np.int64).reshape(2, total)
    labels = draws[0] % classes
    pattern, down, right = (
        labels * variants + (draws[0] >> 8) % variants,
        (draws[0] >> 16) % 32,
        (draws[0] >> 24) % 32,
    )
    other, other_down, other_right = draws[1] % len(soft), (draws[1] >> 16) % 32, (draws[1] >> 24) % 32
    noise = words.random_raw(total * 3 * 32 * 32 // 8).view(np.uint8).reshape(total, 3, 32, 32)
    images = np.empty((total, 32, 32, 3), np.float32)
    for start in range(0, total, 2_000):
        some = slice(start, start + 2_000)
        mixed = np.float32(0.45) * shifted[pattern[some], down[some], right[some]]
        mixed += np.float32(0.25) * shifted[other[some], other_down[some], other_right[some]]
        mixed += np.float32(0.3 / 255) * noise[some]
        images[some] = mixed.transpose(0, 2, 3, 1)
    return images, labels
