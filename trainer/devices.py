"""The device that a command trains on."""

from __future__ import annotations


class NoDevice(RuntimeError):
    """The error of a device that was asked for and is not there."""


def choose(wanted: str) -> str:
    """The device for auto, cpu or cuda: cpu or cuda. It imports torch only where a GPU would do."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise NoDevice(
            "--device cuda: this machine's torch sees no CUDA device. --device auto takes the CPU."
        )
    return "cpu"
