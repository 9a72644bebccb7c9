"""A ResNet-18 of torchvision, for small images, with an activation site in place of each ReLU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from trainer.models import Image, Settings
from trainer.models.sites import Layer, Network, Site
from trainer.ops import relu_topk


class MapSite(Site):
    """A site on feature maps. It applies ReLU and keeps the largest activations."""

    def forward(self, x: Tensor) -> Tensor:
        out = relu_topk(x, self.keep, self.priority(x))
        if self.nonzero is not None:
            self.nonzero += out.detach().count_nonzero()
        return out


class Block(BasicBlock):
    """torchvision's block with a module for each of its two ReLUs. torchvision uses one module twice."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        aside = x if self.downsample is None else self.downsample(x)
        active = self.relu(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(active)) + aside)


class SmallResNet(ResNet):
    """torchvision's ResNet-18 with a stem for small images, and with as many channels as wanted."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__(Block, [2, 2, 2, 2])
        self.inplanes = width
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        self.layer1 = self._make_layer(Block, width, 2)
        self.layer2 = self._make_layer(Block, 2 * width, 2, stride=2)
        self.layer3 = self._make_layer(Block, 4 * width, 2, stride=2)
        self.layer4 = self._make_layer(Block, 8 * width, 2, stride=2)
        self.fc = nn.Linear(8 * width, classes)


class SparseResNet(Network):
    """Such a network with sites and layers, and with weights that the generator draws."""

    def __init__(self, image: Image, width: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = SmallResNet(image[0], width, classes)
        self._replace_relus(image)
        self.sites = [module for module in self.modules() if isinstance(module, Site)]
        self._declare_layers()
        # torchvision has drawn weights from the generator that all runs of a process share
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
        bound = 1 / math.sqrt(self.inner.fc.in_features)
        nn.init.uniform_(self.inner.fc.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.inner.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def _replace_relus(self, image: Image) -> None:
        """Put a site in place of each ReLU. A pass of one sample shows how many activations each has."""
        sizes: dict[nn.Module, int] = {}

        def note(relu: nn.Module, _: Any, out: Tensor) -> None:
            sizes[relu] = out.numel()

        relus = {name: module for name, module in self.named_modules() if isinstance(module, nn.ReLU)}
        hooks = [relu.register_forward_hook(note) for relu in relus.values()]
        with torch.no_grad():
            self.eval()(torch.zeros(1, *image))
        for hook in hooks:
            hook.remove()
        for name, relu in relus.items():
            owner, _, key = name.rpartition(".")
            setattr(self.get_submodule(owner), key, MapSite(sizes[relu]))

    def _declare_layers(self) -> None:
        """Declare the layers. The channels between the convolutions of a block are hidden neurons."""
        self.layers = [Layer(self.inner.conv1.weight)]
        for block in self.modules():
            if isinstance(block, Block):
                owned = tuple(block.bn1.parameters())
                self.layers.append(Layer(block.conv1.weight, owned, feeds=len(self.layers) + 1))
                self.layers.append(Layer(block.conv2.weight))
                if block.downsample is not None:
                    convolution, _ = block.downsample.children()
                    self.layers.append(Layer(next(convolution.parameters())))
        self.layers.append(Layer(self.inner.fc.weight))


def build(_: Settings, image: Image, classes: int, generator: torch.Generator) -> SparseResNet:
    """Build a ResNet-18: 11 million weights."""
    return SparseResNet(image, 64, classes, generator)


def narrow(_: Settings, image: Image, classes: int, generator: torch.Generator) -> SparseResNet:
    """Build a network with as many layers and an eighth of the channels."""
    return SparseResNet(image, 8, classes, generator)
