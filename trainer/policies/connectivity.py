"""Connectivity policies: which connections a network has, from epoch to epoch. One that is not there has no weight, gradient or momentum.

Everything drawn is addressed by (seed, layer, epoch), so that a run that continues draws what an undisturbed one drew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from trainer import randomness
from trainer.policies.base import BasePolicy, Connections, Wiring
from trainer.settings import Within

Zeta = Annotated[float, Within(above=0, below=1)]
Percentile = Annotated[float, Within(above=0, below=100)]


def erdos_renyi(epsilon: float, rows: int, columns: int) -> int:
    """Connections of a layer at the start: epsilon for each input and each output, at least one, and never more than there is room for."""
    return min(rows * columns, max(1, math.floor(epsilon * (rows + columns) + 0.5)))


@dataclass
class StaticSparse(BasePolicy):
    """A control: sparse from the start, at random, and so to the end. A layer with room for no more than it would get is kept dense."""

    epsilon: Annotated[float, Within(above=0)] = 20.0

    def begin(self, wiring: Wiring) -> None:
        for i, layer in enumerate(wiring.layers):
            if self._sparse(layer):
                count = erdos_renyi(self.epsilon, layer.rows, layer.columns)
                layer.keep(
                    _drawn(count, np.zeros(layer.rows * layer.columns, bool), self._words("connections", i))
                )

    def after_epoch(self, train_accuracy: float) -> None:
        self.epoch += 1

    def before(self, wiring: Wiring) -> dict[str, Any]:
        return {"connections": wiring.connections, "active_neurons": wiring.active_neurons}

    def _sparse(self, layer: Connections) -> bool:
        return erdos_renyi(self.epsilon, layer.rows, layer.columns) < layer.rows * layer.columns

    def _words(self, stream: str, *place: int) -> np.random.PCG64:
        return np.random.PCG64(randomness.derive(self.seed, stream, *place))


@dataclass
class Set(StaticSparse):
    """Sparse evolutionary training: after each epoch the weights nearest zero go, and as many come at random empty places."""

    zeta: Zeta = 0.3
    """The share that goes: of the positive weights, and of the negative ones."""
    scale: Annotated[float, Within(above=0)] = field(default=0.1, kw_only=True)
    """Standard deviation of the weights that come."""

    def rewire(self, wiring: Wiring) -> None:
        for i, layer in enumerate(wiring.layers):
            if self._sparse(layer):
                goes = _nearest_zero(layer.weights(), self.zeta)
                words = self._words("rewire", i, self.epoch)
                new = _empty(layer, goes, words)
                layer.replace(goes, new, self.scale * _normal(len(new), words))


@dataclass
class NpsetFrozen(StaticSparse):
    """A control: neurons are pruned as in `npset`, and no connection moves.

    The paper says that about half of the hidden neurons go during training, and not when: the schedule is our reading. Every `period`
    epochs from `start` on, each hidden layer loses the `percentile` percent of its neurons whose incoming weights sum to least, in size,
    until `target` of them are gone. With the defaults that is after epoch 35.
    """

    percentile: Percentile = field(default=10.0, kw_only=True)
    """Of the neurons that are left, how many percent go each time."""
    start: Annotated[int, Within(at_least=1)] = field(default=5, kw_only=True)
    """The epoch after which the first ones go."""
    period: Annotated[int, Within(at_least=1)] = field(default=5, kw_only=True)
    """Epochs from one time to the next."""
    target: Annotated[float, Within(above=0, below=1)] = field(default=0.5, kw_only=True)
    """The share of a layer's neurons that may go in all."""

    def rewire(self, wiring: Wiring) -> None:
        if self.epoch < self.start or (self.epoch - self.start) % self.period:
            return
        going = {
            i: self._going(wiring.layers[i]) for i in wiring.hidden
        }  # all chosen before the first goes, and takes connections along
        for i, neurons in going.items():
            wiring.remove(i, neurons)

    def _going(self, layer: Connections) -> np.ndarray:
        left = np.flatnonzero(~layer.removed)
        may_go = math.floor(round(self.target * layer.rows, 9)) - (layer.rows - len(left))
        count = min(may_go, math.ceil(round(self.percentile / 100 * len(left), 9)))
        incoming = np.bincount(layer.places // layer.columns, np.abs(layer.weights()), layer.rows)
        return left[_least(incoming[left], count)]


@dataclass
class Npset(NpsetFrozen, Set):
    """SET with neuron pruning: neurons go first, and the connections that are left are rewired among the neurons that are left."""

    def rewire(self, wiring: Wiring) -> None:
        NpsetFrozen.rewire(self, wiring)
        Set.rewire(self, wiring)


def _nearest_zero(weights: np.ndarray, share: float) -> np.ndarray:
    """Whether each weight goes: the least of the positive ones (and zeros), and as large a share of the negative ones; of equals, the
    first."""
    goes = np.zeros(len(weights), bool)
    for half in (np.flatnonzero(weights >= 0), np.flatnonzero(weights < 0)):
        goes[half[_least(np.abs(weights[half]), math.floor(round(share * len(half), 9)))]] = True
    return goes


def _least(values: np.ndarray, count: int) -> np.ndarray:
    """Where the least values are; of equals, the first. Rising."""
    if count < 1:
        return np.arange(0)
    limit = np.partition(values, count - 1)[count - 1]
    chosen = values < limit
    chosen[np.flatnonzero(values == limit)[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def _empty(layer: Connections, goes: np.ndarray, words: np.random.PCG64) -> np.ndarray:
    """As many places as connections go, drawn from those that will be empty then: between neurons that are there."""
    taken = np.zeros(layer.rows * layer.columns, bool)
    taken[layer.places[~goes]] = True
    matrix = taken.reshape(layer.rows, layer.columns)
    matrix[layer.removed], matrix[:, layer.cut] = True, True
    return _drawn(int(np.count_nonzero(goes)), taken, words)


def _drawn(count: int, taken: np.ndarray, words: np.random.PCG64) -> np.ndarray:
    """So many of the places that are not taken, each as likely as any other; rising."""
    free = len(taken) - int(np.count_nonzero(taken))
    if count > free / 2:  # the last few would be hard to hit; those that stay free are drawn instead
        taken[_drawn(free - count, taken.copy(), words)] = True
        return np.flatnonzero(~taken)
    found = [np.arange(0)]
    while count:
        # 53 bits: a float has no more
        places = np.sort(
            ((words.random_raw(count) >> np.uint64(11)) * (len(taken) / 2**53)).astype(np.int64)
        )
        fresh = ~taken[places]
        fresh[1:] &= places[1:] != places[:-1]
        found.append(places[fresh])
        taken[places] = True
        count -= len(found[-1])
    return np.sort(np.concatenate(found))


def _normal(count: int, words: np.random.PCG64) -> np.ndarray:
    """Standard normal numbers, two from two uniform ones."""
    pairs = -(-count // 2)
    first, second = ((words.random_raw(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5).reshape(
        2, pairs
    ) / 2**53
    radius = np.sqrt(-2 * np.log(first))
    return np.concatenate([radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)])[:count]
