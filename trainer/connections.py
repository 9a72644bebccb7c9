"""The connections of a network: which exist, and how policies remove and add them.

A missing connection has exactly weight 0, no gradient and no momentum. A weight of 0 without a gradient
stays 0 under any momentum and weight decay, so only the gradient is masked, once a step.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from trainer.models.sites import Layer, Network
from trainer.sgd import Sgd


class LayerConnections:
    """The connections of one layer, as a matrix with a row for each output.

    A place is the position of a connection in this matrix, counted row by row. At first all of them exist.
    """

    def __init__(self, layer: Layer, optimizer: Sgd) -> None:
        self.weight, self.owned = layer.weight, layer.owned
        self.rows, self.columns = len(self.weight), self.weight[0].numel()
        inputs = torch.arange(self.weight.shape[1], device=self.weight.device).view(
            1, -1, *[1] * (self.weight.ndim - 2)
        )
        self.inputs = (
            _flat(torch.empty_like(self.weight, dtype=torch.int64).copy_(inputs))[: self.columns]
            .cpu()
            .numpy()
        )
        """The input that each column belongs to. A convolution has one column for each tap of an input."""
        self._momentum = [optimizer.momentum_of(tensor) for tensor in (layer.weight, *layer.owned)]
        self._leaf = optimizer.leaf_of(layer.weight)
        self._memory: Tensor | None = None
        """Memory of the mask. It is never replaced, because recorded steps read it."""
        self.reset()

    def reset(self) -> None:
        """Restore all connections and neurons."""
        self.masked = False
        self.places = np.arange(self.rows * self.columns)
        self.removed, self.cut = np.zeros(self.rows, bool), np.zeros(self.columns, bool)

    @property
    def parameters(self) -> int:
        """Number of connections, plus the parameters owned by the neurons that are left."""
        return len(self.places) + int((~self.removed).sum()) * len(self.owned)

    def weights(self) -> np.ndarray:
        return _flat(self.weight).cpu().numpy()[self.places]

    def keep(self, places: np.ndarray) -> None:
        self.places = places
        mask = self._mask.zero_()
        with _on_host(mask) as flat:
            flat[places] = 1
        for tensor in self._trained():
            tensor.mul_(mask)

    def replace(self, goes: np.ndarray, new: np.ndarray, weights: np.ndarray) -> None:
        emptied = self.places[goes]
        for tensor, value in zip((self._mask, *self._trained()), (1, weights, None), strict=False):
            with _on_host(tensor) as flat:
                flat[emptied] = 0
                if value is not None:  # a new connection has no momentum, and its place holds 0 already
                    flat[new] = value
        # a stable sort only merges two parts that rise
        self.places = np.sort(np.concatenate([self.places[~goes], new]), kind="stable")

    def drop_rows(self, neurons: np.ndarray) -> None:
        """Remove outputs, their connections and the parameters they own."""
        self.removed[neurons] = True
        self.keep(self.places[~self.removed[self.places // self.columns]])
        for tensor in (
            *(vector.detach() for vector in self.owned),
            *(momentum for momentum in self._momentum[1:] if momentum is not None),
        ):
            with _on_host(tensor) as flat:
                flat[neurons] = 0

    def drop_inputs(self, neurons: np.ndarray) -> None:
        """Remove inputs and their connections."""
        self.cut |= np.isin(self.inputs, neurons)
        self.keep(self.places[~self.cut[self.places % self.columns]])

    def state(self) -> dict[str, Tensor]:
        return {
            "mask": self._mask.bool(),
            "removed": torch.from_numpy(self.removed.copy()),
            "cut": torch.from_numpy(self.cut.copy()),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        self.removed, self.cut = state["removed"].cpu().numpy().copy(), state["cut"].cpu().numpy().copy()
        mask = torch.empty_like(self.weight, dtype=torch.bool).copy_(state["mask"])
        self.keep(np.flatnonzero(_flat(mask).cpu().numpy()))

    @property
    def _mask(self) -> Tensor:
        if self._memory is None:
            self._memory = torch.ones_like(self.weight, requires_grad=False)
        if not self.masked:
            self._memory.fill_(1)
            self.masked = True
        return self._memory

    def mask_gradient(self) -> None:
        """Set the gradient of missing connections to zero."""
        if self.masked:
            assert self._leaf.grad is not None
            self._leaf.grad.mul_(self._mask)

    def _trained(self) -> list[Tensor]:
        """The weight, and its momentum if it has one."""
        return [self.weight.detach(), *(momentum for momentum in self._momentum[:1] if momentum is not None)]


def _flat(tensor: Tensor) -> Tensor:
    """The tensor's memory as one row, in the order of memory: a convolution may store its channels last."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


@contextmanager
def _on_host(tensor: Tensor) -> Generator[np.ndarray]:
    """A tensor's memory as a NumPy array. Changes to the array are copied back to the tensor's device.

    NumPy changes a few thousand elements in one thread. torch would start all its threads and wait for them.
    """
    host = _flat(tensor).cpu()
    yield host.numpy()
    if tensor.device.type != "cpu":
        _flat(tensor).copy_(host)


class NetworkConnections:
    """The connections of all layers of a network."""

    def __init__(self, network: Network, optimizer: Sgd) -> None:
        self._declared = network.layers
        self._parameters = sum(parameter.numel() for parameter in network.parameters())
        self.layers = [LayerConnections(layer, optimizer) for layer in network.layers]
        self.hidden = [i for i, layer in enumerate(network.layers) if layer.feeds is not None]

    def reset(self) -> None:
        """Restore all connections, as in a dense network."""
        for layer in self.layers:
            layer.reset()

    @property
    def masked(self) -> tuple[int, ...]:
        """Indices of the layers whose gradients are masked, because connections were removed."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.masked)

    def mask_gradients(self) -> None:
        """Set the gradients of missing connections to zero, between the backward pass and the step."""
        for layer in self.layers:
            layer.mask_gradient()

    @property
    def connections(self) -> int:
        return sum(len(layer.places) for layer in self.layers)

    @property
    def active_neurons(self) -> int:
        return sum(int((~self.layers[i].removed).sum()) for i in self.hidden)

    @property
    def parameters(self) -> int:
        """Number of trained parameters, without missing connections and parameters of removed neurons."""
        dense = sum(layer.rows * (layer.columns + len(layer.owned)) for layer in self.layers)
        return self._parameters - dense + sum(layer.parameters for layer in self.layers)

    def remove(self, layer: int, neurons: np.ndarray) -> None:
        if len(neurons):
            feeds = self._declared[layer].feeds
            assert feeds is not None
            self.layers[layer].drop_rows(neurons)
            self.layers[feeds].drop_inputs(neurons)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """State of each masked layer, by the layer's index."""
        return {str(i): self.layers[i].state() for i in self.masked}

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        self.reset()
        for i, kept in state.items():
            self.layers[int(i)].load(kept)
