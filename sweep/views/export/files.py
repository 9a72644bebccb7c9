"""The folder of an export: Parquet tables, their dictionary, the report as JSON, and a notebook.

Runs are read and written one after the other, so that memory does not grow with their number. The tables'
columns and rows are in `tables`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.errors import RejectStudy
from sweep.views.destination import check_folder
from sweep.views.export.tables import (
    ABOUT,
    Table,
    schema_docs,
    tables_of,
)
from sweep.views.markdown import code, escaped
from sweep.views.reading import Reading
from sweep.views.report.findings import Findings
from sweep.views.seal import declaration_line
from trainer.settings import written
from trainer.store import StoreError

ROWS = 50_000
"""Rows of a row group. So many are in memory at once."""
NOTEBOOK = Path(__file__).parent / "templates" / "significance.py"
MARK = "study.json"
"""The file that marks a folder as an earlier export, whose files may be replaced."""
FILES = (MARK, *(f"{name}.parquet" for name in ABOUT), "report.json", "README.md", "significance.ipynb")


def export(
    reading: Reading, findings: Findings, to: Path, progress: Callable[[str, int], None]
) -> dict[str, int]:
    """Write an export into a folder, whole or not at all; return the number of rows by table.

    `progress` is called with a table's name and its rows so far.
    """
    with _replaced(to) as folder:
        rows: dict[str, int] = {}
        tables = tables_of(reading, findings)
        for table in tables:
            report = partial(progress, table.name)
            with folder.file(f"{table.name}.parquet") as file:
                rows[table.name] = _write(file, table, report)
        texts = {
            "report.json": _json(findings.as_json()),
            MARK: _json(declared(reading)),
            "README.md": _dictionary(reading, rows, tables),
            "significance.ipynb": _json(notebook(NOTEBOOK.read_text(encoding="utf-8"))),
        }
        for name, text in texts.items():
            with folder.file(name) as file:
                file.write(text.encode())
    return rows


class _Folder:
    """A folder that stays the same one, whatever its path leads to in the meantime."""

    def __init__(self, path: str | Path, within: _Folder | None = None) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        self.handle = os.open(path, flags, dir_fd=within.handle if within else None)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)

    @contextmanager
    def file(self, name: str) -> Generator[BinaryIO]:
        """A new file, which is on the disk when this ends."""
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self.handle)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _replaced(to: Path) -> Generator[_Folder]:
    """An empty folder to write into. It becomes the folder `to` when all is written.

    Where `to` is there already, the files are moved into it one by one, each whole. Other files in it stay.
    A process that is killed between two files leaves old and new ones together. The last cell of the
    notebook then reports the difference.
    """
    check_folder(to)
    if not (to / MARK).exists() and (theirs := [name for name in FILES if (to / name).exists()]):
        problem = "and this one would replace them. Name another folder."
        raise RejectStudy([f"--to {to}: no export made the {' and '.join(theirs)} there, {problem}"])
    beside = f".{to.name}.{secrets.token_hex(4)}.partial"
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            above = opened.enter_context(_Folder(to.parent.resolve()))
            there = opened.enter_context(_Folder(to.name, above)) if to.exists() else None
            os.mkdir(beside, dir_fd=above.handle)
            opened.callback(shutil.rmtree, beside, ignore_errors=True, dir_fd=above.handle)
            folder = opened.enter_context(_Folder(beside, above))
            yield folder
            if there is None:
                os.rename(beside, to.name, src_dir_fd=above.handle, dst_dir_fd=above.handle)
                return
            for name in FILES:
                os.replace(name, name, src_dir_fd=folder.handle, dst_dir_fd=there.handle)
    except OSError as error:
        raise StoreError(
            f"the export to {to} could not be written: {error}. The study itself is untouched."
        ) from error


def _write(file: BinaryIO, table: Table, progress: Callable[[int], None]) -> int:
    """Write the batches of a table one after the other into a Parquet file; return the number of rows."""
    done, waiting = 0, list[pa.Table]()
    with pq.ParquetWriter(file, table.columns, compression="zstd") as writer:
        for batch in table.batches:
            waiting.append(batch)
            done += batch.num_rows
            if sum(part.num_rows for part in waiting) >= ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
                progress(done)
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return done


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def declared(reading: Reading) -> dict[str, Any]:
    """The contents of study.json: the study as declared, and the values that each arm searches.

    An arm that repeats another one searches the same values, and so does every search of an arm.
    """
    study = reading.study
    searched = {
        name: {
            setting: {**written(values), "whole": arm.takes_whole_numbers(setting)}
            for setting, values in arm.open_settings.items()
        }
        for name, (arm, *_) in study.methods.items()
        if arm.open_settings
    }
    return {
        "study": study.name,
        "hash": reading.declared["hash"],
        "seal": declaration_line(reading),
        "contents": written(study.contents),
        "searched": searched,
    }


def notebook(source: str) -> dict[str, Any]:
    """The notebook of a script, in which cells begin with `# %%`, or `# %% [markdown]` for text."""
    cells: list[dict[str, Any]] = []
    for i, block in enumerate(source.split("\n# %%")[1:]):
        head, _, body = block.partition("\n")
        lines = body.strip("\n").split("\n")
        if "[markdown]" in head:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
            cells.append({"cell_type": "markdown", "id": f"cell-{i}", "metadata": {}, "source": text})
        else:
            cell = {"id": f"cell-{i}", "metadata": {}, "source": "\n".join(lines)}
            cells.append({"cell_type": "code", **cell, "outputs": [], "execution_count": None})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _dictionary(reading: Reading, rows: dict[str, int], tables: list[Table]) -> str:
    """The contents of README.md: the meaning of every table and column."""
    description = reading.study.contents.description
    lines = [
        f"# {reading.name}",
        "",
        *([*map(escaped, description.splitlines()), ""] if description else []),
        f"Exported from the study with the declared analysis {code(reading.declared['hash'])}. "
        "`run_id` joins epochs, endpoints and runs; `candidates.run_ids` lists the runs of a candidate by "
        "place in the pool: those of one place are pairs. "
        "`significance.ipynb` computes every number of the report anew from these files "
        "(it wants pandas, pyarrow, SciPy, Optuna and matplotlib); `report.json` has the report's own, "
        "`study.json` the study as it was declared, with the seal of that. "
        "In the tables, accuracies and gains are shares from 0 to 1, since programs subtract them. What the "
        "notebook prints and draws is in points, hundredths of a share.",
    ]
    for table in tables:
        name, schema = table.name, table.columns
        version = (schema.metadata or {}).get(b"schema_version", b"").decode()
        lines += [
            "",
            f"## {name}.parquet",
            "",
            f"{ABOUT[name]}; {rows[name]:,} rows; schema version {version}.",
            "",
        ]
        lines += ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
        lines += ["| " + " | ".join(map(escaped, doc)) + " |" for doc in schema_docs(schema)]
    return "\n".join(lines) + "\n"
