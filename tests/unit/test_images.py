"""Images of one's own: every layout gives the same pixels, and a declaration is checked without them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given as drawn_by
from hypothesis import strategies as st
from PIL import Image

from sweep.study import load as load_study
from sweep.study import schema
from tests.conftest import run_spec, run_values
from tests.pictures import (
    NAMES,
    TEST,
    TRAIN,
    classes,
    decoded,
    drawn,
    encoded,
    write_folders,
    write_parquet,
    write_pngs,
)
from tests.sweeps import study_values, write_study
from trainer import data, images
from trainer.data import DataError
from trainer.decoded import Decoded, Facts
from trainer.images import Images
from trainer.settings import SpecError, read
from trainer.spec import RunSpec

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
GIVEN: dict[str, Any] = {
    "images": "set",
    "train": 24,
    "tested": 9,
    "shape": [3, 8, 8],
    "classes": 3,
    "checksum": "0123456789abcdef",
    "pixels": "fedcba9876543210",
}


def describe(
    folder: Path, path: str, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[dict[str, Any], str]:
    """The object that the command prints, and what it says."""
    capsys.readouterr()
    assert data.main([path, "--data-dir", str(folder), *more]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def refused(folder: Path, path: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert data.main([path, "--data-dir", str(folder), *more]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


# one set in several layouts


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 6), (1, 7, 3)])
def test_every_layout_gives_the_same_pixels_from_the_same_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, shape: tuple[int, ...]
) -> None:
    train = [encoded(one, form) for one in drawn(TRAIN, shape)]
    test = [encoded(one, form) for one in drawn(TEST, shape, seed=2)]
    labels, tested = classes(TRAIN), classes(TEST)
    write_parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", train[:10], labels[:10])
    write_parquet(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", train[10:], labels[10:])
    write_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", test, tested)
    write_parquet(tmp_path / "flat" / "train.parquet", train, labels, flat=True, row_group_size=5)
    write_parquet(tmp_path / "flat" / "test.parquet", test, tested, flat=True)
    suffix = {"PNG": ".png", "JPEG": ".JPG"}[form]
    write_folders(tmp_path / "folders" / "train", train, labels.tolist(), suffix)
    write_folders(tmp_path / "folders" / "test", test, tested.tolist(), suffix)
    expected = np.stack([decoded(one) for one in train]), np.stack([decoded(one) for one in test])
    arrays = {"x_train": expected[0], "y_train": labels, "x_test": expected[1], "y_test": tested[:, None]}
    np.savez_compressed(tmp_path / "keras.npz", **arrays)
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(
        tmp_path / "other.npz", **dict(zip(names, arrays.values(), strict=True)), val_images=expected[1]
    )
    found = {
        path: describe(tmp_path, path, capsys)[0]
        for path in ("hub", "flat", "folders", "keras.npz", "other.npz")
    }
    for path, given in found.items():
        declared = read(Images, given)
        pixels = images.load(declared, tmp_path, None, print)
        channels = (*shape, 1)[2]
        assert given["shape"] == [channels, *shape[:2]]
        assert (given["train"], given["tested"], given["classes"]) == (TRAIN, TEST, 3)
        assert np.array_equal(pixels.images[:TRAIN].reshape(expected[0].shape), expected[0]), path
        assert np.array_equal(pixels.images[TRAIN:].reshape(expected[1].shape), expected[1]), path
        assert pixels.labels.tolist() == [*labels.tolist(), *tested.tolist()]
    assert len({given["pixels"] for given in found.values()}) == 1
    assert len({given["checksum"] for given in found.values()}) == len(found)
    assert {path: given.get("image") for path, given in found.items()} == {
        "hub": "image",
        "flat": "image",
        "folders": None,
        "keras.npz": None,
        "other.npz": None,
    }


@pytest.mark.skipif(not (SHARED / "cifar10-jpeg").is_dir(), reason="the shared data is not here")
def test_cifar10_as_jpeg_is_described_and_the_same_in_every_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    given, said = describe(SHARED, "cifar10-jpeg", capsys)
    assert "cifar10-jpeg: 50,000 images to train and 10,000 to test, 32 x 32 pixels, RGB." in said
    assert ": 0 6,000, 1 6,000, 2 6,000" in said
    assert "mean 0.4913 0.4821 0.4465" in said
    assert (given["train"], given["tested"], given["shape"], given["classes"]) == (
        50_000,
        10_000,
        [3, 32, 32],
        10,
    )
    # some of it in the other layouts; sorted by class, as folders are
    for part, count in (("train", 3000), ("test", 500)):
        table = next(pq.ParquetFile(SHARED / "cifar10-jpeg" / f"{part}.parquet").iter_batches(count))
        rows = sorted(table.to_pylist(), key=lambda row: row["label"])
        for number, row in enumerate(rows):
            folder = tmp_path / "folders" / part / str(row["label"])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:05}.jpg").write_bytes(row["img"]["bytes"])
        write_parquet(
            tmp_path / "hub" / f"{part}.parquet",
            [row["img"]["bytes"] for row in rows],
            [row["label"] for row in rows],
        )
    hub, folders = (describe(tmp_path, path, capsys)[0] for path in ("hub", "folders"))
    pixels = images.load(read(Images, hub), tmp_path, None, print)
    np.savez(
        tmp_path / "arrays.npz",
        x_train=pixels.images[:3000],
        y_train=pixels.labels[:3000],
        x_test=pixels.images[3000:],
        y_test=pixels.labels[3000:],
    )
    arrays = describe(tmp_path, "arrays.npz", capsys)[0]
    assert hub["pixels"] == folders["pixels"] == arrays["pixels"]


def test_one_file_or_plain_class_folders_have_a_share_drawn_for_the_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, labels = drawn(TRAIN), classes(TRAIN)
    write_parquet(tmp_path / "one.parquet", [encoded(one) for one in pictures], labels.tolist())
    write_folders(tmp_path / "folders", [encoded(one) for one in pictures], labels.tolist())
    np.savez(tmp_path / "one.npz", x_train=pictures, y_train=labels)
    found = [
        describe(tmp_path, path, capsys, *more)[0]
        for path, more in (("one.parquet", ["--image", "image"]), ("folders", []), ("one.npz", []))
    ]
    assert {(given["train"], given["tested"], given["test"], given["pixels"]) for given in found} == {
        (16, 8, 1 / 3, found[0]["pixels"])
    }
    loaded = images.load(read(Images, found[0]), tmp_path, None, print)
    everything = {one.tobytes(): int(label) for one, label in zip(pictures, labels, strict=True)}
    kept = {one.tobytes(): int(label) for one, label in zip(loaded.images, loaded.labels, strict=True)}
    assert kept == everything
    assert not np.array_equal(loaded.images, pictures)
    other, _ = describe(tmp_path, "folders", capsys, "--test", "0.25")
    assert (other["tested"], other["test"]) == (6, 0.25)


def test_words_are_classes_in_the_order_of_the_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [NAMES[label] for label in classes(TRAIN)]
    write_parquet(tmp_path / "t.parquet", [encoded(one) for one in drawn(TRAIN)], words)
    given, said = describe(
        tmp_path, "t.parquet", capsys, "--image", "image", "--labels", "dog", "cat", "bird"
    )
    assert given["labels"] == ["dog", "cat", "bird"]
    assert "Images of each of the 3 classes: dog 8, cat 8, bird 8." in said
    loaded = images.load(read(Images, given), tmp_path, None, print)
    ours = {
        one.tobytes(): ["dog", "cat", "bird"][label]
        for one, label in zip(loaded.images, loaded.labels, strict=True)
    }
    assert ours == {one.tobytes(): word for one, word in zip(drawn(TRAIN), words, strict=True)}


def test_columns_of_other_names_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "a.parquet", [encoded(one) for one in drawn(TRAIN)], classes(TRAIN).tolist())
    table = pq.read_table(tmp_path / "a.parquet").rename_columns(["picture.of", "kind"])
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    given, _ = describe(tmp_path, "set", capsys, "--image", "picture.of", "--target", "kind")
    assert (given["image"], given["target"]) == ("picture.of", "kind")
    plain, _ = describe(tmp_path, "a.parquet", capsys, "--image", "image")
    assert plain["pixels"] == given["pixels"]
    assert "has no column 'image' or 'img'. Its columns are 'picture.of', 'kind'" in refused(
        tmp_path, "set", capsys
    )


def test_hidden_files_and_files_beside_the_parts_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pngs(tmp_path / "set")
    before, _ = describe(tmp_path, "set", capsys)
    (tmp_path / "set" / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "set" / "README").write_text("cats and dogs")
    assert describe(tmp_path, "set", capsys)[0] == before


def test_a_link_inside_the_folder_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pngs(tmp_path / "set")
    before, _ = describe(tmp_path, "set", capsys)
    (tmp_path / "set" / ".kept").mkdir()
    first = tmp_path / "set" / "train" / "cat" / "008.png"
    first.rename(tmp_path / "set" / ".kept" / "a.png")
    first.symlink_to(Path(os.pardir, os.pardir, ".kept", "a.png"))
    assert describe(tmp_path, "set", capsys)[0] == before


# what each image is brought to


def test_images_of_several_sizes_are_resized_where_that_is_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pngs(tmp_path / "set")
    odd = drawn(1, (16, 12, 3), seed=5)[0]
    (tmp_path / "set" / "train" / "bird" / "000.png").write_bytes(encoded(odd))
    assert (
        "has 8 x 8 pixels (height x width), where 16 x 12 were expected. Declare resize: [16, 12]"
        in refused(tmp_path, "set", capsys)
    )
    given, _ = describe(tmp_path, "set", capsys, "--resize", "6", "4")
    assert (given["shape"], given["resize"]) == ([3, 6, 4], [6, 4])
    first = images.load(read(Images, given), tmp_path, None, print).images[0]
    assert np.array_equal(first, np.array(Image.fromarray(odd).resize((4, 6), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(("colour", "channels", "mode"), [("grey", 1, "L"), ("rgb", 3, "RGB")])
@pytest.mark.parametrize("kind", ["P", "RGBA", "LA", "CMYK", "1", "L"])
def test_images_of_other_colours_are_converted_where_that_is_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], colour: str, channels: int, mode: str, kind: str
) -> None:
    write_pngs(tmp_path / "set")
    odd = Image.fromarray(drawn(1, seed=5)[0]).convert(kind)
    form = "JPEG" if kind == "CMYK" else "PNG"
    odd.save(tmp_path / "set" / "train" / "bird" / "000.png", form)
    given, _ = describe(tmp_path, "set", capsys, "--colour", colour)
    assert (given["shape"], given["colour"]) == ([channels, 8, 8], colour)
    first = images.load(read(Images, given), tmp_path, None, print).images[0]
    expected = np.array(Image.open(tmp_path / "set" / "train" / "bird" / "000.png").convert(mode))
    assert np.array_equal(first.reshape(expected.shape), expected)


def test_sixteen_bits_are_never_cut_to_eight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pngs(tmp_path / "set")
    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    deep.save(tmp_path / "set" / "train" / "bird" / "000.png")
    assert "has 16 bits a value. Save it with 8." in refused(tmp_path, "set", capsys, "--colour", "grey")


def test_arrays_are_resized_and_converted_as_files_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = write_pngs(tmp_path / "set")
    np.savez(tmp_path / "set.npz", x_train=train, y_train=classes(TRAIN), x_test=test, y_test=classes(TEST))
    more = ["--resize", "4", "5", "--colour", "grey"]
    assert (
        describe(tmp_path, "set", capsys, *more)[0]["pixels"]
        == describe(tmp_path, "set.npz", capsys, *more)[0]["pixels"]
    )


def test_declared_mean_and_deviation_normalise_each_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = write_pngs(tmp_path / "set")
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    given, _ = describe(tmp_path, "set", capsys, "--mean", *map(str, mean), "--std", *map(str, std))
    declared = read(Images, given)
    arrays, facts = data.load(declared, tmp_path), data.facts(declared)
    assert (facts.image, facts.classes, facts.train, facts.test, facts.standardise) == (
        (3, 8, 8),
        3,
        TRAIN,
        TEST,
        False,
    )
    for ours, pixels in ((arrays.train_images, train), (arrays.test_images, test)):
        expected = (pixels / 255 - mean) / std
        assert ours.dtype == np.float32
        assert np.allclose(ours, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_without_them_each_channel_is_scaled_by_the_images_that_a_run_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from trainer.engine import place
    from trainer.training import Training

    train, _ = write_pngs(tmp_path / "set")
    given, _ = describe(tmp_path, "set", capsys)
    spec = run_spec({"name": "dense"}, data=given, train_size=10, batch_size=5, epochs=1)
    arrays = data.load(spec.task.data, tmp_path)
    assert data.facts(spec.task.data).standardise
    assert np.array_equal(arrays.train_images, (train.astype(np.float32) / 255).transpose(0, 3, 1, 2))
    training = Training(spec, images=place(arrays, torch.device("cpu")))
    seen = train[data.split(spec.task, spec.seed).train] / 255
    assert len(seen) == 10
    assert training.engine.standard is not None
    assert np.allclose(training.engine.standard[0], seen.mean((0, 1, 2)), atol=1e-6)
    assert np.allclose(training.engine.standard[1], 1 / seen.std((0, 1, 2)), rtol=1e-5)


def test_the_summary_has_mean_and_deviation_of_the_training_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, _ = write_pngs(tmp_path / "set")
    _, said = describe(tmp_path, "set", capsys)
    mean, deviation = train.mean((0, 1, 2)) / 255, train.std((0, 1, 2)) / 255
    assert f"mean {' '.join(f'{x:.4f}' for x in mean)}, deviation" in said
    assert f"deviation {' '.join(f'{x:.4f}' for x in deviation)}." in said
    assert "set: 24 images to train and 9 to test, 8 x 8 pixels, RGB." in said
    assert "Images of each of the 3 classes: bird 11, cat 11, dog 11." in said


# facts and hashes


def test_the_hashes_are_those_that_the_page_of_settings_describes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = write_pngs(tmp_path / "set")
    np.savez(tmp_path / "set.npz", x_train=train, y_train=classes(TRAIN), x_test=test, y_test=classes(TEST))
    folder, _ = describe(tmp_path, "set", capsys)
    file, _ = describe(tmp_path, "set.npz", capsys)
    assert file["checksum"] == hashlib.sha256((tmp_path / "set.npz").read_bytes()).hexdigest()[:16]
    lines = [
        path.relative_to(tmp_path / "set").as_posix().encode()
        + b"\0"
        + hashlib.sha256(path.read_bytes()).hexdigest().encode()
        + b"\n"
        for path in sorted((tmp_path / "set").rglob("*.png"))
    ]
    assert folder["checksum"] == hashlib.sha256(b"".join(lines)).hexdigest()[:16]
    head = f"images {TRAIN} {TEST} 3 8 8 3".ljust(63).encode() + b"\n"
    labels = np.concatenate([classes(TRAIN), classes(TEST)]).astype("<i8").tobytes()
    block = head + labels + train.tobytes() + test.tobytes()
    assert folder["pixels"] == file["pixels"] == hashlib.sha256(block).hexdigest()[:16]


def test_a_renamed_image_is_another_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pngs(tmp_path / "set")
    before, _ = describe(tmp_path, "set", capsys)
    first = tmp_path / "set" / "test" / "dog" / "008.png"
    first.rename(first.with_name("009.png"))
    after, _ = describe(tmp_path, "set", capsys)
    assert (before["checksum"] != after["checksum"], before["pixels"]) == (True, after["pixels"])


def test_other_files_are_refused_before_they_are_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pngs(tmp_path / "set")
    given, _ = describe(tmp_path, "set", capsys, "--resize", "4", "4", "--colour", "grey")
    (tmp_path / "set" / "train" / "cat" / "008.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        data.load(read(Images, given), tmp_path)
    assert f"{given['checksum']} is declared. These are other files than the study's." in str(caught.value)
    told = str(caught.value).partition("or declare these: ")[2]
    assert told == f"python -m trainer.data set --resize 4 4 --colour grey --data-dir {tmp_path}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": 23, "tested": 10}, "train is 24, and 23 is declared; tested is 9, and 10 is declared"),
        ({"classes": 4}, "classes is 3, and 4 is declared"),
        ({"pixels": "0" * 16}, "and 0000000000000000 is declared. Another decoder was used (Pillow "),
        ({"test": 0.25, "train": 25, "tested": 8}, "has test images of its own: leave the share `test` out"),
        ({"shape": [3, 9, 8]}, "has 8 x 8 pixels (height x width), where 9 x 8 were expected."),
    ],
)
def test_a_declaration_that_does_not_fit_is_told_by_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    write_pngs(tmp_path / "set")
    given, _ = describe(tmp_path, "set", capsys)
    with pytest.raises(DataError) as caught:
        data.load(read(Images, {**given, **change}), tmp_path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_set_that_is_not_there_or_of_no_known_kind_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"^set: not in .*, the folder of --data-dir"):
        data.load(read(Images, GIVEN), tmp_path)
    (tmp_path / "set.tar").write_bytes(b"")
    assert "set.tar: is no folder, .parquet or .npz." in refused(
        tmp_path, "set.tar", capsys, "--image", "image"
    )


def test_a_share_that_takes_every_image_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "set.npz", x_train=drawn(6), y_train=classes(6))
    assert "a test set of 0 of 6 images leaves none to train, or none to test." in refused(
        tmp_path, "set.npz", capsys, "--test", "0.01"
    )


@drawn_by(
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.data(),
)
def test_a_block_has_what_was_put_into_it(
    train: int, tested: int, channels: int, height: int, width: int, draws: st.DataObject
) -> None:
    facts, count = Facts(train, tested, (channels, height, width), 2**40), train + tested
    labels = draws.draw(st.lists(st.integers(0, 2**40), min_size=count, max_size=count))
    pixels = np.random.default_rng(count).integers(0, 256, (count, height, width, channels), np.uint8)
    block = Decoded.empty(facts)
    block.labels[:], block.images[:] = labels, pixels
    assert block.labels.tolist() == labels
    assert np.array_equal(block.images, pixels)
    other = Decoded.empty(facts)
    other.labels[:], other.images[:] = labels, pixels
    other.images[-1, -1, -1, -1] ^= 1
    assert other.pixels != block.pixels


# the declaration alone


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"colur": "rgb"},
            ["task.data.colur  no such setting. Did you mean 'colour'?", "images takes: images, "],
        ),
        ({"images": "/set"}, ["task.data.images  must be a path inside the folder of --data-dir"]),
        ({"images": "../set"}, ["task.data.images  must be a path inside the folder of --data-dir"]),
        ({"train": 0}, ["task.data.train  must be at least 1; it is 0."]),
        ({"classes": 1}, ["task.data.classes  must be at least 2; it is 1."]),
        ({"shape": [3, 8]}, ["task.data.shape  must be [channels, height, width] with 1 or 3 channels"]),
        ({"shape": [4, 8, 8]}, ["task.data.shape  must be [channels, height, width] with 1 or 3 channels"]),
        ({"shape": [3, 8, 5000]}, ["task.data.shape  [2] must be at least 1 and at most 4096; it is 5000."]),
        (
            {"shape": [3, 4096, 4096], "train": 100},
            ["task.data.shape  109 images of 4096 x 4096 pixels and 3"],
        ),
        ({"resize": [8]}, ["task.data.resize  must be [height, width]; it is [8]."]),
        ({"resize": [9, 9]}, ["task.data.shape  is [3, 8, 8], and resize is [9, 9]."]),
        ({"colour": "grey"}, ["task.data.shape  has 3 channels, and colour is grey."]),
        ({"colour": "gray"}, ["task.data.colour  must be one of grey, rgb; it is 'gray'."]),
        ({"mean": [0.5] * 3}, ["task.data.mean  stands alone: give std too, or neither."]),
        ({"std": [0.5] * 3}, ["task.data.std  stands alone: give mean too, or neither."]),
        (
            {"mean": [0.5], "std": [0.5] * 3},
            ["task.data.mean  must have 3 numbers, one for each channel; it has 1."],
        ),
        (
            {"mean": [125] * 3, "std": [50] * 3},
            ["task.data.mean  [0] must be at least 0 and at most 1; it is 125"],
        ),
        (
            {"mean": [0.5] * 3, "std": [0] * 3},
            ["task.data.std  [0] must be above 0 and at most 1; it is 0.0."],
        ),
        ({"checksum": "abc"}, ["task.data.checksum  must be the first 16 hex digits"]),
        ({"pixels": 5}, ["task.data.pixels  must be a text; it is 5."]),
        ({"test": 0.5}, ["task.data.tested  is 9, which is no share of 0.5 of all images."]),
    ],
)
def test_what_is_wrong_with_declared_images_is_named_with_its_path(
    change: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        RunSpec.read(run_values({"name": "dense"}, data={**GIVEN, **change}, model="mlp-8", train_size=None))
    for words in said:
        assert words in str(caught.value)


def test_an_object_is_taken_for_what_most_of_its_keys_belong_to() -> None:
    for given, said in (
        ({"images": "set"}, "task.data.pixels  is missing; images needs it."),
        ({"file": "t.csv"}, "task.data.rows  is missing; table needs it."),
        (
            {"images": "set", "checksum": "0", "file": "a", "rows": 3, "inputs": 2},
            "task.data.images  no such setting",
        ),
        ({}, "task.data.file  is missing; table needs it."),
    ):
        with pytest.raises(SpecError) as caught:
            RunSpec.read(run_values(data=given))
        assert said in str(caught.value)


def test_the_declaration_is_part_of_the_run_and_of_its_id() -> None:
    spec = RunSpec.read(run_values({"name": "dense"}, data=GIVEN, train_size=None))
    assert RunSpec.from_json(spec.to_json()) == spec
    assert hash(spec.task.data) == hash(RunSpec.from_json(spec.to_json()).task.data)
    others = [{"pixels": "0" * 16}, {"checksum": "0" * 16}, {"mean": [0.5] * 3, "std": [0.5] * 3}]
    ids = {
        RunSpec.read(run_values({"name": "dense"}, data={**GIVEN, **other}, train_size=None)).run_id
        for other in others
    }
    assert len(ids | {spec.run_id}) == 4


def test_a_study_declares_images_and_its_schema_takes_them(tmp_path: Path) -> None:
    study = load_study(
        write_study(
            tmp_path,
            task={"model": "wrn-10-1", "train_size": None, "data": GIVEN},
            arms={"additive": {"policy": {"name": "dense"}}, "dense": {"policy": {"name": "dense"}}},
            confirm={"seeds": 10},
        )
    )
    assert study.data == [read(Images, GIVEN)]
    checker = jsonschema.Draft202012Validator(json.loads(schema()))
    assert checker.is_valid(study_values(task={"data": GIVEN}))
    assert not checker.is_valid(study_values(task={"data": {"imges": "set"}}))


def test_the_command_says_which_options_are_for_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pngs(tmp_path / "set")
    for arguments, said in (
        (["set", "--split", "held"], "--split has no use for images, and set is taken for that."),
        (
            ["t.csv", "--target", "a", "--resize", "4", "4"],
            "--resize has no use for a table, and t.csv is taken",
        ),
        (["t.parquet"], "t.parquet needs --target COLUMN, what holds its classes"),
        (["digits", "--colour", "rgb"], "--colour is for a file."),
    ):
        with pytest.raises(SystemExit) as caught:
            data.main([*arguments, "--data-dir", str(tmp_path)])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
