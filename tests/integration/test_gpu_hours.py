"""`sweep plan` of a study for GPUs: its GPU-hours and its errors.

The hours come from made-up results files, from a try, or from nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from sweep.cli.app import app
from sweep.estimate.planned import FIXED_SECONDS, RUN_SECONDS
from tests.conftest import ROOT
from tests.sweeps import packed, sweep, write_gpu_results, write_study
from trainer.data import DataError

H100 = "NVIDIA H100 80GB HBM3"
EPOCHS = 231_500
"""The epochs of search_spaces/cifar10.yaml: 463 runs of 500."""
AS_MEASURED = 500 * (143 + 320 * 0.9)
"""The epochs of 50,000 images that train as many images: 320 runs of the search train on 45,000."""
MPS = "`nvidia-cuda-mps-control -d` on every node before Ray starts"
UNDER_MPS = f"4 runs on each GPU under MPS (`gpus: 0.25`, and {MPS})"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder instead of sweep/estimate/gpus; the machine seems to have no GPU."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr("sweep.estimate.measured.RESULTS", folder)
    monkeypatch.setattr("sweep.estimate.pace.device_here", lambda: None)
    for name in ("STORE", "RAY_ADDRESS", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return folder


def invoke(folder: Path, *more: str, study: str = "cifar10") -> Result:
    """Run the command in this process; slots are given, so that it asks no cluster."""
    return CliRunner().invoke(
        app(), ["plan", study, "--store", str(folder / "store"), "--workers", "32", *more]
    )


def plan(folder: Path, *more: str, study: str = "cifar10") -> dict[str, Any]:
    done = invoke(folder, "--json", *more, study=study)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(folder: Path, *more: str, study: str = "cifar10") -> str:
    done = invoke(folder, "--json", *more, study=study)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert "Traceback" not in done.stderr
    return done.stderr


def changed(folder: Path, **resources: float) -> str:
    """Write the paper's study with other resources."""
    values = yaml.safe_load((ROOT / "search_spaces" / "cifar10.yaml").read_text())
    values["resources"] |= resources
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


def test_the_hours_of_the_papers_study_follow_from_a_results_file(results: Path) -> None:
    """Four runs share a GPU that finishes 1.25 epochs a second: an epoch takes 3.2 s of a quarter GPU."""
    write_gpu_results(results)
    study = changed(results.parent, gpus=0.25)
    told = plan(results, "--gpu", "h100", study=study)
    assert told["epochs"] == EPOCHS
    assert told["seconds_per_epoch"] == pytest.approx(3.2 * AS_MEASURED / EPOCHS)
    assert told["gpu_hours_left"] == pytest.approx(AS_MEASURED / 1.25 / 3600)  # 47.9
    busy = AS_MEASURED * 3.2 + told["runs_left"] * RUN_SECONDS
    assert (told["seconds_left"] - FIXED_SECONDS) * told["utilisation"] == pytest.approx(busy / 32)
    assert told["seconds_from"] == f"measured by benchmarks.gpu on {H100}"
    assert (
        "an epoch trains wrn-28-4 on 50,000 images in batches of 128 and evaluates 10,000" in told["assumed"]
    )
    assert (
        "an epoch trains wrn-28-4 on 45,000 images in batches of 128 and evaluates 15,000" in told["assumed"]
    )
    assert "4 runs share a GPU" in told["assumed"]
    assert sorted(results.rglob("*")) == [results / "gpu-nvidia-h100-80gb-hbm3.json"]
    shown = invoke(results, "--gpu", "h100", study=study).stdout
    assert f"about 48 GPU-hours (measured by benchmarks.gpu on {H100})." in shown
    assert f"Assumed: {told['assumed']}." in shown


@pytest.mark.parametrize(
    ("gpus", "hours"),
    [
        (1.0, AS_MEASURED * 1.25 / 3600),
        (2.0, AS_MEASURED * 1.25 * 2 / 3600),
        (0.75, AS_MEASURED * 1.25 / 3600),  # no other run fits beside it
        (0.5, AS_MEASURED * 2.5 * 0.5 / 3600),
    ],
)
def test_hours_count_what_a_run_holds_of_a_gpu(
    results: Path, tmp_path: Path, gpus: float, hours: float
) -> None:
    """One run alone takes 1.25 s an epoch; two were not measured, and are taken to be no faster together."""
    write_gpu_results(results)
    assert plan(results, "--gpu", "H100", study=changed(tmp_path, gpus=gpus))[
        "gpu_hours_left"
    ] == pytest.approx(hours)


def test_with_few_slots_no_gpu_is_full(results: Path, tmp_path: Path) -> None:
    """Four slots at `gpus: 0.1` are four runs on one GPU, and not ten: 1.25 epochs a second, 48 hours."""
    write_gpu_results(results)
    shares = [
        plan(results, "--gpu", "H100", "--workers", "4", study=changed(tmp_path, gpus=gpus))
        for gpus in (0.1, 0.25)
    ]
    assert shares[0]["gpu_hours_left"] == pytest.approx(shares[1]["gpu_hours_left"])
    assert shares[0]["seconds_left"] == pytest.approx(shares[1]["seconds_left"])


@pytest.mark.parametrize(
    ("gpus", "faster"),
    [
        (1, ["4 runs on each GPU (`gpus: 0.25`): about 48 GPU-hours", f"{UNDER_MPS}: about 37 GPU-hours"]),
        (0.25, [f"{UNDER_MPS}: about 37 GPU-hours"]),
    ],
)
def test_a_packing_that_was_measured_to_take_fewer_hours_is_told_and_not_assumed(
    results: Path, tmp_path: Path, gpus: float, faster: list[str]
) -> None:
    write_gpu_results(results)
    study = changed(tmp_path, gpus=gpus)
    assert plan(results, "--gpu", "h100", study=study)["faster"] == faster
    shown = invoke(results, "--gpu", "h100", study=study).stdout.splitlines()
    start = "Faster by the same measurement: "
    assert [line for line in shown if line.startswith(start)] == [f"{start}{line}." for line in faster]


def test_the_papers_study_follows_the_measurement_that_travels_with_the_package(tmp_path: Path) -> None:
    """An H100's epochs a second: one run 0.602, four under MPS 0.783; 8.9 % of an epoch is evaluation.

    A run of the search trains on 0.9 times the images, and evaluates 1.5 times as many.
    """
    epochs = 500 * (143 + 320 * (0.9 * (1 - 0.0894) + 1.5 * 0.0894))
    alone = plan(tmp_path, "--gpu", "h100")
    assert alone["gpu_hours_left"] == pytest.approx(epochs / 0.602 / 3600, rel=1e-3)  # 103.4
    assert alone["faster"] == [f"{UNDER_MPS}: about 80 GPU-hours"]
    # Runs in threads were not measured, so four together count as no faster than one.
    four = plan(tmp_path, "--gpu", "h100", study=changed(tmp_path, gpus=0.25))
    assert four["gpu_hours_left"] == pytest.approx(alone["gpu_hours_left"])
    assert four["faster"] == alone["faster"]


def test_what_is_predicted_is_shown_beside_the_measurement_and_says_so(results: Path) -> None:
    """One run was measured at half an epoch a second; the prediction is 0.6 for one and 0.9 for four."""
    write_gpu_results(results, packed=[packed(1, 0.5)])
    predicted = [packed(1, 0.6, threads=True), packed(4, 0.9, threads=True)]
    write_gpu_results(results, prefix="predicted", measured=False, packed=predicted)
    told = plan(results, "--gpu", "h100")
    assert told["gpu_hours_left"] == pytest.approx(AS_MEASURED / 0.5 / 3600)
    assert told["faster"] == []
    assert told["predicted"] == [
        "one run on each GPU (`gpus: 1`): about 100 GPU-hours",
        "4 runs on each GPU (`gpus: 0.25`): about 67 GPU-hours",
    ]
    shown = invoke(results, "--gpu", "h100").stdout.splitlines()
    start = "Predicted for this code, not measured: "
    assert [line for line in shown if line.startswith(start)] == [
        f"{start}{line}." for line in told["predicted"]
    ]


def test_the_gpu_of_this_machine_is_meant_where_none_is_named(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gpu_results(results, "NVIDIA A100-SXM4-80GB")
    write_gpu_results(results, packed=[{"runs": 1, "mps": False, "epochs_per_second": 2.0}])
    monkeypatch.setattr("sweep.estimate.pace.device_here", lambda: H100)
    assert plan(results)["gpu_hours_left"] == pytest.approx(AS_MEASURED / 2 / 3600)
    assert plan(results, "--gpu", "A100")["gpu_hours_left"] == pytest.approx(AS_MEASURED / 0.8 / 3600)


def test_a_gpu_here_that_was_not_measured_is_tried(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gpu_results(results)
    devices: list[object] = []

    def tried(*given: object) -> float:
        devices.append(given[2])
        return 2.0

    monkeypatch.setattr("sweep.estimate.pace.device_here", lambda: "NVIDIA L4")
    monkeypatch.setattr("sweep.estimate.pace.calibrate", tried)
    told = plan(results, study=changed(results.parent, gpus=0.25))
    assert devices == ["cuda"]
    assert told["gpu_hours_left"] == pytest.approx(EPOCHS * 2 * 0.25 / 3600)
    assert told["seconds_from"] == "estimated by a few seconds of training here"
    # A try alone takes less than a run beside three others, and the plan says so.
    assert "had it to itself" in told["assumed"]


def test_another_gpu_than_the_one_that_was_asked_for_is_not_tried(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gpu_results(results, task={"model": "wrn-16-8"})
    monkeypatch.setattr("sweep.estimate.pace.device_here", lambda: "NVIDIA L4")
    told = plan(results, "--gpu", "H100")
    assert (told["gpu_hours_left"], told["seconds_left"]) == (None, None)
    assert told["seconds_from"].startswith(
        f"what was measured on {H100} does not fit this study: run `sweep plan`"
    )


def test_a_gpu_here_without_the_data_is_told_what_to_do(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(*_: object) -> float:
        raise DataError("not here")

    monkeypatch.setattr("sweep.estimate.pace.device_here", lambda: "NVIDIA L4")
    monkeypatch.setattr("sweep.estimate.pace.calibrate", tried)
    told = plan(results)
    assert told["gpu_hours_left"] is None
    assert "python -m benchmarks.gpu" in told["seconds_from"]


def test_with_nothing_to_tell_by_a_plan_says_what_to_run_and_which_gpus_could_be_named(
    results: Path,
) -> None:
    told = plan(results)
    assert (told["gpu_hours_left"], told["seconds_left"], told["assumed"]) == (None, None, "")
    assert told["seconds_from"].endswith(
        "`python -m benchmarks.gpu` in a checkout on such a GPU, or `sweep plan` on a machine that has one"
    )
    write_gpu_results(results)
    # These figures are of no use to this study: it trains in bfloat16.
    write_gpu_results(results, "NVIDIA A100-SXM4-80GB", task={"precision": "float32"})
    assert plan(results)["seconds_from"].endswith(f", or give --gpu one that was measured: {H100}")
    shown = invoke(results).stdout
    assert "unknown (no run to measure by" in shown
    assert "GPU-hours" not in shown


def test_a_rehearsal_is_never_used(results: Path) -> None:
    write_gpu_results(results, measured=False)
    assert plan(results)["gpu_hours_left"] is None
    assert "No GPU has been measured yet" in refused(results, "--gpu", "H100")


def test_a_damaged_file_is_named_in_a_warning_and_the_others_are_used(results: Path) -> None:
    write_gpu_results(results)
    (results / "gpu-broken.json").write_text("{")
    told = plan(results, "--gpu", "H100")
    assert told["gpu_hours_left"] == pytest.approx(AS_MEASURED / 0.8 / 3600)
    assert [line.split()[0] for line in told["warnings"] if "damaged" in line] == [
        str(results / "gpu-broken.json")
    ]


def test_a_name_that_is_not_one_measured_gpus_is_a_usage_error_that_lists_them(results: Path) -> None:
    nothing = refused(results, "--gpu", "H100")
    assert "No GPU has been measured yet" in nothing
    assert "python -m benchmarks.gpu" in nothing
    write_gpu_results(results)
    write_gpu_results(results, "NVIDIA A100-SXM4-80GB")
    assert f"--gpu V100: has not been measured. Measured are: NVIDIA A100-SXM4-80GB, {H100}." in refused(
        results, "--gpu", "V100"
    )
    assert f"--gpu nvidia: could be NVIDIA A100-SXM4-80GB or {H100}." in refused(results, "--gpu", "nvidia")


def test_a_study_that_takes_no_gpu_has_no_gpu_hours_and_takes_no_name(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.estimate.pace.CALIBRATION_SECONDS", 0.0)
    (results / "gpu-broken.json").write_text("{")  # of no interest to it
    study = str(write_study(results))
    told = plan(results, study=study)
    assert told["gpu_hours_left"] is None
    assert told["seconds_per_epoch"] > 0
    assert not [line for line in told["warnings"] if "damaged" in line]
    assert "take no GPU" in refused(results, "--gpu", "H100", study=study)


def test_the_command_as_a_process_answers_a_name_that_nobody_measured(tmp_path: Path) -> None:
    """No GPU has this name, whatever has been measured by then."""
    done = sweep("plan", "cifar10", "--store", tmp_path / "store", "--workers", "1", "--gpu", "no such card")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--gpu no such card: has not been measured. ")
    assert "python -m benchmarks.gpu" in done.stderr
