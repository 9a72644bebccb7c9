"""The rules of the CPU on a CUDA device, and recorded steps, which are there alone.

Speed is not tested here. `tests/unit/test_ops.py` and `tests/integration/test_engine.py` also run their
kernels and steps on the device where there is one.
"""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.kernels import site_shapes
from tests.conftest import run_spec, without_wall
from tests.survivors import Judged
from trainer import ops
from trainer.engine import GPU_EVALUATION_BATCH
from trainer.ops import fused, keep_count, reference
from trainer.techniques import Techniques
from trainer.training import Training

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

PRECISIONS = ["float32", "bfloat16"]
SAWTOOTH = {"name": "sawtooth", "period": 2, "decay": 0.3}
RANDOM = {**SAWTOOTH, "survivors": "random"}


def drawn(shape: tuple[int, ...], precision: str, seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda")
    return values.to(getattr(torch, precision)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [128, 80])
def test_every_site_of_the_papers_network_keeps_what_the_reference_keeps(precision: str, batch: int) -> None:
    sites = site_shapes()
    assert len(sites) == 25
    for number, shape in enumerate(sites):
        x, size = drawn((batch, *shape), precision, number), shape[0] * shape[1] * shape[2]
        for ratio in (1.0, 0.3, 0.05, 0.01):
            keep = torch.tensor(keep_count(ratio, size), dtype=torch.int32, device="cuda")
            out = ops.relu_topk(x, keep)
            assert torch.equal(out, reference.relu_topk(x, keep)), (number, ratio)
            assert bool(((out != 0).flatten(1).sum(1) <= keep).all())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [128, 80])
def test_every_site_has_the_references_output_and_gradients_and_the_same_ones_twice(
    precision: str, batch: int
) -> None:
    for number, shape in enumerate(site_shapes()):
        x, upstream = (
            drawn((batch, *shape), precision, number),
            drawn((batch, *shape), precision, 100 + number),
        )
        scale, bias = (
            start + torch.randn(shape[0], generator=torch.Generator().manual_seed(number)).cuda() / 5
            for start in (1, 0)
        )
        keep = torch.tensor(
            keep_count(0.2, shape[0] * shape[1] * shape[2]), dtype=torch.int32, device="cuda"
        )
        results: list[list[Tensor]] = []
        for implementation in (reference, ops, ops):
            inputs = [
                value.detach().clone(memory_format=torch.preserve_format).requires_grad_()
                for value in (x, scale, bias)
            ]
            out, nonzero = implementation.counted_norm_relu_topk(*inputs, keep)
            out.backward(upstream)
            assert int(nonzero) == int(out.count_nonzero())
            results.append([out.detach(), *(value.grad for value in inputs if value.grad is not None)])
        right, mine, again = results
        assert all(torch.equal(one, two) for one, two in zip(mine, again, strict=True)), number
        # the last bit of a place's factor may round one activation, and so its survival, otherwise
        assert ((mine[0] != 0) == (right[0] != 0)).float().mean() > 0.9999, number
        for one, two in zip(mine, right, strict=True):
            assert (
                torch.nn.functional.cosine_similarity(one.float().flatten(), two.float().flatten(), dim=0)
                > 0.999
            ), number


@pytest.mark.parametrize("policy", [SAWTOOTH, RANDOM])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_run_twice_and_continued_and_in_an_engine_taken_over_gives_the_same_rows(
    precision: str, policy: dict[str, Any]
) -> None:
    spec = run_spec(
        policy, epochs=4, precision=precision, train_size=100, validation=0.1, endpoints=[1, 0.3]
    )
    whole, again, broken = (Training(spec, device="cuda") for _ in range(3))
    rows = without_wall(list(whole))
    assert without_wall(list(again)) == rows
    assert again.endpoints == whole.endpoints
    next(iter(broken))
    state, used, made = broken.state(), broken.engine, dict(broken.engine.steps)
    assert all(step.graph for step in made.values())
    images = broken.images
    del broken
    gc.collect()
    continued = Training(spec, device="cuda", images=images)
    assert continued.engine is used
    continued.load(state)
    list(continued)
    assert without_wall(continued.rows) == rows
    assert continued.endpoints == whole.endpoints
    assert {key: continued.engine.steps[key] for key in made} == made  # recorded once


@pytest.mark.parametrize("policy", [SAWTOOTH, RANDOM])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_that_is_replayed_computes_what_one_that_is_not_computes(
    precision: str, policy: dict[str, Any]
) -> None:
    spec = run_spec(policy, precision=precision, train_size=100)
    replayed, plain = (
        Training(spec, device="cuda"),
        Training(spec, device="cuda", techniques=Techniques(graph=False)),
    )
    assert without_wall(list(replayed)) == without_wall(list(plain))
    assert not any(step.graph for step in plain.engine.steps.values())


def test_a_device_starts_from_the_weights_of_every_other_and_learns_alike() -> None:
    spec = run_spec({"name": "dense"}, epochs=2, learning_rate=0.02)
    cpu, cuda = Training(spec), Training(spec, device="cuda")
    assert all(
        torch.equal(a, b.cpu()) for a, b in zip(cpu.model.parameters(), cuda.model.parameters(), strict=True)
    )
    for mine, theirs in zip(cpu, cuda, strict=True):
        assert theirs.train_loss == pytest.approx(mine.train_loss, rel=1e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_site_of_a_training_through_the_kernels_is_the_formula(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each site is compared with the formula on its own input, and not at the end of the training.

    Two whole trainings part ways at the first near-tie that is rounded otherwise.
    """
    judged = Judged(fused)
    monkeypatch.setattr(ops, "_implementation", lambda _: judged)
    spec = run_spec({"name": "fixed", "ratio": 0.3}, precision=precision, train_size=320)
    rows = list(Training(spec, device="cuda", techniques=Techniques(graph=False)))
    # An epoch has ten steps and two evaluations, one of them at r = 1; the endpoint adds one. An evaluation
    # may take several batches of the 597 test images. Each batch goes through seven sites.
    batches = math.ceil(597 / GPU_EVALUATION_BATCH)
    assert (judged.forward, judged.backward) == (7 * (3 * (10 + 2 * batches) + batches), 3 * 7 * 10)
    # guessing costs log 10; on a CPU it is 0.7, whatever the order of additions
    assert rows[-1].train_loss < math.log(10) / 2


@pytest.mark.parametrize(
    "net", [{"model": "mlp-40-30", "learning_rate": 0.02}, {"model": "wrn-10-1"}], ids=["mlp", "wrn"]
)
@pytest.mark.parametrize(
    "policy", [{"name": "set"}, {"name": "npset", "start": 1, "period": 1}], ids=["set", "npset"]
)
def test_connections_move_between_recorded_steps_as_on_a_cpu(
    policy: dict[str, Any], net: dict[str, Any]
) -> None:
    """The counts are the CPU's, removed weights are zero, and replaying the steps changes nothing.

    Which connections and neurons go may differ, because the weights differ in their last bits. A neuron
    takes its connections along, so their number may differ too.
    """
    spec = run_spec({**policy, "epsilon": 4}, epochs=4, train_size=100, **net)
    cpu, cuda, plain = (
        Training(spec),
        Training(spec, device="cuda"),
        Training(spec, device="cuda", techniques=Techniques(graph=False)),
    )
    for one, other in zip(cpu.connections.layers, cuda.connections.layers, strict=True):
        assert (one.places == other.places).all()
    for mine, theirs in zip(cpu, cuda, strict=True):
        assert mine.active_neurons == theirs.active_neurons
        assert mine.connections == theirs.connections or (policy["name"] == "npset" and mine.epoch > 1)
        for i, state in cuda.connections.state().items():
            weight = cuda.model.layers[int(i)].weight
            momentum = cuda.optimizer.momentum_of(weight)
            assert momentum is not None
            assert not weight.detach()[~state["mask"]].any()
            assert not momentum[~state["mask"]].any()
    assert without_wall(list(plain)) == without_wall(cuda.rows)
