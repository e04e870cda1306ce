"""Promises of storage: a file or folder is the old one or the whole new one, whatever happens."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from elign.common.errors import StorageError
from elign.common.storage import write_atomic, write_directory, write_json


def test_a_written_file_is_complete_and_readable_by_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.json"
    write_json(target, {"a": [1, 2.5, None]})
    assert json.loads(target.read_text()) == {"a": [1, 2.5, None]}
    assert target.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in target.parent.iterdir()] == ["result.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "weights"
    target.write_text("old")

    def half(path: Path) -> None:
        path.write_text("ha")
        raise RuntimeError("stopped in the middle")

    with pytest.raises(RuntimeError):
        write_atomic(target, half)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "best"
    write_directory(target, lambda folder: (folder / "one").write_text("1") and None)
    write_directory(target, lambda folder: (folder / "two").write_text("2") and None)
    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_a_folder_whose_writer_fails_stays_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "best"
    write_directory(target, lambda folder: (folder / "one").write_text("1") and None)

    def half(folder: Path) -> None:
        (folder / "two").write_text("2")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"best.*No space left on device"):
        write_directory(target, half)
    assert [p.name for p in target.iterdir()] == ["one"]
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_a_path_under_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "file" / "result.json")):
        write_json(tmp_path / "file" / "result.json", {})


def test_a_full_disk_is_one_clear_error_and_the_old_file_stands(tmp_path: Path) -> None:
    """The limit on file sizes of a child process stands for the full disk: writes fail in the middle."""
    target = tmp_path / "weights"
    target.write_bytes(b"old")
    script = textwrap.dedent("""
        import resource, signal, sys
        from elign.common.errors import StorageError
        from elign.common.storage import write_atomic
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_atomic(sys.argv[1], lambda path: path.write_bytes(bytes(1 << 20)) and None)
        except StorageError as error:
            print(error)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)], capture_output=True, text=True, check=True
    )
    assert f"cannot write {target}" in done.stdout
    assert "File too large" in done.stdout
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]
