"""What is installed is what was locked: each file by its hash, and no source that runs code to be built."""

from __future__ import annotations

import re

import pytest

from tests.security.victim import TREE

LOCKS = ("requirements.lock", "requirements-uv.txt", "requirements-audit.txt")


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_version_and_a_hash(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (TREE / name).read_text().strip())
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert packages
    for entry in packages:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_every_install_of_a_lock_asks_for_hashes_and_refuses_sources() -> None:
    recipes = (TREE / "Makefile").read_text().replace("\\\n", " ")
    installs = [
        line for line in recipes.splitlines() if re.search(r"pip (install|sync).*(-r |requirements)", line)
    ]
    installs = [line for line in installs if "--constraint" not in line]
    assert installs
    for line in installs:
        assert "--require-hashes" in line, line
        assert "--only-binary :all:" in line, line
