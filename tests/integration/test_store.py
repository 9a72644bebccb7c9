"""One conformance suite over every store: a local folder, and a bucket behind a real S3 protocol server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer.store import Store, StoreError, open_store


@pytest.fixture(params=["local", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "store" if request.param == "local" else request.getfixturevalue("bucket"))


def test_what_was_written_is_read_back_whole(store: Store) -> None:
    large = bytes(range(256)) * 60_000  # above every multipart threshold
    for name, data in {"empty": b"", "a/b/c.bin": large}.items():
        store.write(name, data)
        assert store.read(name) == data


def test_a_write_replaces_and_a_create_does_not(store: Store) -> None:
    assert store.create("outcome.json", b"first")
    assert not store.create("outcome.json", b"second")
    assert store.read("outcome.json") == b"first"
    store.write("outcome.json", b"third")
    assert store.read("outcome.json") == b"third"


def test_of_many_creators_at_once_exactly_one_wins_and_its_content_stands(store: Store) -> None:
    for round_ in range(5):
        with ThreadPoolExecutor(8) as pool:
            contents = [f"writer {number}".encode() for number in range(8)]
            won = list(pool.map(lambda data: store.create(f"race-{round_}", data), contents))  # noqa: B023
        assert won.count(True) == 1
        assert store.read(f"race-{round_}") == contents[won.index(True)]


def test_a_file_that_is_not_there_is_told_by_its_type(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    store.delete("nothing")


def test_names_are_those_under_a_folder_and_sorted(store: Store) -> None:
    for name in ("run/b", "run/a/2", "run/a/1", "runner/c"):
        store.write(name, b"x")
    assert store.names("run") == ["run/a/1", "run/a/2", "run/b"]
    assert store.names("other") == []
    store.delete("run/b")
    assert store.names("run") == ["run/a/1", "run/a/2"]


def test_the_folders_at_the_top_are_listed_and_files_are_not(store: Store) -> None:
    assert store.folders() == []
    for name in ("second/a", "first/b/c", "first/d", "file"):
        store.write(name, b"x")
    assert store.folders() == ["first", "second"]


def test_a_message_names_the_place(store: Store) -> None:
    assert store.where("run/a").endswith("/run/a")


@pytest.mark.parametrize("url", ["s4://bucket/x", "s3://", "s3:/bucket/x", ""])
def test_a_place_that_is_no_store_is_told(url: str) -> None:
    with pytest.raises(StoreError, match="is no store"):
        open_store(url)


def test_a_file_is_no_store_and_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="is a file; a store is a folder"):
        open_store(tmp_path / "file")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/runs").where("a") == str(tmp_path / "runs" / "a")


def test_a_bucket_that_does_not_exist_is_told(bucket: str) -> None:
    store = open_store(bucket.replace("bucket-", "missing-"))
    with pytest.raises(StoreError, match="cannot write s3://missing-"):
        store.write("a", b"x")
