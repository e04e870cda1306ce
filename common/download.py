"""Public files into the cache: verified by size and checksum, and resumed where a download broke off.

What has arrived stays in ``NAME.partial`` until it is whole and right, so a file in the cache is always good.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from elign.common.errors import DataError

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""
_CHUNK = 1 << 18
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RemoteFile:
    """A public file and what its publisher says of it: size in bytes and MD5 in hexadecimal."""

    name: str
    url: str
    size: int
    md5: str


def cache_folder() -> Path:
    """``$ELIGN_CACHE``, or ``~/.cache/elign``."""
    return Path(os.environ.get("ELIGN_CACHE") or Path.home() / ".cache" / "elign")


def fetch(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """The path of ``file`` in ``folder``, downloaded unless it is there already.

    Raises DataError when the server cannot be reached, the download breaks off without any progress (what
    came is kept: the next call resumes), or the content is not what the publisher announced (it is then
    removed).
    """
    path = folder / file.name
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{file.name}.partial"
    have = partial.stat().st_size if partial.is_file() else 0
    if have > file.size:
        have = 0
    while have < file.size:
        _receive(file, partial, have, progress)
        arrived = partial.stat().st_size
        if arrived <= have:
            raise DataError(
                f"{file.url} broke off at {have} of {file.size} bytes; run the same command again to resume, "
                f"or put the file at {path} by hand"
            )
        have = arrived
    _verify(file, partial)
    partial.replace(path)
    return path


def _receive(file: RemoteFile, partial: Path, have: int, progress: Progress | None) -> None:
    """Append to ``partial`` from byte ``have`` on; a server that ignores ranges makes it start afresh."""
    request = Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as response:
            resumed = response.status == 206
            done = have if resumed else 0
            with partial.open("ab" if resumed else "wb") as out:
                while chunk := response.read(_CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, file.size)
    except HTTPError as error:
        raise DataError(f"{file.url} answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        if not partial.is_file() or partial.stat().st_size <= have:
            raise DataError(f"cannot download {file.url}: {error}; is there a network?") from error


def _verify(file: RemoteFile, partial: Path) -> None:
    """Raises DataError, and removes the file, when size or MD5 differ."""
    with partial.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    size = partial.stat().st_size
    if (size, found) != (file.size, file.md5):
        partial.unlink()
        raise DataError(
            f"{file.url} is not the published {file.name}: {size} bytes with MD5 {found}, "
            f"wanted {file.size} bytes with {file.md5}; it was removed, try again"
        )
