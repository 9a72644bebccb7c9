"""A lab of three hosts for a file of drills, and the numbers of a sweep that nothing disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.drills import Lab, Rows, Swept, numbers, undisturbed
from tests.cluster.lan import Lan, NoNamespaces

Drill = Callable[[Lab], list[Swept]]


@pytest.fixture(scope="session")
def quiet_numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, list[bytes]]:
    return undisturbed(tmp_path_factory.mktemp("quiet"))


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """Return a network; the test is skipped where no hosts can be made."""
    try:
        with Lan() as tried:
            tried.add()
    except NoNamespaces as reason:
        pytest.skip(f"this machine allows no network namespaces: {reason}")
    with Lan() as lan:
        yield lan


@pytest.fixture(scope="module")
def lab(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(lan, tmp_path_factory.mktemp("lab")).begin(3)
    lab.ready()
    return lab


def assert_exact(swept: list[Swept], quiet_numbers: tuple[Rows, list[bytes]]) -> None:
    """Assert that sweeps have the undisturbed rows and proposals, and spent no try."""
    for sweep in swept:
        assert numbers(sweep.store, sweep.name) == quiet_numbers
        assert sweep.tries_spent == 0, sweep.said
