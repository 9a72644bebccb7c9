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
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import triton
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from trainer.models.wide_resnet import WideResNet
from trainer.ops import fused, tail
from trainer.ops.sums import SiteSums
from trainer.ops.update import update

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


@contextmanager
def compiling() -> Generator[list[dict[str, Any]]]:
    """Compile each kernel that is launched while the context lasts, once, instead of running it."""
    kernels: list[dict[str, Any]] = []
    seen: set[str] = set()

    def compile_only(kernel: Any, grid: Any, *arguments: Any, warps: int, **constants: Any) -> None:
        if (key := f"{kernel.__name__} {constants}") in seen:
            return
        seen.add(key)
        done = kernel.warmup(*arguments, grid=grid, **constants, num_warps=warps, enable_fp_fusion=False)
        kernels.append(
            {
                "kernel": kernel.__name__,
                "places": constants.get("P"),
                "channels": constants.get("C"),
                "resident": constants.get("RESIDENT", True),
                "warps": warps,
                "shared_bytes": done.metadata.shared,
                "ptx": done.asm["ptx"],
                **looked_at(done.asm["cubin"]),
            }
        )

    with mock.patch.object(fused, "launch", compile_only):
        yield kernels


def sites(precision: str, *, at_random: bool = False, added: bool = False) -> list[dict[str, Any]]:
    """The kernels of all sites. With `added` a site adds two branches, as all but the first do."""
    with compiling() as kernels:
        for shape in sorted(set(site_shapes()), reverse=True):
            zeros = torch.zeros((2, *shape), dtype=getattr(torch, precision))
            x = zeros.contiguous(memory_format=torch.channels_last).requires_grad_()
            ones, keep = torch.ones(shape[0], requires_grad=True), torch.tensor(5, dtype=torch.int32)
            priority = torch.ones(x.shape) if at_random else None
            if added:
                total, out, _ = fused.added_norm_relu_topk(x, x, ones, ones, keep, priority=priority)
                (total.sum() + out.sum()).backward()
            else:
                fused.norm_relu_topk(x, ones, ones, keep, priority=priority).sum().backward()
    return kernels


def once_a_step() -> list[dict[str, Any]]:
    """The kernels that a bfloat16 step launches once: the loss, the sums of gradients and the update."""
    model = WideResNet(28, 4, 10)
    whole = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    weights = [parameter.detach() for module in whole for parameter in module.parameters()]
    shapes = [(shape[0], shape[1] * shape[2]) for shape in site_shapes()]
    others = [torch.zeros(channels) for channels, _ in shapes for _ in range(2)]
    with compiling() as kernels:
        x = torch.zeros((2, 256, 8, 8), dtype=torch.bfloat16, requires_grad=True)
        head = model.head.weight.bfloat16(), model.head.bias.bfloat16()
        tail.mean_head_loss(x, *head, torch.zeros(2, dtype=torch.int64))[0].backward()
        SiteSums(shapes, 128, torch.device("cpu")).add_up(128)
        copies, rate = [weight.bfloat16() for weight in weights], torch.tensor(0.1)
        update(weights, weights, copies, copies, rate, 0.9, 0.0)
        update(others, others, [], others, rate, 0.9, 0.0)
    return kernels


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


def unfit(results: Path) -> str | None:
    """Say why figures cannot be added to a file."""
    results = results.resolve()
    if not results.parent.is_dir():
        return f"there is no folder {results.parent}"
    if not os.access(results if results.exists() else results.parent, os.W_OK):
        return "cannot be written"
    if not results.exists():
        return None
    try:
        there: Any = json.loads(results.read_text())
    except (OSError, ValueError):
        there = None
    return None if isinstance(there, dict) and "target" in there else "is no results file of this command"


def main(arguments: list[str] | None = None) -> int:
    """Print a table for people, or JSON; keep the figures. Returns 2 if they could not be kept."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=__doc__,
        epilog=f"Without --into the figures go to\n  {RESULTS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # breaks no path
    )
    parser.add_argument(
        "--ptx",
        action="store_true",
        help="print JSON with the code of every kernel instead, and keep nothing",
    )
    parser.add_argument("--name", default="now", help="what to call these kernels in what is kept")
    into = "the file that is added to (default: see below)"
    parser.add_argument("--into", type=Path, default=RESULTS, metavar="FILE", help=into)
    given = parser.parse_args(arguments)
    if not given.ptx and (why := unfit(given.into)):
        print(f"--into {given.into}: {why}", file=sys.stderr)
        return 2
    print("compiling 37 kernels; about a minute", file=sys.stderr, flush=True)
    driver.set_active(cast(Any, Hopper()))
    cases = {
        "bfloat16": sites("bfloat16"),
        "bfloat16, added": sites("bfloat16", added=True),
        "float32": sites("float32"),
        "bfloat16, random survivors": sites("bfloat16", at_random=True),
        "bfloat16, once a step": once_a_step(),
    }
    if given.ptx:
        print(json.dumps({"sites": len(site_shapes()), "cases": cases}))
        return 0
    for kernels in cases.values():
        for kernel in kernels:
            del kernel["ptx"]
    keep(given.into, f"{given.name}, Triton {triton.__version__}", cases)
    print("| case | kernel | channels x places |", " | ".join(it.replace("_", " ") for it in FIGURES), "|")
    print("| --- | --- | --- |" + " --- |" * len(FIGURES))
    for case, kernels in cases.items():
        for kernel in kernels:
            name = kernel["kernel"] + ("" if kernel["resident"] else ", streamed")
            shape = f"{kernel['channels']} x {kernel['places']}" if kernel["places"] else "-"
            figures = [str(kernel[figure] or "-") for figure in FIGURES]
            print("|", " | ".join([case, name, shape, *figures]), "|")
    return 0


def keep(results: Path, name: str, cases: dict[str, Any]) -> None:
    """Add a block to the results file, or renew the block of that name."""
    kept = json.loads(results.read_text()) if results.exists() else {"target": "sm_90"}
    results.write_text(json.dumps(kept | {name: cases}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
