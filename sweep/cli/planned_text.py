"""The plan of a study for a person: a table of the arms, lines about work, time and tests, and warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.estimate.detection import EQUIVALENCE, Pilot
from sweep.estimate.planned import Planned
from sweep.format import counted, duration, rounded_hours
from sweep.statistics import POWER
from sweep.study import ResolvedArm, Study


def shown_plan(study: Study, planned: Planned) -> RenderableType:
    """The plan for people: a table of the arms, lines about the study, and warnings."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("arm", "searched", "search runs", "confirm runs"):
        table.add_column(name, justify="left" if name in ("arm", "searched") else "right")
    for arm, runs in planned.runs.items():
        label = f"{arm} (baseline)" if arm in study.baselines else arm
        table.add_row(label, _filled_in(study.arms[arm]), str(runs["search"] or "-"), str(runs["confirm"]))
    parts: list[RenderableType] = [table]
    parts += [Text(line) for line in (*_work_lines(study, planned), *_test_lines(study, planned))]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in planned.warnings]
    return Group(*parts)


def _work_lines(study: Study, planned: Planned) -> Iterator[str]:
    """The lines about runs, slots and time."""
    shared = sum(planned.runs_shared.values())
    runs = counted(planned.runs_done + shared + planned.runs_left, "run")
    # with a finalist for each endpoint, two of them may be one candidate
    drawn = any(arm.is_drawn for arm in study.arms.values())
    forecast = study.search.objective == "each" and len(study.analysis.endpoints) > 1 and drawn
    about = "About " if forecast and planned.runs_left else ""
    done = counted(planned.runs_done, "run")
    yield f"{about}{runs}, {counted(planned.epochs, 'epoch')}. Done so far: {done}."
    if shared:
        studies = " and ".join(f"{count:,} in {name}" for name, count in planned.runs_shared.items())
        yield f"There already, and taken over without training: {studies}."
    gpus = ""
    if share := study.resources.gpus:
        number = math.ceil(planned.slots / study.resources.sharing * max(share, 1))
        gpus = f" on {counted(number, 'GPU')}"
    slots = "this slot is" if planned.slots == 1 else "these slots are"
    at_a_time = f"{counted(planned.slots, 'run')} at a time{gpus}"
    yield f"{at_a_time}; {slots} in use {planned.utilisation:.0%} of the time."
    hours = ""
    if planned.gpu_hours_left is not None:
        hours = f"; about {rounded_hours(planned.gpu_hours_left)} GPU-hours"
    yield f"Time left: {duration(planned.seconds_left)}{hours} ({planned.seconds_from})."
    if planned.assumed:
        yield f"Assumed: {planned.assumed}."
    for line in planned.faster:
        yield f"Faster by the same measurement: {line}."
    for line in planned.predicted:
        yield f"Predicted for this code, not measured: {line}."


def _test_lines(study: Study, planned: Planned) -> Iterator[str]:
    """The lines about the comparisons and what they can detect."""
    analysis = study.analysis
    ratios = "keep ratio " if len(analysis.endpoints) == 1 else "keep ratios "
    ratios += " and ".join(f"{ratio:g}" for ratio in analysis.endpoints)
    comparisons = f"{counted(planned.comparisons, 'comparison')} of {counted(planned.pairs, 'pair')}"
    if planned.searches > 1:
        yield f"Every arm is searched {planned.searches} times, on other seeds each. One search is one pair."
    test = f"{analysis.test} test, Holm's correction at alpha {analysis.alpha:g}"
    paid = {0: ", looks at any time", 1: ""}.get(planned.looks, f", {planned.looks} looks")
    yield f"{comparisons}, at {ratios} ({test}{paid})."
    strictest = "At Holm's strictest step, a" if planned.comparisons > 1 else "The"
    unit = "pairs of searches" if planned.searches > 1 else "pairs"
    yield (
        f"{strictest} comparison finds a true gain of 1 standard deviation with a chance of "
        f"{planned.power_at_one_sd:.0%}, and {_at_power(planned.detectable_sd)}. "
        f"The standard deviation is that of the differences within {unit}."
    )
    if math.isfinite(planned.equivalence_sd):
        yield (
            f"A comparison without a true gain is found to be within {planned.equivalence_sd:.2f} such "
            f"standard deviations of 0 with a chance of {EQUIVALENCE:.0%}: declare no smaller "
            "analysis.margin."
        )
    if planned.pilot is None:
        return
    for pilot in planned.pilot:
        yield _pilot_line(pilot)
    if not planned.pilot:
        yield "The pilot has no tested comparison with two pairs yet, so that it says nothing."
    if planned.searches > 1 and any(pilot.unit == "seed" for pilot in planned.pilot):
        yield "Where the pilot's pairs are seeds, pairs of searches may vary more than that."


def _at_power(detectable_sd: float) -> str:
    """The gain that is found with a chance of 80 %, in words."""
    if math.isinf(detectable_sd):
        return f"no gain with {POWER:.0%}"
    return f"a gain of {detectable_sd:.2f} standard deviations with {POWER:.0%}"


def _pilot_line(pilot: Pilot) -> str:
    """What the pilot says of a comparison."""
    where = f"{pilot.arm} over {pilot.reference_arm} at r = {pilot.keep_ratio:g}"
    pairs = "more than 200 pairs" if pilot.pairs_for_a_point is None else f"{pilot.pairs_for_a_point} pairs"
    return (
        f"Pilot, {where}: {pilot.pairs} pairs ({pilot.unit}) vary by {pilot.deviation:.2f} points, by at "
        f"most {pilot.deviation_high:.2f} with 80 % confidence. Then the planned pairs find a gain of "
        f"{pilot.detectable_gain:.2f} points with a chance of {POWER:.0%}, and one point takes {pairs}. "
        f"Declare no margin below {pilot.margin:.2f} points."
    )


def _filled_in(arm: ResolvedArm) -> str:
    """The settings of an arm that the study's file leaves open, and what they follow."""
    if repeated := arm.contents.arms[arm.base].repeat:
        again = ", searched again" if arm.searched else ""
        return f"as {repeated}, on other seeds{again}"
    parts = [", ".join(setting.split(".", 1)[1] for setting in arm.searched)]
    if arm.match and arm.follows:
        other = arm.follows.base
        taken = [setting.split(".", 1)[1] for setting in arm.match.settings]
        if taken:
            them = "it" if len(taken) == 1 else "them"
            parts.append(f"{', '.join(taken)} as {other}'s finalist has {them}")
        if arm.match.at:
            parts.append(f"as many parameters as {other} has at the {arm.match.at}")
    return "; ".join(filter(None, parts)) or "-"
