"""A network's connections: which there are, and that those which are not have no weight, no gradient and no momentum, to the last bit.

A weight that is 0 and gets no gradient stays 0 under any momentum and weight decay; so the gradient alone is masked, once a step.
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
    """Of one layer: a matrix with a row for each output; a place is its number in memory, row by row. All are there until some are taken
    away."""

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
        """Which input a column belongs to: a convolution has one for each tap."""
        self._momentum = [optimizer.momentum_of(it) for it in (layer.weight, *layer.owned)]
        self._memory: Tensor | None = None
        """Of the mask: it stays where it is from run to run, because recorded steps read it."""
        self.reset()

    def reset(self) -> None:
        """All connections and neurons are there."""
        self.masked = False
        self.places = np.arange(self.rows * self.columns)
        self.removed, self.cut = np.zeros(self.rows, bool), np.zeros(self.columns, bool)

    @property
    def parameters(self) -> int:
        """Connections, and what the neurons that are there own."""
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
        gone = self.places[goes]
        for tensor, value in zip((self._mask, *self._trained()), (1, weights, None), strict=False):
            with _on_host(tensor) as flat:
                flat[gone] = 0
                if value is not None:  # there is no momentum where there was no connection
                    flat[new] = value
        self.places = np.sort(
            np.concatenate([self.places[~goes], new]), kind="stable"
        )  # two rising parts: this kind only merges them

    def drop_rows(self, neurons: np.ndarray) -> None:
        """Take outputs away, with all that they own."""
        self.removed[neurons] = True
        self.keep(self.places[~self.removed[self.places // self.columns]])
        for tensor in (
            *(it.detach() for it in self.owned),
            *(it for it in self._momentum[1:] if it is not None),
        ):
            with _on_host(tensor) as flat:
                flat[neurons] = 0

    def drop_inputs(self, neurons: np.ndarray) -> None:
        """Take inputs away."""
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
            self.weight.register_post_accumulate_grad_hook(self._mask_gradient)
        if not self.masked:
            self._memory.fill_(1)
            self.masked = True
        return self._memory

    def _mask_gradient(self, weight: Tensor) -> None:
        if self.masked and weight.grad is not None:
            weight.grad.mul_(self._mask)

    def _trained(self) -> list[Tensor]:
        """The weight, and its momentum if there is any."""
        return [self.weight.detach(), *(it for it in self._momentum[:1] if it is not None)]


def _flat(tensor: Tensor) -> Tensor:
    """The same memory as one row, whether a convolution has its channels first there or last."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


@contextmanager
def _on_host(tensor: Tensor) -> Generator[np.ndarray]:
    """A tensor's memory as an array; what changes in it is brought to where the tensor lives. NumPy touches a few thousand places of a
    CPU's tensor in one thread, where torch would wake up all of them, and wait for each."""
    host = _flat(tensor).cpu()
    yield host.numpy()
    if tensor.device.type != "cpu":
        _flat(tensor).copy_(host)


class NetworkConnections:
    """Of all layers."""

    def __init__(self, network: Network, optimizer: Sgd) -> None:
        self._declared = network.layers
        self._parameters = sum(parameter.numel() for parameter in network.parameters())
        self.layers = [LayerConnections(layer, optimizer) for layer in network.layers]
        self.hidden = [i for i, layer in enumerate(network.layers) if layer.feeds is not None]

    def reset(self) -> None:
        """All of them are there, as in a dense network."""
        for layer in self.layers:
            layer.reset()

    @property
    def masked(self) -> tuple[int, ...]:
        """The layers that do not have all their connections."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.masked)

    @property
    def connections(self) -> int:
        return sum(len(layer.places) for layer in self.layers)

    @property
    def active_neurons(self) -> int:
        return sum(int((~self.layers[i].removed).sum()) for i in self.hidden)

    @property
    def parameters(self) -> int:
        """All numbers that are trained: the network's, less the connections that are not there and what removed neurons owned."""
        whole = sum(layer.rows * (layer.columns + len(layer.owned)) for layer in self.layers)
        return self._parameters - whole + sum(layer.parameters for layer in self.layers)

    def remove(self, layer: int, neurons: np.ndarray) -> None:
        if len(neurons):
            feeds = self._declared[layer].feeds
            assert feeds is not None
            self.layers[layer].drop_rows(neurons)
            self.layers[feeds].drop_inputs(neurons)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Of the layers that do not have all their connections, by number."""
        return {str(i): self.layers[i].state() for i in self.masked}

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        self.reset()
        for i, kept in state.items():
            self.layers[int(i)].load(kept)
