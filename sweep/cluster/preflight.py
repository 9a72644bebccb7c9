"""The questions that every node of a cluster answers before it is given work, and the check of answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import sweep
from trainer.code import code_hash
from trainer.data import Data, DataError, verify
from trainer.decoded import folder_of
from trainer.models import own
from trainer.store import StoreError, open_store

CLOCK_SECONDS = 60.0
"""The largest difference between a node's clock and the driver's."""
SAME = ("code", "torch", "python")
"""The answers that must be the driver's own on every node."""


def probe(
    store_url: str, data: list[Data], data_dir: str, gpus: float, note: str, packages: Sequence[str] = ()
) -> dict[str, Any]:
    """The answers of this process's node.

    `note` is the name of a file that the driver wrote in the store. The node reads it and writes another
    file, whose name is one of the answers. `packages` have code of the user's own.
    """
    facts: dict[str, Any] = {
        "code": f"{code_hash()}-{code_hash(Path(sweep.__file__).parent)}",
        "torch": metadata.version("torch"),
        "python": ".".join(map(str, sys.version_info[:2])),
        "packages": {package: _hash_of(package) for package in packages},
        "clock": time.time(),
        "answer": "",
        "problems": [],
    }
    try:
        store = open_store(store_url)
        store.read(note)
        store.write(f"{note}-{facts['clock']}", b"")
        facts["answer"] = f"{note}-{facts['clock']}"
    except FileNotFoundError:
        facts["problems"].append(
            f"it does not see the file that the driver wrote in {store_url}: "
            "the store must be the same on every node."
        )
    except StoreError as error:
        facts["problems"].append(str(error))
    for dataset in data:
        try:
            verify(dataset, Path(data_dir), folder_of(store_url))
        except DataError as error:
            facts["problems"].append(str(error))
    if gpus:
        import torch

        if torch.cuda.is_available():
            facts["device"] = torch.cuda.get_device_name(0)
            facts["problems"] += site_problems("cuda") or step_problems("cuda")
        else:
            facts["device"] = "none"
            facts["problems"].append("its torch sees no GPU.")
    return facts


def _hash_of(package: str) -> str:
    try:
        return own.hash_of(package)
    except own.ModelError:
        return "missing"


def site_problems(device: str) -> list[str]:
    """The reason why a device does not keep the activations that the reference keeps; empty where it does.

    Each node compiles the kernels itself, which may fail.
    """
    import torch

    from trainer import ops
    from trainer.ops import reference

    # rounded, so that some activations are equal at the threshold
    drawn = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(1)).mul(4).round()
    for precision in (torch.float32, torch.bfloat16):
        x = drawn.to(precision).contiguous(memory_format=torch.channels_last)
        try:
            out = ops.relu_topk(x.to(device), 100).cpu()
        except Exception as error:
            # there may be no C compiler for Triton, a driver that is too old, or a broken GPU
            return [f"its GPU cannot run our kernels ({precision}): {_in_a_line(error)}"]
        if not torch.equal(out, reference.relu_topk(x, 100)):
            return [
                f"its GPU keeps other activations than the reference does ({precision}); do not trust it."
            ]
    return []


def step_problems(device: str) -> list[str]:
    """The reason why a device does not train as a CPU does; empty where it does.

    A small network takes four steps there, recorded and with every kernel.
    """
    import torch

    from trainer import process, randomness
    from trainer.engine import Engine, Images
    from trainer.spec import RunSpec
    from trainer.techniques import ALL

    process.prepare()
    order = randomness.permutation(32, 1, "preflight")
    images = torch.randn(32, 8, 8, 1, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(32) % 10

    def changes(device: str, precision: str) -> list[torch.Tensor]:
        given = {"data": "digits", "model": "wrn-10-1", "epochs": 1, "precision": precision}
        task = RunSpec.read({"task": given, "policy": {"name": "dense"}, "seed": 1}).task
        where = torch.device(device)
        engine = Engine(task, Images(images.to(where), labels.to(where), 32), where, ALL)
        engine.begin(task, 1, order)
        before = [weight.detach().clone() for weight in engine.model.parameters()]
        engine.optimizer.set_rate(0.02)
        for _ in engine.train(order, 8, 1.0, None):
            pass
        after = engine.model.parameters()
        return [(new.detach() - old).cpu() for new, old in zip(after, before, strict=True)]

    # the images are noise, so that in bfloat16 a gradient is mostly rounding; a fault is larger still
    for precision, tolerance in (("float32", 0.001), ("bfloat16", 0.6)):
        right = changes("cpu", precision)
        try:
            found = changes(device, precision)
        except Exception as error:
            return [f"its GPU cannot train our network ({precision}): {_in_a_line(error)}"]
        pairs = zip(found, right, strict=True)
        # torch's max is NaN where any number is
        apart = float(torch.stack([(mine - theirs).norm() / theirs.norm() for mine, theirs in pairs]).max())
        if not apart < tolerance:
            return [
                f"its GPU trains otherwise than a CPU ({precision}): after four steps a weight's change"
                f" differs by {apart:.1%}, and may differ by {tolerance:.1%}."
            ]
    return []


def _in_a_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first}"


def compare(here: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The problems with a node's answers. `here` holds the driver's own, and the GPU to have, if any."""
    problems: list[str] = list(facts["problems"])
    problems += [
        f"{key} is {facts[key]}, and {here[key]} where the driver runs."
        for key in SAME
        if facts[key] != here[key]
    ]
    problems += [
        f"the package {package} is {code}, and {here['packages'][package]} where the driver runs."
        for package, code in facts["packages"].items()
        if code != here["packages"][package]
    ]
    if abs(facts["clock"] - here["clock"]) > CLOCK_SECONDS:
        problems.append(f"its clock is {facts['clock'] - here['clock']:+.0f} s from the driver's.")
    device, wanted = facts.get("device", "none"), here.get("device")
    if wanted and device not in ("none", wanted):
        problems.append(
            f"its GPU is a {device}, and a {wanted} on the node that was examined first: their numbers "
            "differ in the last bits."
        )
    return problems
