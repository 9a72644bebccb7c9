"""Connectivity policies: they decide which connections a network has in each epoch.

Random numbers depend only on (seed, layer, epoch), so an interrupted run draws the same ones as any other.
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
    """Number of connections of a layer at the start: epsilon for each input and each output.

    It is at least one and at most the size of the matrix.
    """
    return min(rows * columns, max(1, math.floor(epsilon * (rows + columns) + 0.5)))


@dataclass
class StaticSparse(BasePolicy):
    """A control whose random, sparse connections never change.

    A layer stays dense if its number of connections would reach the size of its matrix.
    """

    epsilon: Annotated[float, Within(above=0)] = 20.0
    """Connections at the start for each input and each output of a layer."""

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
    """Sparse evolutionary training.

    After each epoch the connections with weights nearest zero are removed. As many are added at random empty
    places.
    """

    zeta: Zeta = 0.3
    """Share of the positive and of the negative weights that is removed."""
    scale: Annotated[float, Within(above=0)] = field(default=0.1, kw_only=True)
    """Standard deviation of the weights of new connections."""

    def rewire(self, wiring: Wiring) -> None:
        for i, layer in enumerate(wiring.layers):
            if self._sparse(layer):
                goes = _nearest_zero(layer.weights(), self.zeta)
                words = self._words("rewire", i, self.epoch)
                new = _new_places(layer, goes, words)
                layer.replace(goes, new, self.scale * _normal(len(new), words))


@dataclass
class NpsetFrozen(StaticSparse):
    """A control that prunes neurons as `npset` does but moves no connection.

    The paper says that about half of the hidden neurons are removed during training. It does not say when,
    so the schedule is our reading. Every `period` epochs from `start` on, each hidden layer loses
    `percentile` percent of its neurons: those with the smallest sum of absolute incoming weights. This ends
    when a share of `target` is removed; with the defaults, after epoch 35.
    """

    percentile: Percentile = field(default=10.0, kw_only=True)
    """Percentage of the remaining neurons that is removed each time."""
    start: Annotated[int, Within(at_least=1)] = field(default=5, kw_only=True)
    """Epoch after which the first neurons are removed."""
    period: Annotated[int, Within(at_least=1)] = field(default=5, kw_only=True)
    """Number of epochs between two removals."""
    target: Annotated[float, Within(above=0, below=1)] = field(default=0.5, kw_only=True)
    """Largest share of a layer's neurons that may be removed in all."""

    def rewire(self, wiring: Wiring) -> None:
        if self.epoch < self.start or (self.epoch - self.start) % self.period:
            return
        # a removal changes the next layer too, so all neurons are chosen before the first one is removed
        chosen = {i: self._least_connected(wiring.layers[i]) for i in wiring.hidden}
        for i, neurons in chosen.items():
            wiring.remove(i, neurons)

    def _least_connected(self, layer: Connections) -> np.ndarray:
        left = np.flatnonzero(~layer.removed)
        may_go = math.floor(round(self.target * layer.rows, 9)) - (layer.rows - len(left))
        count = min(may_go, math.ceil(round(self.percentile / 100 * len(left), 9)))
        incoming = np.bincount(layer.places // layer.columns, np.abs(layer.weights()), layer.rows)
        return left[_least(incoming[left], count)]


@dataclass
class Npset(NpsetFrozen, Set):
    """SET with neuron pruning.

    Neurons are removed first. Then the remaining connections are rewired among the remaining neurons.
    """

    def rewire(self, wiring: Wiring) -> None:
        NpsetFrozen.rewire(self, wiring)
        Set.rewire(self, wiring)


def _nearest_zero(weights: np.ndarray, share: float) -> np.ndarray:
    """Whether each weight is removed.

    This share of the non-negative weights and of the negative weights is removed, those nearest zero. Among
    equals the first are removed.
    """
    goes = np.zeros(len(weights), bool)
    for half in (np.flatnonzero(weights >= 0), np.flatnonzero(weights < 0)):
        goes[half[_least(np.abs(weights[half]), math.floor(round(share * len(half), 9)))]] = True
    return goes


def _least(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the smallest values, in ascending order. Among equals the first are taken."""
    if count < 1:
        return np.arange(0)
    limit = np.partition(values, count - 1)[count - 1]
    chosen = values < limit
    chosen[np.flatnonzero(values == limit)[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def _new_places(layer: Connections, goes: np.ndarray, words: np.random.PCG64) -> np.ndarray:
    """Random places for as many connections as are removed.

    They are drawn from the places between remaining neurons that are empty after the removal.
    """
    taken = np.zeros(layer.rows * layer.columns, bool)
    taken[layer.places[~goes]] = True
    matrix = taken.reshape(layer.rows, layer.columns)
    matrix[layer.removed], matrix[:, layer.cut] = True, True
    return _drawn(int(np.count_nonzero(goes)), taken, words)


def _drawn(count: int, taken: np.ndarray, words: np.random.PCG64) -> np.ndarray:
    """Draw `count` of the places that are not taken, uniformly, in ascending order."""
    free = len(taken) - int(np.count_nonzero(taken))
    if count > free / 2:  # drawing the few places that stay free takes fewer tries
        taken[_drawn(free - count, taken.copy(), words)] = True
        return np.flatnonzero(~taken)
    found = [np.arange(0)]
    while count:
        # a float holds no more than 53 bits
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
    """Standard normal numbers, by the Box-Muller method: two from each pair of uniform numbers."""
    pairs = -(-count // 2)
    first, second = ((words.random_raw(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5).reshape(
        2, pairs
    ) / 2**53
    radius = np.sqrt(-2 * np.log(first))
    return np.concatenate([radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)])[:count]
