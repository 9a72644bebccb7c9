"""Engines are lent to runs and given back, so that a run finds the recordings of the one before."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import torch

from trainer.engine import Engine, Images
from trainer.models import own
from trainer.spec import Task
from trainer.techniques import Techniques

_idle: list[tuple[tuple[Any, ...], Engine]] = []
"""The engines given back last, with the task that each fits."""
_idle_lock = threading.RLock()  # a collection of garbage may give an engine back at any point
_most_idle = 1


def keep_idle(count: int) -> None:
    """Keep so many idle engines, at least one: as many as there are runs at once.

    Their recordings fill much of a GPU.
    """
    global _most_idle
    _most_idle = count


def acquire(
    user: object, task: Task, images: Images, device: torch.device, techniques: Techniques
) -> Engine:
    """An engine for this task, lent until `user` is garbage-collected.

    An engine that was given back is reused with its recordings if it fits the task.
    """
    network = (task.data, task.model, task.shortcut, task.dropout, task.precision, task.batch_size)
    # code of one's own may read any setting of the task when it builds a network
    read_by_own = task if own.package_of(task.model) else None
    key = (*network, read_by_own, task.momentum, task.weight_decay, id(images), device, techniques)
    engine = _take(key)
    if engine is None:
        _collect(device)  # a cycle of references may still hold the user of a fitting engine
        engine = _take(key)
    if engine is None:
        forget()  # memory may not suffice for these and the new one
        _collect(device)
        engine = Engine(task, images, device, techniques)
    weakref.finalize(user, _give_back, key, engine).atexit = False
    return engine


def _take(key: tuple[Any, ...]) -> Engine | None:
    with _idle_lock:
        for i, (fits, engine) in enumerate(_idle):
            if fits == key:
                del _idle[i]
                return engine
    return None


def _collect(device: torch.device) -> None:
    """Collect garbage if the device is a GPU, whose memory is scarce.

    A collection takes longer than a small run on a CPU.
    """
    if device.type != "cpu":
        gc.collect()


def _give_back(key: tuple[Any, ...], engine: Engine) -> None:
    with _idle_lock:
        _idle.append((key, engine))
        del _idle[:-_most_idle]


def forget() -> None:
    """Drop all idle engines."""
    with _idle_lock:
        _idle.clear()
