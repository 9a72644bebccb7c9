"""What every network here has in common: activation sites that are told from outside what may survive, and layers of connections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.ops import keep_count


class Site(nn.Module):
    """One nonlinearity with a global top-k. What may survive is set from outside, for all sites of a network at once."""

    keep: Tensor

    def __init__(self, size: int) -> None:
        """`size` is the number of activations of one sample."""
        super().__init__()
        self.size = size
        self.register_buffer(
            "keep", torch.tensor(size, dtype=torch.int32), persistent=False
        )  # a tensor: never compiled in
        self.at_random = False
        self.nonzero: Tensor | None = None

    def priority(self, x: Tensor) -> Tensor | None:
        """What ranks the activations in place of their value, where survivors are drawn at random."""
        # from torch's own generator of the device, which a CUDA graph knows how to replay; above 0, as a priority must be
        return 1 - torch.rand(x.shape, device=x.device) if self.at_random else None


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight whose connections may come and go: a row for each output, and for each input one column (a convolution: one per tap)."""

    weight: Tensor
    owned: tuple[Tensor, ...] = ()
    """Vectors with a number for each output: its bias, and what its activation has."""
    feeds: int | None = None
    """Which layer takes the outputs as its inputs, and nothing else does: then they are hidden neurons, and one may be removed."""


class Network(nn.Module):
    """A network with its sites in the order of the forward pass, and its layers."""

    sites: list[Site]
    layers: list[Layer]

    def set_keep(self, ratio: float, *, at_random: bool = False) -> None:
        """Let this share of every site's activations survive: the largest, or as many drawn from torch's generator."""
        for site in self.sites:
            site.keep.fill_(keep_count(ratio, site.size))
            site.at_random = at_random

    def count_nonzero(self, counts: Tensor | None) -> None:
        """Add to these counts, one a site, the activations that are not zero; with None, stop."""
        for i, site in enumerate(self.sites):
            site.nonzero = None if counts is None else counts[i]
