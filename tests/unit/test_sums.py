"""The sums of all sites' parameter gradients by one kernel, on a device or in Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.unit.test_ops import draw
from trainer import ops
from trainer.ops import cpu, fused
from trainer.ops.sums import SiteSums

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = [(16, 1024), (64, 1024), (3, 5), (24, 700), (256, 64)]
"""Sites as (channels, places). Some have several rows for a sample; one has few columns."""


def filled(samples: int, most: int, *, unused: float = 0.0) -> SiteSums:
    """Random partial sums of so many samples, and `unused` in the rest of the buffers."""
    sums = SiteSums(SHAPES, most, DEVICE)
    generator = torch.Generator().manual_seed(6)
    for buffer, (channels, places) in zip(sums.buffers, SHAPES, strict=True):
        used = buffer[: samples * fused.partial_sums(places, channels)]
        buffer.fill_(unused)
        used.copy_(torch.randn(used.shape, generator=generator))
    return sums


def added(sums: SiteSums, samples: int) -> list[Tensor]:
    sums.add_up(samples)
    return [gradient.cpu().clone() for pair in sums.gradients for gradient in pair]


@pytest.mark.parametrize("samples", [1, 7, 80])
def test_all_rows_of_a_batch_are_added_up(samples: int) -> None:
    sums = filled(samples, 80, unused=1e6)
    for (scale, bias), buffer, (channels, places) in zip(sums.gradients, sums.buffers, SHAPES, strict=True):
        scale.fill_(math.nan)
        bias.fill_(math.nan)
        assert (scale.shape, bias.shape) == ((channels,), (channels,))
        assert len(buffer) == 80 * fused.partial_sums(places, channels)
    sums.add_up(samples)
    for pair, buffer, (channels, places) in zip(sums.gradients, sums.buffers, SHAPES, strict=True):
        used = buffer[: samples * fused.partial_sums(places, channels)].double()
        bound = len(used) * 2.0**-24 * used.abs().sum(0)
        assert bool(((torch.stack(pair).double() - used.sum(0)).abs() <= bound).all())


def test_rows_beyond_the_batch_and_the_size_of_the_buffers_change_no_bit() -> None:
    expected = added(filled(20, 20), 20)
    for most, unused in ((20, 0.0), (33, math.nan), (80, math.inf)):
        assert all(map(torch.equal, added(filled(20, most, unused=unused), 20), expected))


def test_a_batch_larger_than_the_buffers_is_refused() -> None:
    with pytest.raises(AssertionError, match="larger"):
        SiteSums(SHAPES, 4, DEVICE).add_up(5)
    sums = SiteSums([(8, 30)], 3, DEVICE)
    x, ones = draw().to(DEVICE).requires_grad_(), torch.ones(8, device=DEVICE)
    with pytest.raises(AssertionError, match="larger"):
        fused.norm_relu_topk(x, ones, ones, 9, sums=sums.buffers[0]).sum().backward()


@pytest.mark.parametrize("samples", [4, 3])
def test_sites_that_write_to_one_buffer_have_the_gradients_that_autograd_gives(samples: int) -> None:
    """Three sites in a row, one for each function, and a smaller last batch."""
    x = draw()[:samples].to(DEVICE)
    parameters = [torch.full((8,), value, device=DEVICE) for value in (1.1, 0.2, 0.9, 0.1, 1.3, -0.1)]
    site_sums = SiteSums([(8, 30)] * 3, 4, DEVICE)
    gradients: list[list[Tensor]] = []
    for sums in (None, site_sums):
        leaves = [value.clone().requires_grad_() for value in (x, *parameters)]
        first, scale1, bias1, scale2, bias2, scale3, bias3 = leaves
        a, b, c = sums.buffers if sums else (None, None, None)
        y = fused.norm_relu_topk(first, scale1, bias1, 90, sums=a)
        z, _ = fused.counted_norm_relu_topk(y, scale2, bias2, 80, sums=b)
        total, out, _ = fused.added_norm_relu_topk(y, z, scale3, bias3, 70, sums=c)
        (out + total).square().sum().backward()
        if sums:
            assert all(leaf.grad is None for leaf in leaves[1:])
            sums.add_up(samples)
            found = [leaves[0].grad, *(gradient for pair in sums.gradients for gradient in pair)]
        else:
            found = [leaf.grad for leaf in leaves]
        gradients.append([gradient for gradient in found if gradient is not None])
    theirs, ours = gradients
    assert len(theirs) == len(ours) == 7
    assert torch.equal(theirs[0], ours[0])
    for one, two in zip(theirs[1:], ours[1:], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4)


def test_only_the_kernels_have_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ops.site_sums(SHAPES, 4, torch.device("cpu")) is None
    with monkeypatch.context() as patch:
        patch.setattr(ops, "_implementation", lambda _: fused)
        assert isinstance(ops.site_sums(SHAPES, 4, DEVICE), SiteSums)
        assert isinstance(ops.site_sums([], 4, DEVICE), SiteSums)
    x, ones = draw(), torch.ones(8)
    assert torch.equal(ops.norm_relu_topk(x, ones, ones, 9), cpu.norm_relu_topk(x, ones, ones, 9))
