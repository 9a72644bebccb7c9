"""What makes a step fast changes no number on a CPU, and the kernels take the same steps."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.sgd import sgd

from tests.conftest import run_spec, without_wall
from trainer import data, models, ops, randomness
from trainer.engine import Images
from trainer.ops import fused
from trainer.spec import RunSpec
from trainer.techniques import ALL, Techniques
from trainer.training import Training

pytestmark = pytest.mark.numeric

NONE = Techniques(**dict.fromkeys((field.name for field in fields(Techniques)), False))
SAWTOOTH = {"name": "sawtooth", "period": 2, "decay": 0.3}


def plainly(spec: RunSpec, images: Images, order: Tensor) -> list[Tensor]:
    """The weights after an epoch in PyTorch's own terms: autocast, autograd's gradients, torch's step."""
    task, facts = spec.task, data.facts(spec.task.data)
    drawn = randomness.generator(torch.device("cpu"), spec.seed, "init")
    model: Any = models.build(task, facts.image, facts.classes, drawn)
    model = model.to(memory_format=torch.channels_last)
    model.draw_from(randomness.generator(torch.device("cpu"), spec.seed, "torch", 1))
    model.set_keep(spec.policy.build(spec.seed).keep_ratio)
    weights = list(model.parameters())
    momenta: list[Tensor | None] = [torch.zeros_like(it) if task.momentum else None for it in weights]
    for index in order.split(task.batch_size):
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=task.precision == "bfloat16", cache_enabled=False
        ):
            logits = model(images.images[index].permute(0, 3, 1, 2)).float()
        cross_entropy(logits, images.labels[index]).backward()
        sgd(
            [it.detach() for it in weights],
            [it.grad for it in weights if it.grad is not None],
            momenta,
            fused=True,
            weight_decay=task.weight_decay,
            momentum=task.momentum,
            lr=task.learning_rate,
            dampening=0.0,
            nesterov=task.momentum > 0,
            maximize=False,
        )
        for it in weights:
            it.grad = None
    return [it.detach() for it in weights]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "task",
    [
        {},
        {"shortcut": "raw", "weight_decay": 1e-3},
        {"momentum": 0.0},
        {"model": "wrn-16-2"},
        {"model": "mlp-40-30", "dropout": 0.3, "learning_rate": 0.02},
    ],
    ids=["as it is", "raw shortcuts", "no momentum", "deeper", "mlp"],
)
def test_twenty_steps_end_with_the_weights_of_plain_pytorch(task: dict[str, Any], precision: str) -> None:
    spec = run_spec(
        {"name": "fixed", "ratio": 0.3}, epochs=1, train_size=320, batch_size=16, precision=precision, **task
    )
    training = Training(spec)
    order = randomness.permutation(len(training.split.train), spec.seed, "order", 1)
    right = plainly(spec, training.images, torch.from_numpy(training.split.train[order]))
    list(training)
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(training.model.parameters(), right, strict=True)
    )


# the other techniques do nothing on a CPU, whether they are on or off
@pytest.mark.parametrize("off", ["copies", "fork", "added", "tail", "all"])
@pytest.mark.parametrize(
    ("policy", "net"),
    [
        ({**SAWTOOTH, "survivors": "random"}, {}),
        ({"name": "set", "epsilon": 4}, {"model": "mlp-40-30", "dropout": 0.3}),
        ({"name": "npset", "epsilon": 4, "start": 1, "period": 1}, {}),
    ],
    ids=["random survivors", "set", "npset"],
)
def test_without_a_technique_the_rows_and_weights_are_the_same(
    off: str, policy: dict[str, Any], net: dict[str, Any]
) -> None:
    spec = run_spec(
        policy, epochs=3, precision="bfloat16", train_size=100, validation=0.1, endpoints=[1, 0.3], **net
    )
    on = Training(spec)
    without = Training(
        spec, images=on.images, techniques=NONE if off == "all" else replace(ALL, **{off: False})
    )
    assert without_wall(list(without)) == without_wall(list(on))
    assert without.endpoints == on.endpoints
    for mine, theirs in zip(without.model.parameters(), on.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_images_with_channels_of_zeros_train_alike() -> None:
    """A GPU has them in bfloat16; here the engine is told to."""
    spec = run_spec({"name": "dense"}, epochs=2, precision="bfloat16", train_size=320, learning_rate=0.02)
    plain, padded = Training(spec), Training(spec)
    padded.engine.padding = 7
    for row, other in zip(padded, plain, strict=True):
        assert row.train_loss == pytest.approx(other.train_loss, rel=0.03)


def test_an_evaluation_in_other_batches_has_the_same_scores() -> None:
    training = Training(run_spec(epochs=1))
    list(training)
    scores = training.engine.evaluate(training.split.test, 0.3)()
    training.engine.evaluation_batch = 100
    again = training.engine.evaluate(training.split.test, 0.3)()
    assert sorted(size for kind, size, *_ in training.engine.steps if kind == "evaluate") == [97, 100, 597]
    assert again.loss == pytest.approx(scores.loss, rel=1e-4)
    assert (again.correct == scores.correct).mean() > 0.99  # a near-tie may be decided otherwise


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_through_the_kernels_are_those_without(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Triton's interpreter, with few images, and all activations kept: a near-tie could go either way."""
    if torch.cuda.is_available():
        pytest.skip("the kernels are a CUDA device's here; tests/gpu trains with them")
    spec = run_spec({"name": "dense"}, epochs=2, train_size=6, batch_size=4, precision=precision)
    whole = Training(spec).images
    images = Images(whole.images[: whole.train + 2], whole.labels[: whole.train + 2], whole.train)
    right = Training(spec, images=images)
    rows = list(right)
    monkeypatch.setattr(ops, "_implementation", lambda _: fused)
    mine = Training(spec, images=images)
    for row, other in zip(mine, rows, strict=True):
        assert math.isclose(row.train_loss, other.train_loss, rel_tol=0.02 if mine.engine.bfloat16 else 1e-4)
    for one, other in zip(mine.model.parameters(), right.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.02 if mine.engine.bfloat16 else 1e-4)
