"""Small studies for the tests of the export: real ledgers, made without a cluster."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.ledger.ledger import Ledger
from sweep.planning.plan import Plan
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.views.export.files import export
from sweep.views.reading import Reading
from sweep.views.report.page import Report
from tests.loops import begin, drive, short_values
from trainer.store import digest, seal, unseal

WORDS = 'Größe µ → ∞, 稀疏 | NaN <script>alert("x")</script> & `code`'
TABLES = ("epochs", "endpoints", "runs", "candidates", "comparisons", "across")
DENSE: dict[str, Any] = {"policy": {"name": "dense"}}
PLAIN: dict[str, Any] = {"policy": {"name": "additive-reset", "step": 0.3}}

SEARCHED: dict[str, Any] = {
    "arms": {
        "dense": DENSE,
        "additive": {
            "policy": {
                "name": "additive-reset",
                "step": {"low": 0.1, "high": 0.45, "step": 0.1},
                "ema_start": {"choice": ["first", "zero"]},
            },
            "task": {
                "learning_rate": {"low": 0.03, "high": 0.3, "log": True},
                "batch_size": {"low": 24, "high": 48, "step": 8},
            },
        },
        "same": DENSE,
        "again": {"repeat": "additive"},
    },
    "search": {"budget": 5, "generation": 3, "lag": 0, "ladder": [1, 2], "finalists": 2},
    "confirm": {"seeds": 8},
    "analysis": {"endpoints": [1.0, 0.1], "curve": [0.5], "family": ["additive"]},
}
"""Every kind of searched setting, two finalists, a repeat, and an arm that equals the baseline.

One ratio is measured and not tested.
"""

WILD: dict[str, Any] = {
    "description": WORDS,
    "published": {"source": "a paper", "accuracy": {"additive": 0.5}},
    "arms": {
        "dense": DENSE,
        "additive": {**PLAIN, "task": {"learning_rate": {"choice": [0.1, 1e18]}}},
        "hot": {**DENSE, "task": {"learning_rate": 1e18}},
        "edgy": {**DENSE, "task": {"learning_rate": 0.025}},
        "faint": {**DENSE, "task": {"learning_rate": 1e-9}},
    },
    "search": {"proposer": "grid", "budget": 2, "generation": 2, "lag": 0, "ladder": [1, 2]},
    "analysis": {"family": ["additive"]},
}
"""Runs that diverge, in the search too, and runs that collapse.

All of `faint` collapse, and those of `edgy` whose loss ends above 0.95 ln 10. The losses of `edgy` lie
at 0.946 and 0.958 ln 10 and beyond: no order of additions moves one across.
"""

PAIRED: dict[str, Any] = {"arms": {"dense": DENSE, "additive": PLAIN}}
"""Two arms and as many pairs as it takes."""

MANY: dict[str, Any] = {**PAIRED, "confirm": {"seeds": 21}}
"""More pairs than there is an exact test for."""

BY_T: dict[str, Any] = {**MANY, "confirm": {"seeds": 5}, "analysis": {"test": "paired-t"}}
"""The first runs of the same, by another test."""

TASKS: dict[str, Any] = {
    "task": {"model": "mlp-24-16", "learning_rate": 0.05, "batch_size": 8, "init_scale": 0.3},
    "tasks": {"plenty": {}, "scarce": {"train_size": 48}},
    "arms": {
        "dense": DENSE,
        "set": {"policy": {"name": "set", "epsilon": {"low": 3, "high": 9}}},
        "static": {
            "policy": {"name": "static-sparse"},
            "match": {"arm": "set", "settings": ["policy.epsilon"]},
        },
        "tuned": {
            "policy": {"name": "static-sparse"},
            "task": {"learning_rate": {"low": 0.02, "high": 0.1}},
            "match": {"arm": "set", "settings": ["policy.epsilon", "task.momentum"]},
        },
        "small": {**DENSE, "match": {"arm": "set", "at": "end"}},
        "again": {"repeat": "dense"},
    },
    "search": {"budget": 2, "generation": 2, "lag": 0, "ladder": [1], "proposer": "random"},
    "confirm": {"seeds": 3},
    "analysis": {"test": "paired-t", "against": {"set": ["static"], "static": ["small"]}},
}
"""Two tasks, policies that move connections, and a dense arm of another arm's size.

Gains are tested over other arms too.
"""

RESAMPLED: dict[str, Any] = {
    "task": {"model": "mlp-16", "learning_rate": 0.05, "batch_size": 8, "init_scale": 0.3, "resample": 0.25},
    "tasks": {f"of-{size}": {"train_size": size} for size in (32, 40, 48, 56, 64, 72)},
    "arms": {"dense": DENSE, "npset": {"policy": {"name": "npset", "epsilon": 4, "start": 1, "period": 1}}},
    "confirm": {"seeds": 4},
    "analysis": {"test": "resampled-t"},
}
"""Six tasks, just enough to claim something; each seed draws its own test images."""

WINE: dict[str, Any] = {
    "data": "wine",
    "model": "mlp-8",
    "epochs": 2,
    "batch_size": 16,
    "train_size": None,
    "evaluate_every": 1,
}
"""A task that is learned in part."""
RATE: dict[str, Any] = {"task": {"learning_rate": {"low": 0.003, "high": 0.3, "log": True}}}
FIXED: dict[str, Any] = {"policy": {"name": "fixed", "ratio": {"low": 0.05, "high": 0.5}}}

EACH: dict[str, Any] = {
    "task": WINE,
    "arms": {"dense": {**DENSE, **RATE}, "fixed": {**FIXED, **RATE}},
    "search": {"budget": 3, "generation": 3, "ladder": [1], "replicates": 7, "objective": "each"},
    "confirm": {"seeds": 1},
    "analysis": {"endpoints": [1.0, 0.2]},
}
"""Seven searches of every arm, each with a finalist for every endpoint and one run of it."""

RANK: dict[str, Any] = {
    "task": WINE,
    "arms": {
        "dense": {**DENSE, **RATE},
        "fixed": {**FIXED, **RATE},
        "again": {"repeat": "dense"},
        "given": {**DENSE, "task": {"learning_rate": 0.05}},
        "plain": PLAIN,
    },
    "search": {
        "budget": 2,
        "generation": 2,
        "ladder": [1],
        "proposer": "random",
        "replicates": 7,
        "objective": "rank",
    },
    "confirm": {"seeds": 2},
    "analysis": {"endpoints": [1.0, 0.2], "curve": [0.5], "family": ["fixed"], "margin": [4, 90]},
}
"""Seven searches with two runs of each finalist, and two arms that nothing is searched for."""

LOOKS: dict[str, Any] = {
    "task": WINE,
    "arms": {"dense": {**DENSE, "task": {"learning_rate": 0.01}}, "additive": PLAIN},
    "confirm": {"seeds": 9},
    "analysis": {"looks": [7, 9]},
}
"""Two looks are paid for."""

DECIDED: dict[str, Any] = {
    **LOOKS,
    "confirm": {"seeds": 9, "stop": "decided"},
    "analysis": {"looks": [7, 9], "margin": [90]},
}
"""A study that ends at the first look, since its margin is generous."""

ANY: dict[str, Any] = {**LOOKS, "analysis": {"looks": "any"}}
"""Looks at any time."""

EACH_ANY: dict[str, Any] = {**EACH, "analysis": {**EACH["analysis"], "looks": "any"}}
"""The same with searches."""

GROWN: tuple[dict[str, Any], dict[str, Any]] = (
    {**LOOKS, "confirm": {"seeds": 7}, "analysis": {}},
    {**LOOKS, "analysis": {}},
)
"""A study before a look, and as it grows by two seeds after that."""

ANEW: dict[str, Any] = {
    "task": WINE,
    "arms": {"dense": {**DENSE, "task": {"learning_rate": 0.01}}, "tuned": {**PLAIN, **RATE}},
    "search": {"budget": 2, "generation": 2, "ladder": [1], "proposer": "random"},
    "confirm": {"seeds": 7},
}
PICKED_ANEW: tuple[dict[str, Any], dict[str, Any]] = (
    ANEW,
    {**ANEW, "search": {**ANEW["search"], "budget": 4}},
)
"""A study that picks its finalist among more candidates after a look."""


def values_of(parts: dict[str, Any]) -> dict[str, Any]:
    """Return a study's values with the given arms and no others."""
    return {**short_values(**parts), "arms": parts["arms"]}


def study(name: str, parts: dict[str, Any]) -> Study:
    return Study(name, Contents.read(values_of(parts)))


def made(store: Path, name: str, parts: dict[str, Any], most: int | None = None) -> Plan:
    """Play the study into its ledger, to its end or until so many more runs have finished."""
    return drive(study(name, parts), store, most=most)


def grown(store: Path, name: str, before: dict[str, Any], parts: dict[str, Any]) -> None:
    """Play the study as it was before, look at it, and then play it as it has grown."""
    made(store, name, before)
    Reading(Ledger(str(store), name, lambda _: None)).compare()
    begin(study(name, parts), Ledger(str(store), name, lambda _: None), extend=True)
    made(store, name, parts)


def written(store: Path, name: str, to: Path) -> dict[str, int]:
    """Export the study as `sweep export` does; return the number of rows of each table."""
    reading = Reading(Ledger(str(store), name, lambda _: None))
    return export(reading, Report.of(reading).findings, to, lambda _table, _rows: None)


def age(store: Path, name: str) -> None:
    """Turn a ledger into one that the first version of the tables left.

    It lacks the columns that came later, and it has no index.
    """
    for index in (store / name).glob("index*"):
        index.unlink()
    for folder in (store / name / "runs").iterdir():
        body = unseal((folder / "outcome.json").read_bytes())
        for kind, file in body["files"].items():
            if kind in ("epochs", "endpoints"):
                data = _first_version((folder / file["name"]).read_bytes())
                (folder / file["name"]).unlink()
                name = file["name"].replace(file["sha256"][:16], digest(data)[:16])
                file |= {"name": name, "bytes": len(data), "sha256": digest(data)}
                for path in (folder / name, folder / f"{kind}.parquet"):
                    path.write_bytes(data)
        (folder / "outcome.json").write_bytes(seal(body))


def _first_version(data: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    table = table.drop_columns(
        [name for name in ("connections", "active_neurons", "parameters") if name in table.column_names]
    )
    fields = [
        field.with_nullable(field.nullable and field.name not in ("keep_ratio", "reset", "cycle"))
        for field in table.schema
    ]
    made = io.BytesIO()
    pq.write_table(
        table.cast(pa.schema(fields, metadata={**(table.schema.metadata or {}), b"schema_version": b"1"})),
        made,
    )
    return made.getvalue()
