"""A whole training: exact, and the same after a break at any epoch.

It trains what an independent reading of the paper trains.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain import PlainWideResNet
from tests.conftest import BRISK, run_spec, without_wall
from tests.survivors import follow
from tests.unit.test_wide_resnet import copy_weights
from trainer import data, randomness
from trainer.models.wide_resnet import WideResNet
from trainer.policies import POLICIES
from trainer.training import Training

pytestmark = pytest.mark.numeric

POLICY_VALUES: dict[str, dict[str, Any]] = {
    **{name: {"name": name, **BRISK.get(name, {})} for name in POLICIES},
    "random survivors": {"name": "additive-reset", "step": 0.3, "survivors": "random"},
}


@pytest.mark.parametrize("policy", POLICY_VALUES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_continued_from_a_checkpoint_gives_the_rows_of_one_that_never_stopped(
    policy: str, precision: str
) -> None:
    spec = run_spec(
        POLICY_VALUES[policy], epochs=4, precision=precision, validation=0.05, endpoints=[1, 0.1]
    )
    whole = Training(spec)
    list(whole)
    broken = Training(spec)
    for _ in zip(range(2), broken, strict=False):
        pass
    buffer = io.BytesIO()
    torch.save(broken.state(), buffer)
    buffer.seek(0)
    continued = Training(spec)
    continued.load(torch.load(buffer, weights_only=True))
    list(continued)
    assert without_wall(continued.rows) == without_wall(whole.rows)
    assert continued.endpoints == whole.endpoints
    for mine, theirs in zip(continued.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_state_is_a_copy_that_training_on_does_not_change() -> None:
    training = Training(run_spec())
    rows = iter(training)
    next(rows)
    state = training.state()
    before = {name: value.clone() for name, value in state["model"].items()}
    next(rows)
    assert all(torch.equal(state["model"][name], value) for name, value in before.items())
    assert len(state["rows"]) == 1


def test_the_state_of_another_run_is_refused() -> None:
    state = Training(run_spec(seed=1)).state()
    with pytest.raises(ValueError, match="the state is that of run"):
        Training(run_spec(seed=2)).load(state)


def test_two_policies_with_one_seed_share_their_weights_and_their_batches() -> None:
    """A constraint does nothing at r = 1: the first epoch is the same to the last bit."""
    first = [
        without_wall([next(iter(Training(run_spec(POLICY_VALUES[name]))))])[0]
        for name in ("dense", "additive-reset", "multiplicative-reset")
    ]
    for row in first:
        del row["run_id"], row["smoothed_train_accuracy"]
    assert first[0] == first[1] == first[2]


def test_another_seed_is_another_training() -> None:
    one, two = (next(iter(Training(run_spec({"name": "dense"}, seed=seed)))) for seed in (1, 2))
    assert one.train_loss != two.train_loss


def test_the_learning_rate_falls_along_a_cosine_or_stays() -> None:
    falling = [row.learning_rate for row in Training(run_spec(epochs=4, learning_rate=0.2))]
    assert falling == pytest.approx([0.2, 0.1 * (1 + math.sqrt(0.5)), 0.1, 0.1 * (1 - math.sqrt(0.5))])
    assert [
        row.learning_rate for row in Training(run_spec(epochs=4, learning_rate=0.2, schedule="constant"))
    ] == [0.2] * 4
    assert run_spec(schedule="cosine").run_id == run_spec().run_id != run_spec(schedule="constant").run_id


@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_it_trains_what_a_plain_reading_of_the_paper_trains(ratio: float) -> None:
    """The losses agree to float32's noise with plain PyTorch's on the same weights and batches.

    The plain side has torch's own cosine schedule.
    """
    policy = {"name": "dense"} if ratio == 1 else {"name": "fixed", "ratio": ratio}
    spec = run_spec(policy, epochs=3, train_size=100, batch_size=32, learning_rate=0.02, weight_decay=0.1)
    training = Training(spec)
    plain = PlainWideResNet(10, 1, 10, 1)
    copy_weights(training.model, plain)
    plain.set_keep(ratio)
    assert isinstance(training.model, WideResNet)
    follow(plain, training.model, ratio)
    rows = list(training)

    arrays, split = data.load("digits"), data.split(spec.task, spec.seed)
    optimizer = torch.optim.SGD(plain.parameters(), 0.02, 0.9, weight_decay=0.1, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    for row in rows:
        assert row.learning_rate == pytest.approx(schedule.get_last_lr()[0])
        order = split.train[randomness.permutation(100, spec.seed, "order", row.epoch)]
        losses: list[float] = []
        for batch in np.split(order, [32, 64, 96]):
            images, labels = (
                torch.from_numpy(arrays.train_images[batch]),
                torch.from_numpy(arrays.train_labels[batch]),
            )
            loss = torch.nn.functional.cross_entropy(plain(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(batch))
        schedule.step()
        assert row.train_loss == pytest.approx(sum(losses) / 100, rel=1e-5)
    plain.eval()
    with torch.no_grad():
        right = plain(torch.from_numpy(arrays.test_images)).argmax(1).numpy() == arrays.test_labels
    # 0.01 is six images of 597: a near-tie moves the logits of its own image.
    assert rows[-1].test_accuracy == pytest.approx(right.mean(), abs=0.01)


def test_the_rows_tell_ratio_rates_and_accuracies_as_they_are_defined() -> None:
    training = Training(run_spec({"name": "sawtooth", "period": 3, "decay": 0.3}, validation=0.1))
    rows = list(training)
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert [row.keep_ratio for row in rows] == [1, 0.3, 0.09]
    assert [row.reset for row in rows] == [False, False, True]
    assert [row.cycle for row in rows] == [0, 0, 1]
    assert rows[0].test_accuracy == rows[0].dense_test_accuracy
    for row in rows:
        assert row.nonzero_rate_by_site is not None
        assert len(row.nonzero_rate_by_site) == 7
        assert row.nonzero_rate == pytest.approx(sum(row.nonzero_rate_by_site) / 7)
        assert row.keep_ratio
        # Rounding up adds at most 1/256, at the smallest site.
        assert all(rate <= row.keep_ratio + 1 / 256 for rate in row.nonzero_rate_by_site)
        assert row.validation_accuracy is not None
        assert (row.validation_accuracy * 120) == pytest.approx(round(row.validation_accuracy * 120))
        assert row.train_accuracy * 96 == pytest.approx(round(row.train_accuracy * 96))


def test_without_held_out_images_the_validation_columns_are_null() -> None:
    row = next(iter(Training(run_spec())))
    assert row.validation_accuracy is row.dense_validation_accuracy is None
    assert row.test_accuracy is not None


def test_endpoints_are_the_final_weights_image_by_image() -> None:
    training = Training(run_spec({"name": "fixed", "ratio": 0.3}, validation=0.1, endpoints=[0.05, 0.3, 1]))
    last = list(training)[-1]
    assert [(end.split, end.keep_ratio) for end in training.endpoints] == [
        (split, ratio) for split in ("test", "validation") for ratio in (1, 0.3, 0.05)
    ]
    for end in training.endpoints:
        bits = np.unpackbits(np.frombuffer(end.correct, np.uint8))
        assert len(bits) - end.images in range(8)
        assert bits[: end.images].mean() == end.accuracy
        assert not bits[end.images :].any()
    accuracy = {(end.split, end.keep_ratio): end.accuracy for end in training.endpoints}
    assert accuracy["test", 1.0] == last.dense_test_accuracy
    assert accuracy["test", 0.3] == last.test_accuracy
    assert accuracy["validation", 0.3] == last.validation_accuracy


def test_evaluation_every_so_often_always_includes_the_last_epoch_and_changes_no_other_number() -> None:
    every, some = list(Training(run_spec(epochs=5))), list(Training(run_spec(epochs=5, evaluate_every=2)))
    assert [row.test_accuracy is not None for row in some] == [False, True, False, True, True]
    for often, seldom in zip(every, some, strict=True):
        assert often.train_loss == seldom.train_loss
        if seldom.test_accuracy is not None:
            assert seldom.test_accuracy == often.test_accuracy


def test_a_loss_that_is_not_a_number_ends_the_run_as_diverged_with_its_row() -> None:
    training = Training(run_spec({"name": "dense"}, epochs=5, learning_rate=1e20))
    rows = list(training)
    assert training.diverged
    assert training.done
    assert not training.collapsed
    assert len(rows) < 5
    assert not math.isfinite(rows[-1].train_loss)
    assert rows[-1].test_accuracy is None
    assert training.endpoints == []


def test_a_run_that_ends_at_chance_with_a_finite_loss_is_collapsed() -> None:
    guessing, learning = (
        Training(run_spec(epochs=1, learning_rate=1e-9)),
        Training(run_spec({"name": "dense"}, epochs=4)),
    )
    list(guessing)
    list(learning)
    assert guessing.rows[-1].train_loss == pytest.approx(math.log(10), rel=0.1)
    assert guessing.collapsed
    assert not learning.collapsed


def test_a_last_partial_batch_is_trained_on_unless_it_is_left_out() -> None:
    whole, left_out = Training(run_spec(train_size=100)), Training(run_spec(train_size=100, drop_last=True))
    assert (whole.batches, left_out.batches) == (4, 3)
    assert [
        next(iter(t)).train_accuracy * size for t, size in ((whole, 100), (left_out, 96))
    ] == pytest.approx(
        [round(t.rows[0].train_accuracy * size) for t, size in ((whole, 100), (left_out, 96))]
    )


def test_the_host_waits_for_the_device_as_often_in_long_epochs_as_in_short_ones() -> None:
    """Every wait is an aten::_local_scalar_dense: an .item(), an if on a tensor."""

    class Waits(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func is torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    counts: list[int] = []
    for size in (32, 320):
        training = Training(run_spec({"name": "fixed", "ratio": 0.3}, epochs=2, train_size=size))
        with Waits() as waits:
            next(iter(training))
        counts.append(waits.count)
    # the sums of loss and accuracy, and the losses of the two evaluations; only the first wait is long
    assert counts == [4, 4]


def test_data_is_loaded_once_for_many_runs() -> None:
    first = Training(run_spec(seed=1))
    second = Training(run_spec(seed=2), images=first.images)
    assert second.images.images.data_ptr() == first.images.images.data_ptr()
    assert without_wall(list(second)) == without_wall(list(Training(run_spec(seed=2))))
