"""Can a node do the work? Each node answers the same questions before anything starts; what differs is refused by the node's name."""

from __future__ import annotations

import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import sweep
from trainer.code import code_hash
from trainer.data import Data, DataError, verify
from trainer.store import StoreError, open_store

CLOCK_SECONDS = 60.0
SAME = ("code", "torch", "python")


def probe(place: str, data: list[Data], data_dir: str, gpus: float, note: str) -> dict[str, Any]:
    """What this process's node has. `note` is the name of a file in the store that must be there, and is answered with another."""
    facts: dict[str, Any] = {
        "code": f"{code_hash()}-{code_hash(Path(sweep.__file__).parent)}",
        "torch": metadata.version("torch"),
        "python": ".".join(map(str, sys.version_info[:2])),
        "clock": time.time(),
        "answer": "",
        "problems": [],
    }
    try:
        store = open_store(place)
        store.read(note)
        store.write(f"{note}-{facts['clock']}", b"")
        facts["answer"] = f"{note}-{facts['clock']}"
    except FileNotFoundError:
        facts["problems"].append(
            f"does not see the file that the driver wrote in {place}: the store must be the same on every node."
        )
    except StoreError as error:
        facts["problems"].append(str(error))
    for it in data:
        try:
            verify(it, Path(data_dir))
        except DataError as error:
            facts["problems"].append(str(error))
    if gpus:
        import torch

        facts["device"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
        facts["problems"] += (
            ["its torch sees no GPU."] if facts["device"] == "none" else site_problems("cuda")
        )
    return facts


def site_problems(device: str) -> list[str]:
    """Whether a device keeps the activations that the reference keeps: kernels are compiled on each node, where that may fail."""
    import torch

    from trainer import ops
    from trainer.ops import reference

    drawn = (
        torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(1)).mul(4).round()
    )  # with ties to cut
    for precision in (torch.float32, torch.bfloat16):
        x = drawn.to(precision).contiguous(memory_format=torch.channels_last)
        try:
            out = ops.relu_topk(x.to(device), 100).cpu()
        except (
            Exception
        ) as error:  # no C compiler for Triton, a driver that is too old, a GPU that is broken
            first = (str(error).strip().splitlines() or ["no message"])[0]
            return [f"its GPU cannot run our kernels ({precision}): {type(error).__name__}: {first}"]
        if not torch.equal(out, reference.relu_topk(x, 100)):
            return [
                f"its GPU keeps other activations than the reference does ({precision}); do not trust it."
            ]
    return []


def compare(here: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> list[str]:
    """What keeps nodes from doing the work that `here`, the driver's own answers, stands for."""
    problems: list[str] = []
    for name, facts in nodes.items():
        problems += [f"node {name}: {problem}" for problem in facts["problems"]]
        problems += [
            f"node {name}: {key} is {facts[key]}, and {here[key]} where the driver runs."
            for key in SAME
            if facts[key] != here[key]
        ]
        if abs(facts["clock"] - here["clock"]) > CLOCK_SECONDS:
            problems.append(
                f"node {name}: its clock is {facts['clock'] - here['clock']:+.0f} s from the driver's."
            )
    devices = {facts.get("device") for facts in nodes.values()} - {None, "none"}
    if len(devices) > 1:
        problems.append(
            f"the nodes have different GPUs ({', '.join(sorted(map(str, devices)))}): their numbers differ in the last bits."
        )
    return problems
