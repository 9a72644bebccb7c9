"""The code that a sweep sends to a cluster: its own, and the packages that the user allowed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import sweep
import trainer
from trainer.models import own


def code_to_send(packages: Iterable[str]) -> list[str]:
    """The folders of our packages and the places of the user's, for Ray's `py_modules`.

    They are paths: within a job Ray copies what it is given, and cannot copy modules.
    """
    ours = [str(Path(module.__path__[0])) for module in (trainer, sweep)]
    return [*ours, *(str(own.source(package)) for package in packages)]
