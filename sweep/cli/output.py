"""What a command says and how it ends: stdout is data, stderr is progress, an error is a message and an exit code."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import typer

from sweep.errors import ChangedStudy, DamagedLedger, Held, NothingBegun, RejectStudy, TrackerDown
from trainer.exits import INFRASTRUCTURE, USAGE
from trainer.run_folder import DamagedRun
from trainer.store import StoreError

DEFAULT_STORE = "results"
FROM_ENVIRONMENT = {"--store": "STORE", "--ray-address": "RAY_ADDRESS", "--data-dir": "DATA_DIR"}


def print_json(value: Any) -> None:
    """Print strict JSON: what is not a number yet is null."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(value) for key, value in cast("dict[str, Any]", part).items()}
        if isinstance(part, list):
            return [plain(value) for value in cast("list[Any]", part)]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    print(json.dumps(plain(value), indent=1, allow_nan=False))


def say(line: str) -> None:
    """Tell whoever watches."""
    print(line, file=sys.stderr)


def leave(message: str, code: int) -> NoReturn:
    """End with a message."""
    say(message)
    raise typer.Exit(code)


def program() -> list[str]:
    """How this command was started."""
    given = Path(sys.argv[0])
    return ["python", "-m", "sweep"] if given.name == "__main__.py" else [os.path.relpath(given)]


def again() -> str:
    """The command as it was given, with what it took from the environment: another shell may not have that."""
    given = sys.argv[1:]
    names = {part.partition("=")[0] for part in given}
    taken = [
        part
        for option, name in FROM_ENVIRONMENT.items()
        if os.environ.get(name) and option not in names
        for part in (option, os.environ[name])
    ]
    return shlex.join([*program(), *given, *taken])


def other(command: str, study: str, store: str) -> str:
    """Another command for the same study and store."""
    return shlex.join([*program(), command, study, *(["--store", store] if store != DEFAULT_STORE else [])])


@contextmanager
def errors(study: str, store: str) -> Generator[None]:
    """Turn each kind of error of a command for a study into a message and an exit code."""
    try:
        yield
    except NothingBegun as error:
        leave(f"{error} To begin it: {other('run', study, store)}", USAGE)
    except (RejectStudy, ChangedStudy) as error:
        leave(str(error), USAGE)
    except (Held, DamagedLedger, DamagedRun, StoreError, TrackerDown) as error:
        leave(str(error), INFRASTRUCTURE)
    except KeyboardInterrupt:
        leave("", 130)
