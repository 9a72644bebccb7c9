"""The ladder from plain PyTorch to a recorded step; one engine at several ratios; agreement of losses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.gpu_children import Child
from benchmarks.gpu_setting import Bench, reason, stock, table
from trainer import data, ops
from trainer.engine import EVALUATION_BATCH, Engine
from trainer.ops import reference
from trainer.rows import EpochRow
from trainer.techniques import Techniques

COMPILED = "plain bf16 compiled"
PLAIN = {"plain fp32": False, "plain bf16": True, COMPILED: True}
"""Rungs, and whether they are in bfloat16 and channels_last."""
OURS = {"fused": False, "fused + graph": True}
"""Rungs, and whether their steps are recorded."""
COMPILER_SECONDS = 120.0
QUICK_SECONDS = 25.0
"""The most that compiling training may take; beyond it evaluation is measured uncompiled.

Evaluation would have to be compiled twice, and there would be no time left for setting.
"""


class UnsortedReLU(plain.SparseReLU):
    """torch.topk at its best: nothing is sorted that need not be, and nothing is counted."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        if self.ratio == 1:
            return x
        flat = x.flatten(1)
        values, index = torch.topk(flat, math.ceil(self.ratio * flat.shape[1]), dim=1, sorted=False)
        return torch.zeros_like(flat).scatter(1, index, values).view_as(x)


def plain_model(bench: Bench, *, bf16: bool) -> plain.PlainWideResNet:
    """Build the plain network on the device; `bf16` adds channels_last and the faster top-k."""
    facts = data.facts(bench.setting.data)
    depth, widen = (int(part) for part in bench.setting.model.split("-")[1:])
    model = plain.PlainWideResNet(depth, widen, facts.classes, facts.image[0]).to(bench.device)
    if not bf16:
        return model
    for site in [
        module
        for module in model.modules()
        if isinstance(module, nn.Sequential) and isinstance(module[-1], plain.SparseReLU)
    ]:
        site[-1] = UnsortedReLU()
    last: Any = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(plain.PlainWideResNet, last)


def plain_rung(bench: Bench, name: str) -> dict[str, Any]:
    """Time a plain network's steps and evaluations, and estimate its epoch.

    Batches are gathered on the device.
    """
    stock()
    setting, bf16 = bench.setting, PLAIN[name]
    model = plain_model(bench, bf16=bf16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True)
    network: nn.Module = model
    if name == COMPILED:
        network = cast(nn.Module, torch.compile(model, dynamic=False, backend=setting.compiler))
    images = bench.images.images if bf16 else bench.images.images.permute(0, 3, 1, 2).contiguous()

    def batches(count: int, size: int) -> Any:
        def draw() -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(count):
                index = torch.randint(bench.images.train, (size,), device=bench.device)
                gathered = images.index_select(0, index)
                yield (
                    gathered.permute(0, 3, 1, 2) if bf16 else gathered,
                    bench.images.labels.index_select(0, index),
                )

        return draw()

    size, more = min(EVALUATION_BATCH, setting.test), dict[str, Any]()
    with torch.autocast(bench.device.type, torch.bfloat16) if bf16 else nullcontext():
        model.set_keep(setting.ratio)
        if name == COMPILED:
            more["compile_seconds"] = bench.wall(
                lambda: plain.train_epoch(network, batches(1, setting.batch_size), optimizer)
            )
        step = _each(
            bench,
            setting.steps,
            lambda count: plain.train_epoch(network, batches(count, setting.batch_size), optimizer),
        )
        if name == COMPILED:
            more["evaluation_compiled"] = more["compile_seconds"] < QUICK_SECONDS
            network = network if more["evaluation_compiled"] else model
        evaluation: dict[str, float] = {}
        for ratio in (setting.ratio, 1.0):
            if name == COMPILED:
                torch.compiler.reset()  # or it would generalise over the last mode, ratio and size
            model.set_keep(ratio)
            evaluation[f"{ratio:g}"] = _each(
                bench, setting.evaluations, lambda count: plain.evaluate(network, batches(count, size))
            )
    return {
        "step_seconds": step,
        "evaluation_batch_seconds": evaluation,
        "epoch_seconds": step * setting.train / setting.batch_size
        + sum(evaluation.values()) * setting.test / size,
        "how": (
            f"estimated from {setting.chunks * setting.steps} steps"
            f" and {setting.chunks * setting.evaluations} batches of {size} at each ratio"
        ),
        **more,
    }


def _each(bench: Bench, count: int, work: Callable[[int], object]) -> float:
    """Seconds of one call: the median over a few rows of `count` calls."""
    work(2)
    return statistics.median(bench.wall(lambda: work(count)) / count for _ in range(bench.setting.chunks))


def our_rung(bench: Bench, *, records: bool) -> dict[str, Any]:
    """Time whole epochs of a Training; the first is a warm-up."""
    setting = bench.setting
    rows, engine = bench.train(
        bench.spec(setting.ratio), 1 + setting.epochs, "ladder", techniques=Techniques(graph=records)
    )
    return {
        "step_seconds": statistics.median(map(_training_seconds(bench), rows[1:]))
        / math.ceil(setting.train / setting.batch_size),
        "epoch_seconds": statistics.median(row.seconds for row in rows[1:]),
        "epochs_seconds": [row.seconds for row in rows],
        "how": f"median of {len(rows) - 1} whole epochs after one",
        "recorded_steps": _recorded(engine),
        "test_accuracy": rows[-1].test_accuracy,
    }


def _training_seconds(bench: Bench) -> Callable[[EpochRow], float]:
    return lambda row: bench.setting.train / row.images_per_second


def _recorded(engine: Engine) -> int:
    return sum(step.graph is not None for step in engine.steps.values())


def _in_a_child(bench: Bench) -> dict[str, Any]:
    """Time a rung in a child process: a compiler may hang, or leave its process unfit for more."""
    limit = min(COMPILER_SECONDS, max(60.0, bench.room("ladder")))
    with Child(bench.folder, rehearsal=bench.rehearsal) as child:
        return child.ask({"do": "rung", "name": COMPILED}, limit)


def ladder(bench: Bench) -> None:
    """Measure every rung and its speed beside the first.

    If a rung fails, the error is kept and the others go on.
    """
    rungs: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda name=name: plain_rung(bench, name) for name in PLAIN
    }
    rungs |= {
        name: lambda records=records: our_rung(bench, records=records) for name, records in OURS.items()
    }
    rungs[COMPILED] = lambda: _in_a_child(bench)
    found: list[dict[str, Any]] = []
    bench.found["ladder"] = found
    for name in (*OURS, *PLAIN):  # what matters most comes first
        bench.say(f"ladder: {name}")
        bench.forget()
        try:
            line = rungs[name]()
            found.append({"rung": name, "peak_gib": bench.peak_gib(), **line})  # a child tells its own
        except Exception as error:
            found.append({"rung": name, "error": reason(error)})
        bench.keep()
    bench.forget()
    found.sort(key=lambda line: [*PLAIN, *OURS].index(line["rung"]))
    for line in found:
        first, own = found[0].get("epoch_seconds"), line.get("epoch_seconds")
        line["times_plain_fp32"] = first / own if first and own else None
    head = ("rung", "step, ms", "epoch, s", "x plain fp32", "peak, GiB", "how")
    lines = [
        [line.get(key) for key in ("rung", "step_seconds", "epoch_seconds", "times_plain_fp32", "peak_gib")]
        for line in found
    ]
    hows = [line.get("how") or line.get("error") for line in found]
    table(
        head,
        *(
            (name, step and step * 1000, *rest, how)
            for (name, step, *rest), how in zip(lines, hows, strict=True)
        ),
    )


def ratios(bench: Bench) -> None:
    """Run one engine at each ratio in turn, and see whether anything is recorded or compiled anew."""
    setting, lines, part = bench.setting, list[dict[str, Any]](), "ratios"
    _, engine = bench.train(bench.spec(setting.ratios[0]), 1, part, least=1)
    first = {"steps": len(engine.steps), "recorded": _recorded(engine), "kernels": _compiled(bench)}
    engines = {engine}
    for ratio in setting.ratios:
        bench.say(f"a changing ratio: {ratio:g}")
        rows, engine = bench.train(bench.spec(ratio), 1 + setting.ratio_epochs, part)
        engines.add(engine)
        training = statistics.median(map(_training_seconds(bench), rows[1:]))
        lines.append(
            {
                "ratio": ratio,
                "epoch_seconds": statistics.median(row.seconds for row in rows[1:]),
                "training_seconds": training,
            }
        )
    now = {"steps": len(engine.steps), "recorded": _recorded(engine), "kernels": _compiled(bench)}
    found = bench.found[part] = {
        "epochs": lines,
        "greatest_over_least": _span([line["epoch_seconds"] for line in lines]),
        "training_greatest_over_least": _span([line["training_seconds"] for line in lines]),
        "after_the_first_epoch": first,
        "after_all": now,
        "recorded_anew": len(engines) > 1
        or now["steps"] != first["steps"]
        or now["recorded"] != first["recorded"],
        "note": "an epoch at r = 1 has one evaluation, at any other ratio two",
    }
    table(("r", "epoch, s", "of it training, s"), *(tuple(line.values()) for line in lines))
    spans = (
        f"{found['greatest_over_least']:.3f}, of training alone {found['training_greatest_over_least']:.3f}"
    )
    anew = "something was" if found["recorded_anew"] else "nothing was"
    print(
        f"Greatest over least: {spans} ({found['note']})."
        f" After the first epoch {anew} made or recorded anew.\n",
        flush=True,
    )


def _span(values: list[float]) -> float:
    return max(values) / min(values)


def _compiled(bench: Bench) -> int | None:
    """Count the variants of our kernels that Triton compiled in this process; None where it cannot say."""
    if bench.rehearsal:
        return None
    from trainer.ops import kernels

    found = [
        getattr(kernel, "device_caches", None)
        for kernel in (kernels.resident_pairs, kernels.forward, kernels.backward)
    ]
    return (
        sum(len(cache[0]) for caches in found if caches for cache in caches.values()) if any(found) else None
    )


def agreement(bench: Bench) -> None:
    """Compare losses under our kernels and under the reference: they must differ less than seeds do."""
    setting, part = bench.setting, "agreement"

    def losses(seed: int, *, records: bool) -> list[float]:
        spec = bench.spec(setting.ratio, seed, train_size=setting.agreement_train, evaluate_every=100)
        rows, _ = bench.train(
            spec,
            setting.agreement_epochs,
            part,
            least=setting.agreement_epochs,
            techniques=Techniques(graph=records),
        )
        return [row.train_loss for row in rows]

    bench.say("agreement: ours")
    ours = {seed: losses(seed, records=True) for seed in setting.seeds}
    theirs: dict[int, list[float]] = {}
    with mock.patch.object(ops, "_implementation", return_value=reference):
        for seed in setting.seeds:
            if theirs and bench.room(part) < 0:
                break
            bench.say(f"agreement: the reference, seed {seed}")
            theirs[seed] = losses(seed, records=False)
    bench.forget()
    spread = [max(values) - min(values) for values in zip(*ours.values(), strict=True)]
    differences = [[abs(a - b) for a, b in zip(ours[seed], theirs[seed], strict=True)] for seed in theirs]
    greatest = [max(values) for values in zip(*differences, strict=True)]
    agree = all(difference <= most for difference, most in zip(greatest, spread, strict=True))
    bench.found[part] = {
        "train": setting.agreement_train,
        "ours": ours,
        "reference": theirs,
        "greatest_difference_by_epoch": greatest,
        "spread_over_seeds_by_epoch": spread,
        "agree": agree,
    }
    lines = zip(range(1, len(spread) + 1), greatest, spread, strict=True)
    table(("epoch", "greatest difference of the loss", f"spread over {len(setting.seeds)} seeds"), *lines)
