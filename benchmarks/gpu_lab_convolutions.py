"""Parts of the lab about convolutions: cuDNN's, our own, and what runs beside their gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from benchmarks.gpu_profile import kernels, overlap, steps
from benchmarks.gpu_setting import Bench, reason, table
from trainer import data, models, randomness

LOOP = 20
"""Calls in a row that are timed together where the cache is warm."""
PROFILED_STEPS = 20


@dataclass(frozen=True)
class Layer:
    """The shape of a convolution."""

    inside: int
    outside: int
    side: int
    """Pixels along the edge of its input."""
    window: int
    stride: int

    def __str__(self) -> str:
        stride = f" / {self.stride}" if self.stride > 1 else ""
        return (
            f"{self.inside} -> {self.outside}, {self.window}x{self.window}{stride}, {self.side}x{self.side}"
        )

    def flops(self, batch: int) -> float:
        """Operations of one pass; a multiplication and an addition are two."""
        places = (-(-self.side // self.stride)) ** 2
        return 2.0 * batch * places * self.inside * self.outside * self.window**2


def layers(bench: Bench) -> Counter[Layer]:
    """The model's convolutions, with the number of each."""
    facts, found = data.facts(bench.setting.data), Counter[Layer]()
    model = models.build(
        bench.spec(1.0).task,
        facts.image,
        facts.classes,
        randomness.generator(torch.device("cpu"), 1, "init"),
    )

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        (window, _), (stride, _) = module.kernel_size, module.stride
        found[
            Layer(module.in_channels, module.out_channels, inputs[0].shape[-1], int(window), int(stride))
        ] += 1

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(see)
    with torch.no_grad():
        model(torch.zeros(1, *facts.image))
    return found


def passes(bench: Bench, layer: Layer) -> dict[str, Callable[[], object]]:
    """The three passes of a convolution as training calls them: bfloat16, channels_last, no bias."""
    drawn, batch = torch.Generator().manual_seed(1), bench.setting.batch_size

    def normal(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=drawn).to(bench.device, torch.bfloat16)
        return x.contiguous(memory_format=torch.channels_last)

    x = normal(batch, layer.inside, layer.side, layer.side)
    weight = normal(layer.outside, layer.inside, layer.window, layer.window)
    pad, stride = layer.window // 2, layer.stride
    gradient = torch.randn_like(conv2d(x, weight, None, stride, pad))
    shape = ([stride] * 2, [pad] * 2, [1] * 2, False, [0] * 2, 1)

    def backward(*wanted: bool) -> Callable[[], object]:
        return lambda: torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *shape, [*wanted, False]
        )

    return {
        "forward": lambda: conv2d(x, weight, None, stride, pad),
        "dgrad": backward(True, False),
        "wgrad": backward(False, True),
    }


def warm(bench: Bench, call: Callable[[], object]) -> float:
    """Seconds of one of many calls in a row, which find their operands in the cache."""

    def loop() -> None:
        for _ in range(LOOP):
            call()

    return bench.timed({"loop": loop})["loop"] / LOOP


def convolutions(bench: Bench) -> None:
    """Every convolution of the network in each pass, and the first with 8 channels instead of 3."""
    there, batch = layers(bench), bench.setting.batch_size
    stem = next(iter(there))
    odd = Layer(8, stem.outside, stem.side, stem.window, stem.stride)
    lines: list[dict[str, Any]] = []
    bench.found["convolutions"] = lines
    for layer, count in {**there, odd: there.get(odd, 0)}.items():
        bench.say(f"convolutions: {layer}")
        for name, call in passes(bench, layer).items():
            if layer == stem and name == "dgrad":
                continue  # nobody asks for the gradient of an image
            seconds = {"flushed": bench.timed({name: call})[name], "warm": warm(bench, call)}
            line: dict[str, Any] = {"layer": str(layer), "of_them": count, "pass": name}
            line |= {f"{state}_us": time * 1e6 for state, time in seconds.items()}
            line["tflops_flushed"] = layer.flops(batch) / seconds["flushed"] / 1e12
            line["kernels"] = list(dict.fromkeys(kernel.name for kernel in kernels(bench, call)))
            lines.append(line)
        bench.keep()
    head = ("layer", "of them", "pass", "flushed, us", "warm, us", "TFLOP/s", "kernels")
    table(head, *((*list(line.values())[:-1], "; ".join(line["kernels"])) for line in lines))


def own_convolution(bench: Bench) -> None:
    """Our own convolution of 64 channels beside cuDNN's, forward and for the gradient of its input."""
    own = import_module("benchmarks.convolution")  # not before the command has said if Triton interprets
    batch, side, channels = (
        (1, 8, 16) if bench.rehearsal else (bench.setting.batch_size, own.SIDE, own.CHANNELS)
    )
    # the interpreter has no products in bfloat16; the same values in float32 test the same indices
    kind = torch.float32 if bench.rehearsal else torch.bfloat16
    drawn = torch.Generator().manual_seed(1)
    x, weight, gradient = (
        torch.randn(shape, generator=drawn).to(bench.device, torch.bfloat16).to(kind)
        for shape in (
            (batch, channels, side, side),
            (channels, channels, 3, 3),
            (batch, channels, side, side),
        )
    )
    x, gradient = (it.contiguous(memory_format=torch.channels_last) for it in (x, gradient))
    weight = weight / 24
    shape = (weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False])
    theirs: dict[str, Callable[[], Tensor]] = {
        "forward": lambda: conv2d(x, weight, padding=1),
        "dgrad": lambda: torch.ops.aten.convolution_backward(gradient, x, *shape)[0],
    }
    given = {
        "forward": (x, own.forward_taps(weight)),
        "dgrad": (gradient, own.backward_taps(weight)),
    }
    lines: list[dict[str, Any]] = []
    bench.found["own convolution"] = lines
    for name, call in theirs.items():
        bench.say(f"own convolution: {name}")
        flops = Layer(channels, channels, side, 3, 1).flops(batch)
        exact = call().float()
        ways: dict[str, Any] = {"cuDNN": call}
        ways |= {
            str(asdict(variant)): lambda variant=variant, given=given[name]: own.convolve(*given, variant)
            for variant in own.VARIANTS
        }
        for how, way in ways.items():
            line: dict[str, Any] = {"pass": name, "how": how, "greatest_value": float(exact.abs().max())}
            lines.append(line)
            try:
                line["greatest_difference"] = float((way().float() - exact).abs().max())
                seconds = bench.timed({how: way})[how]
                line |= {"flushed_us": seconds * 1e6, "warm_us": warm(bench, way) * 1e6}
                line["tflops_flushed"] = flops / seconds / 1e12
            except Exception as error:  # another variant may suit the device
                line["error"] = reason(error)
    keys = ("pass", "how", "flushed_us", "warm_us", "tflops_flushed", "greatest_difference")
    head = ("pass", "how", "flushed, us", "warm, us", "TFLOP/s", "greatest difference")
    table(head, *(tuple(line.get(key) for key in keys) for line in lines))


def fork(bench: Bench) -> None:
    """What a step's kernels are, and which of them run at the same time."""
    bench.say("fork: the kernels of some steps")
    found, seconds = steps(bench, 2 if bench.rehearsal else PROFILED_STEPS)
    shared = overlap(found)
    count = 2 if bench.rehearsal else PROFILED_STEPS
    by_name: Counter[str] = Counter()
    for kernel in found:
        by_name[kernel.name] += round(1000 * (kernel.end - kernel.start))
    pairs = [(first, second, time / count) for first, second, time in shared.pairs[:20]]
    a_step = {
        "step_ms": seconds * 1000 / count,
        "kernel_ms": shared.work / 1000 / count,
        "busy_ms": shared.busy / 1000 / count,
    }
    bench.found["fork"] = {
        **a_step,
        "kernels": len(found) / count,
        "kernels_us": {name: time / 1000 / count for name, time in by_name.most_common()},
        "together_us": pairs,
    }
    table(("a step", "ms"), *a_step.items())
    print(
        "step_ms: by the clock. kernel_ms: all kernels' times, added up. busy_ms: while any kernel ran.\n",
        flush=True,
    )
    if pairs:
        table(("kernel", "at the same time", "us a step"), *pairs)
    else:
        print("No two kernels ran at the same time.\n", flush=True)
