"""Folders that Arrow's file systems reach by a URI: s3://bucket/x, gs://bucket/x, hdfs://host/x, file:///x.

    folder = RemoteFolder("s3://bucket/runs/first")
    folder.put(Path("run.json"), "run.json")
    folder.get(["run.json"], Path("copy"))

Arrow copies the files itself: Python file objects in its threads could abort a short process at its end.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from elign.common.errors import ConfigError, StorageError
from elign.common.user_folder import user_folder

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_PROBE = "elign-write-test"


def is_uri(place: str | Path) -> bool:
    """Does it name a file system beside the folder in it?"""
    return _URI.match(str(place)) is not None


def uri_name(uri: str) -> str:
    """The last part of the folder. Raises ConfigError where there is none, or with a password in it."""
    parts = urlsplit(uri)
    if parts.password is not None:
        raise ConfigError(
            f"{parts.scheme}://...@{parts.hostname}{parts.path} holds a password, and the address of a run "
            "is stored and shown; give credentials in the environment, as in AWS_SECRET_ACCESS_KEY"
        )
    name = PurePosixPath(parts.path).name or parts.netloc
    if not name:
        raise ConfigError(f"{uri} names no folder")
    return name


def place_for(uri: str, kind: str) -> Path:
    """Where in the user's folder a local copy of ``uri`` belongs, always the same; may not exist yet."""
    return user_folder() / kind / hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:12] / uri_name(uri)


def run_copy(run_dir: str) -> Path:
    """The folder in which the run of ``run_dir`` works on this machine; for a folder, that itself."""
    return place_for(run_dir, "runs") if is_uri(run_dir) else Path(run_dir)


class RemoteFolder:
    """Names are relative to the folder, with slashes. Raises ConfigError for a URI that Arrow does not know.

    All methods raise StorageError, naming the URI, when the file system refuses.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self.name = uri, uri_name(uri)
        self._made: set[str] = set()
        with self._told("reach"):
            try:
                self._files, path = fs.FileSystem.from_uri(uri)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ConfigError(f"{uri} is no folder that can be reached: {error}") from error
        self._root = path.rstrip("/")

    def check_writable(self) -> None:
        """Write a small file and remove it."""
        with tempfile.NamedTemporaryFile() as probe:
            self.put(Path(probe.name), _PROBE)
        with self._told("write to"):
            self._files.delete_file(self._at(_PROBE))

    def names(self) -> set[str]:
        """Of all files in it and in its folders, but for hidden ones; empty where it does not exist."""
        with self._told("read"):
            everything = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
            found = self._files.get_file_info(everything)
        names = {file.path.removeprefix(f"{self._root}/") for file in found if file.is_file}
        return {name for name in names if not is_hidden(name)}

    def put(self, source: Path, name: str) -> None:
        """Copy a local file there; a reader sees the old one or the whole new one."""
        parent, _, last = self._at(name).rpartition("/")
        partial = f"{parent}/.{last}.part"
        with self._told("write to"):
            if parent not in self._made:
                self._files.create_dir(parent, recursive=True)
                self._made.add(parent)
            self._copy(fs.LocalFileSystem(), str(source), self._files, partial)
            self._files.move(partial, self._at(name))

    def get(self, names: Iterable[str], folder: Path) -> list[str]:
        """Copy those of the files that exist into a local folder, in that order; returns their names."""
        with self._told("read"):
            wanted = list(names)
            infos = self._files.get_file_info([self._at(name) for name in wanted])
            found = [name for name, info in zip(wanted, infos, strict=True) if info.is_file]
            for name in found:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._copy(self._files, self._at(name), fs.LocalFileSystem(), str(folder / name))
        return found

    def remove(self, name: str) -> None:
        """A folder in it, with all that it holds."""
        with self._told("write to"):
            self._files.delete_dir(self._at(name))
        self._made = {made for made in self._made if not f"{made}/".startswith(f"{self._at(name)}/")}

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @staticmethod
    def _copy(source: fs.FileSystem, name: str, target: fs.FileSystem, new_name: str) -> None:
        fs.copy_files(
            name, new_name, source_filesystem=source, destination_filesystem=target, use_threads=False
        )

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            first = str(error).splitlines()[0]  # HDFS goes on with all places where it looked for Java
            raise StorageError(f"cannot {action} {self.uri}: {first}") from error


def is_hidden(name: str) -> bool:
    """A temporary file, or in a temporary folder: never part of what is complete."""
    return any(part.startswith(".") for part in name.split("/"))
