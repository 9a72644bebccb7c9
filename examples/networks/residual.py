"""A small residual network for rows of numbers and small images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainer.models import Image, Settings
from trainer.models.mlp import ReluSite
from trainer.models.sites import Layer, Network

WIDTH, HIDDEN, BLOCKS = 64, 128, 3


class Block(nn.Module):
    """Two linear maps with a site before each, beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.site1, self.linear1 = ReluSite(WIDTH), nn.Linear(WIDTH, HIDDEN)
        self.site2, self.linear2 = ReluSite(HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear2(self.site2(self.linear1(self.site1(x))))


class Residual(Network):
    """A linear map, blocks, a last site and a linear head."""

    def __init__(self, inputs: int, classes: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.site, self.head = ReluSite(WIDTH), nn.Linear(WIDTH, classes)
        self.sites = [module for module in self.modules() if isinstance(module, ReluSite)]
        self.layers = [Layer(self.stem.weight)]
        for block in self.blocks:
            assert isinstance(block, Block)
            # only these outputs go to one other layer and nowhere else: a policy may remove them as neurons
            self.layers.append(
                Layer(block.linear1.weight, (block.linear1.bias,), feeds=len(self.layers) + 1)
            )
            self.layers.append(Layer(block.linear2.weight))
        self.layers.append(Layer(self.head.weight))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=scale, generator=generator)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.head(self.site(x))


def build(task: Settings, image: Image, classes: int, generator: torch.Generator) -> Residual:
    """Build the network for samples of this shape. `task.init_scale` is the deviation of its weights."""
    return Residual(math.prod(image), classes, task.init_scale, generator)
