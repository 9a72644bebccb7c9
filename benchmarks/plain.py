"""The paper's method in straightforward PyTorch: the rival that our epoch is measured against.

It has a DataLoader, a sorted torch.topk with a scatter, one module per operation, and .item() at every
step. The tests also train it beside ours, as an independent reading of the method.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class RMSNorm2d(nn.Module):
    """RMS norm over the channels, at each position of the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(x.pow(2).mean(dim=1, keepdim=True) + 1e-10) * self.scale + self.bias


class SparseReLU(nn.Module):
    """ReLU, then a global top-k per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.ratio = 1.0
        self.nonzero = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        if self.ratio < 1:
            flat = x.flatten(1)
            values, index = torch.topk(flat, math.ceil(self.ratio * flat.shape[1]), dim=1)
            x = torch.zeros_like(flat).scatter(1, index, values).view_as(x)
        if not self.training:
            self.nonzero = (x != 0).float().mean().item()
        return x


def site(channels: int) -> nn.Sequential:
    """A norm and its activation."""
    return nn.Sequential(RMSNorm2d(channels), SparseReLU())


class Block(nn.Module):
    """A pre-activation block, with a 1x1 shortcut where shapes differ."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.site1, self.site2 = site(inside), site(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False) if inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.site1(x)
        out = self.conv2(self.site2(self.conv1(active)))
        return out + (x if self.shortcut is None else self.shortcut(active))


class PlainWideResNet(nn.Module):
    """The paper's wide ResNet."""

    def __init__(self, depth: int, widen: int, classes: int, channels: int) -> None:
        super().__init__()
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        blocks = [
            Block(
                widths[group] if block == 0 else widths[group + 1],
                widths[group + 1],
                2 if group and block == 0 else 1,
            )
            for group in range(3)
            for block in range((depth - 4) // 6)
        ]
        self.blocks, self.site, self.head = (
            nn.Sequential(*blocks),
            site(widths[3]),
            nn.Linear(widths[3], classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.site(self.blocks(self.stem(x))).mean(dim=(2, 3)))

    def set_keep(self, ratio: float) -> None:
        for module in self.modules():
            if isinstance(module, SparseReLU):
                module.ratio = ratio


def train_epoch(
    model: nn.Module, loader: DataLoader[tuple[Tensor, ...]], optimizer: torch.optim.Optimizer
) -> tuple[float, float]:
    """Train one epoch; return the mean loss and accuracy over its batches."""
    model.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        logits = model(images)
        loss = cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(dim=1) == labels).sum().item())
        seen += len(labels)
    return loss_sum / seen, correct / seen


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Return the accuracy on these images."""
    model.eval()
    correct, seen = 0, 0
    for images, labels in loader:
        correct += int((model(images).argmax(dim=1) == labels).sum().item())
        seen += len(labels)
    return correct / seen


def loader_of(
    images: Tensor, labels: Tensor, batch_size: int, *, shuffle: bool
) -> DataLoader[tuple[Tensor, ...]]:
    """The usual DataLoader."""
    return DataLoader(TensorDataset(images, labels), batch_size, shuffle=shuffle)
