"""The attempt that Tune gives a free process to, and the process that nobody gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sweep.cluster.tuning import Controller


def given(trial: str, *, pending: set[str], starting: set[str]) -> bool:
    """Say whether the process is given to this attempt."""
    controller: Any = Controller.__new__(Controller)
    vars(controller).update(
        _pending_trials=pending, _trial_to_actor=dict.fromkeys(starting), _resetting_trials={trial}
    )
    return controller._maybe_reuse_cached_actor(trial)


def test_a_process_that_starts_is_waited_for_while_another_attempt_has_none() -> None:
    assert not given("first", pending={"first", "second"}, starting={"first"})
    assert given("second", pending={"first", "second"}, starting={"first"})


def test_a_free_process_is_taken_instead_of_one_that_starts_where_nobody_else_wants_it() -> None:
    assert given("first", pending={"first"}, starting={"first"})


def test_after_a_signal_no_attempt_takes_a_process_which_would_then_not_commit_its_run() -> None:
    stopping: Any = SimpleNamespace(driver=SimpleNamespace(stopping=True))
    assert vars(Controller)["_maybe_cache_trial_actor"](stopping, "first") is False
