"""Measure our epoch beside straightforward PyTorch's: `python -m benchmarks.trainer [CASE ...]`.

Each measurement is a process; the two sides take turns, and the table has medians and their ratio. An
epoch is training and evaluation at the epoch's keep ratio r and, where r is not 1, also at r = 1.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine, plain
from trainer import data
from trainer.engine import Images, place
from trainer.spec import RunSpec
from trainer.training import Training


@dataclass(frozen=True)
class Case:
    """A task at one keep ratio, trained on `train` images and evaluated on `test`.

    After `warm` epochs, `epochs` are timed, `rounds` times on each side.
    """

    data: str
    model: str
    batch_size: int
    train: int
    test: int
    ratio: float
    warm: int
    epochs: int
    rounds: int

    @property
    def spec(self) -> RunSpec:
        task = {
            "data": self.data,
            "model": self.model,
            "epochs": self.warm + self.epochs,
            "batch_size": self.batch_size,
            "train_size": self.train,
        }
        policy = {"name": "dense"} if self.ratio == 1 else {"name": "fixed", "ratio": self.ratio}
        return RunSpec.read({"task": task, "policy": policy, "seed": 1})

    def images(self) -> Images:
        whole = place(data.load(self.data), torch.device("cpu"))
        end = whole.train + self.test
        return Images(whole.images[:end], whole.labels[:end], whole.train)


CASES = {
    f"{name}@{ratio}": Case(*rest, ratio=ratio, warm=warm, epochs=epochs, rounds=rounds)
    for name, warm, epochs, rounds, rest in (
        ("digits", 1, 12, 7, ("digits", "wrn-10-1", 32, 200, 597)),
        ("cifar", 0, 1, 3, ("synthetic-cifar", "wrn-28-4", 128, 512, 128)),
    )
    for ratio in (1.0, 0.25)
}


def ours(case: Case) -> list[float]:
    """Return the seconds of each of our epochs."""
    return [row.seconds for row in Training(case.spec, images=case.images())]


def theirs(case: Case) -> list[float]:
    """Return the seconds of each plain epoch, with PyTorch's own settings."""
    images, facts = case.images(), data.facts(case.data)
    depth, widen = (int(part) for part in case.model.split("-")[1:])
    model = plain.PlainWideResNet(depth, widen, facts.classes, facts.image[0])
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True)
    pictures, labels = images.images.permute(0, 3, 1, 2).contiguous(), images.labels
    train_loader = plain.loader_of(
        pictures[: case.train], labels[: case.train], case.batch_size, shuffle=True
    )
    test_loader = plain.loader_of(
        pictures[images.train :], labels[images.train :], case.batch_size, shuffle=False
    )
    seconds: list[float] = []
    for _ in range(case.warm + case.epochs):
        start = time.perf_counter()
        model.set_keep(case.ratio)
        plain.train_epoch(model, train_loader, optimizer)
        plain.evaluate(model, test_loader)
        if case.ratio < 1:
            model.set_keep(1.0)
            plain.evaluate(model, test_loader)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(name: str, way: str) -> float:
    """Measure one side in its own process; return its median epoch."""
    command = [sys.executable, "-m", "benchmarks.trainer", "--one", name, way]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(arguments: list[str]) -> None:
    """Make one measurement for the process that asked, or all of them and the table."""
    if arguments[:1] == ["--one"]:
        case, way = CASES[arguments[1]], arguments[2]
        seconds = (ours if way == "ours" else theirs)(case)
        print(json.dumps(statistics.median(seconds[case.warm :])))
        return
    console = Console()
    table = Table("case", "ours, s/epoch", "plain, s/epoch", "ratio", "rounds")
    path = machine.RESULTS / "trainer-cpu.json"
    # a case that is measured again replaces itself alone
    kept = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments or CASES:
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(CASES[name].rounds):
            for way, values in times.items():
                values.append(measure(name, way))
                console.log(f"{name} {way}: {values[-1]:.3f} s")
        middle = {way: statistics.median(values) for way, values in times.items()}
        ratio = statistics.median(b / a for a, b in zip(times["ours"], times["plain"], strict=True))
        kept[name] = {**times, "ratio": ratio, "machine": machine.describe()}
        table.add_row(
            name, f"{middle['ours']:.3f}", f"{middle['plain']:.3f}", f"{ratio:.2f}", str(CASES[name].rounds)
        )
    console.print(table)
    machine.RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    console.print(f"kept in {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
