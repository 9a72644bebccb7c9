"""Rows as tables, as JSON and back, without a change."""

from __future__ import annotations

import io
import json
import math
import struct
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.rows import (
    WALL,
    EndpointRow,
    EpochRow,
    content_hash,
    from_parquet,
    from_plain,
    json_ready,
    plain,
    read_table,
    schema,
    to_parquet,
)

ROW = EpochRow(
    run_id="00ff",
    epoch=3,
    keep_ratio=0.97,
    nonzero_rate=0.25,
    nonzero_rate_by_site=[0.25, 0.1 + 0.2],
    train_loss=1 / 3,
    train_accuracy=0.5,
    smoothed_train_accuracy=None,
    validation_accuracy=None,
    dense_validation_accuracy=None,
    test_accuracy=0.125,
    test_loss=2.5,
    dense_test_accuracy=0.25,
    learning_rate=0.1,
    reset=True,
    cycle=1,
    seconds=1.5,
    images_per_second=100.0,
    ended_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
)
ENDPOINT = EndpointRow(
    run_id="00ff", split="test", keep_ratio=0.05, images=12, accuracy=0.5, loss=1.0, correct=b"\xf0\x30"
)
UNEVALUATED = replace(
    ROW,
    nonzero_rate=None,
    nonzero_rate_by_site=None,
    test_accuracy=None,
    test_loss=None,
    dense_test_accuracy=None,
)


def test_a_table_gives_back_its_rows_to_the_last_bit() -> None:
    assert from_parquet(EpochRow, to_parquet(EpochRow, [ROW, UNEVALUATED])) == [ROW, UNEVALUATED]
    assert from_parquet(EndpointRow, to_parquet(EndpointRow, [ENDPOINT])) == [ENDPOINT]
    assert from_parquet(EpochRow, to_parquet(EpochRow, [])) == []


def test_plain_values_give_back_their_row() -> None:
    assert from_plain(EpochRow, json.loads(json.dumps(plain(ROW)))) == ROW
    assert from_plain(EndpointRow, plain(ENDPOINT)) == ENDPOINT


def test_what_is_not_finite_is_kept_in_parquet_and_null_in_json() -> None:
    diverged = replace(ROW, train_loss=math.nan, test_loss=math.inf)
    (back,) = from_parquet(EpochRow, to_parquet(EpochRow, [diverged]))
    assert math.isnan(back.train_loss)
    assert back.test_loss == math.inf
    values = json.loads(json.dumps(json_ready(diverged), allow_nan=False))
    assert values["train_loss"] is values["test_loss"] is None


@pytest.mark.parametrize("kind", [EpochRow, EndpointRow])
def test_every_column_says_what_it_means_and_the_schema_its_version(kind: type) -> None:
    found = schema(kind)
    assert found.names == list(get_type_hints(kind))
    assert all(len(field.metadata[b"meaning"]) > 2 for field in found)
    assert found.metadata[b"schema_version"] == b"2"


def test_columns_are_null_only_where_their_type_says_so() -> None:
    nullable = {field.name for field in schema(EpochRow) if field.nullable}
    hints = get_type_hints(EpochRow)
    assert nullable == {name for name, hint in hints.items() if type(None) in get_args(hint)}
    assert nullable.isdisjoint(WALL)


def test_a_table_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="its columns are not those of EndpointRow version 2: split, "):
        from_parquet(EndpointRow, to_parquet(EpochRow, [ROW]))


def test_a_table_of_the_first_version_is_read_with_nulls_where_a_column_is_new() -> None:
    new = ["connections", "active_neurons", "parameters"]
    table = pq.read_table(io.BytesIO(to_parquet(EpochRow, [ROW]))).drop_columns(new)
    old = pa.schema(
        [field.with_nullable(field.name != "keep_ratio") for field in table.schema],
        metadata={"schema_version": "1"},
    )
    kept = io.BytesIO()
    pq.write_table(table.cast(old), kept)
    assert from_parquet(EpochRow, kept.getvalue()) == [ROW]
    some = read_table(EpochRow, kept.getvalue(), ["parameters", "epoch"])
    assert some.to_pylist() == [{"parameters": None, "epoch": ROW.epoch}]
    lacking = io.BytesIO()
    pq.write_table(table.drop_columns(["epoch"]).replace_schema_metadata({"schema_version": "1"}), lacking)
    with pytest.raises(ValueError, match="version 2: epoch"):
        from_parquet(EpochRow, lacking.getvalue())


def test_a_row_that_lacks_what_may_not_be_null_is_no_table() -> None:
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        to_parquet(EpochRow, [replace(ROW, epoch=None)])  # type: ignore[arg-type]


# the hash of a table's values


def hashed(**changes: Any) -> str:
    values: dict[str, Any] = {"text": ["a", "bc"], "number": [1.5, None], "list": [[1.0], [2.0, 3.0]]}
    return content_hash(pa.table({**values, **changes}))


def test_the_hash_of_values_is_over_bytes_that_can_be_written_by_hand() -> None:
    lists = b"list\n" + b"\xc0" + struct.pack("<2q", 1, 2) + b"\xe0" + struct.pack("<3d", 1, 2, 3)
    number = b"number\n" + b"\x80" + struct.pack("<2d", 1.5, 0)
    text = b"text\n" + b"\xc0" + struct.pack("<2q", 1, 2) + b"abc"
    assert hashed() == sha256(lists + number + text).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"text": ["ab", "c"]},
        {"number": [1.5, 0.0]},
        {"number": [None, 1.5]},
        {"list": [[1.0, 2.0], [3.0]]},
        {"more": [False, True]},
    ],
)
def test_the_hash_of_values_tells_tables_apart(changes: dict[str, Any]) -> None:
    assert hashed(**changes) != hashed()


def test_wall_time_and_columns_without_values_are_not_hashed() -> None:
    assert hashed(seconds=[1.0, 2.0], more=pa.nulls(2, pa.float64())) == hashed()
    assert hashed(number=[float("nan"), None]) == hashed(number=[-float("nan"), None])
