"""One conformance suite for every sparse activation, and an oracle in plain Python for the reference."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.survivors import Judged
from trainer.ops import cpu, fused, keep_count, reference

pytestmark = pytest.mark.numeric


class OnDevice:
    """The kernels on a CUDA device where there is one; elsewhere in Triton's interpreter."""

    def __getattr__(self, name: str) -> Any:
        def run(*values: Any) -> Any:
            if not torch.cuda.is_available():
                return getattr(fused, name)(*values)
            out = getattr(fused, name)(
                *(value.cuda() if isinstance(value, Tensor) else value for value in values)
            )
            if isinstance(out, tuple):
                return tuple(None if one is None else one.cpu() for one in out)
            return out.cpu()

        return run


IMPLEMENTATIONS: dict[str, Any] = {"reference": reference, "cpu": cpu, "fused": OnDevice()}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = [torch.float32, torch.bfloat16]
SHAPE = (4, 8, 6, 5)
SIZE = 8 * 6 * 5
WIDE = (2, 24, 7, 9)
"""A shape large enough for the kernel that takes keys in pairs; none of its sizes is a power of two."""


@pytest.fixture(params=IMPLEMENTATIONS)
def ops(request: pytest.FixtureRequest) -> Any:
    return IMPLEMENTATIONS[request.param]


def draw(
    dtype: torch.dtype = torch.float32,
    format_: torch.memory_format = torch.contiguous_format,
    shape: tuple[int, ...] = SHAPE,
) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(11))
    return values.to(dtype).contiguous(memory_format=format_)


def oracle(x: Tensor, keep: list[int]) -> np.ndarray:
    """Apply the rule, sample by sample, by sorting (value, index) pairs."""
    out = np.zeros(x.shape, np.float32)
    for sample, count, target in zip(x.float().numpy(), keep, out, strict=True):
        flat = [
            (-math.inf if math.isnan(value) else -value, place)
            for place, value in enumerate(sample.ravel().tolist())
        ]
        chosen = [place for value, place in sorted(flat) if value < 0][:count]
        target.ravel()[chosen] = sample.ravel()[chosen]
    return out


def same(a: Tensor, b: Tensor | np.ndarray) -> bool:
    return np.array_equal(
        a.detach().float().numpy(),
        b.detach().float().numpy() if isinstance(b, Tensor) else b,
        equal_nan=True,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("keep", [1, 2, 50, 120, SIZE - 1, SIZE, SIZE + 9])
def test_the_largest_positive_activations_survive(
    ops: Any, dtype: torch.dtype, format_: str, keep: int
) -> None:
    x = draw(dtype, FORMATS[format_])
    assert same(ops.relu_topk(x, keep), oracle(x, [keep] * 4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_the_lowest_index_wins_a_tie_at_the_threshold(ops: Any, dtype: torch.dtype, format_: str) -> None:
    # Five values, so that nearly all are tied.
    x = (draw() * 2).round().to(dtype).contiguous(memory_format=FORMATS[format_])
    for keep in range(1, SIZE, 29):
        assert same(ops.relu_topk(x, keep), oracle(x, [keep] * 4))


def test_exactly_keep_survive_where_bfloat16_ties_at_the_threshold(ops: Any) -> None:
    x = draw(torch.bfloat16, shape=(2, 16, 32, 32)).abs()
    for keep in (1, 1000, 8000, 16000):
        assert (ops.relu_topk(x, keep) != 0).flatten(1).sum(1).tolist() == [keep, keep]


def test_survivors_of_a_smaller_count_survive_a_larger_one(ops: Any) -> None:
    x = (draw() * 2).round()
    survivors = [ops.relu_topk(x, keep) != 0 for keep in range(1, SIZE, 31)]
    for fewer, more in pairwise(survivors):
        assert bool((more | ~fewer).all())


@pytest.mark.parametrize("format_", FORMATS)
def test_one_count_per_sample(ops: Any, format_: str) -> None:
    x = (draw() * 2).round().contiguous(memory_format=FORMATS[format_])
    counts = [1, 20, 77, SIZE]
    assert same(ops.relu_topk(x, torch.tensor(counts, dtype=torch.int32)), oracle(x, counts))
    assert same(ops.relu_topk(x, torch.tensor(20, dtype=torch.int32)), oracle(x, [20] * 4))


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, 1.0, math.inf])
def test_all_equal_values(ops: Any, value: float) -> None:
    x = torch.full(SHAPE, value)
    assert same(ops.relu_topk(x, 7), oracle(x, [7] * 4))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_ranks_first_and_is_never_hidden(ops: Any, dtype: torch.dtype) -> None:
    x = draw(dtype)
    x[0, 3, 2, 1] = math.nan
    x[1, :, :, 0] = -torch.tensor(math.nan)  # with its sign bit set, as x86 makes them
    x[2, 1, 1, 1] = math.inf
    for keep in (1, 5, 60, 200):
        out = ops.relu_topk(x, keep)
        assert same(out, oracle(x, [keep] * 4))
    assert bool(ops.relu_topk(x, 1)[0].isnan().any())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("keep", [1, 40, SIZE])
def test_the_gradient_is_the_identity_on_survivors_and_zero_elsewhere(
    ops: Any, dtype: torch.dtype, format_: str, keep: int
) -> None:
    x = draw(dtype, FORMATS[format_]).requires_grad_()
    out = ops.relu_topk(x, keep)
    upstream = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)).to(dtype)
    out.backward(upstream)
    assert x.grad is not None
    assert same(x.grad, torch.where(out != 0, upstream, 0))


@pytest.mark.parametrize("shape", [(5, 40), (3, 8, 5), (2, 1, 8, 8), (1, 16, 1, 1), (2, 3, 4, 4, 2)])
def test_any_shape_is_a_row_per_sample(ops: Any, shape: tuple[int, ...]) -> None:
    x = (draw(shape=shape) * 2).round()
    assert same(ops.relu_topk(x, 5), oracle(x, [5] * shape[0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_are_chosen_among_alike(ops: Any, dtype: torch.dtype) -> None:
    x = (draw() * 4).round().to(dtype)
    assert same(ops.relu_topk(x, 30), oracle(x, [30] * 4))


def test_a_view_with_gaps_is_read_as_what_it_shows(ops: Any) -> None:
    x = (draw() * 2).round()
    for view in (
        x[:, ::2],
        x.transpose(1, 3),
        x[:, :, 1:],
        x.contiguous(memory_format=torch.channels_last)[:, 1:],
    ):
        assert same(ops.relu_topk(view, 9), oracle(view, [9] * 4))


def test_random_survivors_are_positive_as_many_and_follow_the_priority(ops: Any) -> None:
    x = draw()
    priority = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) + 0.01
    out = ops.relu_topk(x, 30, priority)
    expected = oracle(torch.where(x > 0, priority, 0), [30] * 4) != 0
    assert same(out, torch.where(torch.from_numpy(expected), x, 0))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("keep", [25, SIZE])
def test_a_site_is_its_formula_and_so_are_its_gradients(ops: Any, format_: str, keep: int) -> None:
    """The paper's formula in double precision and its autograd must agree with the site.

    No value is nearer than 7e-4 to the threshold.
    """

    def formula(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        rms = (x.pow(2).mean(1, keepdim=True) + 1e-10).sqrt()
        y = x / rms * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
        kth = y.flatten(1).sort(1, descending=True).values[:, min(keep, SIZE) - 1].view(-1, 1, 1, 1)
        return torch.where((y > 0) & (y >= kth), y, 0)

    generator = torch.Generator().manual_seed(2)
    inputs = [draw(), 1 + torch.randn(8, generator=generator) / 5, torch.randn(8, generator=generator) / 5]
    upstream = torch.randn(SHAPE, generator=generator)
    exact = [value.double().requires_grad_() for value in inputs]
    ours = [
        value.clone().contiguous(
            memory_format=FORMATS[format_] if value.ndim == 4 else torch.contiguous_format
        )
        for value in inputs
    ]
    ours = [value.requires_grad_() for value in ours]
    expected, out = formula(*exact), ops.norm_relu_topk(*ours, keep)
    assert torch.allclose(out.double(), expected, atol=1e-5)
    expected.backward(upstream.double())
    out.backward(upstream)
    for mine, right in zip(ours, exact, strict=True):
        assert mine.grad is not None
        assert right.grad is not None
        assert torch.allclose(mine.grad.double(), right.grad, atol=1e-4, rtol=1e-4)


def test_a_site_norms_in_float32_and_answers_in_the_precision_it_was_asked_in(ops: Any) -> None:
    x = draw(torch.bfloat16)
    scale, bias = torch.full((8,), 1.5), torch.full((8,), 0.1)
    out = ops.norm_relu_topk(x, scale, bias, SIZE)
    assert out.dtype == torch.bfloat16
    right = ops.norm_relu_topk(x.float(), scale, bias, SIZE).to(torch.bfloat16)
    # Two orders of addition may round an activation differently. A norm in bfloat16 would do so to
    # every second one.
    assert (out == right).float().mean() > 0.99
    assert torch.allclose(out, right, rtol=2**-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_every_implementation_chooses_the_same_survivors_given_equal_inputs(
    ops: Any, dtype: torch.dtype, format_: str
) -> None:
    for shape in (WIDE, (2, 16, 16, 16)):
        x = draw(dtype, FORMATS[format_], shape)
        for ratio in (0.01, 0.1, 0.3, 0.49, 1.0):
            keep = keep_count(ratio, x[0].numel())
            assert same(ops.relu_topk(x, keep), reference.relu_topk(x, keep))


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_a_large_row_too_the_lowest_index_wins_a_tie(ops: Any, dtype: torch.dtype) -> None:
    """The counts cut no tie, or cut one in its first or last channel, at its first or last position."""
    x = (draw(dtype, torch.channels_last, WIDE) * 0.8).round()
    x[0, 1, 0, 0] = x[0, 0, 0, 0] = 1.0
    positive = int((x[0] > 0).sum())
    counts = [1, 2, 3, *range(4, positive + 2, max(1, positive // 12)), positive - 1, positive, positive + 1]
    rows = x[:1].expand(len(counts), *WIDE[1:]).contiguous(memory_format=torch.channels_last)
    keep = torch.tensor(counts, dtype=torch.int32)
    assert same(ops.relu_topk(rows, keep), reference.relu_topk(rows, keep))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "law", ["constant", "two values", "tiny", "huge", "skewed", "nearly all zero", "nan"]
)
def test_rows_of_any_law_are_cut_where_the_reference_cuts_them(
    ops: Any, dtype: torch.dtype, law: str
) -> None:
    """The search for the threshold guesses that activations are normal; their law must not matter."""
    normal = torch.randn(WIDE, generator=torch.Generator().manual_seed(4))
    x = (
        {
            "constant": torch.full(WIDE, 2.5),
            "two values": torch.where(normal > 0.3, 1.0, 3e-38),
            "tiny": normal * 1e-39,
            "huge": normal.exp().pow(20),
            "skewed": normal.abs().pow(9),
            "nearly all zero": torch.where(normal > 2.2, normal, 0),
            "nan": torch.where(normal > 1.5, math.nan, normal),
        }[law]
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    for keep in (1, 37, 700):
        assert same(ops.relu_topk(x, keep), reference.relu_topk(x, keep))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [SHAPE, WIDE])
@pytest.mark.parametrize("random", [False, True])
def test_a_site_counts_what_is_not_zero(
    ops: Any, dtype: torch.dtype, shape: tuple[int, ...], random: bool
) -> None:
    x, ones = draw(dtype, torch.channels_last, shape), torch.ones(shape[1])
    priority = torch.rand(shape, generator=torch.Generator().manual_seed(3)) + 0.01 if random else None
    for keep in (40, x[0].numel()):
        out, nonzero = ops.counted_norm_relu_topk(x, ones, ones / 4, keep, 1e-10, priority)
        assert int(nonzero) == int(out.count_nonzero())
        assert 0 < int(nonzero) <= len(x) * keep


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("keep", [60, 10_000])
def test_a_site_in_bfloat16_has_the_formulas_gradients(ops: Any, random: bool, keep: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x, upstream = (draw(torch.bfloat16, torch.channels_last, WIDE) for _ in range(2))
    upstream = upstream.flip(0)
    scale, bias = 1 + torch.randn(24, generator=generator) / 5, torch.randn(24, generator=generator) / 5
    priority = torch.rand(WIDE, generator=generator) + 0.01 if random else None
    inputs = [
        value.clone(memory_format=torch.preserve_format).requires_grad_() for value in (x, scale, bias)
    ]
    judged = Judged(ops)
    judged.norm_relu_topk(*inputs, keep, 1e-10, priority).backward(upstream)
    assert (judged.forward, judged.backward) == (1, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [SHAPE, WIDE])
@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_site_on_a_sum_is_the_sum_and_the_site_to_the_last_bit(
    ops: Any, dtype: torch.dtype, shape: tuple[int, ...], random: bool, elsewhere: bool
) -> None:
    """The gradients too, whether or not the sum is also used `elsewhere`."""
    generator = torch.Generator().manual_seed(8)
    x, y, upstream, aside = (torch.randn(shape, generator=generator).to(dtype) for _ in range(4))
    x = x.contiguous(memory_format=torch.channels_last)
    scale, bias = (start + torch.randn(shape[1], generator=generator) / 5 for start in (1, 0))
    priority = torch.rand(shape, generator=generator) + 0.01 if random else None
    for keep in (40, x[0].numel()):
        found: list[list[Tensor]] = []
        for separate in (True, False):
            leaves = [
                value.clone(memory_format=torch.preserve_format).requires_grad_()
                for value in (x, y, scale, bias)
            ]
            if separate:
                total = leaves[0] + leaves[1]
                out, nonzero = ops.counted_norm_relu_topk(total, *leaves[2:], keep, 1e-10, priority)
            else:
                total, out, nonzero = ops.added_norm_relu_topk(*leaves, keep, 1e-10, priority, True)
            assert out.dtype == total.dtype == dtype
            (out * upstream + (total * aside if elsewhere else 0)).sum().backward()
            gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
            assert len(gradients) == 4
            found.append([total, out, nonzero, *gradients])
        for mine, theirs in zip(*found, strict=True):
            assert same(mine, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_whose_site_is_not_used_hands_on_its_gradient(ops: Any, dtype: torch.dtype) -> None:
    ones, upstream = torch.ones(8), draw(dtype).flip(0)
    x, y = draw(dtype).requires_grad_(), draw(dtype).flip(1).requires_grad_()
    total, _, nonzero = ops.added_norm_relu_topk(x, y, ones, ones, 40)
    assert nonzero is None
    total.backward(upstream)
    assert x.grad is not None
    assert y.grad is not None
    assert same(x.grad, upstream)
    assert same(y.grad, upstream)


def test_large_batches_are_cut_up_among_threads_without_a_trace() -> None:
    x = draw(shape=(24, 16, 32, 32))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        out = cpu.relu_topk(x, 3000)
    finally:
        torch.set_num_threads(threads)
    assert same(out, reference.relu_topk(x, 3000))


def test_the_count_is_the_ceiling_of_the_share_and_at_least_one() -> None:
    assert [keep_count(ratio, 100) for ratio in (1.0, 0.07, 0.071, 0.001, 0.94)] == [100, 7, 8, 1, 94]
    assert keep_count(0.05, 65536) == math.ceil(0.05 * 65536) == 3277
