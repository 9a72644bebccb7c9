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
from contextlib import contextmanager
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
BACKWARD_TILES = tuple(itertools.product((1024, 2048, 4096, 8192), (1, 2, 4, 8), (4, 8), (1, 2)))
"""Activations of a tile, tiles of a program, warps, and stages."""
OF_BACKWARD = ("tile", "tiles", "stages")
"""What the forward kernel, which has a whole row, is not divided by."""


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
    stages: int = 1
    """Stages of the backward kernel: with 2 it loads the next tile ahead."""


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
def divided(variant: Variant, shape: tuple[int, ...]) -> Generator[None]:
    """Let the kernels of a shape be launched in this way while the context lasts."""
    tilings, next_power_of_2 = import_module("trainer.ops.tilings"), import_module("triton").next_power_of_2
    channels, places = shape[0], torch.Size(shape[1:]).numel()
    if variant.kernel == "forward":
        kept, entry = tilings.FORWARD_WARPS, variant.warps
    else:
        at_once = max(1, min(next_power_of_2(places), variant.tile // next_power_of_2(channels)))
        kept = tilings.BACKWARD_TILINGS
        entry = tilings.Tiling(at_once, variant.tiles, variant.warps, variant.stages)
    with mock.patch.dict(kept, {(channels, places): entry}):
        yield


class Site:
    """A site on made-up activations, in bfloat16."""

    def __init__(self, shape: tuple[int, ...], batch: int, ratio: float, device: torch.device) -> None:
        drawn = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
        self.x = drawn.to(device, torch.bfloat16).contiguous(memory_format=torch.channels_last)
        self.other, self.gradient = torch.randn_like(self.x), torch.randn_like(self.x)
        self.scale, self.bias = torch.ones(shape[0], device=device), torch.zeros(shape[0], device=device)
        count = ops.keep_count(ratio, torch.Size(shape).numel())
        self.keep = torch.tensor(count, dtype=torch.int32, device=device)

    def launches(self, *, runs: bool, added: bool = False) -> dict[str, Launch]:
        """Its launches in both directions; with `added` the site adds two branches before.

        Without `runs` nothing is computed: they can only be compiled.
        """
        fused = import_module("trainer.ops.fused")
        usual: Callable[..., None] = fused.launch
        found: dict[str, Launch] = {}

        def keep(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
            call = Launch(kernel, grid, arguments, warps, constants)
            found.setdefault(call.name, call)
            if runs:
                usual(kernel, grid, *arguments, warps=warps, **constants)

        inputs = (self.x, self.other, self.scale, self.bias) if added else (self.x, self.scale, self.bias)
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        with mock.patch.object(fused, "launch", keep):
            if added:
                total, out, _ = fused.added_norm_relu_topk(*leaves, self.keep)
                torch.autograd.grad([total, out], leaves, [self.gradient, self.gradient])
            else:
                torch.autograd.grad(fused.norm_relu_topk(*leaves, self.keep), leaves, self.gradient)
        return found


def variants(bench: Bench) -> Iterator[Variant]:
    """Every way that is tried."""
    few = slice(0, 2 if bench.rehearsal else None)
    for warps in FORWARD_WARPS[few]:
        yield Variant("forward", warps)
    for tile, tiles, warps, stages in BACKWARD_TILES[few]:
        yield Variant("backward", warps, tile, tiles, stages)


def sites(bench: Bench) -> None:
    """Each shape of the sites in every division of the work, beside the present one."""
    found: dict[str, Any] = {"shapes": [], "ncu": _by_ncu(bench)}
    bench.found["sites"] = found
    for shape, count in shapes(bench).items():
        bench.say(f"sites: {shape}")
        site = Site(shape, bench.setting.site_batch, bench.setting.ratio, bench.device)
        if not bench.rehearsal:  # the interpreter compiles nothing
            _compile(bench, site, shape)
        now = {name: _seconds(bench, call) for name, call in site.launches(runs=True).items()}
        adding = site.launches(runs=True, added=True)
        line: dict[str, Any] = {"shape": list(shape), "sites": count, "now_us": now, "variants": []}
        line["added_us"] = {name: _seconds(bench, call) for name, call in adding.items()}
        found["shapes"].append(line)
        for variant in variants(bench):
            tried: dict[str, Any] = {**asdict(variant)}
            line["variants"].append(tried)
            try:
                with divided(variant, shape):
                    call = site.launches(runs=True)[variant.kernel]
                    tried["us"] = _seconds(bench, call)
                tried["programs"] = torch.Size(call.grid).numel()
            except Exception as error:  # too many registers, or too little shared memory
                tried["error"] = reason(error)
        bench.keep()
    _show(found)


def _seconds(bench: Bench, call: Launch) -> float:
    """Microseconds of a launch, with the cache flushed before."""
    launch = import_module("trainer.ops.fused").launch

    def again() -> None:
        launch(call.kernel, call.grid, *call.arguments, warps=call.warps, **call.constants)

    return bench.timed({"launch": again})["launch"] * 1e6


def _compile(bench: Bench, site: Site, shape: tuple[int, ...]) -> None:
    """Compile all variants at once, so that no time is spent on it between measurements."""
    calls: list[Launch] = []
    for variant in variants(bench):
        with divided(variant, shape):
            call = site.launches(runs=False)[variant.kernel]
        calls.append(call)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(call.compile) for call in calls]:
            done.exception()  # a variant that does not compile fails again where it is measured


def _show(found: dict[str, Any]) -> None:
    head = (
        "site, bf16",
        "of them",
        "kernel",
        "now, us",
        "with an add",
        "best, us",
        "warps",
        *OF_BACKWARD,
    )
    lines: list[tuple[Any, ...]] = []
    found["best"] = []
    for line in found["shapes"]:
        for kernel, now in line["now_us"].items():
            tried = [it for it in line["variants"] if it["kernel"] == kernel and "us" in it]
            best = min(tried, key=lambda it: it["us"], default=None)
            if best:
                found["best"].append({"shape": line["shape"], "now_us": now, **best})
                of_them = ("x".join(map(str, line["shape"])), line["sites"], kernel)
                times = (now, line["added_us"][kernel], best["us"])
                divided_by = (best[key] if kernel == "backward" else None for key in OF_BACKWARD)
                lines.append((*of_them, *times, best["warps"], *divided_by))
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
