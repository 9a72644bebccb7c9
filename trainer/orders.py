"""Orders to train a run, as `sweep ready` prints them: a RUN.json with one key that no spec has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

from trainer.settings import Problem, SpecError
from trainer.spec import RunSpec, parsed

KEY = "keep_weights"


@dataclass(frozen=True)
class Order:
    """A run to train, and whether its final checkpoint is kept."""

    spec: RunSpec
    keep_weights: bool = False

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Read an order from JSON text. Anything but one valid run is a SpecError."""
        given, keep_weights = parsed(text), False
        if isinstance(given, dict):
            keep_weights = cast("dict[str, Any]", given).pop(KEY, False)
        if not isinstance(keep_weights, bool):
            raise SpecError([Problem((KEY,), f"must be true or false; it is {keep_weights!r}.")])
        return cls(RunSpec.read(given), keep_weights)

    def to_json(self) -> str:
        """The order on one line. Without weights to keep it is the spec's canonical JSON."""
        if not self.keep_weights:
            return self.spec.to_json()
        values = {**json.loads(self.spec.to_json()), KEY: True}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_orders(lines: Iterable[bytes]) -> list[Order]:
    """The orders on many lines, each run once. Empty lines are left out; SpecError names all that are wrong.

    Weights are kept where any line of the run asks for that.
    """
    orders, problems = dict[str, Order](), list[Problem]()
    for number, line in enumerate(lines, 1):
        try:
            if text := line.decode("utf-8-sig").strip():
                order = Order.from_json(text)
                before = orders.setdefault(order.spec.run_id, order)
                if order.keep_weights:
                    orders[order.spec.run_id] = replace(before, keep_weights=True)
        except UnicodeDecodeError as error:
            problems.append(Problem((), f"line {number}: is not text: {error.reason}."))
        except SpecError as error:
            problems += [Problem((), f"line {number}: {problem}") for problem in error.problems]
    if problems:
        raise SpecError(problems)
    return list(orders.values())
