"""Lines of `sweep ready`: what they say is read back exactly, and nonsense is named by its line."""

from __future__ import annotations

import json

import pytest

from tests.conftest import run_spec
from trainer.orders import Order, read_orders
from trainer.settings import SpecError
from trainer.spec import RunSpec

SPEC = run_spec()


@pytest.mark.parametrize("keep_weights", [False, True])
def test_an_order_is_one_line_and_is_read_back_as_it_was(keep_weights: bool) -> None:
    order = Order(SPEC, keep_weights)
    assert "\n" not in order.to_json()
    assert Order.from_json(order.to_json()) == order
    assert json.loads(order.to_json()).get("keep_weights", False) is keep_weights


def test_the_spec_itself_knows_nothing_of_weights() -> None:
    assert Order(SPEC).to_json() == SPEC.to_json()
    with pytest.raises(SpecError, match="keep_weights"):
        RunSpec.from_json(Order(SPEC, keep_weights=True).to_json())


def test_a_run_that_stands_twice_is_one_order_that_keeps_weights_where_either_asks_for_it() -> None:
    other = run_spec(seed=8)
    lines = [Order(SPEC).to_json(), "", Order(other).to_json(), Order(SPEC, keep_weights=True).to_json()]
    assert read_orders(line.encode() for line in lines) == [Order(SPEC, keep_weights=True), Order(other)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"not json", "is not JSON"),
        (b"[1, 2]", "must be an object"),
        (b"\xff\xfe\x00\x01", "is not text"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (SPEC.to_json().replace("epochs", "epoch").encode(), "Did you mean 'epochs'?"),
        (
            SPEC.to_json().replace("{", '{"keep_weights":1,', 1).encode(),
            "keep_weights  must be true or false",
        ),
    ],
)
def test_each_line_that_is_no_run_is_named(line: bytes, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_orders([SPEC.to_json().encode(), line, b"", line])
    for number in (2, 4):
        assert any(f"line {number}: " in str(it) and said in str(it) for it in caught.value.problems)
    assert not any("line 1:" in str(problem) for problem in caught.value.problems)
