"""The rules of the CPU on a CUDA device. Speed there is not this folder's business."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import run_spec, without_wall
from tests.unit.test_ops import DTYPES, SHAPE, SIZE, draw
from trainer import ops
from trainer.ops import reference
from trainer.training import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keep", [1, 40, SIZE])
def test_survivors_and_gradients_are_the_references(dtype: torch.dtype, keep: int) -> None:
    x = (draw(dtype) * 2).round()
    upstream = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)).to(dtype)
    grads: list[torch.Tensor] = []
    outs: list[torch.Tensor] = []
    for device, implementation in (("cpu", reference), ("cuda", ops)):
        mine = x.to(device).requires_grad_()
        out = implementation.relu_topk(mine, torch.tensor(keep, dtype=torch.int32, device=device))
        out.backward(upstream.to(device))
        assert mine.grad is not None
        outs.append(out.detach().cpu())
        grads.append(mine.grad.cpu())
    assert torch.equal(*outs)
    assert torch.equal(*grads)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_run_twice_and_continued_gives_the_same_rows(precision: str) -> None:
    spec = run_spec({"name": "sawtooth", "period": 2, "decay": 0.3}, precision=precision)
    whole, again, broken, continued = (Training(spec, device="cuda") for _ in range(4))
    assert without_wall(list(whole)) == without_wall(list(again))
    next(iter(broken))
    continued.load(broken.state())
    list(continued)
    assert without_wall(continued.rows) == without_wall(whole.rows)


def test_a_device_starts_from_the_weights_of_every_other_and_learns_alike() -> None:
    spec = run_spec({"name": "dense"}, epochs=2, learning_rate=0.02)
    cpu, cuda = Training(spec), Training(spec, device="cuda")
    assert all(torch.equal(a, b.cpu()) for a, b in zip(cpu.model.parameters(), cuda.model.parameters(), strict=True))
    for mine, theirs in zip(cpu, cuda, strict=True):
        assert theirs.train_loss == pytest.approx(mine.train_loss, rel=1e-2)
