"""What makes a step fast, on the device: each technique on and off, and several runs at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from tests.conftest import run_spec, without_wall
from trainer import lending, streams
from trainer.engine import Images
from trainer.spec import RunSpec
from trainer.techniques import ALL, Techniques
from trainer.training import Training

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

SAWTOOTH = {"name": "sawtooth", "period": 2, "decay": 0.3}


@pytest.mark.parametrize("off", [field.name for field in fields(Techniques)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_a_technique_a_run_learns_alike_and_the_same_twice(precision: str, off: str) -> None:
    """All activations survive: a near-tie could be decided otherwise, and two runs would part ways."""
    spec = run_spec({"name": "dense"}, epochs=2, precision=precision, train_size=320, learning_rate=0.02)
    techniques = replace(ALL, **{off: False})
    rows = list(Training(spec, device="cuda"))
    mine, again = (list(Training(spec, device="cuda", techniques=techniques)) for _ in range(2))
    assert without_wall(again) == without_wall(mine)
    for row, other in zip(mine, rows, strict=True):
        assert row.train_loss == pytest.approx(other.train_loss, rel=0.03)


def test_runs_at_once_have_the_rows_that_they_have_alone() -> None:
    """They record at the same time and replay while others record, with other batch sizes and policies."""
    specs = [
        run_spec(
            {**SAWTOOTH, "survivors": "random" if number % 2 else "largest"},
            seed=number,
            epochs=4,
            precision="bfloat16",
            train_size=100 + 3 * number,
            batch_size=16 + number,
            validation=0.1,
            endpoints=[1, 0.3],
        )
        for number in range(8)
    ]
    images = Training(specs[0], device="cuda").images
    alone = [results(spec, images) for spec in specs]
    lending.forget()
    lending.keep_idle(4)
    barrier = threading.Barrier(4)

    def begin() -> None:
        torch.cuda.set_stream(streams.lend(threading.current_thread(), torch.device("cuda")))

    def run(number: int) -> Any:
        if number < 4:
            barrier.wait()
        return results(specs[number], images)

    with ThreadPoolExecutor(4, initializer=begin) as pool:
        together = list(pool.map(run, range(8)))
    lending.keep_idle(1)
    assert together == alone


def results(spec: RunSpec, images: Images) -> Any:
    training = Training(spec, device="cuda", images=images)
    return without_wall(list(training)), training.endpoints
