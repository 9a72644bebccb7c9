"""A Parquet table as four readers see it, each by its own arithmetic.

A reader gives the number of rows, then a tuple for each column. Numbers: nulls, NaN, infinities of
either sign, and the sum of the rest. Flags: nulls and how many are set. Lists: nulls, elements, and the
sum of the elements or, for words, of their lengths. Anything else: nulls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

pc: Any = pyarrow.compute  # its functions are made when it is imported, and no stub knows them


def kinds(path: Path) -> dict[str, str]:
    """Return each column's kind: number, flag, numbers (a list), words (a list), or other."""

    def kind(it: pa.DataType) -> str:
        if pa.types.is_list(it):
            return "numbers" if pa.types.is_floating(it.value_type) else "words"
        number = pa.types.is_floating(it) or pa.types.is_integer(it)
        return "number" if number else "flag" if pa.types.is_boolean(it) else "other"

    return {field.name: kind(field.type) for field in pq.read_schema(path)}


def by_pyarrow(path: Path) -> Iterator[Any]:
    table = pq.read_table(path)
    yield table.num_rows
    for name, kind in kinds(path).items():
        column = table[name]
        if kind == "number":
            values = column.cast(pa.float64())
            finite = values.filter(pc.fill_null(pc.is_finite(values), False))
            nans = pc.sum(pc.is_nan(values)).as_py() or 0
            infinite = [pc.sum(pc.equal(values, end)).as_py() or 0 for end in (math.inf, -math.inf)]
            yield name, column.null_count, nans, *infinite, pc.sum(finite).as_py() or 0
        elif kind == "flag":
            yield name, column.null_count, pc.sum(column).as_py() or 0
        elif kind in ("numbers", "words"):
            flat = pc.list_flatten(column)
            yield (
                name,
                column.null_count,
                len(flat),
                pc.sum(flat if kind == "numbers" else pc.utf8_length(flat)).as_py() or 0,
            )
        else:
            yield name, column.null_count


def by_pandas(path: Path) -> Iterator[Any]:
    table = pd.read_parquet(path, dtype_backend="pyarrow")
    yield len(table)
    for name, kind in kinds(path).items():
        column: Any = table[name]
        there = column.dropna()
        nulls = int(column.isna().sum())
        if kind == "number":
            values = there.to_numpy(dtype=float)
            finite = values[[math.isfinite(it) for it in values]]
            infinite = [int((values == end).sum()) for end in (math.inf, -math.inf)]
            yield name, nulls, sum(math.isnan(it) for it in values), *infinite, float(finite.sum())
        elif kind == "flag":
            yield name, nulls, int(there.sum())
        elif kind in ("numbers", "words"):
            flat = [it for row in there for it in row]
            yield name, nulls, len(flat), sum(flat) if kind == "numbers" else sum(map(len, flat))
        else:
            yield name, nulls


def by_polars(path: Path) -> Iterator[Any]:
    table = pl.read_parquet(path)
    yield table.height
    for name, kind in kinds(path).items():
        column = table[name]
        if kind == "number":
            values = column.cast(pl.Float64)
            infinite = [(values == end).sum() for end in (math.inf, -math.inf)]
            yield (
                name,
                column.null_count(),
                values.is_nan().sum(),
                *infinite,
                values.filter(values.is_finite()).sum(),
            )
        elif kind == "flag":
            yield name, column.null_count(), column.sum()
        elif kind in ("numbers", "words"):
            flat = column.drop_nulls().explode(empty_as_null=False)
            yield (
                name,
                column.null_count(),
                len(flat),
                flat.sum() if kind == "numbers" else flat.str.len_chars().sum(),
            )
        else:
            yield name, column.null_count()


def query(sql: str) -> list[tuple[Any, ...]]:
    """Return DuckDB's answer to a query."""
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


def by_duckdb(path: Path) -> Iterator[Any]:
    def one(what: str) -> tuple[Any, ...]:
        return query(f"SELECT {what} FROM read_parquet('{path}')")[0]

    yield one("count(*)")[0]
    for name, kind in kinds(path).items():
        nulls = f'count(*) - count("{name}")'
        as_float = f'"{name}"::DOUBLE'
        ends = ", ".join(f"count(*) FILTER ({as_float} = '{end}'::DOUBLE)" for end in ("inf", "-inf"))
        match kind:
            case "number":
                finite = f"coalesce(sum({as_float}) FILTER (isfinite({as_float})), 0)"
                yield name, *one(f"{nulls}, count(*) FILTER (isnan({as_float})), {ends}, {finite}")
            case "flag":
                yield name, *one(f'{nulls}, count(*) FILTER ("{name}")')
            case "numbers":
                yield (
                    name,
                    *one(f'{nulls}, coalesce(sum(len("{name}")), 0), coalesce(sum(list_sum("{name}")), 0)'),
                )
            case "words":
                total = f"""coalesce(sum(length(array_to_string("{name}", ''))), 0)"""
                yield name, *one(f'{nulls}, coalesce(sum(len("{name}")), 0), {total}')
            case _:
                yield name, *one(nulls)


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "pandas": by_pandas,
    "polars": by_polars,
    "duckdb": by_duckdb,
}
