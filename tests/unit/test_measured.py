"""The pace that a GPU's results file gives: worked by hand from made-up figures.

It holds for what the file fits and for nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import predicted
from sweep.errors import RejectStudy
from sweep.estimate.measured import Pace, Results, read
from sweep.study.contents import Resources
from tests.conftest import run_values
from tests.sweeps import packed, write_gpu_results
from trainer.code import code_hash
from trainer.spec import RunSpec, Task

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


def paper_task(**task: Any) -> Task:
    """Return the task that the results file was measured on, or nearly."""
    whole: dict[str, Any] = {
        "data": "cifar10",
        "model": "wrn-28-4",
        "batch_size": 128,
        "precision": "bfloat16",
        "train_size": None,
        **task,
    }
    return RunSpec.read(run_values(**whole)).task


def pace(folder: Path, sharing: int, **task: Any) -> Pace | None:
    return read(folder).pace(H100, paper_task(**task), sharing)


def seconds(folder: Path, sharing: int, **task: Any) -> float:
    found = pace(folder, sharing, **task)
    assert found
    assert found.seconds is not None
    return found.seconds


def test_a_run_alone_takes_what_one_took(tmp_path: Path) -> None:
    write_gpu_results(tmp_path)
    assert seconds(tmp_path, 1) == pytest.approx(1.25)  # 0.8 epochs a second


def test_a_run_among_four_takes_as_long_as_four_epochs_of_them_all(tmp_path: Path) -> None:
    write_gpu_results(tmp_path)
    assert seconds(tmp_path, 4) == pytest.approx(3.2)  # 4 epochs, 1.25 a second


@pytest.mark.parametrize(("memory_gib", "told"), [(40.0, False), (20.0, True)])
def test_runs_that_need_more_memory_than_the_gpu_has_are_told(
    tmp_path: Path, memory_gib: float, told: bool
) -> None:
    line = {**packed(4, 1.25, threads=True), "peak_gib": 6.0}
    write_gpu_results(tmp_path, packed=[line], facts={"memory_gib": memory_gib})
    found = pace(tmp_path, 4)
    assert found
    assumed = "its 20 GiB suffice for them, though 24 GiB were measured"
    assert (assumed in found.assumed) == told


def test_mps_is_taken_for_granted_only_where_nothing_else_was_measured(tmp_path: Path) -> None:
    """Nothing starts MPS, so a study's runs are threads, or what they are beside no others."""
    write_gpu_results(tmp_path, packed=[packed(4, 1.6, mps=True), packed(4, 1.25, threads=True)])
    threads = pace(tmp_path, 4)
    write_gpu_results(tmp_path, packed=[packed(1, 0.8), packed(4, 1.6, mps=True)])
    alone = pace(tmp_path, 4)
    write_gpu_results(tmp_path, packed=[packed(4, 1.6, mps=True)])
    under_mps = pace(tmp_path, 4)
    assert threads
    assert alone
    assert under_mps
    # four epochs at 1.25, 0.8 and 1.6 a second
    assert [it.seconds for it in (threads, alone, under_mps)] == pytest.approx([3.2, 5.0, 2.5])
    assert [any("MPS" in line for line in it.assumed) for it in (threads, alone, under_mps)] == [
        False,
        False,
        True,
    ]


def test_processes_that_share_a_gpu_without_mps_count_for_nothing(tmp_path: Path) -> None:
    """A study's runs are threads. Files from before that have such processes, and no word of threads."""
    old = [{"runs": runs, "mps": False, "epochs_per_second": rate} for runs, rate in ((1, 0.8), (4, 9.0))]
    write_gpu_results(tmp_path, packed=[*old, packed(4, 1.0, mps=True)])
    found = pace(tmp_path, 4)
    assert found
    assert found.seconds == pytest.approx(5.0)
    assert list(found.packings.values()) == pytest.approx([1.25, 1.0])


def test_a_packing_whose_rows_were_others_is_never_counted(tmp_path: Path) -> None:
    unequal = {**packed(4, 9.0, threads=True), "rows_equal": False}
    write_gpu_results(tmp_path, packed=[packed(1, 0.8), unequal])
    found = pace(tmp_path, 4)
    assert found
    assert found.seconds == pytest.approx(5.0)  # as four runs of which one after the other is trained
    assert not any("4 runs" in how for how in found.packings)


def test_a_measurement_of_earlier_code_is_told_as_one(tmp_path: Path) -> None:
    for code, told in ((code_hash(), "2026-11-26"), ("f" * 16, "2026-11-26, with an earlier version")):
        write_gpu_results(tmp_path, facts={"date": "2026-11-26T16:05:54+00:00", "code": code})
        found = pace(tmp_path, 1)
        assert found
        assert found.source == f"measured by benchmarks.gpu on {H100}, {told}"


def test_the_fastest_packings_are_told_whatever_the_study_asks_for(tmp_path: Path) -> None:
    threads = [packed(1, 0.8), packed(2, 1.25, threads=True), packed(4, 1.0, threads=True)]
    under_mps = [packed(2, 1.1, mps=True), packed(4, 1.6, mps=True)]
    write_gpu_results(tmp_path, packed=[*threads, *under_mps])
    for sharing in (1, 4):
        found = pace(tmp_path, sharing)
        assert found
        # 1.25 and 1.6 epochs a second
        assert list(found.packings.values()) == [pytest.approx(0.8), pytest.approx(0.625)]
        assert ["MPS" in how for how in found.packings] == [False, True]
        assert ["2 runs" in how for how in found.packings] == [True, False]


@pytest.mark.parametrize(
    ("sharing", "expected", "nearest"),
    [
        (2, 2.5, "one, which was"),
        (3, 3.75, "one, which was"),
        (5, 4.0, "the 4 that were"),
        (10, 8.0, "the 4 that were"),
    ],
)
def test_a_number_that_was_not_measured_gets_together_what_the_nearest_below_it_got(
    tmp_path: Path, sharing: int, expected: float, nearest: str
) -> None:
    """2 or 3 runs count as one: 0.8 epochs a second for all of them; 5 or 10 as four: 1.25."""
    write_gpu_results(tmp_path)
    found = pace(tmp_path, sharing)
    assert found
    assert found.seconds == pytest.approx(expected)
    assert found.assumed[-1] == f"together they are as fast as {nearest} measured"


@pytest.mark.parametrize(
    ("task", "trained", "evaluated", "expected"),
    [
        ({}, "50,000", "10,000", 1.25),
        ({"validation": 0.1}, "45,000", "15,000", 1.0 * 0.9 + 0.25 * 1.5),
        ({"train_size": 10_000, "validation": 0.1}, "10,000", "15,000", 1.0 * 0.2 + 0.25 * 1.5),
        ({"evaluate_every": 5}, "50,000", "10,000", 1.0 + 0.25 / 5),
    ],
)
def test_an_epoch_costs_by_the_images_it_trains_on_and_evaluates(
    tmp_path: Path, task: dict[str, Any], trained: str, evaluated: str, expected: float
) -> None:
    """A measured epoch takes 1.25 s: 1 s for 50,000 training images, and 0.25 s for 10,000 test images."""
    epochs = [
        {"ratio": 1.0, "epoch_seconds": 1.1, "training_seconds": 1.0},  # evaluated once: tells nothing
        {"ratio": 0.3, "epoch_seconds": 2.5, "training_seconds": 2.0},
    ]
    write_gpu_results(tmp_path, ratios={"epochs": epochs, "greatest_over_least": 1.2})
    found = pace(tmp_path, 1, **task)
    assert found
    assert found.seconds == pytest.approx(expected)
    assert found.assumed[0] == (
        f"an epoch trains wrn-28-4 on {trained} images in batches of 128 and evaluates {evaluated}"
    )


def test_where_the_time_of_evaluation_is_not_known_training_images_alone_count(tmp_path: Path) -> None:
    for ratios in (None, {"epochs": []}):
        write_gpu_results(tmp_path, ratios=ratios)
        assert seconds(tmp_path, 1, validation=0.1) == pytest.approx(1.25 * 0.9)


def test_a_prediction_is_told_until_the_same_was_measured(tmp_path: Path) -> None:
    write_gpu_results(tmp_path, packed=[packed(1, 0.5)])
    four = [packed(4, 1.0, threads=True)]
    write_gpu_results(tmp_path, prefix="predicted", measured=False, packed=four)
    found = pace(tmp_path, 4, validation=0.1)
    assert found
    assert found.seconds == pytest.approx(4 * 0.9 / 0.5)  # as measured, and not as predicted
    assert found.predicted == {"4 runs on each GPU (`gpus: 0.25`)": pytest.approx(0.9)}
    assert pace(tmp_path, 1, model="wrn-16-8") is None
    write_gpu_results(tmp_path, packed=[packed(1, 0.5), packed(4, 0.8, threads=True)])
    measured = pace(tmp_path, 4)
    assert measured
    assert not measured.predicted


@pytest.mark.parametrize("other", [{"device": A100}, {"task": {"precision": "float32"}}])
def test_a_prediction_of_something_else_is_not_told(tmp_path: Path, other: dict[str, Any]) -> None:
    write_gpu_results(tmp_path, packed=[packed(1, 0.5)])
    write_gpu_results(tmp_path, prefix="predicted", measured=False, **other)
    found = pace(tmp_path, 1)
    assert found
    assert not found.predicted


def test_a_prediction_by_itself_measures_nothing(tmp_path: Path) -> None:
    write_gpu_results(tmp_path, prefix="predicted", measured=False)
    assert read(tmp_path).measured == []
    assert pace(tmp_path, 1) is None


def test_the_prediction_that_travels_with_the_package_is_what_its_command_makes_of_its_ground() -> None:
    made = predicted.predicted(json.loads(predicted.GROUND.read_text()))
    assert json.loads(predicted.OUT.read_text()) == json.loads(json.dumps(made))


def test_the_command_says_where_its_prediction_is_written_and_nothing_is_without_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predicted, "OUT", tmp_path / "predicted.json")
    for option in ("--help", "--nonsense"):
        with pytest.raises(SystemExit):
            predicted.main([option])
        assert not predicted.OUT.exists()
    capsys.readouterr()
    assert predicted.main([]) == 0
    assert predicted.OUT.exists()
    assert capsys.readouterr().out.endswith(f"written to {tmp_path}/predicted.json\n")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([packed(4, 0.8, mps=True), packed(1, 0.6, threads=True)], "the prediction has to go"),
        ([packed(4, 0.8), packed(2, 0.7, mps=True)], "four runs under MPS have not been measured"),
    ],
    ids=["threads", "no MPS"],
)
def test_what_is_measured_or_lacks_four_runs_under_mps_is_no_ground_for_a_prediction(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lines: list[dict[str, Any]],
    why: str,
) -> None:
    monkeypatch.setattr(predicted, "GROUND", write_gpu_results(tmp_path, packed=lines))
    monkeypatch.setattr(predicted, "OUT", tmp_path / "predicted.json")
    assert predicted.main([]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert why in said
    assert not predicted.OUT.exists()


@pytest.mark.parametrize("task", [{"model": "wrn-10-1"}, {"precision": "float32"}, {"data": "digits"}])
def test_what_another_network_precision_or_size_of_image_takes_is_not_told(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    write_gpu_results(tmp_path)
    assert pace(tmp_path, 1, **task) is None


def test_what_is_not_known_of_data_or_of_so_few_runs_is_not_told(tmp_path: Path) -> None:
    write_gpu_results(tmp_path, task={"data": "from-another-release"})
    assert pace(tmp_path, 1) is None
    write_gpu_results(tmp_path, packed=[packed(4, 1.25, threads=True)])
    assert pace(tmp_path, 1) is None
    assert seconds(tmp_path, 4) == pytest.approx(3.2)


def test_of_two_files_of_a_device_the_one_that_fits_tells(tmp_path: Path) -> None:
    write_gpu_results(tmp_path, task={"model": "wrn-16-8"}).rename(tmp_path / "gpu-another.json")
    write_gpu_results(tmp_path)
    assert seconds(tmp_path, 1) == pytest.approx(1.25)
    assert seconds(tmp_path, 1, model="wrn-16-8") == pytest.approx(1.25)


def test_a_rehearsal_is_no_measurement_and_no_damage(tmp_path: Path) -> None:
    write_gpu_results(tmp_path, "cpu", measured=False, packed=[])
    assert read(tmp_path) == Results([], [])


def test_only_a_gpus_results_are_read_and_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    (tmp_path / "trainer-cpu.json").write_text("nothing of ours")
    assert read(tmp_path) == read(tmp_path / "nowhere") == Results([], [])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"packed": [packed(0, 0.8)]}, "packed.0.runs  must be at least 1; it is 0."),
        ({"packed": [packed(1, 0.0)]}, "packed.0.epochs_per_second  must be above 0; it is 0.0."),
        (
            {"packed": [packed(1, float("nan"))]},
            "packed.0.epochs_per_second  must be a finite number; it is nan.",
        ),
        (
            {"packed": [packed(1, 0.8), {"runs": 4, "mps": False}]},
            "packed.1.epochs_per_second  is missing; ",
        ),
        (
            {
                "task": {
                    "data": "cifar10",
                    "model": "wrn-28-4",
                    "precision": "bfloat16",
                    "batch_size": 128,
                    "train": 0,
                    "test": 1,
                }
            },
            "task.train  must be at least 1; it is 0.",
        ),
        ({"device": None}, "device  must be a text; it is None."),
        ({"measured": "yes"}, "measured  must be true or false; it is 'yes'."),
    ],
)
def test_a_figure_that_cannot_be_is_named_with_its_file_and_place(
    tmp_path: Path, parts: dict[str, Any], said: str
) -> None:
    write_gpu_results(tmp_path, A100)
    path = write_gpu_results(tmp_path)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, **parts}))
    found = read(tmp_path)
    assert [it.device for it in found.measured] == [A100]
    assert len(found.damaged) == 1
    assert found.damaged[0].startswith(f"{path} is damaged, and is not used: ")
    assert said in found.damaged[0].removeprefix(str(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000], ids=range(6))
def test_what_is_no_results_file_at_all_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gpu-broken.json"
    path.write_bytes(content)
    found = read(tmp_path)
    assert not found.measured
    assert [line.startswith(f"{path} is damaged, and is not used: ") for line in found.damaged] == [True]


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gpu-folder.json"
    path.mkdir()
    assert [
        line.startswith(f"{path} cannot be read, and is not used: ") for line in read(tmp_path).damaged
    ] == [True]


@pytest.mark.parametrize("name", ["H100", "h100", "nvidia h100 80gb hbm3", "hbm3"])
def test_a_device_is_meant_by_any_part_of_its_name_in_any_case(tmp_path: Path, name: str) -> None:
    write_gpu_results(tmp_path)
    write_gpu_results(tmp_path, A100)
    assert read(tmp_path).device(name) == H100


def test_a_whole_name_means_that_device_though_another_name_goes_on(tmp_path: Path) -> None:
    write_gpu_results(tmp_path, "NVIDIA L4")
    write_gpu_results(tmp_path, "NVIDIA L40S")
    assert read(tmp_path).device("nvidia l4") == "NVIDIA L4"
    with pytest.raises(
        RejectStudy,
        match=r"--gpu L4: could be NVIDIA L4 or NVIDIA L40S\. Measured are: NVIDIA L4, NVIDIA L40S\.",
    ):
        read(tmp_path).device("L4")


def test_a_name_that_was_not_measured_is_answered_with_those_that_were_and_the_damaged_files(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        RejectStudy,
        match=r"--gpu V100: has not been measured\. No GPU has been measured yet\. "
        r".*python -m benchmarks\.gpu",
    ):
        read(tmp_path).device("V100")
    write_gpu_results(tmp_path)
    (tmp_path / "gpu-v100.json").write_text("{")
    with pytest.raises(
        RejectStudy, match=r"Measured are: NVIDIA H100 80GB HBM3\.(.|\n)*gpu-v100\.json is damaged"
    ):
        read(tmp_path).device("V100")


@pytest.mark.parametrize(
    ("gpus", "runs"),
    [
        (0, 1),
        (1, 1),
        (2, 1),
        (0.75, 1),
        (0.5, 2),
        (1 / 3, 3),
        (0.3, 3),
        (0.25, 4),
        (0.1, 10),
        (1 / 7, 7),
    ],
)
def test_as_many_runs_share_a_gpu_as_have_room_on_it(gpus: float, runs: int) -> None:
    assert Resources(gpus=float(gpus)).sharing == runs
