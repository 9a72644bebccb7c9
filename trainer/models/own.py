"""Models of one's own: functions that build a network, named `package.module:build`.

Reading such a name imports nothing. Code runs when a network is built, and only that of packages which the
user allowed for this process.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import sysconfig
import threading
import traceback
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.code import code_hash
from trainer.settings import nearest

if TYPE_CHECKING:
    import torch

    from trainer.models import Image, Settings
    from trainer.models.sites import Network

NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
OPTION = "--allow-code"
"""The option of both commands that allows the code of a package."""
_allowed: dict[str, None] = {}
"""The packages whose code this process may run, in the order in which they were allowed."""
_tried: set[tuple[str, Image, int]] = set()
"""What was tried in this process: the models, with the shape of a sample and the number of classes."""
_path_lock = threading.RLock()


class ModelError(ValueError):
    """The error for code of one's own that cannot be run, or builds no network. The user has to mend it."""

    def __init__(self, problem: str, trace: str = "") -> None:
        self.trace = trace
        """Where the user's code raised an exception; empty where it did not."""
        super().__init__(problem)


def package_of(model: str) -> str | None:
    """The package that has a model of one's own; None for the other models."""
    return re.split("[.:]", model)[0] if NAME.fullmatch(model) else None


def allow(packages: Iterable[str]) -> None:
    """Let this process run the code of these packages. Raises ModelError where one is not found."""
    for package in packages:
        source(package)
        _allowed[package] = None


def allowed() -> list[str]:
    """The packages whose code this process may run."""
    return list(_allowed)


def refusal(model: str) -> str | None:
    """Why a model is not built here: it is code that nobody allowed. None where it may be built."""
    package = package_of(model)
    if package is None or package in _allowed:
        return None
    return f"{model!r} is code, which runs only where the command allows it: {OPTION} {package}"


def source(package: str) -> Path:
    """The folder of a package, or the file of a module, without running any of it."""
    if not package.isidentifier():
        example = "networks for the model networks.residual:build"
        raise ModelError(f"{OPTION} {package}: must be the first part of a model's name, such as {example}.")
    with _users_path():
        try:
            spec = find_spec(package)
        except ValueError:  # the module that Python was started with has no spec
            spec = None
    if spec is None:
        advice = "Install it, or name the folder that it lies in: PYTHONPATH=FOLDER"
        raise ModelError(f"{OPTION} {package}: Python finds no such package. {advice}")
    places = list(spec.submodule_search_locations or ())
    if spec.has_location and spec.origin and not places:
        places = [spec.origin]
    if len(places) != 1:
        where = f"in several folders ({', '.join(places)})" if places else "in no file"
        raise ModelError(f"{OPTION} {package}: lies {where}. Put its code into one folder, or in one file.")
    return Path(places[0])


def hash_of(package: str) -> str:
    """A hash of the sources of a package."""
    return code_hash(source(package))


def record(model: str) -> dict[str, str]:
    """What an attempt records of a model of one's own: the package and its hash. Empty for other models."""
    package = package_of(model)
    return {"own_code": f"{package} {hash_of(package)}"} if package else {}


def build(task: Settings, image: Image, classes: int, generator: torch.Generator) -> Network:
    """Build a network by the function that the task names. `generator` draws its weights.

    A process tries each model before it builds the first one. Raises ModelError where it is no network.
    """
    key = task.model, image, classes
    if key not in _tried:
        import torch

        from trainer.models.own_checks import problem_of

        one, another = (_built(task, image, classes, torch.Generator().manual_seed(1)) for _ in range(2))
        with _reported(task.model, "raised an error in a pass of two samples"):
            problem = problem_of(one, another, image, classes)
        if problem:
            raise ModelError(f"{task.model!r} {problem}")
        _tried.add(key)
    return _built(task, image, classes, generator)


def _built(task: Settings, image: Image, classes: int, generator: torch.Generator) -> Network:
    from trainer.models.sites import Network

    function = _function(task.model)
    with _reported(task.model, "raised an error"):
        network = function(task, image, classes, generator)
    if not isinstance(network, Network):
        kind = type(network).__name__
        raise ModelError(f"{task.model!r} must return a trainer.models.sites.Network; it returned {kind}.")
    return network


def _function(model: str) -> Any:
    """The function that a model names."""
    if why := refusal(model):
        raise ModelError(why)
    module_name, name = model.split(":")
    with _users_path(), _reported(model, "cannot be imported"):
        module = importlib.import_module(module_name)
    if not hasattr(module, name):
        raise ModelError(f"{model!r}: {module_name} has no {name!r}.{nearest(name, vars(module))}")
    function = getattr(module, name)
    if not callable(function):
        raise ModelError(f"{model!r} must be a function; it is of the type {type(function).__name__}.")
    return function


@contextmanager
def _reported(model: str, what: str) -> Generator[None]:
    """Turn what the user's code raises into a ModelError with the user's part of the traceback."""
    try:
        yield
    except (Exception, SystemExit) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        problem = f"{model!r} {what}: {type(error).__name__}: {first}"
        raise ModelError(problem, _users_trace(error, model)) from None


def _users_trace(error: BaseException, model: str) -> str:
    """The traceback of an error from the first line of the user's code on; empty where it has none."""
    trace, package = traceback.TracebackException.from_exception(error), package_of(model)
    assert package
    code = source(package)
    users = [i for i, frame in enumerate(trace.stack) if Path(frame.filename).is_relative_to(code)]
    if not users and not isinstance(error, SyntaxError):
        return ""
    trace.stack = traceback.StackSummary.from_list(trace.stack[users[0] :] if users else [])
    return "".join(trace.format()).rstrip()


@contextmanager
def _users_path() -> Generator[None]:
    """Look for packages as the user meant it: not in the folder that the process happens to stand in.

    `python -m` and Ray put that folder before the standard library. It stays where PYTHONPATH names it.
    """
    with _path_lock:
        here = Path.cwd()
        named = [
            Path(entry).absolute() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry
        ]
        end = sys.path.index(sysconfig.get_path("stdlib"))
        first = list(enumerate(sys.path[:end]))
        hidden = [(i, entry) for i, entry in first if Path(entry).absolute() == here and here not in named]
        sys.path[:end] = [entry for i, entry in first if (i, entry) not in hidden]
        try:
            yield
        finally:
            for i, entry in hidden:
                sys.path.insert(i, entry)
