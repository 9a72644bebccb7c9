"""Files that are bad, or made to harm: each is refused in one line, within 2 GB of memory."""

from __future__ import annotations

import io
import itertools
import os
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import sparse
from scipy.io import savemat

from tests.pictures import classes, describe, drawn, encoded, write_folders, write_parquet, write_pngs

LIMIT = 2 * 10**9
"""Bytes of address space that the command may have."""
PNG = [encoded(one) for one in drawn(6)]
LABELS = classes(6).tolist()


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))


def instead(data: bytes) -> Callable[[Path], str]:
    """A set of class folders in which one image has other bytes."""

    def make(folder: Path) -> str:
        write_folders(folder / "set", PNG, LABELS)
        (folder / "set" / "cat" / "003.png").write_bytes(data)
        return "set"

    return make


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size, with zeros for its first rows."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    zeros = zlib.compress(bytes(2**20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")


def saved(mode: str, form: str) -> bytes:
    """An image of a mode that is neither grey nor RGB."""
    buffer = io.BytesIO()
    Image.new(mode, (8, 8)).save(buffer, form)
    return buffer.getvalue()


def frames() -> bytes:
    """A PNG that moves."""
    buffer = io.BytesIO()
    first, *others = (Image.fromarray(one) for one in drawn(3))
    first.save(buffer, "PNG", save_all=True, append_images=others)
    return buffer.getvalue()


def parquet(
    images: Sequence[bytes | None] = tuple(PNG), labels: Sequence[object] = tuple(LABELS)
) -> Callable[[Path], str]:
    """A set of one Parquet file in the layout of the hub."""

    def make(folder: Path) -> str:
        write_parquet(folder / "set" / "train.parquet", images, labels)
        return "set"

    return make


def table_of(columns: dict[str, object]) -> Callable[[Path], str]:
    """A set of one Parquet file with these columns."""

    def make(folder: Path) -> str:
        (folder / "set").mkdir()
        pq.write_table(pa.table(columns), folder / "set" / "train.parquet")
        return "set"

    return make


def npy(shape: str, descr: str = "|u1") -> bytes:
    """The header of an array, without its values."""
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = head.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def npz_of(**members: bytes) -> Callable[[Path], str]:
    """An archive with members that are written by hand."""

    def make(folder: Path) -> str:
        with zipfile.ZipFile(folder / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(f"{name}.npy", data)
        return "set.npz"

    return make


def npz(**arrays: Any) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        np.savez(folder / "set.npz", **arrays)
        return "set.npz"

    return make


def cut_npz(folder: Path) -> str:
    """An archive in which the values of an array were altered."""
    npz(x_train=drawn(6), y_train=classes(6))(folder)
    data = bytearray((folder / "set.npz").read_bytes())
    at = data.index(drawn(6).tobytes()[:64])
    data[at] ^= 1
    (folder / "set.npz").write_bytes(data)
    return "set.npz"


def other_class(folder: Path) -> str:
    write_pngs(folder / "set")
    (folder / "set" / "test" / "dgo").mkdir()
    (folder / "set" / "test" / "dgo" / "1.png").write_bytes(PNG[0])
    return "set"


def link_out(folder: Path) -> str:
    write_folders(folder / "set", PNG, LABELS)
    (folder / "secret.png").write_bytes(PNG[0])
    (folder / "set" / "cat" / "link.png").symlink_to(folder / "secret.png")
    return "set"


def link_to_itself(folder: Path) -> str:
    write_folders(folder / "set", PNG, LABELS)
    (folder / "set" / "cat" / "link.png").symlink_to("link.png")
    return "set"


def pipe(folder: Path) -> str:
    write_folders(folder / "set", PNG, LABELS)
    os.mkfifo(folder / "set" / "cat" / "pipe.png")
    return "set"


def loose(folder: Path) -> str:
    write_folders(folder / "set", PNG, LABELS)
    (folder / "set" / "000.png").write_bytes(PNG[0])
    return "set"


def stray(folder: Path) -> str:
    write_folders(folder / "set", PNG, LABELS)
    (folder / "set" / "cat" / "notes.txt").write_text("cats")
    return "set"


def only_tested(folder: Path) -> str:
    write_parquet(folder / "set" / "train.parquet", PNG, [0, 0, 0, 1, 1, 1])
    write_parquet(folder / "set" / "test.parquet", PNG, [0, 0, 0, 1, 1, 2])
    return "set"


def no_part_to_train(folder: Path) -> str:
    write_parquet(folder / "set" / "test.parquet", PNG, LABELS)
    return "set"


def repeated(folder: Path) -> str:
    """A long image that is stored once, and stands in many rows."""
    (folder / "set").mkdir()
    image = pa.DictionaryArray.from_arrays(pa.array([0] * 50, pa.int32()), pa.array([bytes(70 * 2**20)]))
    table = pa.table({"image": image, "label": [i % 2 for i in range(50)]})
    pq.write_table(table, folder / "set" / "train.parquet", store_schema=False, write_statistics=False)
    return "set"


def empty_folder(folder: Path) -> str:
    (folder / "set").mkdir()
    return "set"


HEAD = npy("(6,)", "<i8") + classes(6).tobytes()
BAD_IMAGES: dict[str, tuple[Callable[[Path], str], str]] = {
    "a bomb": (
        instead(png_of(2**15, 2**15)),
        "cat/003.png: cannot be read: Image size (1073741824 pixels) exceeds",
    ),
    "a large image": (
        instead(png_of(9000, 5000)),
        "cat/003.png: has 5,000 x 9,000 pixels, more than 16,777,216",
    ),
    "a truncated JPEG": (instead(encoded(drawn(1, (64, 64, 3))[0], "JPEG")[:400]), "cat/003.png: "),
    "a truncated PNG": (instead(PNG[0][: len(PNG[0]) // 2]), "cat/003.png: "),
    "another size": (
        instead(encoded(drawn(1, (8, 9, 3))[0])),
        "has 8 x 9 pixels (height x width), where 8 x 8",
    ),
    "a mixture of colours": (instead(encoded(drawn(1, (8, 8))[0])), "is grey, where RGB was expected"),
    "a text": (instead(b"no image at all"), "cat/003.png: is no JPEG or PNG"),
    "a GIF": (instead(saved("P", "GIF")), "cat/003.png: is no JPEG or PNG"),
    "an empty file": (instead(b""), "cat/003.png: is empty"),
    "16 bits of grey": (instead(saved("I;16", "PNG")), "has 16 bits a value. Save it with 8."),
    "a palette": (instead(saved("P", "PNG")), "is of a palette. Save it as grey or RGB, or declare colour"),
    "transparency": (instead(saved("RGBA", "PNG")), "is RGB with transparency"),
    "black and white": (instead(saved("1", "PNG")), "is black and white"),
    "CMYK": (instead(saved("CMYK", "JPEG")), "is CMYK. Save it as grey or RGB, or declare colour"),
    "several pictures": (instead(frames()), "cat/003.png: holds several pictures"),
    "a file that is too long": (instead(PNG[0] + bytes(2**26)), "takes 67,1"),
    "no image": (empty_folder, "holds no train*.parquet and no CLASS/image.png"),
    "a test folder with another class": (
        other_class,
        "test/dgo: train/ has no such class. Did you mean 'dog'?",
    ),
    "a link out of the folder": (link_out, "cat/link.png: is a link that leads out of the folder"),
    "a link to itself": (link_to_itself, "link.png"),
    "a pipe, which gives nothing": (pipe, "cat/pipe.png: is no file and no folder"),
    "an image in no class": (loose, "000.png: lies in no folder that is named after its class"),
    "a file that is no image": (stray, "cat/notes.txt: is no file that ends in .png, .jpg, .jpeg"),
    "an empty cell": (parquet([*PNG[:5], b""]), "row 6: is empty"),
    "a row without an image": (parquet([*PNG[:5], None]), "row 6: has no image"),
    "no column of classes": (table_of({"image": PNG, "lable": LABELS}), "Did you mean 'lable'?"),
    "no column of images": (table_of({"picture": PNG, "label": LABELS}), "has no column 'image' or 'img'"),
    "a column of images that holds numbers": (table_of({"image": LABELS, "label": LABELS}), "is int64"),
    "a class that is not whole": (parquet(labels=[0, 0, 1.5, 1, 2, 2]), "holds 1.5 in row 3"),
    "a class beyond exact numbers": (parquet(labels=[0, 0, 2**60, 1, 2, 2]), f"holds {2**60}"),
    "a class that is missing": (
        parquet(labels=[0, 0, None, 1, 2, 2]),
        "missing values (1), the first in row 3",
    ),
    "classes that are lists": (parquet(labels=[[0]] * 6), "is list<element: int64>"),
    "words without labels": (
        parquet(labels=[*"aabbcc"]),
        "holds words. Say in which order: labels: [a, b, c]",
    ),
    "a class without a training image": (only_tested, "class '2' has no training image"),
    "a test file alone": (
        no_part_to_train,
        "holds test.parquet and no .parquet whose name begins with train",
    ),
    "a long image in many rows": (repeated, "row 1: takes 73,400,320 bytes"),
    "no Parquet": (
        lambda folder: _garbage(folder / "set" / "train.parquet", "set"),
        "train.parquet: as .parquet",
    ),
    "no .npz": (lambda folder: _garbage(folder / "set.npz", "set.npz"), "as .npz it cannot be read"),
    "a bomb of zeros": (
        npz_of(x_train=npy("(6, 100000, 100000)"), y_train=HEAD),
        "more than 16,777,216 in all",
    ),
    "too many arrays": (npz_of(x_train=npy("(9000000, 32, 32, 3)"), y_train=HEAD), "take 25.7 GiB"),
    "10^9 arrays": (npz_of(x_train=npy("(1000000000, 1, 1)"), y_train=HEAD), "claims 1,000,000,000 images"),
    "an array that ends early": (
        npz_of(x_train=npy("(6, 8, 8, 3)"), y_train=HEAD),
        "ends before the (6, 8, 8, 3)",
    ),
    "an array that goes on": (
        npz_of(x_train=npy("(6, 8, 8)") + bytes(2**28), y_train=HEAD),
        "goes on after the (6, 8, 8) values",
    ),
    "an altered array": (cut_npz, "Bad CRC-32"),
    "a pickle": (npz(x_train=np.array([{}] * 6), y_train=classes(6)), "holds objects of Python"),
    "classes that are a pickle": (
        npz(x_train=drawn(6), y_train=np.array([*"aabbcc"], object)),
        "holds objects",
    ),
    "images of other numbers": (
        npz(x_train=drawn(6) / 255, y_train=classes(6)),
        "is float64; images are whole",
    ),
    "channels first": (
        npz(x_train=drawn(6).transpose(0, 3, 1, 2).copy(), y_train=classes(6)),
        "has the shape",
    ),
    "arrays of other names": (npz(a=drawn(6), b=classes(6)), "the arrays are named x_train, y_train"),
    "too few classes in an array": (
        npz(x_train=drawn(6), y_train=classes(5)),
        "one for each of the 6 images",
    ),
}
"""How each set is made, and a part of what is said of it."""


def _garbage(path: Path, name: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"PAR1 and nothing that fits" * 20)
    return name


def refused(folder: Path, path: str, *more: str) -> str:
    """What the command says of a file, after a check that it says one line and nothing else."""
    done = describe(folder, path, *more, preexec_fn=limited)
    assert done.returncode in (2, 3), done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"{folder / path}: ")
    return done.stderr


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused_in_one_line_and_little_memory(tmp_path: Path, case: str) -> None:
    make, said = BAD_IMAGES[case]
    assert said in refused(tmp_path, make(tmp_path))


def test_what_is_good_passes_under_the_same_limit(tmp_path: Path) -> None:
    for make in (parquet(), npz(x_train=drawn(6), y_train=classes(6)), instead(PNG[0])):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        done = describe(folder, make(folder), preexec_fn=limited)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Parquet file of 10^9 rows, which is small."""
    folder = tmp_path_factory.mktemp("endless")
    bits = pa.field("label", pa.bool_(), nullable=False)
    part = pa.table([pa.array(np.zeros(10**7, bool))], schema=pa.schema([bits]))
    with pq.ParquetWriter(folder / "train.parquet", part.schema, use_dictionary=False) as writer:
        for _ in range(100):
            writer.write_table(part)
    return folder


def test_a_table_of_a_billion_rows_is_refused_by_its_number(endless: Path) -> None:
    assert "claims 1,000,000,000 rows of 1 columns" in refused(endless, "train.parquet", "--target", "label")
    assert "claims 1,000,000,000 images" in refused(endless, "train.parquet", "--image", "image")


def long_line(folder: Path) -> str:
    (folder / "t.csv").write_bytes(b"a,class\n1,0\n" + b"1" * 2**27 + b",1\n")
    return "t.csv"


def many_columns(folder: Path) -> str:
    (folder / "t.csv").write_bytes(b"a," * 2**24 + b"class\n")
    return "t.csv"


def packed_mat(folder: Path) -> str:
    """Three gigabytes of zeros in a .mat of three megabytes, of which the header says little."""
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(192)) + packer.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (folder / "t.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
    return "t.mat"


def sparse_mat(folder: Path) -> str:
    matrix = sparse.coo_matrix(([1.0], ([0], [0])), shape=(10**6, 10**6)).tocsc()
    savemat(folder / "t.mat", {"X": matrix, "class": np.zeros((10**6, 1))}, do_compression=True)
    return "t.mat"


def nonsense(text: str, name: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_text(text)
        return name

    return make


def repeated_word(folder: Path) -> str:
    """A word of a megabyte that is stored once, and stands in 10^5 rows."""
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 10**5), pa.array(["a" * 2**20]))
    pq.write_table(
        pa.table({"word": word, "class": [0, 1] * 50_000}), folder / "t.parquet", store_schema=False
    )
    return "t.parquet"


def large_file(folder: Path) -> str:
    with (folder / "t.csv").open("wb") as file:
        file.truncate(2**32)
    return "t.csv"


BAD_TABLES: dict[str, tuple[Callable[[Path], str], str]] = {
    "a line of 2^27 bytes": (long_line, "line 3, which begins b'1111111111"),
    "2^24 columns": (many_columns, "claims 0 rows of 16,777,217 columns"),
    "a file of 4 GiB": (large_file, "has 4,294,967,296 bytes, and at most 2,147,483,648 are read"),
    "a packed .mat": (packed_mat, "holds more than 536,870,912 bytes when it is unpacked"),
    "a sparse .mat": (sparse_mat, "claims 1,000,000,000,000 rows"),
    "a .mat that is none": (nonsense("MATLAB" * 99, "t.mat"), "cannot be read as .mat"),
    "an ARFF that is none": (nonsense("@relation x\n@attribute a {\n@data\n1,2,3\n", "t.arff"), "as .arff"),
    "an ARFF of one line": (
        nonsense("@relation " + "x" * 2**27, "t.arff"),
        "line 1, which begins b'@relation",
    ),
    "a word in many rows": (repeated_word, "column 'word' holds "),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_refused_in_one_line_and_little_memory(tmp_path: Path, case: str) -> None:
    make, said = BAD_TABLES[case]
    assert said in refused(tmp_path, make(tmp_path), "--target", "class")


def test_there_are_enough_bad_files() -> None:
    assert len([*itertools.chain(BAD_IMAGES, BAD_TABLES)]) >= 25
