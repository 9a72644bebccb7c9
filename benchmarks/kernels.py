"""Report what Triton makes of the kernels for a Hopper GPU: registers, spills and instructions.

No GPU is needed: Triton compiles for one that is not there. The kernels are launched for the sites of
the paper's network, as training launches them. Instructions are not seconds; they say where a search for
seconds would begin, and that every kernel compiles. `--ptx` adds the code itself to the JSON.

Training may run under another Triton than the locked one. With that one's folder in PYTHONPATH the same
command compiles with it. What is kept has a block per name and Triton: `--name before` in a checkout of
older kernels, with `--into` this one's file, puts both beside each other.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from trainer.models.wide_resnet import WideResNet
from trainer.ops import fused

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
FIGURES = (
    "warps",
    "registers",
    "spilled_bytes",
    "shared_bytes",
    "instructions",
    "barriers",
    "instructions_a_pass",
)
RESULTS = Path(__file__).parent / "results" / "kernels-sm90.json"


class Hopper:
    """The part of a driver that compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def site_shapes() -> list[tuple[int, ...]]:
    """Return the input shape of each of the 25 sites as (C, H, W)."""
    found: list[tuple[int, ...]] = []
    model = WideResNet(28, 4, 10)
    for site in model.sites:
        site.register_forward_pre_hook(lambda _, inputs: found.append(tuple(inputs[0].shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return found


def compiled(precision: str, *, at_random: bool) -> list[dict[str, Any]]:
    """Compile each kernel that training on these sites launches, once."""
    kernels: dict[str, dict[str, Any]] = {}

    def compile_only(kernel: Any, grid: Any, *arguments: Any, warps: int, **constants: Any) -> None:
        done = kernel.warmup(*arguments, grid=grid, **constants, num_warps=warps, enable_fp_fusion=False)
        kernels[f"{kernel.__name__} {constants}"] = {
            "kernel": kernel.__name__,
            "places": constants["P"],
            "channels": constants["C"],
            "resident": constants.get("RESIDENT", True),
            "warps": warps,
            "shared_bytes": done.metadata.shared,
            "ptx": done.asm["ptx"],
            **looked_at(done.asm["cubin"]),
        }

    fused.launch = compile_only
    for shape in sorted(set(site_shapes()), reverse=True):
        x = (
            torch.zeros((2, *shape), dtype=getattr(torch, precision))
            .contiguous(memory_format=torch.channels_last)
            .requires_grad_()
        )
        ones = torch.ones(shape[0], requires_grad=True)
        out = fused.norm_relu_topk(
            x,
            ones,
            ones,
            torch.tensor(5, dtype=torch.int32),
            priority=torch.ones(x.shape) if at_random else None,
        )
        out.sum().backward()
    return list(kernels.values())


def looked_at(cubin: bytes) -> dict[str, Any]:
    """Return a kernel's registers, spilled bytes, instructions and barriers.

    The threshold search's instructions for one pass are counted apart.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _said("cuobjdump", "--dump-resource-usage", file.name)
        code = _said("nvdisasm", "-c", file.name).splitlines()
    lines = [
        line
        for line in code
        if re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+\S", line) or re.match(r"\.L_x_\d+:", line)
    ]
    labels = {line.split(":")[0]: number for number, line in enumerate(lines) if line.startswith(".")}
    loops = [
        (labels[to], number)
        for number, line in enumerate(lines)
        for to in re.findall(r"BRA.*`\((\.L_x_\d+)\)", line)
    ]
    passes = [
        end - start
        for start, end in loops
        if start < end and any("IDP" in line for line in lines[start:end])
    ]
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found
    return {
        "registers": int(found[1]),
        "spilled_bytes": int(found[2]),
        "instructions": len(lines) - len(labels),
        "barriers": sum("BAR.SYNC" in line for line in lines),
        "instructions_a_pass": min(passes, default=None),
    }


def _said(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print a table for people, or JSON; keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument(
        "--ptx",
        action="store_true",
        help="print JSON with the code of every kernel instead, and keep nothing",
    )
    parser.add_argument("--name", default="now", help="what to call these kernels in what is kept")
    parser.add_argument("--into", type=Path, default=RESULTS, help="the file that is added to")
    given = parser.parse_args()
    print("compiling 24 kernels; under a minute", file=sys.stderr, flush=True)
    driver.set_active(cast(Any, Hopper()))
    cases = {
        "bfloat16": compiled("bfloat16", at_random=False),
        "float32": compiled("float32", at_random=False),
        "bfloat16, random survivors": compiled("bfloat16", at_random=True),
    }
    if given.ptx:
        print(json.dumps({"sites": len(site_shapes()), "cases": cases}))
        return
    for kernels in cases.values():
        for kernel in kernels:
            del kernel["ptx"]
    keep(given.into, f"{given.name}, Triton {triton.__version__}", cases)
    print("| case | kernel | channels x places |", " | ".join(it.replace("_", " ") for it in FIGURES), "|")
    print("| --- | --- | --- |" + " --- |" * len(FIGURES))
    for case, kernels in cases.items():
        for kernel in kernels:
            name = kernel["kernel"] + ("" if kernel["resident"] else ", streamed")
            figures = [str(kernel[figure] or "-") for figure in FIGURES]
            print("|", " | ".join([case, name, f"{kernel['channels']} x {kernel['places']}", *figures]), "|")


def keep(results: Path, name: str, cases: dict[str, Any]) -> None:
    """Add a block to the results file, or renew the block of that name."""
    kept = json.loads(results.read_text()) if results.exists() else {"target": "sm_90"}
    results.write_text(json.dumps(kept | {name: cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
