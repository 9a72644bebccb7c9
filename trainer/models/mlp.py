"""Fully connected networks with an activation site (ReLU or SReLU) and dropout after each hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.models.sites import Layer, Network, Site
from trainer.ops import relu_topk


class ReluSite(Site):
    """A site that applies ReLU and keeps the `keep` largest activations."""

    def forward(self, x: Tensor) -> Tensor:
        out = _topk(x, self.keep, self.priority(x))
        if self.nonzero is not None:
            self.nonzero += out.detach().count_nonzero()
        return out


class SReluSite(Site):
    """A site that applies the S-shaped rectifier and keeps the `keep` activations largest in absolute value.

    The function consists of three lines. The slope and the end of the two outer ones are learnt for each
    neuron. Activations may be negative, hence the absolute value. At first the function is the ReLU.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.left, self.left_slope = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))
        self.right, self.right_slope = nn.Parameter(torch.ones(size)), nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        above = self.right + self.right_slope * (x - self.right)
        below = self.left + self.left_slope * (x - self.left)
        shaped = torch.where(x >= self.right, above, torch.where(x <= self.left, below, x))
        size = shaped.detach().abs()
        out = torch.where(_topk(size, self.keep, self.priority(x)) > 0, shaped, 0)
        if self.nonzero is not None:
            self.nonzero += out.detach().count_nonzero()
        return out


def _topk(x: Tensor, keep: Tensor, priority: Tensor | None) -> Tensor:
    """Apply `relu_topk`, which expects channels, height and width: each neuron is a channel of one pixel."""
    return relu_topk(x[..., None, None], keep, None if priority is None else priority[..., None, None])[
        ..., 0, 0
    ]


class Mlp(Network):
    """A network of hidden layers with these widths and a linear head.

    All weights are drawn from one normal distribution. Biases start at 0.
    """

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        *,
        inputs: int,
        srelu: bool = False,
        dropout: float = 0.0,
        init_scale: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the network. `generator`, or torch's global one, draws the weights."""
        super().__init__()
        sizes = [inputs, *widths, classes]
        self.linears = nn.ModuleList(nn.Linear(inside, outside) for inside, outside in pairwise(sizes))
        sites = [SReluSite(width) if srelu else ReluSite(width) for width in widths]
        self.activations = nn.ModuleList(sites)
        self.sites = list(sites)
        self.layers = []
        self.dropout = dropout
        for i, layer in enumerate(self.linears):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=init_scale, generator=generator)
            nn.init.zeros_(layer.bias)
            hidden = i < len(widths)
            owned = (layer.bias, *(sites[i].parameters() if hidden else ()))
            self.layers.append(Layer(layer.weight, owned, feeds=i + 1 if hidden else None))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer, site in zip(self.linears, self.activations, strict=False):
            x = self._drop_out(site(layer(x)))
        return self.linears[-1](x)

    def _drop_out(self, x: Tensor) -> Tensor:
        """Dropout with the network's own generator, which torch's function cannot take."""
        if not self.training or not self.dropout:
            return x
        kept = 1 - self.dropout
        return x * torch.empty_like(x).bernoulli_(kept, generator=self.generator).div_(kept)
