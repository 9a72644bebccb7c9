"""The rules for the confirmation of a study: whether its tests, at its looks, can reject anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from sweep.statistics import pairs_needed, smallest_p_value
from sweep.study.contents import Contents
from sweep.study.document import Place, Problem


def design_problems(contents: Contents) -> Iterator[Problem]:
    """Why a study that could run should not: its confirmation cannot reject anything."""
    analysis, looks = contents.analysis, contents.looks
    if analysis.test == "resampled-t" and contents.search.replicates > 1 and contents.confirm.seeds > 1:
        reason = "must be 1 with resampled-t and several searches: the test knows pairs, not means of pairs"
        yield ("confirm", "seeds"), f"{reason}. Write more search.replicates."
    if contents.blocks < 2:
        yield ("confirm", "seeds"), f"a paired test needs at least 2; it is {contents.blocks}."
    elif problem := _looks_problem(contents):
        yield ("analysis", "looks"), problem
    elif analysis.test == "sign-flip" and not _can_reject(contents, looks[0]):
        yield _too_few(contents)
    if contents.confirm.stop and not isinstance(analysis.looks, list):
        reason = "has no use without a list in analysis.looks: a study can end early only at a look"
        yield ("confirm", "stop"), f"{reason}."


def _looks_problem(contents: Contents) -> str | None:
    """What is wrong with `analysis.looks`, but for looks at too few pairs."""
    looks, declared = contents.analysis.looks, contents.looks
    if looks == "any" and contents.analysis.test != "sign-flip":
        return (
            "must be a list of numbers, or left out: looks at any time take a test of their own, "
            f"and {contents.analysis.test} is declared."
        )
    if any(after <= before for before, after in itertools.pairwise(declared)):
        return f"must rise from look to look; it is {declared}."
    if declared[-1] > contents.blocks:
        what = "search.replicates" if contents.search.replicates > 1 else "confirm.seeds"
        return f"must not go beyond {what}, which is {contents.blocks}; it ends with {declared[-1]}."
    return None


def _can_reject(contents: Contents, pairs: int) -> bool:
    """Whether sign-flip tests of so many pairs can reject, with all looks and comparisons paid for."""
    tests = contents.comparisons * len(contents.looks)
    return smallest_p_value(pairs) <= contents.analysis.alpha / tests


def _too_few(contents: Contents) -> Problem:
    """The problem that the first look has too few pairs to reject anything, with the number that could."""
    comparisons, alpha, looks = contents.comparisons, contents.analysis.alpha, contents.looks
    several = contents.search.replicates > 1
    needed = pairs_needed(comparisons * len(looks), alpha)
    at_looks = f" at {len(looks)} looks" if len(looks) > 1 else ""
    reason = (
        f"an exact sign-flip test of {looks[0]} pairs cannot go below p = {smallest_p_value(looks[0]):.2g}, "
        f"and {comparisons} comparisons under Holm at {alpha:g}{at_looks} need "
        f"{alpha / comparisons / len(looks):.2g}. "
    )
    if len(looks) > 1:
        more = f"A first look takes at least {needed} pairs, or fewer looks."
        return ("analysis", "looks"), f"{reason}{more}"
    where: Place = ("search", "replicates") if several else ("confirm", "seeds")
    what = "searches (the seeds within a search do not count)" if several else "seeds"
    return where, f"{reason}It takes at least {needed} {what}, or fewer comparisons."
