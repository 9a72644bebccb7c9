"""The device's ceilings, and the kernels of an activation site beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_setting import Bench, reason, stock, table
from trainer import data, models, ops, process, randomness
from trainer.ops import reference


def ceilings(bench: Bench) -> None:
    """Measure a copy from memory to memory and a large matrix product."""
    bench.say("ceilings: a copy and a matrix product")
    setting, device = bench.setting, bench.device
    source = torch.zeros(setting.copy_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (
        torch.randn(setting.matmul_side, setting.matmul_side, device=device).to(torch.bfloat16)
        for _ in range(2)
    )
    seconds = bench.timed({"copy": lambda: target.copy_(source), "matmul": lambda: a @ b})
    bench.found["ceilings"] = {
        "copy_bytes": setting.copy_bytes,
        "copy_bytes_per_second": 2 * setting.copy_bytes / seconds["copy"],
        "matmul_side": setting.matmul_side,
        "matmul_flops_per_second": 2 * setting.matmul_side**3 / seconds["matmul"],
    }
    copied, computed = (
        bench.found["ceilings"][f"{name}_per_second"] for name in ("copy_bytes", "matmul_flops")
    )
    table(
        ("ceiling", "measured"),
        ("copy, TB/s read and written", copied / 1e12),
        ("bf16 matmul, TFLOP/s", computed / 1e12),
    )


def shapes(bench: Bench) -> Counter[tuple[int, ...]]:
    """Ask the model for the shapes that enter its sites, and count the sites of each."""
    facts, found = data.facts(bench.setting.data), Counter[tuple[int, ...]]()
    model = models.build(
        bench.spec(1.0).task,
        facts.image,
        facts.classes,
        randomness.generator(torch.device("cpu"), 1, "init"),
    )

    def see(_: object, inputs: tuple[Tensor, ...]) -> None:
        found[tuple(inputs[0].shape[1:])] += 1

    for site in model.sites:
        site.register_forward_pre_hook(see)
    with torch.no_grad():
        model(torch.zeros(1, *facts.image))
    return found


def sites(bench: Bench) -> None:
    """Time each shape, largest first, beside a copy of its bytes, the compiled reference and torch.topk."""
    there = shapes(bench)
    found: dict[str, Any] = {"batch": bench.setting.site_batch, "sites": sum(there.values()), "shapes": []}
    bench.found["sites"] = found
    for shape, count in sorted(there.items(), key=lambda it: -torch.Size(it[0]).numel()):
        bench.say(f"sites: {shape}, {count} of {found['sites']}")
        line: dict[str, Any] = {"shape": list(shape), "sites": count, "errors": {}}
        found["shapes"].append(line)
        try:
            _site(bench, shape, line)
        except Exception as error:  # another shape has another kernel
            line["errors"]["site"] = reason(error)
    whole = [line for line in found["shapes"] if "copy_ms" in line]
    names = [name for name in _TIMES if all(line.get(name) is not None for line in whole)]
    found["all_sites_ms"] = (
        {name: sum(line["sites"] * line[name] for line in whole) for name in names} if whole else {}
    )
    _show(bench, found)


_TIMES = ("copy_ms", "forward_ms", "forward_backward_ms", "compiled_reference_ms", "torch_topk_ms")


def _site(bench: Bench, shape: tuple[int, ...], line: dict[str, Any]) -> None:
    setting, device = bench.setting, bench.device
    drawn = torch.randn(setting.site_batch, *shape, generator=torch.Generator().manual_seed(1))
    x = drawn.to(device, torch.bfloat16).contiguous(memory_format=torch.channels_last)
    scale, bias = torch.ones(shape[0], device=device), torch.zeros(shape[0], device=device)
    size = torch.Size(shape).numel()
    keeps = {
        ratio: torch.tensor(ops.keep_count(ratio, size), dtype=torch.int32, device=device)
        for ratio in setting.site_ratios
    }
    fused = import_module("trainer.ops.fused")  # not before the command has said whether Triton interprets
    target, upstream = torch.empty_like(x), torch.randn_like(x)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, scale, bias)]

    def forward(ratio: float) -> Callable[[], Tensor]:
        return lambda: fused.norm_relu_topk(x, scale, bias, keeps[ratio])

    def forward_backward() -> object:
        return torch.autograd.grad(fused.norm_relu_topk(*leaves, keeps[setting.ratio]), leaves, upstream)

    ways: dict[str, Callable[[], object]] = {
        f"forward {ratio:g}": forward(ratio) for ratio in setting.site_ratios
    }
    seconds = bench.timed({"copy": lambda: target.copy_(x), **ways, "both": forward_backward})
    kept = (forward(setting.ratio)() != 0).flatten(1).sum(1)
    moved = 2 * x.numel() * x.element_size()
    times = {f"{ratio:g}": seconds[f"forward {ratio:g}"] for ratio in setting.site_ratios}
    line |= {
        "bytes": moved,
        "copy_ms": seconds["copy"] * 1000,
        "forward_ms": seconds[f"forward {setting.ratio:g}"] * 1000,
        "forward_ms_by_ratio": {ratio: time * 1000 for ratio, time in times.items()},
        "forward_over_copy_by_ratio": {ratio: time / seconds["copy"] for ratio, time in times.items()},
        "forward_backward_ms": seconds["both"] * 1000,
        "bytes_per_second": moved / seconds[f"forward {setting.ratio:g}"],
        "exactly_keep_survive": bool((kept == keeps[setting.ratio]).all()),
    }
    _others(bench, line, (x, scale, bias), keeps[setting.ratio])


def torch_topk(x: Tensor, scale: Tensor, bias: Tensor, keep: int) -> Tensor:
    """The site written with PyTorch's own operations."""
    flat = torch.relu(reference.rms_norm(x, scale, bias)).flatten(1)
    values, index = flat.topk(keep, dim=1, sorted=False)
    return torch.zeros_like(flat).scatter(1, index, values).view(x.shape)


def _others(bench: Bench, line: dict[str, Any], inputs: tuple[Tensor, Tensor, Tensor], keep: Tensor) -> None:
    """Time the rivals' forward pass at the ladder's ratio.

    Compiling takes seconds, so it is left out once time is short.
    """
    stock()
    count = int(keep)
    ways: dict[str, Callable[[], object]] = {"torch_topk": lambda: torch_topk(*inputs, count)}
    if bench.room("sites") > 0:
        compiled = torch.compile(reference.norm_relu_topk, dynamic=False, backend=bench.setting.compiler)
        ways["compiled_reference"] = lambda: compiled(*inputs, keep)
    else:
        line["errors"]["compiled_reference"] = "not compiled: time was short"
    for name, way in ways.items():
        try:
            with torch.no_grad():
                line[f"{name}_ms"] = bench.timed({name: way})[name] * 1000
        except Exception as error:  # a compiler that is broken on this machine costs this figure alone
            line["errors"][name] = reason(error)
    process.prepare()


def _show(bench: Bench, found: dict[str, Any]) -> None:
    print(f"Where no r is said it is {bench.setting.ratio:g}; times in ms.")
    head = (
        "site, bf16",
        "of them",
        "copy",
        "forward",
        "forward / copy",
        "TB/s",
        "fwd + bwd",
        "compiled ref.",
        "torch.topk",
    )
    lines = [
        (
            "x".join(str(n) for n in (found["batch"], *line["shape"])),
            line["sites"],
            line.get("copy_ms"),
            line.get("forward_ms", line["errors"].get("site")),
            "; ".join(
                f"{ratio:.2f} at {keep}"
                for keep, ratio in line.get("forward_over_copy_by_ratio", {}).items()
            ),
            line["bytes_per_second"] / 1e12 if "bytes_per_second" in line else None,
            line.get("forward_backward_ms"),
            line.get("compiled_reference_ms"),
            line.get("torch_topk_ms"),
        )
        for line in found["shapes"]
    ]
    total = [found["all_sites_ms"].get(name) for name in _TIMES]
    table(head, *lines, ("all sites", found["sites"], total[0], total[1], "", None, *total[2:]))
