"""The lab's part about the kernels of the activation sites: how to divide their work."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu_setting import GPU, Bench, reason, table
from benchmarks.gpu_sites import shapes
from trainer import ops

NCU_SECONDS = 90.0
METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes.sum",
    "smsp__inst_executed.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "launch__registers_per_thread",
)
CODE = "from benchmarks.gpu_lab_sites import launch_all; launch_all()"
FORWARD_WARPS = (4, 8, 16, 32)
BACKWARD_TILES = tuple(itertools.product((1024, 2048, 4096, 8192), (1, 2, 4, 8), (4, 8)))
"""Activations of a tile, tiles of a program, and warps."""


@dataclass(frozen=True)
class Variant:
    """A way to divide the work of one kernel."""

    kernel: str
    """`forward` or `backward`."""
    warps: int
    tile: int = 0
    """Activations of a tile of the backward kernel; the forward one has a whole row."""
    tiles: int = 0
    """Tiles of a program of the backward kernel."""


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, as `fused` asks for it."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    warps: int
    constants: dict[str, Any]

    @property
    def name(self) -> str:
        return "backward" if "backward" in self.kernel.__name__ else "forward"

    def compile(self) -> None:
        """Compile the kernel, so that the first launch need not."""
        self.kernel.warmup(
            *self.arguments, grid=self.grid, **self.constants, num_warps=self.warps, enable_fp_fusion=False
        )


@contextmanager
def divided(variant: Variant) -> Generator[None]:
    """Let kernels be launched in this way while the context lasts."""
    fused = import_module("trainer.ops.fused")
    usual: Callable[..., None] = fused.launch

    def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
        ours = Launch(kernel, grid, arguments, warps, constants).name == variant.kernel
        usual(kernel, grid, *arguments, warps=variant.warps if ours else warps, **constants)

    tables = {"BACKWARD_TILE": variant.tile, "BACKWARD_TILES": variant.tiles} if variant.tile else {}
    with ExitStack() as patches:
        for name, value in {"launch": launch, **tables}.items():
            patches.enter_context(mock.patch.object(fused, name, value))
        yield


class Site:
    """A site on made-up activations, in bfloat16."""

    def __init__(self, shape: tuple[int, ...], batch: int, ratio: float, device: torch.device) -> None:
        drawn = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
        self.x = drawn.to(device, torch.bfloat16).contiguous(memory_format=torch.channels_last)
        self.gradient = torch.randn_like(self.x)
        self.scale, self.bias = torch.ones(shape[0], device=device), torch.zeros(shape[0], device=device)
        count = ops.keep_count(ratio, torch.Size(shape).numel())
        self.keep = torch.tensor(count, dtype=torch.int32, device=device)

    def launches(self, *, runs: bool) -> dict[str, Launch]:
        """Its launches in both directions. Without `runs` nothing is computed: they can only be compiled."""
        fused = import_module("trainer.ops.fused")
        usual: Callable[..., None] = fused.launch
        found: dict[str, Launch] = {}

        def keep(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
            call = Launch(kernel, grid, arguments, warps, constants)
            found.setdefault(call.name, call)
            if runs:
                usual(kernel, grid, *arguments, warps=warps, **constants)

        leaves = [tensor.clone().requires_grad_() for tensor in (self.x, self.scale, self.bias)]
        with mock.patch.object(fused, "launch", keep):
            torch.autograd.grad(fused.norm_relu_topk(*leaves, self.keep), leaves, self.gradient)
        return found


def variants(bench: Bench) -> Iterator[Variant]:
    """Every way that is tried."""
    few = slice(0, 2 if bench.rehearsal else None)
    for warps in FORWARD_WARPS[few]:
        yield Variant("forward", warps)
    for tile, tiles, warps in BACKWARD_TILES[few]:
        yield Variant("backward", warps, tile, tiles)


def sites(bench: Bench) -> None:
    """Each shape of the sites in every division of the work, beside the present one."""
    found: dict[str, Any] = {"shapes": [], "ncu": _by_ncu(bench)}
    bench.found["sites"] = found
    for shape, count in shapes(bench).items():
        bench.say(f"sites: {shape}")
        site = Site(shape, bench.setting.site_batch, bench.setting.ratio, bench.device)
        if not bench.rehearsal:  # the interpreter compiles nothing
            _compile(bench, site)
        now = {name: _seconds(bench, call) for name, call in site.launches(runs=True).items()}
        line: dict[str, Any] = {"shape": list(shape), "sites": count, "now_us": now, "variants": []}
        found["shapes"].append(line)
        for variant in variants(bench):
            tried: dict[str, Any] = {**asdict(variant)}
            line["variants"].append(tried)
            try:
                with divided(variant):
                    call = site.launches(runs=True)[variant.kernel]
                    tried["us"] = _seconds(bench, call, variant.warps)
                tried["programs"] = torch.Size(call.grid).numel()
            except Exception as error:  # too many registers, or too little shared memory
                tried["error"] = reason(error)
        bench.keep()
    _show(found)


def _seconds(bench: Bench, call: Launch, warps: int | None = None) -> float:
    """Microseconds of a launch, with the cache flushed before."""
    launch = import_module("trainer.ops.fused").launch

    def again() -> None:
        launch(call.kernel, call.grid, *call.arguments, warps=warps or call.warps, **call.constants)

    return bench.timed({"launch": again})["launch"] * 1e6


def _compile(bench: Bench, site: Site) -> None:
    """Compile all variants at once, so that no time is spent on it between measurements."""
    calls: list[Launch] = []
    for variant in variants(bench):
        with divided(variant):
            call = site.launches(runs=False)[variant.kernel]
        calls.append(Launch(call.kernel, call.grid, call.arguments, variant.warps, call.constants))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(call.compile) for call in calls]:
            done.exception()  # a variant that does not compile fails again where it is measured


def _show(found: dict[str, Any]) -> None:
    head = ("site, bf16", "kernel", "now, us", "best, us", "of them", "warps", "tile", "tiles")
    lines: list[tuple[Any, ...]] = []
    found["best"] = []
    for line in found["shapes"]:
        for kernel, now in line["now_us"].items():
            tried = [it for it in line["variants"] if it["kernel"] == kernel and "us" in it]
            best = min(tried, key=lambda it: it["us"], default=None)
            if best:
                found["best"].append({"shape": line["shape"], "now_us": now, **best})
                rest = (best["us"], line["sites"], *(best[key] for key in ("warps", "tile", "tiles")))
                lines.append(("x".join(map(str, line["shape"])), kernel, now, *rest))
    table(head, *lines)
    if "why" in found["ncu"]:
        print(f"ncu: {found['ncu']['why']}\n", flush=True)


def _by_ncu(bench: Bench) -> dict[str, Any]:
    """What NVIDIA's profiler counts for each kernel of each shape, where the machine lets it."""
    if not shutil.which("ncu"):
        return {"why": "it is not on the PATH"}
    command = ["ncu", "--csv", "--metrics", ",".join(METRICS), "--kernel-name", "regex:resident|backward"]
    try:
        done = subprocess.run(
            [*command, sys.executable, "-c", CODE],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=min(NCU_SECONDS, max(30.0, bench.room("sites"))),
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"why": reason(error)}
    rows = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode or not rows:
        return {"why": "\n".join([*done.stdout.splitlines()[-4:], *done.stderr.splitlines()[-4:]])}
    keys = ("ID", "Kernel Name", "Block Size", "Grid Size", "Metric Name", "Metric Unit", "Metric Value")
    return {"counted": [{key: row.get(key) for key in keys} for row in csv.DictReader(rows)]}


def launch_all() -> None:
    """Launch each kernel of each shape once, for a profiler that watches this process."""
    device = torch.device("cuda")
    bench = Bench(GPU, device, Path(), mock.Mock(), {}, lambda: None)
    for shape in shapes(bench):
        Site(shape, GPU.site_batch, GPU.ratio, device).launches(runs=True)
    torch.cuda.synchronize()
