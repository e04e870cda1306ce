"""Promises of a run whose directory is a URI: what is there at any moment is a run that can be resumed."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from elign.common.checkpoint import load_policy, save_policy
from elign.common.errors import CheckpointError, ConfigError, DataError, StorageError
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.common.remote_folder import RemoteFolder, run_copy
from elign.learner.learner_state import LearnerState
from elign.learner.plan_feed import PlanState
from elign.learner.run_checkpoint import RunCheckpoint, list_checkpoints, load_newest, save_checkpoint
from elign.learner.run_mirror import RunMirror, run_figures, run_folder
from tests.common.remote_places import PLACES, remote_place

SPEC = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELIGN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return (tmp_path / "remote" / "first").as_uri()


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """What is behind ``uri``."""
    return tmp_path / "remote" / "first"


def advance(folder: Path, iteration: int) -> None:
    """What an iteration changes, as far as it matters here."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("run: {}\n")
    (folder / "metrics.parquet").write_text("row " * iteration)
    policy = DiffusionPolicy(SPEC)
    weights = {name: torch.full_like(t, iteration) for name, t in policy.state_dict().items()}
    checkpoint = RunCheckpoint(iteration, LearnerState(weights, None, {}), PlanState(iteration, ()))
    save_checkpoint(folder, checkpoint, SPEC, {}, keep_last=2)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def recorded(patch: pytest.MonkeyPatch) -> list[str]:
    """Names of files sent and folders removed, as they are."""
    done: list[str] = []
    put, remove = RemoteFolder.put, RemoteFolder.remove

    def record_put(self: RemoteFolder, source: Path, name: str) -> None:
        put(self, source, name)
        done.append(name)

    def record_remove(self: RemoteFolder, name: str) -> None:
        remove(self, name)
        done.append(f"- {name}")

    patch.setattr(RemoteFolder, "put", record_put)
    patch.setattr(RemoteFolder, "remove", record_remove)
    return done


def refuse(patch: pytest.MonkeyPatch, from_name: str = "") -> None:
    """Let the file system refuse all files, or those whose names have this in them."""
    put = RemoteFolder.put

    def broken(self: RemoteFolder, source: Path, name: str) -> None:
        if from_name in name:
            raise StorageError(f"cannot write to {self.uri}: no route to host")
        put(self, source, name)

    patch.setattr(RemoteFolder, "put", broken)


@pytest.mark.parametrize("kind", PLACES)
def test_all_of_a_run_is_there_and_comes_back_elsewhere(
    kind: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in remote_place(kind, tmp_path, monkeypatch):
        uri = place.format("runs/first")
        with run_folder(uri, resume=False) as (folder, saved):
            for iteration in (1, 2, 3):
                advance(folder, iteration)
                saved()
            (folder / "report.html").write_text("done")
            (folder / ".half").write_text("not yet")
        there = files(folder)
        shutil.rmtree(home)
        with run_folder(uri, resume=True) as (again, _):
            assert again == folder
            assert files(again) == {name: data for name, data in there.items() if name != ".half"}
            newest = load_newest(again)
            assert newest is not None
            assert newest.completed_iterations == 3
            assert [path.name for path in list_checkpoints(again)] == ["iteration_000002", "iteration_000003"]


def test_only_what_changed_is_sent_and_in_an_order_that_is_whole_at_any_moment(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_folder(uri, resume=False) as (folder, saved):
        advance(folder, 1)
        (folder / "before.parquet").write_text("molecules")
        saved()
        advance(folder, 2)
        saved()
        done = recorded(monkeypatch)
        advance(folder, 3)
        saved()
        new = "checkpoints/iteration_000003"
        assert done == [
            "config.yaml",
            "metrics.parquet",
            *(f"{new}/{name}" for name in ("learner.safetensors", "model.safetensors")),
            *(f"{new}/{name}" for name in ("policy.json", "state.json")),
            "- checkpoints/iteration_000001",
        ]
        done.clear()
        saved()
    assert done == []


def test_a_checkpoint_that_is_not_whole_there_does_not_count(
    uri: str, home: Path, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = RunMirror(uri)
    mirror.open(resume=False)
    advance(mirror.folder, 1)
    mirror.upload()
    advance(mirror.folder, 2)
    with monkeypatch.context() as patch:
        refuse(patch, "iteration_000002/state.json")
        with pytest.raises(StorageError, match="no route to host"):
            mirror.upload()
    shutil.rmtree(home)
    again = RunMirror(uri)
    again.open(resume=True)
    newest = load_newest(again.folder)
    assert newest is not None
    assert newest.completed_iterations == 1
    assert "checkpoints/iteration_000002/model.safetensors" in files(remote)
    again.upload()
    assert files(remote) == files(again.folder)
    assert [path.name for path in list_checkpoints(remote)] == ["iteration_000001"]


def test_a_damaged_newest_gives_way_to_the_one_before(
    uri: str, home: Path, remote: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with run_folder(uri, resume=False) as (folder, _):
        advance(folder, 1)
        advance(folder, 2)
    weights = remote / "checkpoints" / "iteration_000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    shutil.rmtree(home)
    with run_folder(uri, resume=True) as (folder, _), caplog.at_level(logging.WARNING, "elign"):
        newest = load_newest(folder)
    assert newest is not None
    assert newest.completed_iterations == 1
    assert "model.safetensors is missing or damaged; going on from iteration_000001" in caplog.text
    names = {path.name for path in (remote / "checkpoints").iterdir()}
    assert names == {"iteration_000001", "damaged_iteration_000002"}


def test_failed_uploads_are_told_and_done_later(
    uri: str, remote: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with run_folder(uri, resume=False) as (folder, saved):
        advance(folder, 1)
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "elign"):
            refuse(patch)
            saved()
        assert f"cannot write to {uri}: no route to host; until that works again" in caplog.text
        assert str(folder) in caplog.text
        assert not files(remote)
        advance(folder, 2)
        saved()
        assert files(remote) == files(folder)


def ends(uri: str, patch: pytest.MonkeyPatch | None, error: type[BaseException] | None = None) -> None:
    """A run of two iterations that ends with that error. patch: lets no upload work after the first."""
    with run_folder(uri, resume=False) as (folder, saved):
        advance(folder, 1)
        saved()
        if patch is not None:
            refuse(patch)
        advance(folder, 2)
        if error is not None:
            raise error


def test_what_did_not_get_there_in_the_end_is_an_error_and_resumed_from_here(
    uri: str, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = r"no route to host; the whole run is in .*/runs/.*/first, and"
    with monkeypatch.context() as patch, pytest.raises(StorageError, match=told):
        ends(uri, patch)
    with pytest.raises(ConfigError, match="is not empty; continue its run with --resume"):
        RunMirror(uri).open(resume=False)
    with run_folder(uri, resume=True) as (folder, _):
        assert [path.name for path in list_checkpoints(folder)] == ["iteration_000001", "iteration_000002"]
    assert files(remote) == files(folder)


def test_what_a_run_ended_with_matters_more_than_its_last_upload(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "elign"), pytest.raises(KeyboardInterrupt):
        ends(uri, monkeypatch, KeyboardInterrupt)
    assert "no route to host" in caplog.text


def test_an_interrupted_run_is_sent(uri: str, remote: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ends(uri, None, KeyboardInterrupt)
    assert files(remote) == files(run_copy(uri))
    assert "checkpoints/iteration_000002/state.json" in files(remote)


def test_the_newer_of_both_sides_is_resumed(uri: str, home: Path, remote: Path) -> None:
    with run_folder(uri, resume=False) as (folder, _):
        advance(folder, 1)
    shutil.copytree(home, home.with_name("other"))
    with run_folder(uri, resume=True) as (folder, _):
        advance(folder, 2)
    shutil.rmtree(home)  # the other machine has seen nothing of that
    home.with_name("other").rename(home)
    with run_folder(uri, resume=True) as (folder, _):
        assert list_checkpoints(folder)[-1].name == "iteration_000002"
    assert files(remote) == files(folder)


def test_a_place_that_cannot_be_written_is_told_before_anything_starts(home: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot write to file:///proc/x: .*; check the address and"),
        run_folder("file:///proc/x", resume=False),
    ):
        raise AssertionError("it started")
    assert not home.exists()


def test_what_never_got_there_is_not_written_over(uri: str, remote: Path) -> None:
    with run_folder(uri, resume=False) as (folder, _):
        advance(folder, 1)
    shutil.rmtree(remote)
    with pytest.raises(ConfigError, match=f"is empty, but what was to go there before is in {folder}"):
        RunMirror(uri).open(resume=False)
    with run_folder(uri, resume=True):
        pass
    assert files(remote) == files(folder)


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    with run_folder("runs/first", resume=False) as (folder, saved):
        saved()
        assert folder == run_copy("runs/first") == Path("runs/first")
    with run_figures(str(tmp_path)) as (folder, refresh):
        refresh()
        assert folder == tmp_path


def test_figures_are_read_from_there_and_kept_up_to_date(uri: str, remote: Path) -> None:
    with (
        pytest.raises(DataError, match=rf"there is no run in {uri} \(run.json is missing\)"),
        run_figures(uri),
    ):
        pass
    remote.mkdir(parents=True)
    (remote / "run.json").write_text("1")
    with run_figures(uri) as (folder, refresh):
        assert folder.name == "first"
        assert files(folder) == {"run.json": b"1"}
        (remote / "run.json").write_text("2")
        (remote / "metrics.parquet").write_text("rows")
        refresh()
        assert files(folder) == {"run.json": b"2", "metrics.parquet": b"rows"}
    assert not folder.exists()


def test_a_policy_is_found_behind_an_address(uri: str, remote: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds neither policy.json nor best/policy.json"):
        load_policy(uri)
    save_policy(DiffusionPolicy(SPEC), remote / "best", {})
    assert load_policy(uri).spec == SPEC
    assert load_policy(f"{uri}/best").spec == SPEC
