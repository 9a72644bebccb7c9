"""Wide residual networks whose every nonlinearity is an activation site: RMSNorm, ReLU and a global top-k."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.sites import Layer, Network, Site
from trainer.ops import counted_norm_relu_topk, norm_relu_topk


class NormSite(Site):
    """One activation site: RMSNorm over the channels, ReLU, top-k."""

    def __init__(self, channels: int, place: int) -> None:
        super().__init__(channels * place * place)
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        priority = self.priority(x)
        if self.nonzero is None:
            return norm_relu_topk(x, self.scale, self.bias, self.keep, priority=priority)
        out, nonzero = counted_norm_relu_topk(x, self.scale, self.bias, self.keep, priority=priority)
        self.nonzero += nonzero
        return out


class Block(nn.Module):
    """Two activated convolutions, added to a shortcut; a 1x1 convolution is the shortcut where shapes differ."""

    def __init__(
        self, inside: int, outside: int, place: int, stride: int, shortcut: Literal["activated", "raw"]
    ) -> None:
        super().__init__()
        self.site1 = NormSite(inside, place)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.site2 = NormSite(outside, -(-place // stride))
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut = (
            nn.Conv2d(inside, outside, 1, stride, bias=False) if inside != outside or stride != 1 else None
        )
        self.raw = shortcut == "raw"

    def forward(self, x: Tensor) -> Tensor:
        active = self.site1(x)
        aside = x if self.shortcut is None else self.shortcut(x if self.raw else active)
        return aside + self.conv2(self.site2(self.conv1(active)))


class WideResNet(Network):
    """A stem of 16 channels, three groups of blocks at 16, 32 and 64 times `widen`, a last site, a mean and a linear head."""

    def __init__(
        self,
        depth: int,
        widen: int,
        classes: int,
        *,
        image: tuple[int, int, int] = (3, 32, 32),
        init: Literal["fan-out", "fan-in"] = "fan-out",
        shortcut: Literal["activated", "raw"] = "activated",
        generator: torch.Generator | None = None,
    ) -> None:
        """The weights are drawn from `generator`, or from torch's global one."""
        super().__init__()
        channels, place, _ = image
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        blocks: list[Block] = []
        inside = 16
        for group, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
            for block in range((depth - 4) // 6):
                stride = 2 if group and not block else 1
                blocks.append(Block(inside, width, place, stride, shortcut))
                inside, place = width, -(-place // stride)
        self.blocks = nn.Sequential(*blocks)
        self.site = NormSite(inside, place)
        self.head = nn.Linear(inside, classes)
        self.sites = [module for module in self.modules() if isinstance(module, Site)]
        self.layers = self._layers()
        self._draw_weights("fan_out" if init == "fan-out" else "fan_in", generator)

    def _layers(self) -> list[Layer]:
        """A block's first convolution feeds its second one and nothing else: its channels are hidden neurons, with their site's numbers."""
        found = [Layer(self.stem.weight)]
        for block in self.blocks:
            assert isinstance(block, Block)
            found += [
                Layer(block.conv1.weight, (block.site2.scale, block.site2.bias), feeds=len(found) + 1),
                Layer(block.conv2.weight),
                *([Layer(block.shortcut.weight)] if block.shortcut else []),
            ]
        return [*found, Layer(self.head.weight, (self.head.bias,))]

    def _draw_weights(self, mode: Literal["fan_out", "fan_in"], generator: torch.Generator | None) -> None:
        """Kaiming's normal for the convolutions, and for the head a uniform within 1 / sqrt(inputs) and no bias."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu", generator=generator)
        bound = 1 / math.sqrt(self.head.in_features)
        nn.init.uniform_(self.head.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.site(self.blocks(self.stem(x))).mean((2, 3)))
