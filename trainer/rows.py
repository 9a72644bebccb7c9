"""The rows that a run reports, one per epoch and one per declared endpoint, and their Parquet files.

Only this module defines the columns, their types, units and meanings. Two executions of the same run may
differ only in the WALL columns.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SCHEMA_VERSION = 2
"""Each version adds columns that may be null. Tables of earlier versions are read with nulls in them."""
WALL = frozenset({"seconds", "images_per_second", "ended_at"})


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch of one run. Accuracies and rates are shares from 0 to 1."""

    run_id: Annotated[str, "the run, by the hash of its spec"]
    epoch: Annotated[int, "counted from 1"]
    keep_ratio: Annotated[
        float | None,
        "nominal share of activations that may survive in this epoch; null where the policy has none",
    ] = None
    nonzero_rate: Annotated[
        float | None,
        "share of activations that are not zero in the test pass at keep_ratio: mean over sites",
    ]
    nonzero_rate_by_site: Annotated[
        list[float] | None, "the same for each site, in the order of the forward pass"
    ]
    train_loss: Annotated[
        float, "mean cross-entropy over the epoch's batches, in nats, each before its update"
    ]
    train_accuracy: Annotated[float, "over the epoch's batches, each before its update"]
    smoothed_train_accuracy: Annotated[
        float | None, "the controller's smoothed accuracy after this epoch; null without a controller"
    ] = None
    validation_accuracy: Annotated[
        float | None, "on the images held out, at keep_ratio; null where the task holds none out"
    ]
    dense_validation_accuracy: Annotated[float | None, "on the images held out, the same weights at r = 1"]
    test_accuracy: Annotated[
        float | None, "on the test set, at keep_ratio; null in epochs without an evaluation"
    ]
    test_loss: Annotated[float | None, "mean cross-entropy on the test set, in nats, at keep_ratio"]
    dense_test_accuracy: Annotated[float | None, "on the test set, the same weights at r = 1"]
    learning_rate: Annotated[float, "of this epoch"]
    reset: Annotated[
        bool | None,
        "whether the policy went back to r = 1 after this epoch; null where it has no keep ratio",
    ] = None
    cycle: Annotated[
        int | None,
        "resets up to and with this epoch that came from a ratio under 0.5; null where it has no keep ratio",
    ] = None
    connections: Annotated[
        int | None,
        "weights that there were in this epoch, over all layers; null where the policy moves none",
    ] = None
    active_neurons: Annotated[
        int | None, "hidden neurons that were not removed; null where the policy moves no connections"
    ] = None
    parameters: Annotated[
        int | None, "numbers that were trained in this epoch: connections, biases and what activations own"
    ] = None
    seconds: Annotated[float, "wall time of the epoch with its evaluation"]
    images_per_second: Annotated[float, "images trained on over the wall time of training alone"]
    ended_at: Annotated[datetime, "UTC"]


@dataclass(frozen=True, kw_only=True)
class EndpointRow:
    """Result of the final weights at one declared keep ratio. The largest activations survive."""

    run_id: Annotated[str, "the run, by the hash of its spec"]
    split: Annotated[str, "test, or validation where the task holds images out"]
    keep_ratio: Annotated[float, "share of activations that may survive"]
    images: Annotated[int, "how many"]
    accuracy: Annotated[float, "share that is classified correctly"]
    loss: Annotated[float, "mean cross-entropy in nats"]
    correct: Annotated[
        bytes,
        "one bit per image, the first in the highest bit, the last byte filled with zeros; "
        "in the order of the test set, or in that of trainer.data.split(task, seed).validation, "
        "and of its .test where the task draws a test set for each seed",
    ]


Row = TypeVar("Row", EpochRow, EndpointRow)
_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
    list[str]: pa.list_(pa.field("element", pa.string())),
    list[float]: pa.list_(pa.field("element", pa.float64())),
    datetime: pa.timestamp("us", tz="UTC"),
}


@cache
def schema(row: type) -> pa.Schema:
    """The Arrow schema of a row class. Each column carries its meaning, and the schema its version."""
    fields: list[pa.Field] = []
    for name, hint in get_type_hints(row, include_extras=True).items():
        declared, meaning = get_args(hint)
        nullable = get_origin(declared) in (Union, types.UnionType)
        plain = get_args(declared)[0] if nullable else declared
        fields.append(pa.field(name, _TYPES[plain], nullable=nullable, metadata={"meaning": meaning}))
    return pa.schema(fields, metadata={"schema": row.__name__, "schema_version": str(SCHEMA_VERSION)})


def to_parquet(kind: type[Row], rows: Sequence[Row]) -> bytes:
    """The bytes of a Parquet file that holds these rows."""
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema(kind))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_table(kind: type, data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of this schema version or an earlier one. `columns` selects columns.

    ValueError says that the file's columns fit no version.
    """
    file, wanted = pq.ParquetFile(io.BytesIO(data)), schema(kind)
    wanted = pa.schema([wanted.field(name) for name in columns or wanted.names], metadata=wanted.metadata)
    found, version = file.schema_arrow, int((file.schema_arrow.metadata or {}).get(b"schema_version", 0))
    wrong = [
        field.name
        for field in wanted
        if field.name in found.names and found.field(field.name).type != field.type
    ]
    new = [field for field in wanted if field.name not in found.names]
    if not 0 < version < SCHEMA_VERSION or not all(field.nullable for field in new):
        wrong += [field.name for field in new]
    wrong += sorted(set(found.names) - set(wanted.names)) if columns is None else []
    if wrong:
        raise ValueError(
            f"its columns are not those of {kind.__name__} version {SCHEMA_VERSION}: {', '.join(wrong)}"
        )
    table = file.read([name for name in wanted.names if name in found.names], use_threads=False)
    for field in new:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(wanted.names).cast(wanted)


def from_parquet(kind: type[Row], data: bytes) -> list[Row]:
    """The rows of a file written by `to_parquet`. ValueError says that its columns fit no version."""
    return [kind(**record) for record in read_table(kind, data).to_pylist()]


def content_hash(table: pa.Table) -> str:
    """The hash of a table's values without the WALL columns: the same for two executions of one run.

    A column without any value is left out, so that columns which later versions add change nothing.
    """
    hashed = hashlib.sha256()
    for name in sorted(set(table.column_names) - WALL):
        column = table[name].combine_chunks()
        if column.null_count < len(column):
            hashed.update(f"{name}\n".encode())
            for part in _parts(column):
                hashed.update(part)
    return hashed.hexdigest()


def _parts(column: pa.Array) -> Iterator[bytes]:
    """A column as bytes: which values are there, how long each is where that varies, and the values.

    Numbers have 8 bytes, and those that are missing are 0.
    """
    yield np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes()
    if pa.types.is_list(column.type):
        yield _numbers(pc.call_function("list_value_length", [column]), "<i8")
        yield from _parts(column.flatten())
    elif pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        yield _numbers(pc.call_function("binary_length", [column]), "<i8")
        yield b"".join(column.drop_null().cast(pa.binary()).to_pylist())
    elif pa.types.is_floating(column.type):
        yield _numbers(column, "<f8")
    else:
        yield _numbers(column.cast(pa.int64()), "<i8")


def _numbers(column: pa.Array, kind: str) -> bytes:
    values = column.fill_null(0).to_numpy(zero_copy_only=False).astype(kind)
    if kind == "<f8":
        values[np.isnan(values)] = np.nan  # one of many patterns of bits that mean the same
    return values.tobytes()


def plain(row: EpochRow | EndpointRow) -> dict[str, Any]:
    """A row as a dictionary of plain values, as checkpoints store them."""
    values = dataclasses.asdict(row)
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()
    }


def from_plain(kind: type[Row], values: dict[str, Any]) -> Row:
    """The inverse of `plain`."""
    if "ended_at" in values:
        values = {**values, "ended_at": datetime.fromisoformat(values["ended_at"])}
    return kind(**values)


def json_ready(row: EpochRow) -> dict[str, Any]:
    """A row as plain values for JSON. NaN and infinities become null, because strict JSON has neither."""
    return {
        name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in plain(row).items()
    }
