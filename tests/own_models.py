"""Packages with models of one's own, for tests: the one of docs/one-run.md, and the examples."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from trainer.models import own

EXAMPLES = ROOT / "examples"
(SMALL,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "one-run.md").read_text(), re.DOTALL | re.M)
"""The module in the documents. It has a function `build`."""
SMALL_STUDY: dict[str, Any] = {
    "task": {"model": "small:build"},
    "arms": {name: {"policy": {"name": name}} for name in ("dense", "set")},
}
"""A study of it, of twelve runs."""


def changed(*changes: tuple[str, str]) -> str:
    """Return that module with texts replaced, each of which stands in it once."""
    source = SMALL
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


@contextmanager
def importable(*folders: Path) -> Generator[None]:
    """Let this process look for packages in these folders. It forgets them in the end."""
    loaded = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "_allowed", {})
        patch.setattr(own, "_tried", set())
        for folder in folders:
            patch.syspath_prepend(folder)
        yield
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name not in loaded and any(Path(file).is_relative_to(folder) for folder in folders):
            del sys.modules[name]
