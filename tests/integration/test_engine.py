"""Runs of a task share an engine, one after the other.

No run leaves a trace in the next, and nothing is made anew after the first epoch.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from tests.conftest import run_spec, without_wall
from tests.survivors import Judged
from trainer import lending, ops
from trainer.engine import Images
from trainer.ops import cpu, fused
from trainer.step import WARM_UP
from trainer.training import Training

pytestmark = pytest.mark.numeric

SAWTOOTH = {"name": "sawtooth", "period": 2, "decay": 0.3}
RANDOM = {**SAWTOOTH, "survivors": "random"}


@pytest.fixture(autouse=True)
def no_engine_of_another_test() -> None:
    gc.collect()
    lending.forget()


def rows_and_weights(training: Training) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
    rows = without_wall(list(training))
    return rows, [parameter.detach().clone() for parameter in training.model.parameters()]


@pytest.mark.parametrize("before", [SAWTOOTH, RANDOM])
def test_a_run_that_takes_an_engine_over_gives_the_rows_of_one_that_had_it_new(
    before: dict[str, Any],
) -> None:
    second = run_spec(SAWTOOTH, seed=2, validation=0.05, init="fan-in", learning_rate=0.05)
    alone = Training(second)
    rows, weights = rows_and_weights(alone)
    first = Training(run_spec(before, seed=1), images=alone.images)
    assert first.engine is not alone.engine
    list(first)
    used = first.engine
    del first
    gc.collect()
    taken_over = Training(second, images=alone.images)
    assert taken_over.engine is used
    again, same = rows_and_weights(taken_over)
    assert again == rows
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights, same, strict=True))


def test_two_trainings_at_once_never_share_an_engine() -> None:
    spec = run_spec(SAWTOOTH)
    one = Training(spec)
    two = Training(spec, images=one.images)
    assert one.engine is not two.engine
    for mine, theirs in zip(one, two, strict=True):
        assert without_wall([mine]) == without_wall([theirs])


def test_a_task_that_trains_otherwise_gets_an_engine_of_its_own() -> None:
    images = Training(run_spec()).images
    changes: list[dict[str, Any]] = [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.5},
        {"precision": "bfloat16"},
        {"shortcut": "raw"},
    ]
    changes.append({"model": "wrn-10-2"})
    for change in changes:
        first = Training(run_spec(), images=images)
        used = first.engine
        del first
        gc.collect()
        assert (Training(run_spec(**change), images=images).engine is used) == (not change)


def test_an_engine_that_is_not_wanted_again_is_let_go_before_the_next_is_made() -> None:
    first = Training(run_spec())
    used = weakref.ref(first.engine)
    del first
    gc.collect()
    assert used() is not None
    Training(run_spec(momentum=0.5))
    assert used() is None


def test_after_the_first_epoch_and_the_first_run_nothing_is_made_anew() -> None:
    """The ratio, the learning rate and the seed do not matter.

    96 images make three batches; 100 make four, and the last is smaller.
    """
    first = Training(run_spec(SAWTOOTH, epochs=4, train_size=100, endpoints=[1, 0.5, 0.1]))
    rows = iter(first)
    next(rows)
    made = dict(first.engine.steps)
    assert sorted(made) == [("evaluate", 597, False, ()), ("train", 4, False, ()), ("train", 32, False, ())]
    list(rows)
    images = first.images
    del first, rows
    gc.collect()
    second = Training(
        run_spec({"name": "fixed", "ratio": 0.1}, seed=9, train_size=96, learning_rate=0.3, validation=0.1),
        images=images,
    )
    list(second)
    assert {key: second.engine.steps[key] for key in made} == made
    assert sorted(set(second.engine.steps) - set(made)) == [
        ("evaluate", 120, False, ())
    ]  # the images that it holds out


@pytest.mark.parametrize(("policy", "momentum"), [(SAWTOOTH, 0.9), (RANDOM, 0.0)])
def test_the_steps_before_a_recording_leave_no_trace(policy: dict[str, Any], momentum: float) -> None:
    """Rehearse each step in the middle of a run, with another batch: nothing changes, on any device."""
    spec = run_spec(policy, momentum=momentum, validation=0.1, endpoints=[1, 0.3])
    undisturbed, rehearsed = Training(spec), Training(spec)
    list(undisturbed)
    for row in rehearsed.steps():
        if row or rehearsed.batch != 1:
            continue
        drawn = rehearsed.engine.generator.get_state()
        for step in list(rehearsed.engine.steps.values()):
            step.rehearse()
        rehearsed.engine.generator.set_state(drawn)
    assert without_wall(rehearsed.rows) == without_wall(undisturbed.rows)
    assert rehearsed.endpoints == undisturbed.endpoints


def test_the_steps_before_a_recording_do_change_something_meanwhile() -> None:
    training = Training(run_spec())
    steps = training.steps()
    next(steps)
    (step,) = training.engine.steps.values()
    seen: list[float] = []
    work = step.work
    note = seen.append
    step.work = lambda it: (work(it), note(training.engine.loss.item()))  # type: ignore[func-returns-value]
    before = training.engine.loss.item()
    step.rehearse()
    assert len(seen) == WARM_UP
    assert before not in seen
    assert training.engine.loss.item() == before


def test_a_learning_rate_on_the_device_steps_as_one_on_the_host() -> None:
    """The rate is a tensor on a CUDA device, and torch's step takes one on a CPU too."""
    weights: list[list[torch.Tensor]] = []
    for device_rate in (False, True):
        # 0.125 is the same number in float32 and in float64.
        training = Training(run_spec(epochs=2, learning_rate=0.125, schedule="constant"))
        if device_rate:
            training.optimizer._rate = torch.zeros(())  # pyright: ignore[reportPrivateUsage]
        weights.append(rows_and_weights(training)[1])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*weights, strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("implementation", "size"), [(cpu, 40), (fused, 4)], ids=["cpu", "fused"])
def test_every_site_of_a_training_is_the_formula(
    implementation: Any, size: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels run in Triton's interpreter: few images, because each is a program in Python."""
    if implementation is fused and torch.cuda.is_available():
        pytest.skip("the kernels are a CUDA device's here; tests/gpu trains with them")
    spec = run_spec(
        {"name": "fixed", "ratio": 0.3}, epochs=2, train_size=size, batch_size=32, precision=precision
    )
    whole = Training(spec).images
    images = Images(whole.images[: whole.train + 2], whole.labels[: whole.train + 2], whole.train)
    judged = Judged(implementation)
    monkeypatch.setattr(ops, "_implementation", lambda _: judged)
    steps = len(list(Training(spec, images=images))) * -(-size // 32)
    # seven sites, and after each epoch a pass at r = 0.3 and one at 1, and at the endpoint
    assert (judged.forward, judged.backward) == (7 * (steps + 5), 7 * steps)
