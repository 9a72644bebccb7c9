"""What every policy is: a machine that stands between epochs. It says what share of the activations may survive, and which connections
there are; a kind of policy moves the one, the other, or neither, and training does not ask which. Torch is not imported here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np

HIDDEN = {"hidden": True}  # given at construction, and no setting of the study
Survivors = Literal["largest", "random"]


class Connections(Protocol):
    """A layer's weights as a policy sees them: a matrix with a row for each output. A place is a number in it, row by row."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def places(self) -> np.ndarray:
        """Of the connections there are, rising."""
        ...

    @property
    def removed(self) -> np.ndarray:
        """Of each row, whether its neuron was removed."""
        ...

    @property
    def cut(self) -> np.ndarray:
        """Of each column, whether the neuron before it was removed."""
        ...

    def weights(self) -> np.ndarray:
        """Of the connections there are, in their order."""
        ...

    def keep(self, places: np.ndarray) -> None:
        """Remove all connections but these."""
        ...

    def replace(self, goes: np.ndarray, new: np.ndarray, weights: np.ndarray) -> None:
        """Remove the connections of which this says so, and make others at these rising places, with these weights and no momentum."""
        ...


class Wiring(Protocol):
    """A network's connections, layer by layer."""

    @property
    def layers(self) -> Sequence[Connections]: ...
    @property
    def hidden(self) -> Sequence[int]:
        """The layers whose outputs are hidden neurons."""
        ...

    @property
    def connections(self) -> int: ...
    @property
    def active_neurons(self) -> int:
        """Hidden ones that were not removed."""
        ...

    def remove(self, layer: int, neurons: np.ndarray) -> None:
        """Take hidden neurons out for good, with everything that leads to them and from them."""
        ...


@dataclass
class BasePolicy(ABC):
    """Fields given at construction are settings; fields with `init=False` are the state: all of it but the connections themselves."""

    survivors: Survivors = field(default="largest", kw_only=True, metadata=HIDDEN)
    """Which activations stay: the largest, or as many drawn at random."""
    seed: int = field(default=0, kw_only=True, metadata=HIDDEN)
    """The run's seed, for policies that draw."""
    epoch: int = field(default=0, init=False)
    """Epochs that have ended."""
    keep_ratio: float = field(default=1.0, init=False)
    """The share of the activations that may survive in the coming epoch."""

    def begin(self, wiring: Wiring) -> None:  # noqa: B027 - most policies have nothing to do here
        """Before the first epoch: which connections there are."""

    @abstractmethod
    def after_epoch(self, train_accuracy: float) -> None:
        """Move to the next epoch, given the running training accuracy (0 to 1) of the one that ended."""

    def rewire(self, wiring: Wiring) -> None:  # noqa: B027 - nor here
        """Between two epochs, after `after_epoch`: which connections go and come."""

    def before(self, wiring: Wiring) -> dict[str, Any]:
        """Its columns of the coming epoch's row."""
        return {}

    def after(self) -> dict[str, Any]:
        """Its columns of the row of the epoch that ended."""
        return {}

    def state(self) -> dict[str, Any]:
        """Everything that moves, as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.init}

    def load(self, state: dict[str, Any]) -> None:
        """Become the policy that `state()` was taken from."""
        for name in self.state():
            setattr(self, name, state[name])
