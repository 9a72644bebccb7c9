"""The base class of all policies, and what a policy may ask of a network's connections.

Between epochs a policy decides what share of the activations may survive and which connections exist. A
policy may change either, or neither, and training treats all policies alike. Torch is not imported here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np

HIDDEN = {"hidden": True}  # marks a field that is passed at construction but is no setting of a study
Survivors = Literal["largest", "random"]


class Connections(Protocol):
    """The connections of one layer, as a matrix with a row for each output.

    A place is the position of a connection in this matrix, counted row by row.
    """

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def places(self) -> np.ndarray:
        """Places of the existing connections, in ascending order."""
        ...

    @property
    def removed(self) -> np.ndarray:
        """Whether the neuron of each row was removed."""
        ...

    @property
    def cut(self) -> np.ndarray:
        """Whether the neuron that feeds each column was removed."""
        ...

    def weights(self) -> np.ndarray:
        """Weights of the existing connections, in the order of `places`."""
        ...

    def keep(self, places: np.ndarray) -> None:
        """Remove all connections but these."""
        ...

    def replace(self, goes: np.ndarray, new: np.ndarray, weights: np.ndarray) -> None:
        """Remove the connections where `goes` is true, and add connections at the places `new`.

        `new` is in ascending order. New connections have these weights and no momentum.
        """
        ...


class Wiring(Protocol):
    """A network's connections, layer by layer."""

    @property
    def layers(self) -> Sequence[Connections]: ...
    @property
    def hidden(self) -> Sequence[int]:
        """Indices of the layers whose outputs are hidden neurons."""
        ...

    @property
    def connections(self) -> int: ...
    @property
    def active_neurons(self) -> int:
        """Number of hidden neurons that were not removed."""
        ...

    def remove(self, layer: int, neurons: np.ndarray) -> None:
        """Remove hidden neurons for good, with all connections to and from them."""
        ...


@dataclass
class BasePolicy(ABC):
    """A policy. Fields passed at construction are settings; fields with `init=False` are state.

    The connections themselves are not part of this state.
    """

    survivors: Survivors = field(default="largest", kw_only=True, metadata=HIDDEN)
    """Which activations survive: the largest, or as many drawn at random."""
    seed: int = field(default=0, kw_only=True, metadata=HIDDEN)
    """Seed of the run, for policies that draw at random."""
    epoch: int = field(default=0, init=False)
    """Number of epochs that have ended."""
    keep_ratio: float = field(default=1.0, init=False)
    """Share of the activations that may survive in the coming epoch."""

    def begin(self, wiring: Wiring) -> None:  # noqa: B027 - most policies have nothing to do here
        """Choose the connections of the first epoch."""

    @abstractmethod
    def after_epoch(self, train_accuracy: float) -> None:
        """Move to the next epoch. `train_accuracy` (0 to 1) is the running one of the epoch that ended."""

    def rewire(self, wiring: Wiring) -> None:  # noqa: B027 - nor here
        """Remove and add connections between two epochs. It is called after `after_epoch`."""

    def before(self, wiring: Wiring) -> dict[str, Any]:
        """The policy's columns of the coming epoch's row that are known before the epoch."""
        return {}

    def after(self) -> dict[str, Any]:
        """The policy's columns of a row that are known only after the epoch."""
        return {}

    def state(self) -> dict[str, Any]:
        """All state fields, as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.init}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state()`."""
        for name in self.state():
            setattr(self, name, state[name])
