"""Promises of folders behind a URI, on real file systems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elign.common.errors import ConfigError, StorageError
from elign.common.remote_folder import RemoteFolder, is_uri, place_for, uri_name
from tests.common.remote_places import PLACES, remote_place


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    yield from remote_place(request.param, tmp_path, monkeypatch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").write_text("old")
    return tmp_path / "source"


def test_files_go_there_are_replaced_and_come_back(place: str, source: Path, tmp_path: Path) -> None:
    folder = RemoteFolder(place.format("runs/first"))
    assert folder.name == "first"
    folder.check_writable()
    assert folder.names() == set()
    folder.put(source, "run.json")
    source.write_text("the new one")
    folder.put(source, "run.json")
    folder.put(source, "checkpoints/iteration_000001/state.json")
    assert folder.names() == {"run.json", "checkpoints/iteration_000001/state.json"}
    wanted = ["run.json", "nothing", "checkpoints/iteration_000001/state.json"]
    assert folder.get(wanted, tmp_path / "copy") == [wanted[0], wanted[2]]
    assert (tmp_path / "copy" / wanted[0]).read_text() == "the new one"
    assert (tmp_path / "copy" / wanted[2]).read_text() == "the new one"


def test_a_folder_that_was_removed_can_be_made_again(place: str, source: Path) -> None:
    folder = RemoteFolder(place.format("runs/first"))
    for name in ("kept", "old/a", "old/b/c", "older"):
        folder.put(source, name)
    folder.remove("old")
    assert folder.names() == {"kept", "older"}
    folder.put(source, "old/b/c")
    assert folder.names() == {"kept", "older", "old/b/c"}


def test_half_a_file_is_not_counted(place: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder(place.format("runs/first"))
    folder.put(source, "metrics.parquet")
    source.write_text("new")
    copy = RemoteFolder._copy

    def cut(*arguments: Any) -> None:
        copy(*arguments)
        raise OSError("the line is cut\nbetween copying and renaming")

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "_copy", staticmethod(cut))
        for name in ("metrics.parquet", "other"):
            with pytest.raises(StorageError, match=r"cannot write to .*/runs/first.*: the line is cut$"):
                folder.put(source, name)
    assert folder.names() == {"metrics.parquet"}
    folder.get(["metrics.parquet"], source.parent)
    assert (source.parent / "metrics.parquet").read_text() == "old"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write to file:///proc/elign: .*Cannot create directory"):
        RemoteFolder("file:///proc/elign").check_writable()
    (tmp_path / "file").touch()
    uri = f"{(tmp_path / 'file').as_uri()}/run"
    with pytest.raises(StorageError, match=f"cannot write to {uri}: "):
        RemoteFolder(uri).check_writable()


def test_a_bucket_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in remote_place("s3", tmp_path, monkeypatch):
        folder = RemoteFolder(place.format("first").replace("bucket", "nowhere"))
        with pytest.raises(
            StorageError, match=r"cannot write to s3://nowhere/first.*Bucket 'nowhere' not found"
        ):
            folder.check_writable()


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="foo://bucket/first is no folder that can be reached: Unrecognized"
    ):
        RemoteFolder("foo://bucket/first")
    with pytest.raises(ConfigError, match="file://runs/first is no folder that can be reached"):
        RemoteFolder("file://runs/first")
    with pytest.raises(ConfigError, match="file:/// names no folder"):
        RemoteFolder("file:///")


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="holds a password") as refused:
        RemoteFolder("s3://key:secret@bucket/first")
    assert "secret" not in str(refused.value)
    assert uri_name("hdfs://user@host:9000/runs/first") == "first"


def test_addresses_are_told_from_folders() -> None:
    for uri in ("s3://bucket", "gs://bucket/first", "hdfs://host:1/x", "file:///tmp/x", "file:/tmp/x"):
        assert is_uri(uri)
    for folder in ("runs/first", "/runs/first", "c:/runs", "a:b", Path("first")):
        assert not is_uri(folder)


def test_a_copy_has_one_place_named_like_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELIGN_HOME", "/home/elign")
    place = place_for("s3://bucket/runs/first?region=us-east-1", "runs")
    assert place.parent.parent == Path("/home/elign/runs")
    assert place.name == "first"
    assert place != place_for("s3://other/runs/first?region=us-east-1", "runs")
    assert place_for("s3://bucket/first", "runs") == place_for("s3://bucket/first/", "runs")
