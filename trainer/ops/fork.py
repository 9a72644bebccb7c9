"""Convolutions whose weight gradients are computed beside the rest of the backward pass.

Nothing waits for them before the optimizer's step. On a CUDA device they get a stream of their own, where
they fill the multiprocessors that the other kernels leave free.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainer import streams

Geometry = tuple[list[int], list[int]]
"""Stride and padding."""


class Fork:
    """The second stream of one network. `join` must be called between a backward pass and the step."""

    def __init__(self, device: torch.device) -> None:
        self.stream = streams.lend(self, device) if device.type == "cuda" else None
        self._read: list[Tensor] = []
        """What the second stream reads: its memory must not be used for anything else before the join."""

    def gradient_of(self, weight: Tensor, grad: Tensor, x: Tensor, geometry: Geometry) -> None:
        """Start the computation of a weight's gradient, which becomes the weight's `grad`."""
        with self._aside():
            gradient = _backward(grad, x, weight, geometry, [False, True, False])[1]
            # The optimizer's kernel reads both as rows of memory, so their layouts must be the same.
            # Elsewhere autograd cares for that. It must not be given this gradient: it would read it at
            # once, on the first stream, where it may not be ready.
            same = gradient.stride() == weight.stride()
            weight.grad = gradient if same else torch.empty_like(weight).copy_(gradient)
        if self.stream:
            self._read += [grad, x]

    def join(self) -> None:
        """Let the current stream wait for all gradients."""
        if self.stream and self._read:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
            self._read.clear()

    def _aside(self) -> AbstractContextManager[Any]:
        if self.stream is None:
            return nullcontext()
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        return torch.cuda.stream(self.stream)


class Convolution(nn.Conv2d):
    """A convolution without a bias, which uses a fork where it has one and need not cast its weight."""

    fork: Fork | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        # autocast casts a weight in float32, and the gradient is that of the weight itself
        if self.fork is None or (
            torch.is_autocast_enabled(input.device.type) and self.weight.dtype == torch.float32
        ):
            return super().forward(input)
        geometry = list(self.stride), list(cast("tuple[int, int]", self.padding))
        return cast(Tensor, _Forked.apply(input.to(self.weight.dtype), self.weight, self.fork, geometry))


class _Forked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, fork: Fork, geometry: Geometry) -> Tensor:
        # autograd would check that the weight was not changed in between, and the gradient needs the leaf
        ctx.save_for_backward(x)
        ctx.weight, ctx.fork, ctx.geometry = weight, fork, geometry
        stride, padding = geometry
        return torch.nn.functional.conv2d(x, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,), (grad,) = ctx.saved_tensors, grads
        weight, geometry = ctx.weight.detach(), ctx.geometry
        ctx.fork.gradient_of(ctx.weight, grad, x, geometry)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return _backward(grad, x, weight, geometry, [True, False, False])[0], None, None, None


def _backward(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: list[bool]) -> Any:
    stride, padding = geometry
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, wanted
    )
