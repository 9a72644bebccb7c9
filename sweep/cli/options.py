"""What every command of `sweep` shares: options, exit codes, errors as messages, JSON. stdout is data, stderr is progress."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from sweep import __version__
from sweep.errors import ChangedStudy, DamagedLedger, Held, RejectStudy
from trainer.run_folder import DamagedRun
from trainer.store import StoreError

DONE, FAILED, USAGE, INFRASTRUCTURE = 0, 1, 2, 3
DEFAULT_STORE = "results"
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sweeps over seeded training runs. exit: 0 done, 1 some runs failed, 2 usage or study, 3 infrastructure, 130/143 stopped",
)
StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="a YAML file, or the name of one in search_spaces/")
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="STORE", metavar="DIR", help="a folder, or a URL such as s3://bucket/prefix"
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="A",
        help="a Ray cluster that this machine is part of; else one is started here",
    ),
]
DataOption = Annotated[
    Path, typer.Option("--data-dir", envvar="DATA_DIR", metavar="DIR", help="where fetched data sets live")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout")]
MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow-uri",
        envvar="MLFLOW_TRACKING_URI",
        metavar="U",
        help="an MLflow server or database; none for no MLflow; SQLite in the store's folder by default",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        print(f"pairsweep {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_version, help="print the version and end"),
]


@app.callback()
def options(version: VersionOption = False) -> None:
    """What can be said without a command."""


def place_of(store: str) -> str:
    """Absolute, because an actor's working folder is another one."""
    return store if "://" in store else str(Path(store).expanduser().absolute())


def program() -> list[str]:
    """How this command was started."""
    given = Path(sys.argv[0])
    return ["python", "-m", "sweep"] if given.name == "__main__.py" else [os.path.relpath(given)]


FROM_ENVIRONMENT = {"--store": "STORE", "--ray-address": "RAY_ADDRESS", "--data-dir": "DATA_DIR"}


def again() -> str:
    """The command as it was given, with what it took from the environment: another shell may not have that."""
    given = sys.argv[1:]
    taken = [
        part
        for option, name in FROM_ENVIRONMENT.items()
        if os.environ.get(name) and not any(it.partition("=")[0] == option for it in given)
        for part in (option, os.environ[name])
    ]
    return shlex.join([*program(), *given, *taken])


def other(command: str, study: str, store: str) -> str:
    """Another command for the same study and store."""
    return shlex.join([*program(), command, study, *(["--store", store] if store != DEFAULT_STORE else [])])


def print_json(value: Any) -> None:
    """Strict JSON: what is not a number yet is null."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(it) for key, it in cast("dict[str, Any]", part).items()}
        if isinstance(part, list):
            return [plain(it) for it in cast("list[Any]", part)]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    print(json.dumps(plain(value), indent=1, allow_nan=False))


def say(line: str) -> None:
    """To whoever watches."""
    print(line, file=sys.stderr)


def leave(message: str, code: int) -> NoReturn:
    """End with a message."""
    say(message)
    raise typer.Exit(code)


@contextmanager
def errors() -> Generator[None]:
    """Each kind of error as a message and an exit code."""
    try:
        yield
    except (RejectStudy, ChangedStudy) as error:
        leave(str(error), USAGE)
    except (Held, DamagedLedger, DamagedRun, StoreError) as error:
        leave(str(error), INFRASTRUCTURE)
    except KeyboardInterrupt:
        leave("", 130)
