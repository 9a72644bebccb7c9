"""A study as tidy Parquet with a data dictionary and a notebook. Run by run: memory does not grow with the number of runs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.errors import RejectStudy
from sweep.views.export.tables import (
    RunRow,
    across_table,
    candidate_table,
    comparison_table,
    endpoint_tables,
    epoch_tables,
    run_rows,
    schema_docs,
    table_schema,
)
from sweep.views.reading import Reading
from sweep.views.report.findings import Findings
from trainer.rows import EndpointRow, EpochRow
from trainer.settings import written
from trainer.store import StoreError

ROWS = 50_000
"""In a row group: what is held in memory at once."""
NOTEBOOK = Path(__file__).parent / "templates" / "significance.py"
ABOUT = {
    "epochs": "one row per run and epoch",
    "endpoints": "one row per run, split and declared keep ratio: the final weights, with one bit per image",
    "runs": "one row per run",
    "candidates": "one row per candidate and phase",
    "comparisons": "one row per candidate, reference and endpoint: gains, intervals, p-values",
    "across": "one row per arm, reference and endpoint: what the comparisons say across tasks; empty where the study lists fewer than two",
}
MARK = "study.json"
"""A folder that has it is taken for an earlier export, whose files may be replaced."""
FILES = (MARK, *(f"{name}.parquet" for name in ABOUT), "report.json", "README.md", "significance.ipynb")


def export(
    reading: Reading, found: Findings, to: Path, progress: Callable[[str, int], None]
) -> dict[str, int]:
    """Write everything into a folder, whole or not at all; the answer is the number of rows by table.

    `progress` is told the table and the rows so far.
    """
    with _whole(to) as folder:
        rows: dict[str, int] = {}
        docs: dict[str, pa.Schema] = {}

        def table(name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
            docs[name] = schema
            rows[name] = _write(
                folder / f"{name}.parquet", schema, tables, lambda done: progress(name, done)
            )

        candidates, comparisons, tasks = (
            candidate_table(reading),
            comparison_table(found.comparisons),
            across_table(found.across),
        )
        table("epochs", table_schema(EpochRow), epoch_tables(reading))
        table("endpoints", table_schema(EndpointRow), endpoint_tables(reading))
        table("runs", table_schema(RunRow), _batches(run_rows(reading), table_schema(RunRow)))
        table("candidates", candidates.schema, [candidates])
        table("comparisons", comparisons.schema, [comparisons])
        table("across", tasks.schema, [tasks])
        texts = {
            "report.json": _json(found.as_json()),
            MARK: _json(declared(reading)),
            "README.md": _dictionary(reading, rows, docs),
            "significance.ipynb": _json(notebook(NOTEBOOK.read_text(encoding="utf-8"))),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    return rows


@contextmanager
def _whole(to: Path) -> Generator[Path]:
    """A folder beside the one that is asked for, which becomes it when all is written.

    Into a folder that is there already the files go one by one, each whole: what others keep in it is never moved. (Killed between two of
    them, old and new stand side by side; the notebook's last cell says so.)
    """
    beside = to.parent / f".{to.name}.{secrets.token_hex(4)}.partial"
    try:
        if to.exists() and not to.is_dir():
            raise RejectStudy([f"--to {to}: is a file; an export is a folder."])
        if not (to / MARK).exists() and (theirs := [name for name in FILES if (to / name).exists()]):
            raise RejectStudy(
                [
                    f"--to {to}: no export made the {' and '.join(theirs)} there, and this one would replace them. Name another folder."
                ]
            )
        to.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        yield beside
        for file in beside.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if to.exists():
            for name in FILES:
                (beside / name).replace(to / name)
        else:
            beside.rename(to)
    except OSError as error:
        raise StoreError(
            f"the export to {to} could not be written: {error}. The study itself is untouched."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(
    path: Path, schema: pa.Schema, tables: Iterable[pa.Table], progress: Callable[[int], None]
) -> int:
    done, waiting = 0, list[pa.Table]()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            waiting.append(table)
            done += table.num_rows
            if sum(it.num_rows for it in waiting) >= ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
                progress(done)
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return done


def _batches(rows: Iterable[RunRow], schema: pa.Schema) -> Iterator[pa.Table]:
    some: list[dict[str, Any]] = []
    for row in rows:
        some.append(asdict(row))
        if len(some) == 1000:
            yield pa.Table.from_pylist(some, schema=schema)
            some = []
    yield pa.Table.from_pylist(some, schema=schema)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def declared(reading: Reading) -> dict[str, Any]:
    """study.json: the study as it was declared, and the values that were searched, in every arm and in those that repeat it."""
    study = reading.study
    searched = {
        name: {
            setting: {**written(values), "whole": arm.takes_whole_numbers(setting)}
            for setting, values in arm.source.searched.items()
        }
        for name, arm in study.arms.items()
        if arm.source.searched
    }
    return {
        "study": study.name,
        "hash": reading.declared["hash"],
        "contents": written(study.contents),
        "searched": searched,
    }


def notebook(source: str) -> dict[str, Any]:
    """The notebook of a script whose cells begin with `# %%`; a cell of words with `# %% [markdown]`."""
    cells: list[dict[str, Any]] = []
    for i, block in enumerate(source.split("\n# %%")[1:]):
        head, _, body = block.partition("\n")
        words = "[markdown]" in head
        lines = [
            line.removeprefix("#").removeprefix(" ") if words else line
            for line in body.strip("\n").split("\n")
        ]
        cell = {"id": f"cell-{i}", "metadata": {}, "source": "\n".join(lines)}
        cells.append(
            {"cell_type": "markdown", **cell}
            if words
            else {"cell_type": "code", **cell, "outputs": [], "execution_count": None}
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _dictionary(reading: Reading, rows: dict[str, int], docs: dict[str, pa.Schema]) -> str:
    """README.md: every table and column."""
    lines = [
        f"# {reading.name}",
        "",
        *([reading.study.contents.description, ""] if reading.study.contents.description else []),
        f"Exported from the study with the declared analysis `{reading.declared['hash']}`. `run_id` joins epochs, endpoints and runs; "
        "`candidates.run_ids` lists the runs of a candidate by place in the pool: those of one place are pairs. "
        "`significance.ipynb` computes every number of the report anew from these files (it wants pandas, pyarrow, SciPy, Optuna and "
        "matplotlib); `report.json` has the report's own, `study.json` the study as it was declared. "
        "Accuracies and gains are shares, not points.",
    ]
    for name, schema in docs.items():
        version = (schema.metadata or {}).get(b"schema_version", b"").decode()
        lines += [
            "",
            f"## {name}.parquet",
            "",
            f"{ABOUT[name]}; {rows[name]:,} rows; schema version {version}.",
            "",
        ]
        lines += ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            "| " + " | ".join(part.replace("|", "\\|") for part in doc) + " |" for doc in schema_docs(schema)
        ]
    return "\n".join(lines) + "\n"
