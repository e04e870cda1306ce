"""Data sets load by name and path; the QM9 download resumes, verifies, and says what went wrong."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from elign.common.data import load_dataset, split_indices
from elign.common.download import RemoteFile, fetch
from elign.common.errors import DataError
from elign.common.molecule_io import read_molecules, write_molecules
from elign.common.qm9_archive import Qm9Source

SHARED_QM9 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "qm9_12000.npz"

SCALARS = [
    "799.58812",
    "437.90386",
    "282.94545",
    "1.8511",
    "6.31",
    "-0.2928",
    "0.0687",
    "0.3615",
    "19.0002",
    "0.021375",
]
SCALARS += ["-76.404702", "-76.401867", "-76.400922", "-76.422349", "6.002"]
WATER = (
    "3\ngdb {index}\t" + "\t".join(SCALARS) + "\t\n"
    "O\t-0.0343604951\t 0.9775395708\t 7.6*^-06\t-0.589706\n"
    "H\t 0.0647664923\t 0.0205721989\t 1.5346*^-6\t 0.294853\n"
    "H\t 0.8717903737\t 1.3007924048\t 0.0006931336\t 0.294853\n"
    "1671.4222\t3803.6305\t3907.698\nO\tO\nInChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n"
)


def _archive(texts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


class _Server(ThreadingHTTPServer):
    """Serves ``files``; breaks off each answer after ``limit`` bytes; records the ranges asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.limit: int | None = None
        self.ranges: list[str | None] = []
        self.honours_ranges = True

    def remote(self, name: str, content: bytes) -> RemoteFile:
        self.files[f"/{name}"] = content
        url = f"http://127.0.0.1:{self.server_port}/{name}"
        return RemoteFile(name, url, len(content), hashlib.md5(content).hexdigest())


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.path not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[self.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.honours_ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) if self.server.limit is None else start + self.server.limit
        self.wfile.write(content[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _qm9_source(server: _Server, **texts: str) -> Qm9Source:
    files = texts or {f"dsgdb9nsd_{i:06}.xyz": WATER.format(index=i) for i in (1, 2, 3)}
    listed = "Header of the list\n\n       2    H-N   problem\nand a footer\n"
    return Qm9Source(
        server.remote("dsgdb9nsd.xyz.tar.bz2", _archive(files)), server.remote("list.txt", listed.encode())
    )


def test_qm9_is_downloaded_once_parsed_and_cleaned(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELIGN_CACHE", str(tmp_path))
    source = _qm9_source(server)
    seen: list[tuple[int, int]] = []
    data = load_dataset("qm9", lambda done, total: seen.append((done, total)), source)
    assert data.name == "qm9"
    assert data.properties["index"].tolist() == [1, 3]  # 2 is on the list of uncharacterized ones
    assert data.molecules.atomic_numbers.tolist() == [[8, 1, 1]] * 2
    assert data.molecules.positions[0, 1].tolist() == pytest.approx([0.0647664923, 0.0205721989, 1.5346e-6])
    assert data.properties["gap"].tolist() == [0.3615, 0.3615]
    assert (source.archive.size, source.archive.size) in seen
    requests = len(server.ranges)
    assert load_dataset("qm9", None, source).sha256 == data.sha256
    assert len(server.ranges) == requests


def test_a_broken_download_resumes_where_it_stopped(server: _Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    file = server.remote("file", content)
    server.limit = 3000
    assert fetch(file, tmp_path).read_bytes() == content
    assert server.ranges == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]


def test_a_download_goes_on_in_the_next_call(server: _Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    file = server.remote("file", content)
    (tmp_path / "file.partial").write_bytes(content[:7000])
    assert fetch(file, tmp_path).read_bytes() == content
    assert server.ranges == ["bytes=7000-"]
    assert not (tmp_path / "file.partial").exists()


def test_a_server_without_ranges_starts_afresh(server: _Server, tmp_path: Path) -> None:
    file = server.remote("file", b"abcdef" * 100)
    server.honours_ranges = False
    (tmp_path / "file.partial").write_bytes(b"abc")
    assert fetch(file, tmp_path).read_bytes() == b"abcdef" * 100


def test_a_wrong_checksum_is_refused_and_removed(server: _Server, tmp_path: Path) -> None:
    file = server.remote("file", b"right")
    server.files["/file"] = b"wrong"
    with pytest.raises(DataError, match=r"not the published file: 5 bytes with MD5 .*, wanted 5 bytes"):
        fetch(file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_progress_no_file_and_no_network_are_told_apart(server: _Server, tmp_path: Path) -> None:
    file = server.remote("file", b"content")
    server.limit = 0
    with pytest.raises(DataError, match="broke off at 0 of 7 bytes; run the same command again"):
        fetch(file, tmp_path)
    del server.files["/file"]
    with pytest.raises(DataError, match="answered 404"):
        fetch(file, tmp_path)
    unreachable = RemoteFile("file", "http://127.0.0.1:9/file", 7, "")
    with pytest.raises(DataError, match=r"cannot download .*; is there a network"):
        fetch(unreachable, tmp_path)


def test_a_file_of_the_archive_in_another_format_is_named(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELIGN_CACHE", str(tmp_path))
    source = _qm9_source(server, **{"dsgdb9nsd_000001.xyz": "2\ngdb 1 1.0\nH 0 0 0\nH 0 0 1\n"})
    with pytest.raises(DataError, match=r"dsgdb9nsd_000001.xyz in the QM9 archive"):
        load_dataset("qm9", None, source)


def test_the_same_molecules_have_the_same_hash_in_every_exact_format(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\n\nHe 0 0 0\n3\n\nO 0 0 0.1234567\nH 1 0 0\nH 0 1 0\n")
    molecules = read_molecules(tmp_path / "a.xyz")
    write_molecules(tmp_path / "b.parquet", molecules)
    write_molecules(tmp_path / "c.extxyz", molecules[[1, 0]])
    a, b, c = (load_dataset(tmp_path / name) for name in ("a.xyz", "b.parquet", "c.extxyz"))
    assert a.name == "a"
    assert a.sha256 == b.sha256 != c.sha256


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\n\nH 0 0 0\n1\n\nH nan 0 0\n")
    with pytest.raises(DataError, match="molecule 1 has coordinates that are not finite"):
        load_dataset(tmp_path / "a.xyz")
    with pytest.raises(DataError, match="unknown data set 'qm8': give qm9, or a file"):
        load_dataset("qm8")


def test_splits_are_whole_disjoint_and_belong_to_the_seed() -> None:
    train, validation = split_indices(1000, validation_fraction=0.1, seed=3)
    assert len(validation) == 100
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(1000))
    again = split_indices(1000, validation_fraction=0.1, seed=3)
    assert np.array_equal(train, again[0])
    assert not np.array_equal(train, split_indices(1000, validation_fraction=0.1, seed=4)[0])
    assert [len(part) for part in split_indices(2, validation_fraction=0.01, seed=0)] == [1, 1]
    with pytest.raises(DataError, match="1 molecules cannot be split"):
        split_indices(1, validation_fraction=0.5, seed=0)


@pytest.mark.skipif(not SHARED_QM9.exists(), reason="no ../shared/data/qm9_12000.npz")
def test_shared_qm9_sample_loads() -> None:
    data = load_dataset(SHARED_QM9)
    assert len(data.molecules) == 12_000
    assert set(data.molecules.atomic_numbers.unique().tolist()) == {0, 1, 6, 7, 8, 9}
    assert data.properties["gap"].shape == (12_000,)
