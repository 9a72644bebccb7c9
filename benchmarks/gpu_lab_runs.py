"""Parts of the lab that train: techniques by turns, runs in threads, evaluation, and the fastest setting."""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from benchmarks import gpu_packed
from benchmarks.gpu_setting import SEED, Bench, figures, table
from benchmarks.gpu_threads import at_once, runs_in_threads
from trainer import lending
from trainer.engine import Images
from trainer.rows import EpochRow
from trainer.techniques import ALL, Techniques
from trainer.training import Training

NAMES = tuple(field.name for field in fields(Techniques))
GRAPH_ALONE = Techniques(**{name: name == "graph" for name in NAMES})
DROPPED_FROM = 0.99
"""A technique is dropped where an epoch without it takes at most this many times as long as with all.

Two measurements of one epoch on an H100 were 0.7 % apart: less than 1 % says nothing.
"""
TOGETHER = (1, 2, 3, 4)


def by_turns(bench: Bench, ways: Mapping[str, Techniques], part: str, rounds: int) -> dict[str, Any]:
    """Train a run with each choice of techniques, an epoch of each in turn, all on the same images."""
    spec = bench.spec(bench.setting.ratio, SEED)
    bench.forget()
    trainings = {
        name: Training(spec, device=bench.device, images=bench.images, techniques=chosen)
        for name, chosen in ways.items()
    }
    going = {name: iter(training) for name, training in trainings.items()}
    for name in ways:  # the first epoch records its steps, and is not counted
        bench.say(f"{part}: {name}")
        next(going[name])
    for turn in range(rounds):
        if turn and bench.room(part) < 0:
            break
        for name in ways:
            next(going[name])
    return {name: _line(bench, training.rows[1:]) for name, training in trainings.items()}


def _line(bench: Bench, rows: Sequence[EpochRow]) -> dict[str, Any]:
    setting = bench.setting
    training = statistics.median(setting.train / row.images_per_second for row in rows)
    return {
        "epoch_seconds": statistics.median(row.seconds for row in rows),
        "training_seconds": training,
        "step_seconds": training / -(-setting.train // setting.batch_size),
        "epochs_seconds": [row.seconds for row in rows],
        "train_losses": [row.train_loss for row in rows],
    }


def _show(found: Mapping[str, Any], beside: str) -> None:
    head = ("techniques", "step, ms", "epoch, s", f"step beside {beside!r}, us", "train loss")
    first = found[beside]
    lines = [
        (
            name,
            line["step_seconds"] * 1000,
            line["epoch_seconds"],
            (line["step_seconds"] - first["step_seconds"]) * 1e6,
            line["train_losses"][-1],
        )
        for name, line in found.items()
    ]
    table(head, *lines)


def baseline(bench: Bench) -> None:
    """An epoch with all techniques, and with the recorded step alone."""
    found = by_turns(bench, {"all": ALL, "graph alone": GRAPH_ALONE}, "baseline", 3)
    bench.found["baseline"] = found
    # in the form in which `benchmarks.gpu` writes them, for `sweep plan`
    line = {key: found["all"][key] for key in ("epoch_seconds", "training_seconds")}
    bench.found["ratios"] = {"epochs": [{"ratio": bench.setting.ratio, **line}]}
    _show(found, "all")


def techniques(bench: Bench) -> None:
    """All techniques, all but one, and the fork of weight gradients by itself."""
    copies = replace(GRAPH_ALONE, copies=True)  # without copies of the weights nothing is forked
    ways = {"all": ALL, "graph alone": GRAPH_ALONE, "graph and copies": copies}
    ways |= {"graph, copies and fork": replace(copies, fork=True)}
    # without a graph an epoch takes six times as long, which `benchmarks.gpu` has measured
    ways |= {f"without {name}": replace(ALL, **{name: False}) for name in NAMES if name != "graph"}
    found = by_turns(bench, ways, "techniques", 2)
    bench.found["techniques"] = found
    _show(found, "all")
    print('In bfloat16 a fork needs copies: "without copies" is without fork too.\n', flush=True)


def threads(bench: Bench) -> None:
    """One to four runs in one process."""
    alone: list[dict[str, Any]] = []
    for runs in TOGETHER:
        bench.say(f"threads: {runs} at once")
        answers = runs_in_threads(bench, runs, bench.setting.packed_epochs)
        gpu_packed.keep_line(bench, bench.found["packed"], alone, answers, threads=True)
    bench.found["threads"] = [line for line in bench.found["packed"] if line["threads"]]
    gpu_packed.show(bench.found["packed"])


def race(bench: Bench) -> None:
    """Provoke the race of recordings: threads that record at the same time, while others replay.

    Every run has other batch sizes than the one before, so that each records steps of its own. Runs of one
    thread are recorded once and then replayed. All rows must be those of the run alone.
    """
    whole, setting = bench.images, bench.setting
    tested = min(300, setting.test)
    some = Images(whole.images[: whole.train + tested], whole.labels[: whole.train + tested], whole.train)
    own = replace(bench, images=some)
    rounds = 2 if bench.rehearsal else 8

    def run(thread: int, turn: int) -> list[dict[str, Any]]:
        # the first thread has one batch size: it records once, and replays while the others record
        size = setting.batch_size // 4 + 8 * (thread and thread + 3 * turn)
        # another weight decay is another engine, with streams of its own
        task = {"model": "wrn-10-1", "batch_size": size, "train_size": min(1000, setting.train)}
        task |= {"weight_decay": 1e-4 * (thread and turn % 3)}
        return figures(own.train(own.spec(setting.ratio, 1 + turn, **task), 2, "race", least=2)[0])

    def work(thread: int) -> Callable[[threading.Barrier], list[Any]]:
        def runs(gate: threading.Barrier) -> list[Any]:
            found: list[Any] = []
            for turn in range(rounds):
                gate.wait()  # all begin to record at the same time
                found.append(run(thread, turn))
            return found

        return runs

    bench.say(f"race: {len(TOGETHER)} threads record {rounds} times each")
    lending.keep_idle(len(TOGETHER))
    try:
        together = at_once(bench.device, [work(thread) for thread in range(len(TOGETHER))])
    finally:
        lending.keep_idle(1)
        bench.forget()
    bench.say("race: each of those runs alone")
    differ = [
        {"thread": thread, "turn": turn}
        for thread, turn in itertools.product(range(len(TOGETHER)), range(rounds))
        if together[thread][turn] != run(thread, turn)
    ]
    bench.found["race"] = {"runs": len(TOGETHER) * rounds, "differ": differ, "rows_equal": not differ}
    table(("runs that recorded at once", "rows as alone"), (len(TOGETHER) * rounds, not differ))


def evaluation(bench: Bench) -> None:
    """The test set at the ladder's ratio, in batches of several sizes."""
    setting, found = bench.setting, list[dict[str, Any]]()
    training = Training(bench.spec(setting.ratio), device=bench.device, images=bench.images)
    usual = training.engine.evaluation_batch
    test = np.arange(setting.train, setting.train + setting.test)

    def evaluate() -> float:
        return training.engine.evaluate(test, setting.ratio)().accuracy

    bench.say("evaluation")
    for size in (32, 64) if bench.rehearsal else (132, 264, 500, 528, 792, 1000, 1056, 2112, 5000):
        training.engine.evaluation_batch = size
        accuracy = evaluate()  # recorded here
        seconds = [bench.wall(evaluate) for _ in range(5)]
        line = {"batch": size, "seconds": statistics.median(seconds), "accuracy": accuracy}
        found.append(line)
    bench.found["evaluation"] = found
    training.engine.evaluation_batch = usual
    table(("evaluation batch", "s a pass", "accuracy"), *(tuple(line.values()) for line in found))


def losers(found: Mapping[str, Any] | None) -> list[str]:
    """The techniques without which an epoch is faster, by the part `techniques`."""
    if not found:
        return []
    faster = DROPPED_FROM * found["all"]["epoch_seconds"]
    return [
        name for name in NAMES if (line := found.get(f"without {name}")) and line["epoch_seconds"] <= faster
    ]


def verdict(bench: Bench, off: Sequence[str]) -> str:
    """What the part `techniques` says of them, for people."""
    if not bench.found.get("techniques"):
        return "Which techniques pay is not known: that needs the part `techniques`. All are in use here."
    if bench.rehearsal:
        return "A rehearsal does not tell which techniques pay."
    return f"Techniques that do not pay: {', '.join(off) or 'none'}."


def winners(bench: Bench) -> None:
    """The techniques that pay: an epoch of one run, then two and four in threads and under MPS."""
    off = losers(bench.found.get("techniques"))
    chosen = replace(ALL, **dict.fromkeys(off, False))
    found: dict[str, Any] = {"off": off, **by_turns(bench, {"winners": chosen}, "winners", 3)["winners"]}
    bench.found["winners"] = found
    alone: list[dict[str, Any]] = []
    # where all techniques pay, these are the figures of every study, and `sweep plan` reads them
    lines: list[dict[str, Any]] = [] if off else bench.found["packed"]
    if off:
        found["packed"] = lines
        for runs in (1, 2, 4):
            bench.say(f"winners: {runs} in threads")
            answers = runs_in_threads(bench, runs, 2, chosen)
            gpu_packed.keep_line(bench, lines, alone, answers, threads=True)
    found["mps"] = gpu_packed.under_mps(bench, lines, (1, 2, 4), alone, chosen)
    print(f"{verdict(bench, off)}\n", flush=True)
    gpu_packed.show(lines)
    if not found["mps"]["complete"]:
        print(f"MPS: {found['mps']['why']}\n", flush=True)
