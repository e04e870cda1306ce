"""A run whose directory is a URI: it works in a folder of this machine, from where its files go there.

    with run_folder("s3://bucket/runs/first", resume=False) as (folder, saved):
        ...                                  # write into folder, and call saved() after each iteration

What goes there is ordered so that whoever resumes from there finds a whole run: figures before the checkpoint
that counts on them, a checkpoint's ``state.json`` after its other files, and old checkpoints removed last.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from elign.common.checkpoint import DESCRIPTION
from elign.common.errors import ConfigError, DataError, StorageError
from elign.common.remote_folder import RemoteFolder, is_hidden, is_uri, run_copy
from elign.common.run_control import STATUS_FILE
from elign.common.storage import write_directory
from elign.learner.run_checkpoint import CHECKPOINTS, STATE_FILE
from elign.learner.run_metrics import METRICS_FILE

CONFIG_FILE, RUN_FILE = "config.yaml", "run.json"
log = logging.getLogger("elign")


@contextmanager
def run_folder(run_dir: str, *, resume: bool) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The folder in which the run of ``run_dir`` works, and what to call when its files have changed.

    Raises ConfigError or StorageError at once where a URI cannot be used, and StorageError at the end when
    not all of the run got there.
    """
    if not is_uri(run_dir):
        yield Path(run_dir), lambda: None
        return
    mirror = RunMirror(run_dir)
    mirror.open(resume=resume)
    try:
        yield mirror.folder, mirror.try_upload
    except BaseException:  # what happened matters more than whether the last files can be uploaded
        mirror.try_upload()
        raise
    try:
        mirror.upload()
    except StorageError as error:
        raise StorageError(
            f"{error}; the whole run is in {mirror.folder}, and --resume on this machine sends it"
        ) from error


class RunMirror:
    """Brings what a run writes into a folder of the user's (``$ELIGN_HOME/runs/...``) to a remote one."""

    def __init__(self, uri: str) -> None:
        self.remote, self.folder = RemoteFolder(uri), run_copy(uri)
        self._there: dict[str, tuple[int, int] | None] = {}
        """Files of the remote folder with size and time of the local one they are equal to, where known."""

    def open(self, *, resume: bool) -> None:
        """Check that the remote folder can be written, and is empty or has, with ``resume``, come here."""
        try:
            self.remote.check_writable()
            names = self.remote.names()
        except StorageError as error:
            raise StorageError(
                f"{error}; check the address and this machine's credentials, or train into a local folder"
            ) from error
        here = _stamps(self.folder)
        if not resume and names:
            raise ConfigError(
                f"{self.remote.uri} is not empty; continue its run with --resume, or name another folder"
            )
        if not resume and here:
            raise ConfigError(
                f"{self.remote.uri} is empty, but what was to go there before is in {self.folder}; continue "
                "that with --resume, or remove it"
            )
        self._there = dict.fromkeys(names)
        whole = _whole(names)
        if _progress(whole) > _progress(here):
            write_directory(self.folder, lambda folder: self._download(whole, folder))
            self._there.update(_stamps(self.folder))

    def _download(self, names: Iterable[str], folder: Path) -> None:
        self.remote.get(sorted(names), folder)

    def try_upload(self) -> None:
        """``upload``, whose failure is a warning."""
        try:
            self.upload()
        except StorageError as error:
            log.warning("%s; until that works again, the whole run is in %s alone", error, self.folder)

    def upload(self) -> None:
        """Send what has changed, then remove the checkpoints that are no more. Raises StorageError."""
        here = _stamps(self.folder)
        for name in sorted(here, key=_turn):
            if self._there.get(name) != here[name]:
                self.remote.put(self.folder / name, name)
                self._there[name] = here[name]
        for checkpoint in sorted(_checkpoints(self._there) - _checkpoints(here)):
            self.remote.remove(checkpoint)
            self._there = {n: s for n, s in self._there.items() if not n.startswith(f"{checkpoint}/")}


@contextmanager
def run_figures(run_dir: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder with what is told of a run (``run.json``, metrics, status), and what brings it up to date.

    Raises DataError where a URI has no run, and StorageError where it cannot be read.
    """
    if not is_uri(run_dir):
        yield Path(run_dir), lambda: None
        return
    remote = RemoteFolder(run_dir)
    with tempfile.TemporaryDirectory(prefix="elign-run-") as temporary:
        folder = Path(temporary) / remote.name

        def refresh() -> None:
            if RUN_FILE not in remote.get([RUN_FILE, METRICS_FILE, STATUS_FILE], folder):
                raise DataError(f"there is no run in {run_dir} ({RUN_FILE} is missing)")

        refresh()
        yield folder, refresh


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files in it, by their names relative to it."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not is_hidden(name) and path.is_file():
            facts = path.stat()
            found[name] = (facts.st_size, facts.st_mtime_ns)
    return found


def _turn(name: str) -> tuple[bool, str, int, str]:
    """Checkpoints after all else, and in each folder last the file that says that the others are there."""
    parent, _, last = name.rpartition("/")
    rank = {DESCRIPTION: 1, STATE_FILE: 2}.get(last, 0)
    return name.startswith(f"{CHECKPOINTS}/"), parent, rank, last


def _checkpoints(names: Iterable[str]) -> set[str]:
    """Folders of the checkpoints that the files belong to, whole or not."""
    return {name.rpartition("/")[0] for name in names if name.startswith(f"{CHECKPOINTS}/")}


def _whole(names: set[str]) -> set[str]:
    """Without the files of checkpoints that were being sent, or removed, when something broke off."""
    half = {folder for folder in _checkpoints(names) if f"{folder}/{STATE_FILE}" not in names}
    return {name for name in names if name.rpartition("/")[0] not in half}


def _progress(names: Iterable[str]) -> tuple[bool, str]:
    """How far a run with these files is: whether it is one, and its newest checkpoint."""
    known = set(names)
    found = (c for c in _checkpoints(known) if c.startswith(f"{CHECKPOINTS}/iteration_"))
    return CONFIG_FILE in known, max(found, default="")
