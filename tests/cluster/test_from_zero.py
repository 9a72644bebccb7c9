"""A sweep on a cluster without a node for it, which grows when there is demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import drills
from tests.cluster.conftest import assert_exact
from tests.cluster.drills import Lab, Rows
from tests.cluster.lan import Lan

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@pytest.mark.timeout(600)
def test_a_cluster_without_nodes_grows_for_a_sweep_and_shrinks_after_it(
    lan: Lan, tmp_path: Path, quiet_numbers: tuple[Rows, list[bytes]]
) -> None:
    lab = Lab(lan, tmp_path).begin_from_zero()
    assert_exact(drills.from_zero(lab), quiet_numbers)
