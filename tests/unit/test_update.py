"""The kernel that takes a step of SGD, in Triton's interpreter or on a device, beside the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainer.ops.update import update
from trainer.sgd import Sgd

pytestmark = pytest.mark.numeric
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(16, 3, 3, 3), (64, 16, 3, 3), (10, 64), (10,), (64, 16, 1, 1), (1025,)]


def drawn(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    x = torch.randn(shape, generator=generator).to(DEVICE)
    return x.to(memory_format=torch.channels_last) if len(shape) == 4 else x


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.0), (0.9, 1e-3), (0.0, 1e-3)])
def test_steps_of_the_kernel_are_the_formula(momentum: float, weight_decay: float, copies: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    parameters = [drawn(generator, shape) for shape in SHAPES]
    right = [parameter.double() for parameter in parameters]
    moving = [torch.zeros_like(it) for it in right]
    momenta = [torch.zeros_like(it) for it in parameters] if momentum else []
    copied = [parameter.bfloat16() for parameter in parameters] if copies else []
    for _ in range(4):
        gradients = [drawn(generator, shape) for shape in SHAPES]
        gradients = [gradient.bfloat16() for gradient in gradients] if copies else gradients
        for it, moved, gradient in zip(right, moving, gradients, strict=True):
            change = gradient.double() + weight_decay * it
            moved.mul_(momentum).add_(change)
            it.sub_(0.1 * (change + momentum * moved))
        update(
            parameters, momenta, copied, gradients, torch.tensor(0.1, device=DEVICE), momentum, weight_decay
        )
    for mine, theirs in zip(parameters, right, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-6)
    for copy, parameter in zip(copied, parameters, strict=copies):
        assert torch.equal(copy, parameter.bfloat16())


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_an_optimizer_with_kernels_takes_the_steps_of_one_without(
    momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[list[Tensor]] = []
    for kernels in (False, True):
        monkeypatch.setattr("trainer.sgd.has_kernels", lambda _, kernels=kernels: kernels)
        generator = torch.Generator().manual_seed(2)
        parameters = [drawn(generator, shape) for shape in SHAPES]
        leaves = [nn.Parameter(it.bfloat16()) for it in parameters[:3]]
        optimizer = Sgd(parameters, momentum, 1e-3, [*leaves, *parameters[3:]])
        optimizer.set_rate(0.1)
        for _ in range(4):
            for leaf in optimizer.leaves:
                leaf.grad = drawn(generator, tuple(leaf.shape)).to(leaf.dtype)
            optimizer.step()
            assert all(leaf.grad is None for leaf in optimizer.leaves)
        assert all(
            torch.equal(leaf, parameter.bfloat16())
            for leaf, parameter in zip(leaves, parameters, strict=False)
        )
        ends.append(parameters)
    for mine, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
