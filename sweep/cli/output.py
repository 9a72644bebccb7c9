"""How commands print and end: data goes to stdout, progress to stderr, an error becomes an exit code."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import typer

from sweep.cluster import in_job
from sweep.cluster.signals import Stopped
from sweep.errors import (
    AbortSweep,
    ChangedStudy,
    DamagedLedger,
    HalfRemoved,
    Held,
    NothingBegun,
    RejectStudy,
    TrackerDown,
)
from sweep.views.mlflow.address import shown_uri
from trainer.exits import INFRASTRUCTURE, USAGE
from trainer.models.own import ModelError
from trainer.plain import harmless, say
from trainer.run_folder import DamagedRun
from trainer.store import StoreError

DEFAULT_STORE = "results"
FROM_ENVIRONMENT = {"--store": "STORE", "--ray-address": "RAY_ADDRESS", "--data-dir": "DATA_DIR"}
"""Options and the environment variables that they are read from."""
TRACKER = "--mlflow-uri"


def print_json(value: Any) -> None:
    """Print strict JSON. NaN and infinities become null."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(value) for key, value in cast("dict[str, Any]", part).items()}
        if isinstance(part, list):
            return [plain(value) for value in cast("list[Any]", part)]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    print(json.dumps(plain(value), indent=1, allow_nan=False))


def show(text: str) -> None:
    """Print text to stdout."""
    print(harmless(text))


def leave(message: str, code: int) -> NoReturn:
    """End the command with a message and an exit code."""
    say(message)
    raise typer.Exit(code)


def program() -> list[str]:
    """The beginning of a command line that starts `sweep` as it was started now."""
    if in_job():
        # on the machine where the study was handed in
        return ["sweep"]
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return ["python", *(["-P"] if sys.flags.safe_path else []), "-m", "sweep"]
    found = shutil.which(script.name)
    here = found and Path(found).resolve() == script.resolve()
    return [script.name if here else os.path.relpath(script)]


def this_command() -> str:
    """The command line as it was typed, with the options that were read from the environment.

    Another shell may lack these variables. A tracker's address that holds a password is not repeated. A
    study that was handed in is handed in again.
    """
    typed, tracker = _without_secret_uri(sys.argv[1:])
    if in_job():
        return with_tracker(shlex.join([*program(), "submit", *typed[1:]]), tracker)
    options = {argument.partition("=")[0] for argument in typed}
    from_environment: list[str] = []
    for option, variable in FROM_ENVIRONMENT.items():
        if os.environ.get(variable) and option not in options:
            from_environment += [option, os.environ[variable]]
    return with_tracker(shlex.join([*program(), *typed, *from_environment]), tracker)


def _without_secret_uri(typed: list[str]) -> tuple[list[str], str | None]:
    """The arguments without --mlflow-uri where its value has to be hidden, and that value."""
    for i, argument in enumerate(typed):
        option, mark, value = argument.partition("=")
        if option == TRACKER:
            end = i + (1 if mark else 2)
            uri = value if mark else " ".join(typed[i + 1 : end])
            if shown_uri(uri) != uri:
                return [*typed[:i], *typed[end:]], uri
    return typed, None


def with_tracker(command: str, uri: str | None) -> str:
    """A command line with the tracker's address. One that has to be hidden comes by the environment."""
    if not uri:
        return command
    if (shown := shown_uri(uri)) == uri:
        return f"{command} {TRACKER} {shlex.quote(uri)}"
    return (
        f"{command}\nBefore that, set MLFLOW_TRACKING_URI to {shown}; *** stands for what is not shown here."
    )


def command_for(command: str, study: str, store: str, *more: str) -> str:
    """The command line of another command for the same study and store. `more` stands at its end."""
    options = [*(["--store", store] if store != DEFAULT_STORE else []), *more]
    return shlex.join([*program(), command, study, *options])


@contextmanager
def errors(study: str, store: str) -> Generator[None]:
    """Turn each kind of error into a message and an exit code."""
    try:
        yield
    except NothingBegun as error:
        leave(f"{error} To begin it: {command_for('run', study, store)}", USAGE)
    except HalfRemoved as error:
        leave(f"{error} To remove what is left: {command_for('remove', study, store)}", INFRASTRUCTURE)
    except (RejectStudy, ChangedStudy) as error:
        leave(str(error), USAGE)
    except ModelError as error:
        leave("\n".join(filter(None, [error.trace, str(error)])), USAGE)
    except (AbortSweep, Held, DamagedLedger, DamagedRun, StoreError, TrackerDown) as error:
        leave(str(error), INFRASTRUCTURE)
    except Stopped as stop:
        message = f"stopped by {stop.received.name}. To continue: {this_command()}"
        leave(message, 128 + stop.received)
    except KeyboardInterrupt:
        leave("", 130)
