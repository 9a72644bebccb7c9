"""Fully connected networks: linear layers with a site after each but the last, ReLU or SReLU, and dropout on what the sites let through."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from trainer.models.sites import Layer, Network, Site
from trainer.ops import relu_topk


class ReluSite(Site):
    """ReLU, and the `keep` largest of its activations."""

    def forward(self, x: Tensor) -> Tensor:
        out = _topk(x, self.keep, self.priority(x))
        if self.nonzero is not None:
            self.nonzero += out.detach().count_nonzero()
        return out


class SReluSite(Site):
    """The S-shaped rectifier: three lines, of which the outer two have a slope and an end that are learnt for each neuron.

    It has negative activations too, so that the `keep` largest are those of the largest size. It starts as the ReLU.
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
    """The operators speak of channels and places; a neuron is a channel at one place."""
    return relu_topk(x[..., None, None], keep, None if priority is None else priority[..., None, None])[
        ..., 0, 0
    ]


class Mlp(Network):
    """Hidden layers of these widths, and a linear head. Every weight is drawn from one normal distribution, biases are 0."""

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
        """The weights are drawn from `generator`, or from torch's global one."""
        super().__init__()
        sizes = [inputs, *widths, classes]
        self.linears = nn.ModuleList(nn.Linear(inside, outside) for inside, outside in pairwise(sizes))
        made = [SReluSite(width) if srelu else ReluSite(width) for width in widths]
        self.activations = nn.ModuleList(made)
        self.sites = list(made)
        self.layers = []
        self.dropout = dropout
        for i, layer in enumerate(self.linears):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=init_scale, generator=generator)
            nn.init.zeros_(layer.bias)
            hidden = i < len(widths)
            owned = (layer.bias, *(made[i].parameters() if hidden else ()))
            self.layers.append(Layer(layer.weight, owned, feeds=i + 1 if hidden else None))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer, site in zip(self.layers, self.sites, strict=False):
            x = dropout(site(linear(x, layer.weight, layer.owned[0])), self.dropout, self.training)
        return linear(x, self.layers[-1].weight, self.layers[-1].owned[0])
