"""What Ray Tune is given: actor, searcher, callback, stopper and slots. They decide nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray import tune
from ray.air import ResourceRequest
from ray.air.execution import ResourceManager
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.train.constants import RAY_CHDIR_TO_TRIAL_DIR
from ray.tune import TuneError as TuneError
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.search import Searcher

from sweep.cluster.guest import Guest, mps_runs, why_gone
from sweep.cluster.reports import from_json, to_json
from sweep.cluster.worker import Worker
from trainer.reports import Busy, Ended, Failed, Report
from trainer.worker import Job

if TYPE_CHECKING:
    # an actor imports this module, and needs none of the driver's
    from sweep.cluster.slots import Slot, Slots

PAUSE_SECONDS = 0.1
"""The time between two questions for work where nothing is under way."""


class Driver(Protocol):
    """The one who decides, as Tune's classes see it: it hands out attempts and hears what comes of them."""

    error: Exception | None

    @property
    def stopping(self) -> bool: ...
    def hand_out(self, trial: str) -> Job | str | None: ...
    def begin(self, trial: Any) -> None: ...
    def heard(self, trial: str, report: Report) -> None: ...
    def lost(self, trial: str, reason: str) -> None: ...
    def tend(self) -> None: ...
    @property
    def out_of_patience(self) -> bool: ...
    def guarded(self, call: Callable[[], Any]) -> Any: ...


class _Attempt(tune.Trainable):
    """The actor that works on attempts, one after the other.

    Setting up and resetting only store the job. All that can fail is in `step`, which reports it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        job = Job(**config["job"])
        self.worker = Guest(job, self.trial_id) if job.hosted and not mps_runs() else Worker(job)
        self.failed, self.leaves = False, ""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self.failed:
            # a process in which an attempt failed is not used again: its state is unknown
            os._exit(1)
        report = self.worker.step() if not self.leaves else self._left()
        self.failed = isinstance(report, Failed)
        text = to_json(report, ray.get_runtime_context().get_node_id())
        return {"report": text, "done": isinstance(report, Busy | Ended)}

    def enter(self, host: Any) -> None:
        """Take the host that the driver chose. The attempt asked for one in its first report."""
        assert isinstance(self.worker, Guest)
        self.worker.host = host

    def hand_over(self, reason: str) -> None:
        """Commit the last whole epoch and leave the run to another attempt, which is no fault of the run."""
        self.leaves = reason
        self.worker.stop()

    def _left(self) -> Report:
        run_id = self.worker.job.run_id
        return Failed(run_id=run_id, messages=[], reason=self.leaves, log=[], blame=False)

    def cleanup(self) -> None:
        self.worker.stop()


class Asking(Searcher):
    """The searcher, which Tune asks for the next attempt."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        # the driver counts the slots, because it sees nodes come and go
        return True

    def suggest(self, trial_id: str) -> Any:
        job = self.driver.guarded(lambda: self.driver.hand_out(trial_id))
        if isinstance(job, Job):
            return {"job": asdict(job)}
        return job or (Searcher.FINISHED if self.driver.error else None)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass


class Hearing(tune.Callback):
    """The callback, which Tune tells what happens to attempts."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.driver.begin(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.driver.guarded(lambda: self.driver.heard(trial.trial_id, from_json(result["report"])))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.driver.guarded(lambda: self.driver.lost(trial.trial_id, _reason(trial)))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.driver.guarded(self.driver.tend)


class Stopping(tune.Stopper):
    """The stopper, which ends attempts after a signal.

    Each attempt ends at its next report, so that it commits its last epoch. All of them end at once when
    that takes too long.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.driver.stopping

    def stop_all(self) -> bool:
        return self.driver.out_of_patience


@dataclass
class Taken(PlacementGroupAcquiredResources):
    """A slot that Tune has an actor in, from the actor's start to its end."""

    slot: Slot


class Room(ResourceManager):
    """The driver's slots as Tune asks for them, in place of placement groups of Tune's own."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.nothing_under_way: Callable[[], bool] = bool

    def request_resources(self, resource_request: ResourceRequest) -> None:
        pass  # the driver has asked already, for all runs that are ready

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        pass

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        return self.slots.free is not None

    def acquire_resources(self, resource_request: ResourceRequest) -> Taken:
        slot = self.slots.take()
        return Taken(resource_request, slot.group, slot)

    def free_resources(self, acquired_resource: Any) -> None:
        self.slots.leave(acquired_resource.slot)

    def get_resource_futures(self) -> list[Any]:
        # Tune asks this before it waits for an event; with nothing to wait for it would not wait at all
        if self.nothing_under_way():
            time.sleep(PAUSE_SECONDS)
        return []

    def clear(self) -> None:
        self.slots.clear()


class Controller(TuneController):
    """Tune's loop, with the driver's slots."""

    def __init__(self, *, driver: Driver, slots: Slots, **given: Any) -> None:
        self.driver, room = driver, Room(slots)
        super().__init__(resource_manager_factory=lambda: room, **given)
        manager: Any = self._actor_manager
        events = (manager._actor_state_events, manager._actor_task_events)
        room.nothing_under_way = lambda: not any(event.get_futures() for event in events)

    def _update_trial_queue(self, blocking: bool = False, timeout: int = 600) -> bool:
        # Tune would ask for up to ten minutes, and meanwhile call nobody else
        return super()._update_trial_queue(blocking=False)

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        # Tune would throw away the process that starts for this attempt, although another attempt has none.
        # With runs shorter than a process's start, only one run would then be under way at a time.
        pending, having = self._pending_trials, self._trial_to_actor
        waits_for_its_own = trial in having and any(other not in having for other in pending)
        return not waits_for_its_own and super()._maybe_reuse_cached_actor(trial)

    def _maybe_cache_trial_actor(self, trial: Any) -> bool:
        # After a signal a process ends, and commits as it ends. An attempt that is still starting would take
        # it instead, and nobody would commit the run that it trained.
        return not self.driver.stopping and super()._maybe_cache_trial_actor(trial)

    def _cleanup_cached_actors(self, force_all: bool = False) -> None:
        cache: Any = self._actor_cache
        manager: Any = self._actor_manager
        idle = [actor for actors in cache._cached_objects.values() for actor in actors]
        taken: list[Taken | None] = [manager.get_actor_resources(actor) for actor in idle]
        back = any(one and manager._resource_manager.slots.wants_back(one.slot) for one in taken)
        super()._cleanup_cached_actors(force_all=force_all or back)


def fit(
    driver: Driver, slots: Slots, name: str, folder: str, *, cpus: int, gpus: float, shared: bool
) -> None:
    """Let Tune run the driver's attempts until there are no more. Nobody reads what Tune writes to `folder`.

    An attempt takes `cpus` and `gpus`, and is in one of the slots. `shared` says that this process did not
    start the cluster.
    """
    # Tune has no option for it
    controller = partial(Controller, driver=driver, slots=slots)
    setattr(sys.modules["ray.tune.tune"], "TuneController", controller)  # noqa: B010
    # Tune asks for environment variables in its actors' processes, among them the keys of AWS. Ray writes
    # what is asked for to logs and command lines, which everybody can read. A node has keys of its own.
    class_cache.ENV_VARS_TO_PROPAGATE = {RAY_CHDIR_TO_TRIAL_DIR} if shared else set[str]()
    if not shared:
        # on this machine they have the other variables already, and without a request for any Ray uses the
        # processes that it started first
        class_cache.DEFAULT_ENV_VARS = {}
    tune.Tuner(
        tune.with_resources(_Attempt, {"cpu": cpus, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=Asking(driver),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=folder,
            verbose=0,
            callbacks=[Hearing(driver)],
            stop=Stopping(driver),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            log_to_file=False,
        ),
    ).fit()


def name_of(trial: Any) -> str:
    """The name of an attempt and of its folder, without the attempt's configuration, which is long."""
    return trial.trial_id


def _reason(trial: Any) -> str:
    """The reason why a process is gone, as far as Ray can tell."""
    text = ""
    with suppress(OSError):
        text = Path(trial.local_path, "error.txt").read_text()
    return why_gone(text)
