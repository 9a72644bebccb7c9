"""Wide residual networks. Every nonlinearity is an activation site of RMSNorm, ReLU and a global top-k."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from trainer.models.sites import Layer, Network, Site
from trainer.ops import (
    added_norm_relu_topk,
    counted_norm_relu_topk,
    mean_head_loss,
    norm_relu_topk,
    site_sums,
)
from trainer.ops.fork import Convolution, Fork
from trainer.ops.reference import Reduction
from trainer.techniques import Techniques

if TYPE_CHECKING:
    from trainer.ops.sums import SiteSums


class _Norm(Site):
    """What sites with RMSNorm over the channels have in common."""

    sums: Tensor | None = None
    """Where the partial sums of the parameters' gradients go; None where autograd has the gradients."""

    def __init__(self, channels: int, height: int, width: int | None = None) -> None:
        """Build the site for images of this size; `width` is given where they are not square."""
        super().__init__(channels * height * (height if width is None else width))
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def activated(self, x: Tensor) -> Tensor:
        given, priority = (self.scale, self.bias, self.keep), self.priority(x)
        if self.nonzero is None:
            return norm_relu_topk(x, *given, priority=priority, sums=self.sums)
        out, nonzero = counted_norm_relu_topk(x, *given, priority=priority, sums=self.sums)
        self.nonzero += nonzero
        return out


class NormSite(_Norm):
    """A site that applies RMSNorm over the channels, ReLU and top-k."""

    def forward(self, x: Tensor) -> Tensor:
        return self.activated(x)


class AddingSite(_Norm):
    """Such a site on the sum of two branches, where there are two."""

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sum x + y, and the site's output."""
        if y is None:
            return x, self.activated(x)
        given, priority = (self.scale, self.bias, self.keep), self.priority(x)
        counted = self.nonzero is not None
        total, out, nonzero = added_norm_relu_topk(
            x, y, *given, priority=priority, counted=counted, sums=self.sums
        )
        if self.nonzero is not None and nonzero is not None:
            self.nonzero += nonzero
        return total, out


class Block(nn.Module):
    """Two activated convolutions beside a shortcut, which is a 1x1 convolution where shapes differ.

    Input and output are two branches that the next site adds.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        size: tuple[int, int],
        stride: int,
        shortcut: Literal["activated", "raw"],
    ) -> None:
        super().__init__()
        self.site1 = AddingSite(inside, *size)
        self.conv1 = Convolution(inside, outside, 3, stride, 1, bias=False)
        self.site2 = NormSite(outside, *_strided(size, stride))
        self.conv2 = Convolution(outside, outside, 3, 1, 1, bias=False)
        self.shortcut = (
            Convolution(inside, outside, 1, stride, bias=False) if inside != outside or stride != 1 else None
        )
        self.raw = shortcut == "raw"

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        x, active = self.site1(x, y)
        aside = x if self.shortcut is None else self.shortcut(x if self.raw else active)
        return aside, self.conv2(self.site2(self.conv1(active)))


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width of the output of a convolution with padding."""
    return -(-size[0] // stride), -(-size[1] // stride)


class WideResNet(Network):
    """A wide residual network for images.

    It has a stem of 16 channels, three groups of blocks with 16, 32 and 64 times `widen` channels, a last
    site, a mean over the image and a linear head.
    """

    takes_padding = True
    adds = True
    """Whether a site adds the two branches of the block before it, and not the block itself."""
    tail = True
    """Whether the mean, the head and the loss are one operation."""
    fork: Fork | None = None
    sums: SiteSums | None = None

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
        """Build the network. `generator`, or torch's global one, draws the weights."""
        super().__init__()
        channels, size = image[0], image[1:]
        self.stem = Convolution(channels, 16, 3, padding=1, bias=False)
        blocks: list[Block] = []
        inside = 16
        for group, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
            for block in range((depth - 4) // 6):
                stride = 2 if group and not block else 1
                blocks.append(Block(inside, width, size, stride, shortcut))
                inside, size = width, _strided(size, stride)
        self.blocks = nn.Sequential(*blocks)
        self.site = AddingSite(inside, *size)
        self.head = nn.Linear(inside, classes)
        self.sites = [module for module in self.modules() if isinstance(module, Site)]
        self.layers = self._layers()
        self._draw_weights("fan_out" if init == "fan-out" else "fan_in", generator)

    def _layers(self) -> list[Layer]:
        """The layers. Only the first convolution of a block has hidden neurons, since its channels feed
        nothing but the second convolution. They own their parameters of the site between the two."""
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
        """Draw the weights: Kaiming normal for convolutions, uniform for the head.

        The head's weights are within 1 / sqrt(inputs), and its bias is 0.
        """
        for module in self.modules():
            if isinstance(module, Convolution):
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu", generator=generator)
        bound = 1 / math.sqrt(self.head.in_features)
        nn.init.uniform_(self.head.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._features(x).mean((2, 3)))

    def loss(self, x: Tensor, labels: Tensor, reduction: Reduction = "mean") -> tuple[Tensor, Tensor]:
        if not self.tail:
            return super().loss(x, labels, reduction)
        return mean_head_loss(self._features(x), self.head.weight, self.head.bias, labels, reduction)

    def _features(self, x: Tensor) -> Tensor:
        """The output of the last site."""
        x, y = self._stem(x), None
        for block in self.blocks:
            x, y = block(x, y)
            if not self.adds:
                x, y = x + y, None
        return self.site(x, y)[1]

    def speed_up(self, techniques: Techniques, samples: int) -> None:
        weight, sites = self.stem.weight, self._norm_sites
        self.adds, self.tail = techniques.added, techniques.tail
        if techniques.fork:
            self.fork = Fork(weight.device)
            for module in self.modules():
                if isinstance(module, Convolution):
                    module.fork = self.fork
        if techniques.sums:
            shapes = [(len(site.scale), site.size // len(site.scale)) for site in sites]
            self.sums = site_sums(shapes, samples, weight.device)
        for i, site in enumerate(sites):
            site.sums = self.sums and self.sums.buffers[i]

    def add_gradients(self, samples: int) -> None:
        if self.fork:
            self.fork.join()
        if self.sums:
            self.sums.add_up(samples)
            for site, gradients in zip(self._norm_sites, self.sums.gradients, strict=True):
                site.scale.grad, site.bias.grad = gradients

    @property
    def _norm_sites(self) -> list[_Norm]:
        return [site for site in self.sites if isinstance(site, _Norm)]

    def _stem(self, x: Tensor) -> Tensor:
        more = x.shape[1] - self.stem.in_channels
        return conv2d(x, pad(self.stem.weight, (0, 0, 0, 0, 0, more)), padding=1) if more else self.stem(x)
