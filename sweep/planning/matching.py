"""The network of an arm that has as many parameters as another one, once that one's runs have been counted. Pure. (Settings that are taken
from another arm need no count: `Study.taken`.)"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweep.errors import RejectStudy
from sweep.planning.work import Result
from sweep.study.study import Study


def network(study: Study, arm: str, counted: Sequence[Result]) -> str:
    """The dense network nearest to the mean count of these runs; those of a diverged finalist were counted too.

    RejectStudy where none of them says how many parameters it had: the network that is written would be another comparison than the
    declared one.
    """
    match = study.arms[arm].match
    assert match
    counts = [
        result.parameters_start if match.counted == "start" else result.parameters_end for result in counted
    ]
    if known := [count for count in counts if count]:
        return study.matched(arm, round(math.fsum(known) / len(known)))
    raise RejectStudy(
        [
            f"{study.name}: arms.{study.base_of(arm)}.match: no run of {match.arm!r} says how many parameters it had: all were made before "
            "runs said so. Leave the arm out, or give the study another name: then they are made anew."
        ]
    )
