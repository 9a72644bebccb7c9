"""A 3x3 convolution of our own, as a candidate beside cuDNN's: `benchmarks.gpu_lab` times both.

Training does not use it. It is meant for the layers of 64 channels, where cuDNN reaches the least of the
GPU. `python -m benchmarks.convolution` compiles it for a Hopper GPU, which need not be there, and says what
came of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import triton
from torch import Tensor
from triton.runtime import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from benchmarks.convolution_kernel import convolve_3x3
from benchmarks.kernels import Hopper, looked_at

CHANNELS, SIDE = 64, 32
"""The layers that it is meant for."""


@dataclass(frozen=True)
class Variant:
    """How the work is divided."""

    rows: int
    """Rows of an image that a program computes."""
    warps: int
    stages: int
    """Boxes that are under way at the same time."""


VARIANTS = (Variant(4, 4, 3), Variant(4, 4, 5), Variant(8, 4, 3), Variant(8, 8, 3), Variant(8, 8, 4))


Launch = Callable[..., Any]


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
    """Start the kernel."""
    kernel[grid](*arguments, **constants, num_warps=warps)


def forward_taps(weight: Tensor) -> Tensor:
    """The weight as nine matrices (out, in), one above the other."""
    return weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[1]).contiguous()


def backward_taps(weight: Tensor) -> Tensor:
    """The matrices with which the gradient of the output becomes that of the input."""
    return forward_taps(weight.flip(2, 3).transpose(0, 1))


def convolve(x: Tensor, taps: Tensor, variant: Variant, start: Launch = launch) -> Tensor:
    """The convolution of square images that are channels_last in memory, with padding 1 and stride 1."""
    samples, inside, side, _ = x.shape
    outside = len(taps) // 9
    out = torch.empty_like(x[:, :1].expand(-1, outside, -1, -1), memory_format=torch.channels_last)
    box = [1, variant.rows, side]
    descriptors = (
        TensorDescriptor.from_tensor(x.permute(0, 2, 3, 1), [*box, inside]),
        TensorDescriptor.from_tensor(taps, [outside, inside]),
        TensorDescriptor.from_tensor(out.permute(0, 2, 3, 1), [*box, outside]),
    )
    grid = (samples * (side // variant.rows),)
    constants = {"SIDE": side, "C": inside, "K": outside, "ROWS": variant.rows, "STAGES": variant.stages}
    start(convolve_3x3, grid, *descriptors, warps=variant.warps, **constants)
    return out


def compiled() -> list[dict[str, Any]]:
    """Compile every variant for a Hopper GPU; return what it is made of."""
    driver.set_active(cast(Any, Hopper()))
    x = torch.zeros(1, CHANNELS, SIDE, SIDE, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    taps = forward_taps(torch.zeros(CHANNELS, CHANNELS, 3, 3, dtype=torch.bfloat16))
    found: list[dict[str, Any]] = []

    def compile_only(
        kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any
    ) -> None:
        done = kernel.warmup(*arguments, grid=grid, **constants, num_warps=warps)
        code = done.asm["ptx"]
        products = re.findall(r"wgmma\.mma_async[^;]*;", code)
        found.append(
            {
                "shared_bytes": done.metadata.shared,
                "products": len(products),
                # each operand is the address of a description, where it is not a list of registers
                "from_shared_memory": sum("{" not in product.split("}", 1)[1] for product in products),
                "tma_loads": code.count("cp.async.bulk.tensor.4d.shared"),
                **looked_at(done.asm["cubin"]),
            }
        )

    for variant in VARIANTS:
        convolve(x, taps, variant, compile_only)
    return [{**asdict(variant), **line} for variant, line in zip(VARIANTS, found, strict=True)]


if __name__ == "__main__":
    print(json.dumps({"target": "sm_90", "triton": triton.__version__, "variants": compiled()}, indent=1))
