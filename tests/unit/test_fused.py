"""The kernels' own rules, and how they are chosen; `test_ops` holds them to the shared rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, library

from tests.unit.test_ops import DTYPES, IMPLEMENTATIONS, WIDE, draw, oracle, same
from trainer import ops as dispatch
from trainer.ops import cpu, fused, reference


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("random", [False, True])
def test_a_row_that_does_not_fit_is_streamed_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, random: bool
) -> None:
    x = (draw(dtype, torch.channels_last, WIDE) * 4).round() / 4
    priority = (
        (torch.rand(WIDE, generator=torch.Generator().manual_seed(3)) * 16).ceil() / 16 if random else None
    )
    ops, whole = IMPLEMENTATIONS["fused"], []
    for _ in range(2):
        mine = x.clone(memory_format=torch.preserve_format).requires_grad_()
        outs = [ops.relu_topk(mine, keep, priority) for keep in (1, 100, 5000)]
        torch.stack(outs).sum().backward()
        assert mine.grad is not None
        whole.append(
            [
                *outs,
                mine.grad,
                *ops.counted_norm_relu_topk(x, torch.ones(24), torch.zeros(24), 300, 1e-10, priority),
                *ops.added_norm_relu_topk(
                    x, x.flip(0), torch.ones(24), torch.zeros(24), 300, 1e-10, priority, True
                ),
            ]
        )
        monkeypatch.setattr(fused, "RESIDENT_WORDS", 0)
        monkeypatch.setattr(fused, "STREAMED_TILE", 1024)
    for resident, streamed in zip(*whole, strict=True):
        assert same(resident, streamed)
    assert same(whole[0][1], reference.relu_topk(x, 100, priority))


@pytest.mark.parametrize("implementation", [reference, fused])
def test_a_changing_count_never_recompiles(implementation: Any) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> object:
        graphs.append(module)
        return module.forward

    device = "cuda" if implementation is fused and torch.cuda.is_available() else "cpu"
    compiled = torch.compile(implementation.relu_topk, backend=backend, fullgraph=True, dynamic=False)
    x = draw()
    for keep in (3, 70, 200):
        out = compiled(x.to(device), torch.tensor(keep, dtype=torch.int32, device=device))
        assert same(out.cpu(), oracle(x, [keep] * 4))
    assert len(graphs) == 1
    assert (implementation is fused) == any(
        "trainer.site" in str(node.target) for node in graphs[0].graph.nodes
    )


def test_the_compiler_keeps_the_site_forward_and_backward_and_trains_the_same() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def loss(inputs: list[Tensor], keep: Tensor) -> Tensor:
        x, scale, bias = inputs
        return (fused.norm_relu_topk(x * 2, scale, bias, keep) ** 2).sum()

    keep, gradients = torch.tensor(50, dtype=torch.int32, device=device), []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        inputs = [draw().contiguous(memory_format=torch.channels_last), torch.ones(8), torch.zeros(8)]
        inputs = [value.to(device).requires_grad_() for value in inputs]
        function(inputs, keep).backward()
        gradients.append([value.grad for value in inputs])
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.equal(mine, theirs)


def test_what_the_compiler_is_told_of_the_site_is_what_it_does() -> None:
    """Torch's own check covers the fake results' shapes, layouts and types, and the whole registration.

    It also finds an argument that is written to without being declared so.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keep = torch.tensor([50], dtype=torch.int32, device=device)
    for x in (draw(), draw(torch.bfloat16, torch.channels_last, WIDE)):
        scale, bias = (
            torch.full((x.shape[1],), value, device=device, requires_grad=True) for value in (1.0, 0.1)
        )
        x, checks = x.to(device), ("test_schema", "test_autograd_registration", "test_faketensor")
        sums = torch.zeros(9, 2, x.shape[1], device=device)
        for y, buffer in ((None, None), (x.flip(0).requires_grad_(), None), (x.flip(0), sums)):
            inputs = x.clone(memory_format=torch.preserve_format).requires_grad_(), y, scale, bias
            library.opcheck(
                torch.ops.trainer.site.default, (*inputs, keep, 1e-10, None, buffer), test_utils=checks
            )
            with torch.no_grad():
                *_, inverse, edge = torch.ops.trainer.site(*inputs, keep, 1e-10, None, buffer)
                arguments = x, y, x.flip(1), scale, bias, None, inverse, edge, buffer
            library.opcheck(torch.ops.trainer.site_backward.default, arguments, test_utils=checks)


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", (9, 0), cpu),
        ("cuda", (9, 0), fused),
        ("cuda", (8, 0), fused),
        ("cuda", (7, 5), reference),
        ("mps", (9, 0), reference),
    ],
)
def test_a_device_gets_the_fastest_implementation_that_runs_on_it(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: tuple[int, int], expected: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert dispatch._implementation.__wrapped__(device) is expected  # pyright: ignore[reportPrivateUsage]
