"""Connectivity policies in real trainings, beside their rules written with SciPy's sparse matrices."""

from __future__ import annotations

import io
import math
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from tests.conftest import ROOT, command, run_spec, without_wall
from trainer.data import load
from trainer.engine import place
from trainer.policies import POLICIES
from trainer.rows import EpochRow, from_parquet
from trainer.run_folder import RunFolder
from trainer.spec import RunSpec
from trainer.store import open_store
from trainer.training import Training

SPARSE: dict[str, dict[str, Any]] = {
    "set": {"name": "set", "epsilon": 4, "zeta": 0.3},
    "static-sparse": {"name": "static-sparse", "epsilon": 4},
    "npset": {
        "name": "npset",
        "epsilon": 4,
        "zeta": 0.4,
        "percentile": 20,
        "start": 2,
        "period": 2,
        "target": 0.4,
    },
    "npset-frozen": {"name": "npset-frozen", "epsilon": 4, "percentile": 20, "start": 1, "period": 1},
}
MLP: dict[str, Any] = {
    "model": "mlp-50-40",
    "train_size": 200,
    "learning_rate": 0.05,
    "epochs": 6,
    "weight_decay": 1e-3,
}
WRN: dict[str, Any] = {"model": "wrn-10-1", "train_size": 64, "epochs": 4, "weight_decay": 1e-3}


def spec_of(name: str, **task: Any) -> RunSpec:
    return run_spec(SPARSE[name], **{**MLP, **task})


@dataclass
class Moment:
    """Every layer's weights and momentum, with a row for each output.

    `there` holds the connections that the masks declare.
    """

    weights: list[np.ndarray]
    momentum: list[np.ndarray]
    there: list[np.ndarray]

    @classmethod
    def of(cls, training: Training) -> Moment:
        state, optimizer = training.state(), training.optimizer
        weights = [layer.weight for layer in training.model.layers]
        momentum = [optimizer.momentum_of(weight) for weight in weights]
        masks = [
            state["connections"].get(str(i), {}).get("mask", torch.ones_like(weight))
            for i, weight in enumerate(weights)
        ]

        def matrices(tensors: list[Any]) -> list[np.ndarray]:
            return [tensor.detach().numpy().copy().reshape(len(tensor), -1) for tensor in tensors]

        return cls(matrices(weights), matrices(momentum), [mask.astype(bool) for mask in matrices(masks)])


def rewirings(training: Training, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Moment, Moment]]:
    """Train, and yield the network before and after each rewiring."""
    seen: list[tuple[Moment, Moment]] = []
    rewire = training.policy.rewire

    def watched(wiring: Any) -> None:
        before = Moment.of(training)
        rewire(wiring)
        seen.append((before, Moment.of(training)))

    monkeypatch.setattr(training.policy, "rewire", watched)
    for _ in training:
        yield from seen
        seen.clear()


def nothing_off_mask(training: Training) -> None:
    moment = Moment.of(training)
    for weight, momentum, there in zip(moment.weights, moment.momentum, moment.there, strict=True):
        assert not weight[~there].any()
        assert not momentum[~there].any()


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("net", [MLP, WRN], ids=["mlp", "wrn"])
def test_off_the_mask_all_is_zero_after_every_epoch_and_in_every_step(
    name: str, net: dict[str, Any], monkeypatch: Any
) -> None:
    training = Training(run_spec(SPARSE[name], **net))
    steps, step = [0], training.optimizer.step

    def watched() -> None:
        for i, layer in enumerate(training.connections.state().items()):
            weight = training.model.layers[int(layer[0])].weight
            assert weight.grad is not None
            assert not weight.grad[~layer[1]["mask"]].any(), i
        step()
        steps[0] += 1

    monkeypatch.setattr(training.optimizer, "step", watched)
    nothing_off_mask(training)
    assert training.connections.masked
    for row in training:
        nothing_off_mask(training)
        assert math.isfinite(row.train_loss)
    assert steps[0] == training.batches * training.task.epochs


@pytest.mark.parametrize("name", ["set", "static-sparse"])
def test_the_number_of_connections_is_the_declared_one_in_every_epoch(name: str) -> None:
    # 4 x (64 + 50), 4 x (50 + 40), 4 x (40 + 10). No layer is dense: the last one has room for 400.
    training = Training(spec_of(name))
    rows = list(training)
    assert [row.connections for row in rows] == [4 * (64 + 50) + 4 * (50 + 40) + 4 * (40 + 10)] * 6
    assert [row.active_neurons for row in rows] == [90] * 6
    assert [row.parameters for row in rows] == [1_016 + 100] * 6
    counts = [np.count_nonzero(there) for there in Moment.of(training).there]
    assert counts == [456, 360, 200]


def test_a_layer_has_at_least_one_connection() -> None:
    rows = list(Training(run_spec({"name": "set", "epsilon": 0.001}, **MLP)))
    assert {row.connections for row in rows} == {3}


def test_a_layer_without_room_for_more_is_kept_dense_and_never_rewired(monkeypatch: Any) -> None:
    training = Training(run_spec({"name": "set", "epsilon": 9}, **MLP))  # 9 x (40 + 10) = 450 of 400 places
    assert training.connections.masked == (0, 1)
    for before, after in rewirings(training, monkeypatch):
        assert np.array_equal(before.weights[2], after.weights[2])
        assert not np.array_equal(before.weights[1], after.weights[1])


def reference_kept(weights: np.ndarray, there: np.ndarray, zeta: float) -> sparse.csr_array:
    """Return what SET leaves of a layer.

    The stored values of each sign are sorted, and the share nearest zero is cut off.
    """
    matrix = sparse.coo_array((weights[there], np.nonzero(there)), shape=weights.shape)
    stays = np.ones(matrix.nnz, bool)
    for sign in (1, -1):
        mine = np.flatnonzero(matrix.data * sign > 0)
        stays[mine[np.argsort(matrix.data[mine] * sign, kind="stable")][: int(zeta * len(mine))]] = False
    return sparse.csr_array(
        (matrix.data[stays], (matrix.coords[0][stays], matrix.coords[1][stays])), shape=matrix.shape
    )


def pattern(matrix: sparse.csr_array) -> np.ndarray:
    return np.asarray((abs(matrix) > 0).todense())


def assert_rewired(kept: sparse.csr_array, before: Moment, after: Moment, layer: int) -> np.ndarray:
    """Check that kept connections keep weight and momentum; return the new weights.

    All new connections must be where there were none.
    """
    weights, momentum, there = after.weights[layer], after.momentum[layer], after.there[layer]
    stays = pattern(kept)
    assert np.count_nonzero(there) == np.count_nonzero(before.there[layer])
    assert (there | ~stays).all()
    assert np.array_equal(weights[stays], np.asarray(kept.todense())[stays])
    assert np.array_equal(momentum[stays], before.momentum[layer][stays])
    assert not momentum[there & ~stays].any()
    return weights[there & ~stays]


@pytest.mark.parametrize("zeta", [0.05, 0.3, 0.9])
def test_set_removes_and_regrows_what_an_independent_reading_does(zeta: float, monkeypatch: Any) -> None:
    training = Training(run_spec({"name": "set", "epsilon": 4, "zeta": zeta}, **MLP))
    came: list[np.ndarray] = []
    seen = list(rewirings(training, monkeypatch))
    assert len(seen) == training.task.epochs - 1  # after each epoch but the last
    for before, after in seen:
        for layer in range(3):
            kept = reference_kept(before.weights[layer], before.there[layer], zeta)
            came.append(assert_rewired(kept, before, after, layer))
            assert np.count_nonzero(after.there[layer]) - kept.nnz == len(came[-1])
    new = np.concatenate(came)
    assert abs(new.mean()) < 5 * 0.1 / math.sqrt(len(new))
    assert abs(new.std() - 0.1) < 5 * 0.1 / math.sqrt(2 * len(new))


def test_new_connections_come_everywhere_alike(monkeypatch: Any) -> None:
    """Every empty position is equally likely: each quarter of the matrix gets the same share."""
    training = Training(
        run_spec({"name": "set", "epsilon": 4, "zeta": 0.9}, **{**MLP, "epochs": 40, "train_size": 32})
    )
    free, drawn = np.zeros((50, 64)), np.zeros((50, 64))
    for before, after in rewirings(training, monkeypatch):
        empty = ~pattern(reference_kept(before.weights[0], before.there[0], 0.9))
        free, drawn = free + empty, drawn + (empty & after.there[0])
    whole = drawn.sum() / free.sum()
    for rows in (slice(25), slice(25, 50)):
        for columns in (slice(32), slice(32, 64)):
            n = free[rows, columns].sum()
            assert abs(drawn[rows, columns].sum() / n - whole) < 5 * math.sqrt(whole * (1 - whole) / n)


@pytest.mark.parametrize("name", ["npset", "npset-frozen"])
def test_neurons_go_by_their_incoming_weights_and_take_their_connections_along(
    name: str, monkeypatch: Any
) -> None:
    training = Training(spec_of(name))
    policy = SPARSE[name]
    gone: list[set[int]] = [set(), set()]
    for epoch, (before, after) in enumerate(rewirings(training, monkeypatch), 1):
        due = epoch >= policy["start"] and (epoch - policy["start"]) % policy["period"] == 0
        left = [weights.copy() for weights in before.weights]
        for layer, width in enumerate((50, 40)):
            incoming = abs(sparse.csr_array(before.weights[layer].astype(float))).sum(axis=1)
            free = [j for j in range(width) if j not in gone[layer]]
            count = (
                min(math.ceil(0.2 * len(free)), int(policy.get("target", 0.5) * width) - len(gone[layer]))
                if due
                else 0
            )
            gone[layer] |= set(sorted(free, key=lambda j, sums=incoming: (sums[j], j))[:count])
            left[layer][sorted(gone[layer])] = 0
            left[layer + 1][:, sorted(gone[layer])] = 0
        for layer in range(3):
            there = before.there[layer] & (left[layer] != 0)
            if name == "npset-frozen":
                assert np.array_equal(after.there[layer], there)
                assert np.array_equal(after.weights[layer], left[layer])
                continue
            kept = reference_kept(left[layer], there, policy["zeta"])
            assert_rewired(
                kept,
                Moment(
                    left, before.momentum, [there if i == layer else it for i, it in enumerate(before.there)]
                ),
                after,
                layer,
            )
        for layer, lost in enumerate(gone):  # no connection ever comes back to a neuron that went
            assert not after.there[layer][sorted(lost)].any()
            assert not after.there[layer + 1][:, sorted(lost)].any()
            assert not any(vector[sorted(lost)].any() for vector in training.model.layers[layer].owned)
    assert training.rows[-1].active_neurons == 90 - len(gone[0]) - len(gone[1])
    last = training.rows[-1]
    assert last.connections
    assert last.active_neurons
    assert last.parameters == last.connections + last.active_neurons + 10
    assert gone[0]


def test_with_its_defaults_npset_removes_half_of_the_hidden_neurons_by_epoch_36() -> None:
    rows = list(
        Training(
            run_spec(
                {"name": "npset", "epsilon": 4},
                model="mlp-300-200",
                train_size=32,
                epochs=40,
                learning_rate=0.01,
            )
        )
    )
    active = [row.active_neurons for row in rows]
    assert active[:5] == [500] * 5
    assert active[35:] == [250] * 5
    assert active[34] > 250  # type: ignore[operator]


def test_a_removed_channel_of_a_wide_resnet_changes_nothing_that_is_left() -> None:
    training = Training(
        run_spec({"name": "npset-frozen", "epsilon": 6, "percentile": 30, "start": 1, "period": 1}, **WRN)
    )
    list(training)
    layers = training.connections.layers
    assert (
        training.rows[-1].active_neurons
        == 112 - sum(int(layers[i].removed.sum()) for i in training.connections.hidden)
        < 112
    )
    for i in training.connections.hidden:
        assert not training.model.layers[i].weight.detach()[torch.from_numpy(layers[i].removed)].any()
        assert not training.model.layers[i + 1].weight.detach()[:, torch.from_numpy(layers[i].removed)].any()


NETS: list[dict[str, Any]] = [MLP, WRN, {**MLP, "model": "mlp-srelu-20-10"}]
CROSSES = {f"{policy} {net['model']}": (policy, net) for policy in POLICIES for net in NETS}
SETTINGS: dict[str, dict[str, Any]] = {
    **SPARSE,
    "npset": {**SPARSE["npset"], "zeta": 0.1},  # four epochs are too few to make up for more
    "fixed": {"ratio": 0.3},
    "sawtooth": {"period": 3, "step": 0.4},
}


@pytest.mark.parametrize("cross", CROSSES)
def test_every_policy_trains_every_kind_of_network(cross: str) -> None:
    policy, net = CROSSES[cross]
    training = Training(run_spec({**SETTINGS.get(policy, {}), "name": policy}, **net))
    rows = list(training)
    assert training.done
    assert not training.diverged
    assert rows[-1].train_loss < rows[0].train_loss
    moves_connections, moves_ratio = rows[0].connections is not None, rows[0].keep_ratio is not None
    assert moves_connections != moves_ratio
    for row in rows:
        ratio = 1.0 if row.keep_ratio is None else row.keep_ratio
        assert row.nonzero_rate_by_site
        for rate, site in zip(row.nonzero_rate_by_site, training.model.sites, strict=True):
            assert 0 < rate <= math.ceil(ratio * site.size) / site.size


@pytest.mark.parametrize("other", ["dense", "npset"])
def test_arms_of_one_seed_share_their_first_weights(other: str) -> None:
    first = Training(spec_of("set"))
    theirs = Training(run_spec({**SPARSE.get(other, {}), "name": other}, **MLP))
    for mine, there, its in zip(
        Moment.of(first).weights, Moment.of(first).there, Moment.of(theirs).weights, strict=True
    ):
        assert np.array_equal(mine[there], its[there])


def test_a_run_that_takes_over_another_one_s_engine_starts_with_all_its_connections() -> None:
    spec = run_spec({"name": "dense"}, **MLP)
    images = place(load("digits"), torch.device("cpu"))
    fresh = list(Training(spec, images=images))
    sparse_run = Training(spec_of("npset"), images=images)
    list(sparse_run)
    engine = sparse_run.engine
    del sparse_run
    after = Training(spec, images=images)
    assert after.engine is engine
    assert without_wall(list(after)) == without_wall(fresh)


@pytest.mark.parametrize("name", SPARSE)
def test_continued_at_any_epoch_the_rest_is_the_same(name: str) -> None:
    spec = spec_of(name)
    whole = Training(spec)
    states = [whole.state()]
    for _ in whole:
        states.append(whole.state())
    rows, end = without_wall(whole.rows), Moment.of(whole)
    for state in states:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        continued = Training(spec)
        continued.load(torch.load(buffer, weights_only=True))
        nothing_off_mask(continued)
        assert continued.connections.connections == sum(
            np.count_nonzero(there) for there in Moment.of(continued).there
        )
        list(continued)
        assert without_wall(continued.rows) == rows
        for mine, theirs in zip(Moment.of(continued).weights, end.weights, strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.chaos
def test_killed_at_random_moments_the_rows_and_the_masks_are_those_of_an_undisturbed_run(
    write_run: Any, tmp_path: Path
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"schedule seed: {seed}")  # shown when the test fails
    draw, settings = random.Random(seed), {**MLP, "epochs": 60}
    spec, run, store = (
        run_spec(SPARSE["npset"], **settings),
        write_run(SPARSE["npset"], **settings),
        tmp_path / "runs",
    )
    undisturbed = Training(spec)
    list(undisturbed)
    arguments = command(run, store, "--commit-share", "1", "--keep-weights")
    for _ in range(4):
        with subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout
            for _ in range(draw.randint(1, 12)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    subprocess.run(arguments, cwd=ROOT, capture_output=True, check=True, timeout=240)
    rows = from_parquet(EpochRow, (store / spec.run_id / "epochs.parquet").read_bytes())
    assert without_wall(rows) == without_wall(undisturbed.rows)
    folder = RunFolder(open_store(str(store)), spec, print)
    outcome = folder.outcome()
    assert outcome
    kept = torch.load(
        io.BytesIO(folder.store.read(f"{spec.run_id}/{outcome.files['checkpoint'].name}")), weights_only=True
    )
    for i, layer in undisturbed.state()["connections"].items():
        assert torch.equal(kept["connections"][i]["mask"], layer["mask"])
