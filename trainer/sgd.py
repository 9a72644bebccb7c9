"""SGD with Nesterov's momentum: torch's own fused step, without the class around it, which imports the compiler at first use (seconds)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class Sgd:
    """Steps the parameters that have gradients. `learning_rate` may change from step to step."""

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, momentum: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.buffers: list[Tensor | None] = [None] * len(self.parameters)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        assert len(gradients) == len(self.parameters), "a parameter has no gradient"
        sgd(
            [parameter.detach() for parameter in self.parameters],
            gradients,
            self.buffers,
            fused=True,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self.learning_rate,
            dampening=0.0,
            nesterov=self.momentum > 0,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The momentum; None before the first step."""
        return {"buffers": self.buffers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, (parameter, buffer) in enumerate(zip(self.parameters, state["buffers"], strict=True)):
            self.buffers[i] = None if buffer is None else buffer.to(parameter.device, memory_format=_format(parameter))


def _format(parameter: Tensor) -> Any:
    four = parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if four else torch.contiguous_format
