"""What makes a step fast, each of which can be turned off: `benchmarks.gpu_lab` measures what it saves.

On a CPU a run's rows are bit for bit the same with and without each of them. On a GPU they may differ in the
last bits, because sums are added in another order or a library chooses another algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Techniques:
    """The techniques that are in use. Those that a device or a network has no use for do nothing there."""

    graph: bool = True
    """A step is recorded as a CUDA graph and replayed."""
    sums: bool = True
    """One kernel after the backward pass sums up the gradients of all sites' scales and biases."""
    copies: bool = True
    """In bfloat16 the network reads copies of its weights, which the optimizer's kernel writes."""
    fork: bool = True
    """Convolutions' weight gradients are computed on a second stream; in bfloat16 only with `copies`."""
    padded: bool = True
    """Images have 8 channels on the device, most of them zeros, which suits cuDNN better than 3."""
    added: bool = True
    """A site adds the two branches of the block before it."""
    tail: bool = True
    """The mean over the image, the head, the loss and their gradients are one operation."""
    waves: bool = True
    """Evaluation batches fill an H100's multiprocessors evenly."""


ALL = Techniques()
