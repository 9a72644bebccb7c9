"""Checks of what survives a top-k, where nothing can flip.

Two orders of addition may choose differently among values that are nearly tied.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.plain import PlainWideResNet, SparseReLU
from trainer.models.wide_resnet import WideResNet
from trainer.ops import keep_count
from trainer.ops.reference import Keep


def assert_the_largest_survived(values: Tensor, survived: Tensor, keep: int, margin: float) -> None:
    """Check that the survivors are those of ReLU and the top-k, and as many.

    Within `margin` of the threshold any choice is right.
    """
    values, survived = values.flatten(1), survived.flatten(1)
    keep = min(keep, values.shape[1])
    threshold = values.relu().topk(keep).values[:, -1:]
    margins = margin * (1 + threshold)
    clear = (values - threshold).abs() > margins
    assert torch.equal(survived[clear], (values > threshold)[clear])
    kept = survived.sum(1, keepdim=True)
    assert bool((kept <= keep).all())
    assert bool((kept == keep)[threshold > margins].all())


def output(of_site: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """What a site gives on: one that adds gives its sum too."""
    return of_site[1] if isinstance(of_site, tuple) else of_site


def follow(plain: PlainWideResNet, ours: WideResNet, ratio: float) -> None:
    """Let `plain` go on with the survivors of `ours`, once they are checked, while both train.

    A near-tie that is chosen differently is not noise: from there on the two would compute different
    things.
    """
    chosen: deque[Tensor] = deque()

    def choose(module: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
        if not module.training:
            return out
        survived = chosen.popleft()
        assert_the_largest_survived(
            given[0].detach(), survived, keep_count(ratio, survived[0].numel()), 1e-4
        )
        return torch.where(survived, given[0], 0)

    for site in ours.sites:
        site.register_forward_hook(
            lambda site, _, out: chosen.append(output(out).detach() != 0) if site.training else None
        )
    for module in plain.modules():
        if isinstance(module, SparseReLU):
            module.register_forward_hook(choose)


class Judged:
    """A sparse activation whose every use is compared with the formula in double precision.

    Given a training's inputs and gradients and the survivors that it chose, outputs and gradients are
    sums and products. They agree to their rounding, whatever the training does.
    """

    # so that autograd gives all gradients, which are compared, and none goes another way
    __name__ = "judged"

    def __init__(self, implementation: Any) -> None:
        self.implementation = implementation
        self.forward, self.backward = 0, 0
        """The number of sites that were checked."""

    def norm_relu_topk(self, *given: Any) -> Tensor:
        return self.counted_norm_relu_topk(*given)[0]

    def added_norm_relu_topk(
        self,
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        bias: Tensor,
        keep: Keep,
        eps: float,
        priority: Tensor | None,
        counted: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Judge the site on the sum. `test_ops` compares the two in one with the two apart."""
        total = x + y
        out, nonzero = self.counted_norm_relu_topk(total, scale, bias, keep, eps, priority)
        return total, out, nonzero if counted else None

    def counted_norm_relu_topk(
        self, x: Tensor, scale: Tensor, bias: Tensor, keep: Keep, eps: float, priority: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mine = [
            value.view_as(value) for value in (x, scale, bias)
        ]  # used here alone, so that their gradients are this site's
        out, nonzero = self.implementation.counted_norm_relu_topk(*mine, keep, eps, priority)
        survived = out.detach() != 0
        assert int(nonzero) == int(survived.sum())
        # bfloat16's own step; float32's is 1e-7, but sums have hundreds of terms.
        step = 2.0**-7 if x.dtype == torch.bfloat16 else 1e-4
        full, scales, biases = (
            value.detach().double() for value in (x, scale.view(-1, 1, 1), bias.view(-1, 1, 1))
        )
        inverse = (full.square().mean(1, keepdim=True) + eps).rsqrt()
        normed = full * inverse
        values = normed * scales + biases
        if priority is None:
            assert_the_largest_survived(values, survived, int(keep), step)
        else:
            assert_the_largest_survived(torch.where(values > 0, priority, 0), survived, int(keep), 0)
        torch.testing.assert_close(
            out.detach().double(), torch.where(survived, values, 0), rtol=step, atol=1e-4
        )
        self.forward += 1
        if not out.requires_grad:
            return out, nonzero
        wanted: list[tuple[Tensor, Tensor]] = []

        def upstream_is(upstream: Tensor) -> None:
            passed = torch.where(survived, upstream, 0).double()
            weighted = passed * scales
            x_grad = inverse * (weighted - normed * (weighted * normed).mean(1, keepdim=True))
            # what a sum is off by grows with its terms, which may cancel
            wanted.append((x_grad, step * (x_grad.abs() + inverse * weighted.abs().amax(1, keepdim=True))))
            wanted.extend(
                (terms.sum((0, 2, 3)), 1e-4 * terms.abs().sum((0, 2, 3)))
                for terms in (passed * normed, passed)
            )
            self.backward += 1

        def gradient_is(place: int, gradient: Tensor) -> None:
            right, bound = wanted[place]
            assert bool(((gradient.double() - right).abs() <= bound).all()), ("x", "scale", "bias")[place]

        out.register_hook(upstream_is)
        for place, value in enumerate(mine):
            value.register_hook(lambda gradient, place=place: gradient_is(place, gradient))
        return out, nonzero
