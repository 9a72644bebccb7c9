"""The exported notebook computes the report's own numbers for every kind of study.

Where a number is altered, it says which.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import warnings
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient

from sweep.statistics import minimum_detectable_gain, sequential_p_value
from sweep.views.export.files import NOTEBOOK, notebook
from tests.integration.exported import (
    ANY,
    BY_T,
    DECIDED,
    EACH,
    EACH_ANY,
    GROWN,
    LOOKS,
    MANY,
    PAIRED,
    PICKED_ANEW,
    RANK,
    RESAMPLED,
    SEARCHED,
    TASKS,
    WILD,
    age,
    grown,
    made,
    written,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq")
]


STAGES = {"begun": 0, "searching": 4, "half": 16, "complete": None}
"""The number of finished runs in the study of one task when it is exported."""
OF_TASKS = {"tasks-half": 30, "tasks": None}
"""The same for the study of several tasks."""
OF_LOOKS = {"first-look": 14, "looks": None}
"""The same for the study with two looks."""
PLAYED = {"wild": WILD, "many": MANY, "resampled": RESAMPLED, "each": EACH, "rank": RANK}
COPIED = {
    "by-t": (BY_T, "many"),
    "decided": (DECIDED, "looks"),
    "any": (ANY, "looks"),
    "each-any": (EACH_ANY, "each"),
}
"""Studies whose runs another one has: they are copied, so that nothing is trained again."""
Exported = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return the folder with the export of a stage or of another study; made when first asked for."""
    store, to = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("exports")

    def of(name: str) -> Path:
        if (to / name).exists():
            return to / name
        for study, parts, stages in (
            ("searched", SEARCHED, STAGES),
            ("several", TASKS, OF_TASKS),
            ("looked-at", LOOKS, OF_LOOKS),
        ):
            if name in stages:
                for stage, most in stages.items():
                    assert made(store, study, parts, most).complete == (most is None)
                    written(store, study, to / stage)
                return to / name
        if name in COPIED:
            parts, other = COPIED[name]
            of(other)
            made(store, name, parts, 0)
            source = store / ("looked-at" if other == "looks" else other)
            shutil.copytree(source / "runs", store / name / "runs", dirs_exist_ok=True)
            assert made(store, name, parts).complete
            written(store, name, to / name)
        elif name in ("grown", "picked-anew"):
            grown(store, name, *(GROWN if name == "grown" else PICKED_ANEW))
            written(store, name, to / name)
        elif name == "aged":
            assert made(store, name, PAIRED).complete
            age(store, name)
            written(store, name, to / name)
        else:
            assert made(store, name, PLAYED[name]).complete
            written(store, name, to / name)
        return to / name

    return of


def cells_of(folder: Path) -> nbformat.NotebookNode:
    cells = nbformat.read(folder / "significance.ipynb", as_version=4)
    nbformat.validate(cells)
    return cells


def run(folder: Path) -> str:
    """Run the notebook's cells in its folder and return what they print.

    They run in this process, because a kernel takes seconds to start.
    """
    namespace: dict[str, Any] = {}
    with warnings.catch_warnings(), chdir(folder), redirect_stdout(io.StringIO()) as printed:
        warnings.simplefilter("ignore")  # a notebook shows them and goes on
        for cell in cells_of(folder).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, cell.id, "exec"), namespace)
        namespace["plt"].close("all")
    return printed.getvalue()


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "stage",
    [
        "begun",
        "searching",
        "half",
        "complete",
        "wild",
        "many",
        "by-t",
        "tasks-half",
        "tasks",
        "resampled",
        "aged",
        "each",
        "each-any",
        "rank",
        "first-look",
        "looks",
        "decided",
        "any",
        "grown",
        "picked-anew",
    ],
)
def test_the_notebook_computes_every_number_of_the_report(exported: Exported, stage: str) -> None:
    assert "numbers of the report agree" in run(exported(stage))


def test_it_runs_in_a_kernel_as_a_reader_would_run_it(exported: Exported) -> None:
    folder = exported("complete")
    client = NotebookClient(
        cells_of(folder), timeout=280, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own channels, not ours
        last = client.execute().cells[-1]
    assert "numbers of the report agree" in "".join(
        it.text for it in last.outputs if it.output_type == "stream"
    )


def test_the_searched_study_lacks_what_its_stages_say(exported: Exported) -> None:
    searching, half, complete = (report(exported(stage)) for stage in ("searching", "half", "complete"))
    assert not any(row["candidate"] for row in searching["comparisons"] if row["arm"] == "additive")
    assert any(it["score"] is None for it in searching["search"][0]["candidates"])
    assert any(row["state"] == "incomplete" and row["gain"] is not None for row in half["comparisons"])
    assert set(complete["search"][0]["importances"]) == {
        "policy.step",
        "policy.ema_start",
        "task.learning_rate",
        "task.batch_size",
    }
    assert len({row["candidate"] for row in complete["comparisons"] if row["arm"] == "again"}) == 2


def test_the_wild_study_has_runs_of_every_ending(exported: Exported) -> None:
    found = report(exported("wild"))
    assert min(found["runs"][state] for state in ("completed", "diverged", "collapsed")) >= 6
    (edgy,) = (
        row for row in found["comparisons"] if (row["arm"], row["reference_arm"]) == ("edgy", "dense")
    )
    assert 0 < edgy["pairs_without"] < edgy["pairs"]


def test_flips_are_drawn_for_many_pairs_and_not_for_a_t_test(exported: Exported) -> None:
    assert all(0 < row["p_error"] < 0.01 for row in report(exported("many"))["comparisons"])
    assert all(row["p_error"] == 0 for row in report(exported("by-t"))["comparisons"])


def test_the_least_p_and_the_pairs_it_takes_are_told_of_the_sign_flip_test_alone(exported: Exported) -> None:
    by_t, many = report(exported("by-t"))["analysis"], report(exported("many"))["analysis"]
    assert by_t["smallest_p"] is by_t["pairs_needed"] is None
    assert many["smallest_p"] == 2.0**-20
    assert many["pairs_needed"] == 6


def test_the_study_of_several_tasks_has_baselines_of_their_own_and_too_few_tasks(exported: Exported) -> None:
    found = report(exported("tasks"))
    assert {row["reference_arm"] for row in found["comparisons"] if row["role"] == "family"} == {
        f"{arm}@{task}" for arm in ("dense", "static", "small") for task in ("plenty", "scarce")
    }
    assert {row["reference_arm"] for row in found["across"]} == {"dense", "static", "small"}
    assert not any(row["claimable"] for row in found["across"])
    sizes = {arm["arm"]: (arm["parameters_start"], arm["parameters_end"]) for arm in found["arms"]}
    assert sizes["static@plenty"][1] < sizes["dense@plenty"][1] == 64 * 24 + 24 * 16 + 16 * 10 + 24 + 16 + 10
    assert sizes["small@plenty"][1] == pytest.approx(sizes["set@plenty"][1], rel=0.05)
    for task in ("plenty", "scarce"):
        of = {arm["arm"]: arm["settings"] for arm in found["arms"]}
        assert set(of[f"static@{task}"]) == {"policy.epsilon"}
        assert set(of[f"tuned@{task}"]) == {"task.learning_rate", "policy.epsilon", "task.momentum"}
        assert len({of[f"{arm}@{task}"]["policy.epsilon"] for arm in ("set", "static", "tuned")}) == 1
    across = pq.read_table(exported("tasks") / "across.parquet").to_pylist()
    assert across == found["across"]
    assert any(row["missing"] and row["p_value"] is None for row in report(exported("tasks-half"))["across"])


def test_a_ledger_of_the_first_tables_says_nothing_of_parameters_and_all_else(exported: Exported) -> None:
    found, epochs = report(exported("aged")), pq.read_table(exported("aged") / "epochs.parquet")
    assert (
        {arm["parameters_end"] for arm in found["arms"]}
        == {row["parameters"] for row in found["comparisons"]}
        == {None}
    )
    assert epochs["parameters"].null_count == epochs.num_rows == 36
    assert all(row["p_holm"] is not None for row in found["comparisons"])


def test_the_resampled_study_is_tested_by_the_corrected_test_alone(exported: Exported) -> None:
    found = report(exported("resampled"))
    assert [row["overlap"] for row in found["comparisons"]] == pytest.approx([449 / 1348] * 6)
    assert all(
        row["two_way_standard_error"] is None and row["p_value"] is not None for row in found["comparisons"]
    )
    assert [(row["tasks"], row["claimable"]) for row in found["across"]] == [(6, True)]


def test_searches_that_pick_for_each_endpoint_differ_in_what_they_pick(exported: Exported) -> None:
    rows = pq.read_table(exported("each") / "candidates.parquet").to_pylist()
    picked = {(row["arm"], row["search"], *row["endpoints"]) for row in rows if row["phase"] == "confirm"}
    assert {arm for arm, *_ in picked} == {"dense", "fixed"}
    assert {search for _, search, *_ in picked} == set(range(1, 8))
    assert {("dense", 3, 1.0), ("dense", 3, 0.2), ("dense", 4, 1.0, 0.2)} <= picked
    for row in report(exported("each"))["comparisons"]:
        assert (row["unit"], row["pairs"], row["seeds"], row["searches"]) == ("search", 7, 7, 7)
        assert len(row["candidates"]) == len(row["references"]) == 7


def test_searches_with_two_seeds_are_pairs_unless_no_search_decides_anything(exported: Exported) -> None:
    rows = report(exported("rank"))["comparisons"]
    units = {(row["arm"], row["reference_arm"]): (row["unit"], row["pairs"], row["seeds"]) for row in rows}
    assert units.pop(("plain", "given")) == ("seed", 14, 14)
    assert set(units.values()) == {("search", 7, 14)}
    assert {row["verdict"] for row in rows} == {"equivalent", "inconclusive", None}
    assert all((row["seed_deviation"] is None) == (row["unit"] == "seed") for row in rows)
    assert any(
        row["search_deviation_high"] > row["search_deviation"] > 0 for row in rows if row["better"] < 6
    )


def test_tables_have_the_validation_score_of_every_candidate_at_every_endpoint(exported: Exported) -> None:
    folder = exported("rank")
    correct = {
        (row["run_id"], row["keep_ratio"]): row["accuracy"]
        for row in pq.read_table(folder / "endpoints.parquet").to_pylist()
        if row["split"] == "validation"
    }
    for row in pq.read_table(folder / "candidates.parquet").to_pylist():
        in_search = row["phase"] == "search"
        assert bool(row["endpoints"]) != in_search
        for ratio in (1.0, 0.2):
            expected = correct[row["run_ids"][0], ratio] if in_search else None
            assert row[f"validation_accuracy_at_r_{ratio:g}"] == expected
    runs = pq.read_table(folder / "runs.parquet", columns=["arm", "search"]).to_pylist()
    assert {(run["arm"], run["search"]) for run in runs} == {
        (arm, search) for arm in RANK["arms"] for search in range(1, 8)
    }


def test_looks_are_paid_for_and_a_study_may_end_at_one(exported: Exported) -> None:
    first, last, decided, anyhow = (
        report(exported(name))["comparisons"][0] for name in ("first-look", "looks", "decided", "any")
    )
    assert [(row["look"], row["looks"], row["pairs"]) for row in (first, last, decided, anyhow)] == [
        (1, 2, 7),
        (2, 2, 9),
        (1, 2, 7),
        (0, 0, 9),
    ]
    assert (first["p_value"], last["p_value"]) == (2 * 2 / 2**7, 2 * 2 / 2**9)
    assert last["p_value"] < anyhow["p_value"] < 0.05
    assert 1.1 * last["detectable_gain"] < anyhow["detectable_gain"]
    assert first["verdict"] == decided["verdict"] == anyhow["verdict"] == "better"


def test_a_study_that_grew_after_a_look_shows_that_look_beside_the_test_that_allows_for_any(
    exported: Exported,
) -> None:
    found = report(exported("grown"))
    assert found["grew_after_look"] == "pairs"
    assert [(look["pairs"], look["comparisons"][0]["p_value"]) for look in found["earlier"]] == [
        (7, 2 / 2**7)
    ]
    assert found["comparisons"][0]["p_value"] == report(exported("any"))["comparisons"][0]["p_value"]


def test_a_finalist_that_was_picked_anew_after_a_look_is_tested_at_a_tenth_of_alpha(
    exported: Exported,
) -> None:
    found = report(exported("picked-anew"))
    assert found["grew_after_look"] == "picks"
    scores = {key: [] for key in ("tuned", "dense")}
    rows = pq.read_table(exported("picked-anew") / "endpoints.parquet").to_pylist()
    accuracy = {row["run_id"]: row["accuracy"] for row in rows if row["split"] == "test"}
    for row in pq.read_table(exported("picked-anew") / "candidates.parquet").to_pylist():
        if row["phase"] == "confirm":
            scores[row["arm"]] = [accuracy[run] for run in row["run_ids"]]
    p = sequential_p_value(np.subtract(scores["tuned"], scores["dense"]))
    assert found["comparisons"][0]["p_value"] == pytest.approx(min(1, 10 * p))


def _gain(numbers: dict[str, Any]) -> str:
    numbers["comparisons"][1]["gain"] += 1e-6
    return "comparisons > 1 > gain:"


def _holm(numbers: dict[str, Any]) -> str:
    at = next(i for i, row in enumerate(numbers["comparisons"]) if row["p_holm"] is not None)
    numbers["comparisons"][at]["p_holm"] = None
    return f"comparisons > {at} > p_holm:"


def _count(numbers: dict[str, Any]) -> str:
    numbers["arms"][0]["collapsed"] += 1
    return "arms > 0 > collapsed:"


def _more(numbers: dict[str, Any]) -> str:
    numbers["search"][0]["candidates"].append(numbers["search"][0]["candidates"][0])
    return "search > 0 > candidates > 5 > score:"


def test_a_number_that_was_altered_in_the_report_is_named(exported: Exported, tmp_path: Path) -> None:
    altered = shutil.copytree(exported("complete"), tmp_path / "altered")
    numbers = report(altered)
    changes: list[Callable[[dict[str, Any]], str]] = [_gain, _holm, _count, _more]
    names = [change(numbers) for change in changes]
    (altered / "report.json").write_text(json.dumps(numbers), encoding="utf-8")
    with pytest.raises(ValueError, match="numbers do not agree") as refused:
        run(altered)
    for name in names:
        assert f"\n{name}" in str(refused.value)
    assert "comparisons > 0 > gain:" not in str(refused.value)


def test_a_number_that_is_simulated_is_named_where_it_is_not_that_of_the_declared_test(
    exported: Exported, tmp_path: Path
) -> None:
    altered = shutil.copytree(exported("rank"), tmp_path / "altered")
    numbers = report(altered)
    row = numbers["comparisons"][0]
    by_t = minimum_detectable_gain(
        7, row["standard_error"] * math.sqrt(7), alpha=0.025, power=0.8, test="paired-t"
    )
    assert by_t < 0.95 * row["detectable_gain"]
    row |= {"detectable_gain": by_t, "verdict": "better", "search_deviation_high": 0.5, "better": 2}
    numbers["tuning"][0]["curves"][0]["mean"][3] += 0.01
    numbers["arms"][0]["failure_high"] += 1e-6
    (altered / "report.json").write_text(json.dumps(numbers), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^6 of [0-9]+ numbers do not agree") as refused:
        run(altered)
    for name in ("detectable_gain", "verdict", "search_deviation_high", "better"):
        assert f"\ncomparisons > 0 > {name}:" in str(refused.value)
    assert "\ntuning > 0 > curves > 0 > mean > 3:" in str(refused.value)
    assert "\narms > 0 > failure_high:" in str(refused.value)


def _replace(
    folder: Path, column: str, change: Callable[[list[Any]], None], name: str = "endpoints"
) -> None:
    table = pq.read_table(folder / f"{name}.parquet")
    values = table[column].to_pylist()
    change(values)
    field = table.schema.field(column)
    made = table.set_column(table.schema.names.index(column), field, pa.array(values, field.type))
    pq.write_table(made, folder / f"{name}.parquet")


@pytest.mark.parametrize("study", ["each", "rank", "complete"])
def test_a_finalist_that_the_search_did_not_pick_is_named(
    exported: Exported, tmp_path: Path, study: str
) -> None:
    altered = shutil.copytree(exported(study), tmp_path / "altered")

    def other(values: list[list[float]]) -> None:
        at = next(i for i, endpoints in enumerate(values) if endpoints)
        values[at] = values[at][:1]

    _replace(altered, "endpoints", other, "candidates")
    with pytest.raises(ValueError, match=r"candidates.parquet: search 1 of dense picks {.*1.0, 0.[12]"):
        run(altered)


def test_a_validation_score_that_was_altered_is_named(exported: Exported, tmp_path: Path) -> None:
    altered = shutil.copytree(exported("rank"), tmp_path / "altered")

    def more(values: list[float]) -> None:
        values[0] -= 0.01

    _replace(altered, "validation_accuracy_at_r_0.2", more, "candidates")
    with pytest.raises(ValueError, match=r"the validation accuracy of dense-0\.0 is wrong"):
        run(altered)


def test_one_image_that_was_altered_in_the_tables_is_noticed(exported: Exported, tmp_path: Path) -> None:
    altered = shutil.copytree(exported("many"), tmp_path / "altered")

    def flip(values: list[bytes]) -> None:
        values[0] = bytes([values[0][0] ^ 0x80]) + values[0][1:]

    _replace(altered, "correct", flip)
    with pytest.raises(ValueError, match="accuracy is not the mean of the bits"):
        run(altered)

    def follow(values: list[float]) -> None:
        table = (
            pq.read_table(altered / "endpoints.parquet", columns=["correct", "images"])
            .slice(0, 1)
            .to_pylist()[0]
        )
        values[0] = float(
            np.unpackbits(np.frombuffer(table["correct"], np.uint8), count=table["images"]).mean()
        )

    _replace(altered, "accuracy", follow)  # a forger who thinks of both
    with pytest.raises(ValueError, match=r"numbers do not agree(.|\n)*comparisons > 0 > gain"):
        run(altered)


def test_cells_of_words_keep_their_headings_and_code_is_left_as_it_is() -> None:
    words = '"""Of the file."""\n\n# %% [markdown]\n# # Title\n#\n# ## Part\n# #1 of 2\n\n'
    source = words + "# %%\nx = 1  # one\n\n# a remark\ny = 2\n\n\n# %%\nz = 3\n"
    made = notebook(source)["cells"]
    assert [(cell["cell_type"], cell["source"]) for cell in made] == [
        ("markdown", "# Title\n\n## Part\n#1 of 2"),
        ("code", "x = 1  # one\n\n# a remark\ny = 2"),
        ("code", "z = 3"),
    ]


def test_the_notebook_imports_nothing_of_ours() -> None:
    lines = NOTEBOOK.read_text(encoding="utf-8").splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    ours = {
        "json",
        "math",
        "warnings",
        "collections",
        "functools",
        "pathlib",
        "matplotlib",
        "numpy",
        "optuna",
        "pandas",
        "scipy",
    }
    assert imported == ours
