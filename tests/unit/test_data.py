"""Data sets and splits; the real loader reads a small CIFAR-10 in its real format on disk."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from torchvision.datasets import CIFAR10

from tests.conftest import run_spec
from trainer import data
from trainer.settings import SpecError


def small_cifar10(
    folder: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int = 6
) -> dict[str, np.ndarray]:
    """Write CIFAR-10's files with a few images each, and tell torchvision their checksums.

    Returns the images by file, as (n, 3072) bytes.
    """
    where = folder / CIFAR10.base_folder
    where.mkdir(parents=True)
    rng = np.random.default_rng(1)
    images: dict[str, np.ndarray] = {}

    def keep(name: str, content: object) -> str:
        (where / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((where / name).read_bytes()).hexdigest()

    def batches(names: list[str]) -> list[list[str]]:
        listed: list[list[str]] = []
        for name in names:
            images[name] = rng.integers(0, 256, (per_batch, 3072), np.uint8)
            listed.append(
                [name, keep(name, {"data": images[name], "labels": [i % 10 for i in range(per_batch)]})]
            )
        return listed

    monkeypatch.setattr(CIFAR10, "train_list", batches([name for name, _ in CIFAR10.train_list]))
    monkeypatch.setattr(CIFAR10, "test_list", batches([name for name, _ in CIFAR10.test_list]))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    monkeypatch.setattr(
        CIFAR10, "meta", {**CIFAR10.meta, "md5": keep(CIFAR10.meta["filename"], {"label_names": names})}
    )
    return images


def test_cifar10_is_read_from_its_format_on_disk_and_normalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = small_cifar10(tmp_path, monkeypatch)
    arrays = data.load("cifar10", tmp_path)
    assert arrays.train_images.shape == (30, 3, 32, 32)
    assert arrays.test_images.shape == (6, 3, 32, 32)
    assert arrays.train_labels.tolist() == [0, 1, 2, 3, 4, 5] * 5
    pixels = written["data_batch_2"][3].reshape(3, 32, 32)  # the format is channel by channel, row by row
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    for channel in range(3):
        expected = (pixels[channel] / 255 - mean[channel]) / std[channel]
        assert np.allclose(arrays.train_images[9, channel], expected, atol=1e-5)
    assert arrays.train_images.dtype == np.float32


def test_missing_cifar10_names_the_files_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(data.DataError) as caught:
        data.load("cifar10", tmp_path)
    said = str(caught.value)
    assert f"python -m trainer.data cifar10 --data-dir {tmp_path}" in said
    assert all(f"data_batch_{number}" in said for number in range(1, 6))
    assert "test_batch" in said


def test_a_cifar10_file_with_one_byte_changed_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_cifar10(tmp_path, monkeypatch)
    path = tmp_path / CIFAR10.base_folder / "data_batch_3"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DataError, match="wrong checksum: data_batch_3"):
        data.load("cifar10", tmp_path)


def test_fetching_without_a_network_says_what_to_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nobody listens at the discard port.
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    assert data.main(["cifar10", "--data-dir", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert "bring cifar-10-python.tar.gz" in said
    assert str(tmp_path) in said


def test_fetching_what_is_there_verifies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_cifar10(tmp_path, monkeypatch)
    assert data.main(["cifar10", "--data-dir", str(tmp_path)]) == 0
    assert "30 images to train and 6 to test" in capsys.readouterr().err


def test_torch_and_torchvision_import_together() -> None:
    assert torchvision.__version__  # with the wrong torch beside it, the import at the top raises


def test_digits_are_all_there_and_normalised() -> None:
    arrays = data.load("digits")
    assert arrays.train_images.shape == (1200, 1, 8, 8)
    assert arrays.test_images.shape == (597, 1, 8, 8)
    everything = np.concatenate([arrays.train_images, arrays.test_images])
    assert everything.mean() == pytest.approx(0, abs=0.01)
    assert everything.std() == pytest.approx(1, abs=0.01)
    assert np.bincount(np.concatenate([arrays.train_labels, arrays.test_labels])).sum() == 1797


def test_synthetic_cifar_is_balanced_and_not_solved_by_its_mean_images() -> None:
    arrays = data.load("synthetic-cifar")
    assert (arrays.train_images.shape, arrays.test_images.shape) == (
        (50_000, 3, 32, 32),
        (10_000, 3, 32, 32),
    )
    assert np.bincount(arrays.train_labels, minlength=10).min() > 4_700
    means = np.stack(
        [arrays.train_images[arrays.train_labels == label].mean(0).ravel() for label in range(10)]
    )
    test = arrays.test_images[:2000].reshape(2000, -1)
    nearest = (test @ means.T - (means**2).sum(1) / 2).argmax(1)
    accuracy = (nearest == arrays.test_labels[:2000]).mean()
    assert 0.1 < accuracy < 0.5


def test_a_split_holds_each_image_once_and_belongs_to_the_seed() -> None:
    task = run_spec(train_size=None, validation=0.1).task
    split = data.split(task, 1)
    assert sorted([*split.train, *split.validation]) == list(range(1200))
    assert len(split.validation) == 120
    assert (
        split.validation.tolist()
        == data.split(task, 1).validation.tolist()
        != data.split(task, 2).validation.tolist()
    )


def test_a_seed_trains_on_the_same_images_whether_or_not_some_are_held_out() -> None:
    searched, confirmed = run_spec(train_size=200, validation=0.5).task, run_spec(train_size=200).task
    assert data.split(searched, 4).train.tolist() == data.split(confirmed, 4).train.tolist()
    assert not set(data.split(searched, 4).train) & set(data.split(searched, 4).validation)


def test_a_split_is_the_same_for_ever() -> None:
    """Another split here means that finished runs were trained on other images than their specs now say."""
    split = data.split(run_spec(train_size=None, validation=0.1).task, 3407)
    assert split.validation[:4].tolist() == [659, 989, 842, 56]
    assert split.train[:4].tolist() == [1056, 161, 1128, 932]
    drawn = data.split(run_spec(train_size=None, validation=0.1, resample=0.25).task, 3407)
    assert drawn.test[:4].tolist() == [4, 5, 11, 12]


def test_the_fixed_test_set_stands_behind_the_training_images() -> None:
    assert data.split(run_spec().task, 1).test.tolist() == list(range(1200, 1797))


@pytest.mark.parametrize(
    "settings", [{}, {"validation": 0.2}, {"train_size": 300}, {"train_size": 300, "validation": 0.2}]
)
def test_a_resampled_test_set_is_of_all_images_and_apart_from_those_trained_on(
    settings: dict[str, Any],
) -> None:
    whole: dict[str, Any] = {"train_size": None, "resample": 0.25, **settings}
    task = run_spec(**whole).task
    assert data.sizes(task) == (1348, 449)
    split = data.split(task, 5)
    parts = [set(part.tolist()) for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [
        task.train_size or 1348 - data.held_out_of(task),
        data.held_out_of(task),
        449,
    ]
    assert data.held_out_of(task) == round(1348 * task.validation)
    assert not any(one & other for one, other in itertools.combinations(parts, 2))
    if task.train_size is None:
        assert set.union(*parts) == set(range(1797))
    assert 0 < len(parts[2] & set(range(1200))) < 449
    assert split.test.tolist() == sorted(parts[2])


def test_a_resampled_test_set_belongs_to_the_seed_and_is_shared_by_search_and_confirmation() -> None:
    searched = run_spec(train_size=None, validation=0.2, resample=0.25).task
    confirmed = run_spec({"name": "fixed", "ratio": 0.5}, train_size=None, resample=0.25).task
    sets = [data.split(task, 5).test.tolist() for task in (searched, searched, confirmed)]
    assert sets[0] == sets[1] == sets[2] != data.split(confirmed, 6).test.tolist()
    assert not set(data.split(searched, 5).train) & set(data.split(confirmed, 5).test)
    assert data.split(run_spec(train_size=200, validation=0.5, resample=0.25).task, 5).train.tolist() == (
        data.split(run_spec(train_size=200, resample=0.25).task, 5).train.tolist()
    )


def test_a_share_that_leaves_no_image_to_test_or_to_train_is_refused() -> None:
    with pytest.raises(SpecError, match=r"task.resample  leaves no image to test: it takes 0 of the 1,797"):
        run_spec(resample=0.0001)
    with pytest.raises(
        SpecError, match=r"task.resample  leaves no image to train: it takes 1,797 of the 1,797"
    ):
        run_spec(resample=0.9999)
    with pytest.raises(
        SpecError, match=r"task.train_size  asks for 200 images beside the 0 held out; there are 180 in all"
    ):
        run_spec(resample=0.9, train_size=200)
    with pytest.raises(
        SpecError, match=r"task.drop_last  leaves nothing: a batch of 200 is more than the 180 images"
    ):
        run_spec(resample=0.9, train_size=None, batch_size=200, drop_last=True)
    assert run_spec(train_size=None, resample=0.1, validation=0.1).task.resample == 0.1


def test_a_task_that_does_not_resample_is_written_as_before_there_was_such_a_setting() -> None:
    assert run_spec(resample=None).run_id == run_spec().run_id != run_spec(resample=0.25).run_id
    assert "resample" not in run_spec().to_json()
