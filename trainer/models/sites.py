"""The base classes of all networks: activation sites, layers of connections, and the network itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainer.ops import keep_count
from trainer.ops.reference import Reduction
from trainer.techniques import Techniques


class Site(nn.Module):
    """A nonlinearity followed by a global top-k. `Network.set_keep` sets how many activations survive."""

    keep: Tensor

    def __init__(self, size: int) -> None:
        """`size` is the number of activations of one sample."""
        super().__init__()
        self.size = size
        # a recorded or compiled step reads a tensor anew, while it would fix a plain number
        self.register_buffer("keep", torch.tensor(size, dtype=torch.int32), persistent=False)
        self.at_random = False
        self.generator: torch.Generator | None = None
        self.nonzero: Tensor | None = None

    def priority(self, x: Tensor) -> Tensor | None:
        """Random numbers that rank the activations, or None if their values rank them."""
        if not self.at_random:
            return None
        # a priority must be above 0
        return 1 - torch.rand(x.shape, device=x.device, generator=self.generator)


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight matrix whose connections a policy may remove and add.

    It has a row for each output and a column for each input. A convolution has a column for each tap.
    """

    weight: Tensor
    owned: tuple[Tensor, ...] = ()
    """Vectors with one number per output: the bias and the parameters of its activation."""
    feeds: int | None = None
    """Index of the only layer that takes these outputs. They are hidden neurons then, and may be removed."""


class Network(nn.Module):
    """A network, with its sites in the order of the forward pass and its layers.

    A pass reads the weights of modules, and not those of `layers`: in bfloat16 these have copies.
    """

    sites: list[Site]
    layers: list[Layer]
    generator: torch.Generator | None = None
    """The source of random numbers in a pass; None for torch's global one."""
    takes_padding = False
    """Whether the network takes images with more channels than it was built for, all of them zeros."""

    def draw_from(self, generator: torch.Generator) -> None:
        """Draw random numbers from this generator: a process may train several networks at once."""
        self.generator = generator
        for site in self.sites:
            site.generator = generator

    def speed_up(self, techniques: Techniques, samples: int) -> None:
        """Use those techniques that the network can use. A training step has `samples` samples at most.

        From then on `add_gradients` must be called after each backward pass.
        """

    def add_gradients(self, samples: int) -> None:
        """Set the gradients that a backward pass of so many samples has left to others than autograd."""

    def loss(self, x: Tensor, labels: Tensor, reduction: Reduction = "mean") -> tuple[Tensor, Tensor]:
        """The mean or summed loss of some samples, and whether each one's greatest logit is its label's."""
        logits = self(x).float()
        return cross_entropy(logits, labels, reduction=reduction), logits.argmax(1) == labels

    def set_keep(self, ratio: float, *, at_random: bool = False) -> None:
        """Let this share of every site's activations survive: the largest, or as many drawn at random."""
        for site in self.sites:
            site.keep.fill_(keep_count(ratio, site.size))
            site.at_random = at_random

    def count_nonzero(self, counts: Tensor | None) -> None:
        """Add the number of nonzero activations of each site to these counts, or with None stop counting."""
        for i, site in enumerate(self.sites):
            site.nonzero = None if counts is None else counts[i]
