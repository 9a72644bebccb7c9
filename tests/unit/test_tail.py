"""The mean, the head and the loss in one operation, on a device or in Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainer import ops
from trainer.ops import fused, reference, tail
from trainer.ops.reference import Reduction

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = {
    "the paper's last site": ((3, 256, 8, 8), 10),
    "no power of two": ((5, 24, 7, 9), 3),
    "one pixel": ((2, 16, 1, 1), 2),
    "more samples than a program reads at once": ((130, 3, 1, 2), 2),
    "channels in several tiles": ((2, 40, 3, 2), 100),
    "places in several tiles": ((2, 100, 16, 12), 4),
}
BFLOAT16 = torch.bfloat16
REDUCTIONS: list[Reduction] = ["mean", "sum"]


def drawn(shape: tuple[int, ...], classes: int, dtype: torch.dtype, head: torch.dtype) -> list[Tensor]:
    """Activations, the head's weight and bias, and labels."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn((classes, *more), generator=generator) for more in (shape[1:2], ()))
    labels = torch.randint(classes, shape[:1], generator=generator)
    return [it.to(DEVICE) for it in (x.to(dtype), (weight / 4).to(head), bias.to(head), labels)]


def exact(inputs: list[Tensor], reduction: Reduction) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, correctness and gradients by the formula, in double precision."""
    x, weight, bias = leaves = [value.detach().double().requires_grad_() for value in inputs[:3]]
    logits = x.flatten(2).sum(2) / x[0, 0].numel() @ weight.T + bias
    labels = inputs[3][:, None]
    losses = logits.exp().sum(1).log() - logits.gather(1, labels)[:, 0]
    loss = losses.mean() if reduction == "mean" else losses.sum()
    greatest = logits.gather(1, labels)[:, 0] == logits.amax(1)
    return loss, greatest, list(torch.autograd.grad(loss, leaves))


def ours(inputs: list[Tensor], reduction: Reduction, upstream: float = 1.0) -> list[Tensor]:
    """Loss, correctness and gradients."""
    x, weight, bias = leaves = [
        value.clone(memory_format=torch.preserve_format).requires_grad_() for value in inputs[:3]
    ]
    loss, right = tail.mean_head_loss(x, weight, bias, inputs[3], reduction)
    return [loss.detach(), right, *torch.autograd.grad(loss * upstream, leaves)]


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "head", "reduction"),
    [
        (torch.float32, torch.float32, "mean"),
        (BFLOAT16, torch.float32, "mean"),
        (BFLOAT16, BFLOAT16, "sum"),
    ],
)
def test_loss_and_gradients_are_the_formulas(
    monkeypatch: pytest.MonkeyPatch, case: str, dtype: torch.dtype, head: torch.dtype, reduction: Reduction
) -> None:
    monkeypatch.setattr(tail, "TILE", 2**11 if "several" in case else tail.TILE)
    inputs = drawn(*SHAPES[case], dtype, head)
    loss, right, gradients = exact(inputs, reduction)
    found, answers, *mine = ours(inputs, reduction)
    torch.testing.assert_close(found.double(), loss, rtol=1e-5, atol=1e-5)
    assert torch.equal(answers, right)
    for one, two, value in zip(mine, gradients, inputs, strict=False):
        assert (one.dtype, one.shape) == (value.dtype, value.shape)
        step = 2.0**-8 if one.dtype == BFLOAT16 else 1e-5
        torch.testing.assert_close(one.double(), two, rtol=step, atol=1e-5 * two.abs().max().item())
    assert mine[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_it_agrees_with_the_reference_under_autocast_to_the_precision_of_bfloat16(
    reduction: Reduction,
) -> None:
    inputs = drawn((6, 64, 4, 4), 10, BFLOAT16, torch.float32)
    leaves = [value.clone(memory_format=torch.preserve_format).requires_grad_() for value in inputs[:3]]
    with torch.autocast(DEVICE.type, BFLOAT16):
        loss, _ = reference.mean_head_loss(leaves[0], leaves[1], leaves[2], inputs[3], reduction)
        found, _, *mine = ours(inputs, reduction)
    assert found.item() == pytest.approx(loss.item(), rel=2**-6)
    for one, two in zip(mine, torch.autograd.grad(loss, leaves), strict=True):
        assert one.dtype == two.dtype
        assert (one - two).norm() < 2**-5 * two.norm()


def test_gradients_follow_the_gradient_of_the_loss() -> None:
    inputs = drawn((5, 24, 7, 9), 3, torch.float32, torch.float32)
    for one, two in zip(ours(inputs, "mean")[2:], ours(inputs, "mean", upstream=-4.0)[2:], strict=True):
        assert torch.equal(one * -4, two)


def test_a_sample_has_the_same_bits_twice_and_in_a_smaller_batch() -> None:
    inputs = drawn((9, 24, 7, 9), 10, BFLOAT16, torch.float32)
    first, again = ours(inputs, "sum"), ours(inputs, "sum")
    assert all(map(torch.equal, first, again))
    x, weight, bias, labels = inputs
    _, right, x_grad, *_ = ours([x[:4], weight, bias, labels[:4]], "sum")
    assert torch.equal(right, first[1][:4])
    assert torch.equal(x_grad, first[2][:4])


def test_nan_makes_the_loss_nan_and_never_hides() -> None:
    inputs = drawn((4, 24, 3, 3), 3, torch.float32, torch.float32)
    inputs[0][2, 5, 1, 1] = math.nan
    loss, right, x_grad, weight_grad, _ = ours(inputs, "mean")
    assert bool(loss.isnan())
    assert x_grad.flatten(1).isnan().any(1).tolist() == [False, False, True, False]
    assert bool(weight_grad.isnan().any())
    x, weight, bias, labels = inputs
    assert torch.equal(right, reference.mean_head_loss(x, weight, bias, labels)[1])


def test_the_first_of_equal_logits_and_the_first_nan_are_the_answer_as_for_argmax() -> None:
    logits = [1.0, 3.0, 3.0, -2.0, math.nan, 3.0, math.nan]
    for kept in (4, 7):
        bias = torch.tensor(logits[:kept], device=DEVICE)
        x, weight = torch.zeros(kept, 8, 2, 2, device=DEVICE), torch.zeros(kept, 8, device=DEVICE)
        labels = torch.arange(kept, device=DEVICE)
        right = tail.mean_head_loss(x, weight, bias, labels)[1]
        assert right.tolist() == (labels == bias.argmax()).tolist()
        assert int(right.sum()) == 1


@pytest.mark.parametrize(("channels", "classes", "dtype"), [(8, 1025, BFLOAT16), (8, 3, torch.float64)])
def test_what_the_kernels_do_not_take_goes_to_the_reference(
    monkeypatch: pytest.MonkeyPatch, channels: int, classes: int, dtype: torch.dtype
) -> None:
    monkeypatch.delattr(fused, "launch")
    x, weight, bias, labels = drawn((3, channels, 2, 2), classes, dtype, dtype)
    loss, right = tail.mean_head_loss(x, weight, bias, labels)
    expected, answers = reference.mean_head_loss(x, weight, bias, labels)
    assert torch.equal(loss, expected)
    assert torch.equal(right, answers)


def test_the_kernels_serve_where_the_sites_kernels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, labels = drawn((3, 16, 2, 2), 4, BFLOAT16, torch.float32)
    found: list[list[Tensor]] = []
    for implementation, expected in ((fused, tail), (reference, reference)):
        monkeypatch.setattr(ops, "_implementation", lambda _, chosen=implementation: chosen)
        with torch.autocast(DEVICE.type, BFLOAT16):
            found.append([it.mean_head_loss(x, weight, bias, labels)[0] for it in (ops, expected)])
    assert all(torch.equal(*pair) for pair in found)
    assert not torch.equal(found[0][0], found[1][0])
