"""SGD with Nesterov momentum, by torch's fused step or by one kernel of ours.

torch's own class is not used, because its first use imports the compiler, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from trainer.ops import has_kernels


class Sgd:
    """An optimizer that changes parameters, their copies and momentum only in place.

    On a CUDA device the learning rate is a tensor too. So a step can be recorded once and replayed.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        momentum: float,
        weight_decay: float,
        leaves: Iterable[Tensor],
    ) -> None:
        """`leaves` are the tensors that have the gradients: for each parameter itself, or its copy."""
        self.parameters = list(parameters)
        self.leaves = list(leaves)
        self.momentum, self.weight_decay = momentum, weight_decay
        device = self.parameters[0].device
        self._rate: float | Tensor = 0.0 if device.type == "cpu" else torch.zeros((), device=device)
        # the first step may start from zeros, since that gives the same numbers as no momentum
        self.buffers = [
            torch.zeros_like(parameter, requires_grad=False) if momentum else None
            for parameter in self.parameters
        ]
        pairs = zip(self.parameters, self.leaves, strict=True)
        self._copied = [(parameter, leaf) for parameter, leaf in pairs if leaf is not parameter]

    @property
    def copies(self) -> list[Tensor]:
        """The copies of parameters."""
        return [copy.detach() for _, copy in self._copied]

    def refresh(self) -> None:
        """Write the parameters into their copies."""
        for parameter, copy in self._copied:
            copy.detach().copy_(parameter.detach())

    def leaf_of(self, parameter: Tensor) -> Tensor:
        """The tensor that has the gradient of a parameter."""
        pairs = zip(self.parameters, self.leaves, strict=True)
        return next(leaf for other, leaf in pairs if other is parameter)

    def momentum_of(self, parameter: Tensor) -> Tensor | None:
        """The momentum of a parameter, or None if it has none."""
        return next(
            buffer for other, buffer in zip(self.parameters, self.buffers, strict=True) if other is parameter
        )

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the steps to come."""
        if isinstance(self._rate, Tensor):
            self._rate.fill_(rate)
        else:
            self._rate = rate

    def step(self) -> None:
        """Apply the gradients and delete them."""
        gradients = [leaf.grad for leaf in self.leaves if leaf.grad is not None]
        assert len(gradients) == len(self.parameters), "a parameter has no gradient"
        (self._by_kernel if self._copied and has_kernels(gradients[0].device) else self._by_torch)(gradients)
        for leaf in self.leaves:
            leaf.grad = None

    def _by_torch(self, gradients: list[Tensor]) -> None:
        sgd(
            [parameter.detach() for parameter in self.parameters],
            [gradient.float() for gradient in gradients],
            self.buffers,
            fused=True,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self._rate,
            dampening=0.0,
            nesterov=self.momentum > 0,
            maximize=False,
        )
        self.refresh()

    def _by_kernel(self, gradients: list[Tensor]) -> None:
        """One kernel for the parameters with copies, and one for the others."""
        from trainer.ops.update import update

        rate = self._rate if isinstance(self._rate, Tensor) else torch.tensor(self._rate)
        whole = list(zip(self.parameters, self.leaves, self.buffers, gradients, strict=True))
        for copied in (True, False):
            some = [line for line in whole if (line[0] is not line[1]) == copied]
            if some:
                parameters, leaves, momenta, given = zip(*some, strict=True)
                moving = momenta if self.momentum else ()
                copies = leaves if copied else ()
                update(parameters, moving, copies, given, rate, self.momentum, self.weight_decay)

    def state_dict(self) -> dict[str, Any]:
        """The momentum of every parameter."""
        return {"buffers": self.buffers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for buffer, kept in zip(self.buffers, state["buffers"], strict=True):
            if buffer is not None:
                buffer.copy_(torch.zeros_like(buffer) if kept is None else kept)

    def reset(self) -> None:
        """Set the momentum to zero, as before the first step."""
        self.load_state_dict({"buffers": [None] * len(self.buffers)})
