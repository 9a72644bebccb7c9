"""Convolutions whose weight gradients are computed apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainer.ops.fork import Convolution, Fork

pytestmark = pytest.mark.numeric
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network(fork: Fork | None, dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(1)
    layers = [
        Convolution(3, 8, 3, padding=1, bias=False),
        Convolution(8, 16, 3, stride=2, padding=1, bias=False),
        Convolution(16, 12, 1, bias=False),
    ]
    for layer in layers:
        layer.fork = fork
    net = nn.Sequential(*layers).to(DEVICE, dtype)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fork_changes_no_bit(dtype: torch.dtype) -> None:
    fork = Fork(DEVICE)
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(2)).to(DEVICE, dtype)
    results: list[list[Tensor]] = []
    for net in (network(None, dtype), network(fork, dtype)):
        given = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        out = net(given)
        out.square().sum().backward()
        fork.join()
        gradients = [parameter.grad for parameter in net.parameters()]
        assert given.grad is not None
        results.append([out, given.grad, *(gradient for gradient in gradients if gradient is not None)])
    assert len(results[0]) == len(results[1]) == 5
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_weights_gradient_has_the_weights_layout() -> None:
    fork = Fork(DEVICE)
    net = network(fork, torch.float32)
    net(torch.randn(2, 3, 9, 9).to(DEVICE).contiguous(memory_format=torch.channels_last)).sum().backward()
    fork.join()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()


def test_an_input_without_a_gradient_gets_none() -> None:
    fork = Fork(DEVICE)
    net, x = network(fork, torch.float32), torch.randn(2, 3, 9, 9, device=DEVICE)
    net(x).sum().backward()
    fork.join()
    assert x.grad is None
    assert all(parameter.grad is not None for parameter in net.parameters())
