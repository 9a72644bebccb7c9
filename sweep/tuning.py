"""What Tune is given to ask, tell and stop by. All of it leads to the driver; nothing is decided here."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher

if TYPE_CHECKING:
    from sweep.driver import Driver


class Asking(Searcher):
    """Tune asks for the next attempt."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        return True  # the slots are counted by the driver, which sees nodes come and go

    def suggest(self, trial_id: str) -> Any:
        return self.driver.guarded(lambda: self.driver.hand_out(trial_id)) or (Searcher.FINISHED if self.driver.error else None)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass


class Hearing(tune.Callback):
    """Tune tells what happens to attempts."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.driver.begin(trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self.driver.guarded(lambda: self.driver.heard(trial.trial_id, json.loads(result["report"])))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.driver.guarded(lambda: self.driver.lost(trial.trial_id, _reason(trial)))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.driver.guarded(self.driver.tend)


class Stopping(tune.Stopper):
    """Ends each attempt at its next report, which lets it keep its last epoch; all of them at once when that takes too long."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.driver.stopping

    def stop_all(self) -> bool:
        return self.driver.out_of_patience()


def name_of(trial: Any) -> str:
    """An attempt's name, and its folder's: nothing of its configuration, which is long."""
    return trial.trial_id


def _reason(trial: Any) -> str:
    """Why a process is gone, as far as Ray can tell."""
    text = ""
    with suppress(OSError):
        text = Path(trial.local_path, "error.txt").read_text()
    for sign, reason in _SIGNS.items():
        if sign in text:
            return reason
    return "its process ended: it was killed, or ran out of memory."


_SIGNS = {
    "node was dead": "its node is gone.",
    "node has died": "its node is gone.",
    "node died": "its node is gone.",
    "OutOfMemory": "it was ended because its node was out of memory.",
    "memory pressure": "it was ended because its node was out of memory.",
}
