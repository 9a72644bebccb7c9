"""One conformance suite for every implementation of the sparse activation, and an oracle in plain Python for the reference itself."""

from __future__ import annotations

import math
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.ops import cpu, keep_count, reference

IMPLEMENTATIONS = {"reference": reference, "cpu": cpu}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = [torch.float32, torch.bfloat16]
SHAPE = (4, 8, 6, 5)
SIZE = 8 * 6 * 5


@pytest.fixture(params=IMPLEMENTATIONS)
def ops(request: pytest.FixtureRequest) -> ModuleType:
    return IMPLEMENTATIONS[request.param]


def draw(
    dtype: torch.dtype = torch.float32, format_: torch.memory_format = torch.contiguous_format, shape: tuple[int, ...] = SHAPE
) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(11))
    return values.to(dtype).contiguous(memory_format=format_)


def oracle(x: Tensor, keep: list[int]) -> np.ndarray:
    """The rule, sample by sample, by sorting (value, place) pairs."""
    out = np.zeros(x.shape, np.float32)
    for sample, count, target in zip(x.float().numpy(), keep, out, strict=True):
        flat = [(-math.inf if math.isnan(value) else -value, place) for place, value in enumerate(sample.ravel().tolist())]
        chosen = [place for value, place in sorted(flat) if value < 0][:count]
        target.ravel()[chosen] = sample.ravel()[chosen]
    return out


def same(a: Tensor, b: Tensor | np.ndarray) -> bool:
    return np.array_equal(a.float().numpy(), b.float().numpy() if isinstance(b, Tensor) else b, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("keep", [1, 2, 50, 120, SIZE - 1, SIZE, SIZE + 9])
def test_the_largest_positive_activations_survive(ops: ModuleType, dtype: torch.dtype, format_: str, keep: int) -> None:
    x = draw(dtype, FORMATS[format_])
    assert same(ops.relu_topk(x, keep), oracle(x, [keep] * 4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_the_lowest_index_wins_a_tie_at_the_threshold(ops: ModuleType, dtype: torch.dtype, format_: str) -> None:
    x = (draw() * 2).round().to(dtype).contiguous(memory_format=FORMATS[format_])  # five values: nearly all are tied
    for keep in range(1, SIZE, 7):
        assert same(ops.relu_topk(x, keep), oracle(x, [keep] * 4))


def test_exactly_keep_survive_where_bfloat16_ties_at_the_threshold(ops: ModuleType) -> None:
    x = draw(torch.bfloat16, shape=(2, 16, 32, 32)).abs()
    for keep in (1, 1000, 8000, 16000):
        assert (ops.relu_topk(x, keep) != 0).flatten(1).sum(1).tolist() == [keep, keep]


def test_survivors_of_a_smaller_count_survive_a_larger_one(ops: ModuleType) -> None:
    x = (draw() * 2).round()
    survivors = [ops.relu_topk(x, keep) != 0 for keep in range(1, SIZE, 11)]
    for fewer, more in pairwise(survivors):
        assert bool((more | ~fewer).all())


@pytest.mark.parametrize("format_", FORMATS)
def test_one_count_per_sample(ops: ModuleType, format_: str) -> None:
    x = (draw() * 2).round().contiguous(memory_format=FORMATS[format_])
    counts = [1, 20, 77, SIZE]
    assert same(ops.relu_topk(x, torch.tensor(counts, dtype=torch.int32)), oracle(x, counts))
    assert same(ops.relu_topk(x, torch.tensor(20, dtype=torch.int32)), oracle(x, [20] * 4))


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, 1.0, math.inf])
def test_all_equal_values(ops: ModuleType, value: float) -> None:
    x = torch.full(SHAPE, value)
    assert same(ops.relu_topk(x, 7), oracle(x, [7] * 4))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_ranks_first_and_is_never_hidden(ops: ModuleType, dtype: torch.dtype) -> None:
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
def test_the_gradient_is_the_identity_on_survivors_and_zero_elsewhere(ops: ModuleType, dtype: torch.dtype, format_: str, keep: int) -> None:
    x = draw(dtype, FORMATS[format_]).requires_grad_()
    out = ops.relu_topk(x, keep)
    upstream = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)).to(dtype)
    out.backward(upstream)
    assert x.grad is not None
    assert same(x.grad, torch.where(out != 0, upstream, 0))


@pytest.mark.parametrize("shape", [(5, 40), (3, 8, 5), (2, 1, 8, 8), (1, 16, 1, 1), (2, 3, 4, 4, 2)])
def test_any_shape_is_a_row_per_sample(ops: ModuleType, shape: tuple[int, ...]) -> None:
    x = (draw(shape=shape) * 2).round()
    assert same(ops.relu_topk(x, 5), oracle(x, [5] * shape[0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_are_chosen_among_alike(ops: ModuleType, dtype: torch.dtype) -> None:
    x = (draw() * 4).round().to(dtype)
    assert same(ops.relu_topk(x, 30), oracle(x, [30] * 4))


def test_a_view_with_gaps_is_read_as_what_it_shows(ops: ModuleType) -> None:
    x = (draw() * 2).round()
    for view in (x[:, ::2], x.transpose(1, 3), x[:, :, 1:], x.contiguous(memory_format=torch.channels_last)[:, 1:]):
        assert same(ops.relu_topk(view, 9), oracle(view, [9] * 4))


def test_random_survivors_are_positive_as_many_and_follow_the_priority(ops: ModuleType) -> None:
    x = draw()
    priority = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) + 0.01
    out = ops.relu_topk(x, 30, priority)
    expected = oracle(torch.where(x > 0, priority, 0), [30] * 4) != 0
    assert same(out, torch.where(torch.from_numpy(expected), x, 0))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("keep", [25, SIZE])
def test_a_site_is_its_formula_and_so_are_its_gradients(ops: ModuleType, format_: str, keep: int) -> None:
    """Against double precision and autograd over the formula as the paper writes it."""

    def formula(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        rms = (x.pow(2).mean(1, keepdim=True) + 1e-10).sqrt()
        y = x / rms * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
        kth = y.flatten(1).sort(1, descending=True).values[:, min(keep, SIZE) - 1].view(-1, 1, 1, 1)
        return torch.where((y > 0) & (y >= kth), y, 0)

    generator = torch.Generator().manual_seed(2)
    inputs = [draw(), 1 + torch.randn(8, generator=generator) / 5, torch.randn(8, generator=generator) / 5]
    upstream = torch.randn(SHAPE, generator=generator)
    exact = [value.double().requires_grad_() for value in inputs]
    ours = [value.clone().contiguous(memory_format=FORMATS[format_] if value.ndim == 4 else torch.contiguous_format) for value in inputs]
    ours = [value.requires_grad_() for value in ours]
    expected, out = formula(*exact), ops.norm_relu_topk(*ours, keep)
    assert torch.allclose(out.double(), expected, atol=1e-5)
    expected.backward(upstream.double())
    out.backward(upstream)
    for mine, right in zip(ours, exact, strict=True):
        assert mine.grad is not None
        assert right.grad is not None
        assert torch.allclose(mine.grad.double(), right.grad, atol=1e-4, rtol=1e-4)


def test_a_site_norms_in_float32_and_answers_in_the_precision_it_was_asked_in(ops: ModuleType) -> None:
    x = draw(torch.bfloat16)
    scale, bias = torch.full((8,), 1.5), torch.full((8,), 0.1)
    out = ops.norm_relu_topk(x, scale, bias, SIZE)
    assert out.dtype == torch.bfloat16
    assert same(out, ops.norm_relu_topk(x.float(), scale, bias, SIZE).to(torch.bfloat16))


def test_both_implementations_choose_the_same_survivors_given_equal_inputs() -> None:
    for dtype in DTYPES:
        x = draw(dtype, torch.channels_last, (3, 16, 16, 16))
        for ratio in (0.01, 0.1, 0.3, 0.49, 1.0):
            keep = keep_count(ratio, 16**3)
            assert same(reference.relu_topk(x, keep), cpu.relu_topk(x, keep))


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


def test_a_changing_count_never_recompiles() -> None:
    graphs: list[object] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> object:
        graphs.append(module)
        return module.forward

    compiled = torch.compile(reference.relu_topk, backend=backend, fullgraph=True, dynamic=False)
    x = draw()
    for keep in (3, 70, 200):
        assert same(compiled(x, torch.tensor(keep, dtype=torch.int32)), oracle(x, [keep] * 4))
    assert len(graphs) == 1
