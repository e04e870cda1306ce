"""Promises of the command line about bad input: one clear line, the right exit code, no traceback."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from elign.common.checkpoint import save_policy
from elign.common.policy import DiffusionPolicy, PolicySpec

Elign = Callable[..., "subprocess.CompletedProcess[str]"]


def _refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, nothing on stdout, one line that holds the words."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("elign: error: ")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    """A small policy with random weights."""
    folder = tmp_path / "policy"
    save_policy(DiffusionPolicy(PolicySpec(hidden=8, num_layers=1, size_histogram={5: 1})), folder, {})
    return folder


def test_a_wrong_preset_lists_the_presets(elign: Elign) -> None:
    _refused(
        elign("train", "--preset", "labtop", "--run-dir", "r"), "labtop", "laptop, paper-geom, paper-qm9"
    )


def test_an_unknown_setting_names_the_key(elign: Elign) -> None:
    done = elign("train", "--preset", "laptop", "--set", "rollout.num_step=3", "--run-dir", "r")
    _refused(done, "rollout.num_step", "did you mean rollout.num_steps")


def test_no_run_directory_is_left_by_a_refused_run(elign: Elign, tmp_path: Path) -> None:
    elign("train", "--preset", "laptop", "--set", "run.iterations=0", "--run-dir", "r")
    assert not (tmp_path / "r").exists()


def test_an_unknown_force_field_leaves_no_run_directory(elign: Elign, tmp_path: Path) -> None:
    done = elign("train", "--preset", "laptop", "--set", "reward.force_field=nobody", "--run-dir", "r")
    _refused(done, "nobody", "gfn2-xtb")
    assert not (tmp_path / "r").exists()


def test_a_missing_configuration_file_is_named(elign: Elign) -> None:
    _refused(elign("train", "--config", "nowhere.yaml", "--run-dir", "r"), "nowhere.yaml", "No such file")


def test_train_without_preset_or_config_says_what_to_give(elign: Elign) -> None:
    _refused(elign("train", "--run-dir", "r"), "--preset laptop", "--config")


def test_resume_without_a_run_says_so(elign: Elign) -> None:
    _refused(elign("train", "--run-dir", "r", "--resume"), "no run to resume in r")
    _refused(elign("pretrain", "--data", "x.npz", "--run-dir", "r", "--resume"), "no run to resume in r")


def test_a_folder_that_holds_a_run_is_not_overwritten(elign: Elign, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.yaml").write_text("run: {seed: 1}\n")
    done = elign("train", "--preset", "laptop", "--set", "reward.force_field=gfn2-xtb", "--run-dir", "r")
    _refused(done, "r is not empty", "--resume")


def test_an_unknown_policy_lists_the_known_ones(elign: Elign) -> None:
    _refused(elign("sample", "--policy", "nobody", "--out", "a.xyz"), "nobody", "known names")


def test_a_truncated_checkpoint_is_named(elign: Elign, policy_folder: Path) -> None:
    weights = policy_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    _refused(
        elign("sample", "--policy", str(policy_folder), "--out", "a.xyz"), "model.safetensors", "damaged"
    )


def test_too_many_steps_are_refused(elign: Elign, policy_folder: Path) -> None:
    done = elign("sample", "--policy", str(policy_folder), "--steps", "1001", "--out", "a.xyz")
    _refused(done, "1001", "1000 steps")


def test_a_device_that_is_not_there_is_refused(elign: Elign, policy_folder: Path) -> None:
    done = elign("sample", "--policy", str(policy_folder), "--device", "cuda:99", "--out", "a.xyz")
    _refused(done, "cuda:99", "auto or cpu")


def test_an_unknown_force_field_is_refused(elign: Elign, policy_folder: Path) -> None:
    done = elign("sample", "--policy", str(policy_folder), "--force-field", "nobody", "--out", "a.xyz")
    _refused(done, "nobody", "gfn2-xtb")


def test_samples_without_a_name_are_refused(elign: Elign) -> None:
    for entry in ("made.parquet", "=made.parquet", "policy="):
        done = elign("force-fields", "train", "--data", "x.npz", "--samples", entry, "--out", "f")
        assert done.returncode == 2
        assert "NAME=FILE" in done.stderr


def test_missing_data_is_named(elign: Elign) -> None:
    _refused(elign("pretrain", "--data", "nowhere.npz", "--run-dir", "r"), "nowhere.npz")


def test_a_folder_without_an_edm_checkpoint_says_what_one_is(elign: Elign, tmp_path: Path) -> None:
    _refused(elign("policies", "import", str(tmp_path), "--out", "mine"), "args.pickle")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sample", "--policy", "p", "--out", "molecules.mol2"], ".extxyz, .xyz, .sdf, .parquet"),
        (["sample", "--policy", "p", "--out", "a.xyz", "-n", "0"], "-n"),
        (["sample", "--out", "a.xyz"], "--policy"),
        (["trian"], "trian"),
    ],
)
def test_wrong_usage_is_exit_code_2(elign: Elign, arguments: list[str], word: str) -> None:
    done = elign(*arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_a_failure_while_running(
    elign: Elign, policy_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = elign("sample", "--policy", str(policy_folder), "-n", "1", "--steps", "2", "--out", "file/a.xyz")
    assert done.returncode == 1
    assert "elign: error: cannot write file/a.xyz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_of_its_own_says_the_same(elign_process: Elign) -> None:
    done = elign_process("config", "show", "--preset", "labtop")
    _refused(done, "labtop", "laptop, paper-geom, paper-qm9")


def test_debug_shows_the_traceback(elign_process: Elign) -> None:
    done = elign_process("config", "show", "--preset", "labtop", ELIGN_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "labtop" in done.stderr


def test_an_address_that_cannot_be_written_is_told_before_anything_starts(elign: Elign) -> None:
    done = elign("train", "--preset", "laptop", "--run-dir", "file:///proc/run")
    assert done.returncode == 1
    assert done.stderr.startswith("elign: error: cannot write to file:///proc/run: ")
    assert "check the address and this machine's credentials" in done.stderr
    _refused(elign("train", "--preset", "laptop", "--run-dir", "foo://run/x"), "foo://run/x", "Unrecognized")


def test_commands_name_an_address_that_has_no_run(elign: Elign, tmp_path: Path) -> None:
    uri = (tmp_path / "nothing").as_uri()
    for command in ("status", "watch"):
        _refused(elign(command, uri), f"there is no run in {uri}")
    _refused(elign("train", "--run-dir", uri, "--resume"), f"there is no run to resume in {uri}")
    _refused(elign("scale", uri, "--actors", "2"), f"the run of {uri} is not on this machine", "--address")
    _refused(elign("sample", "--policy", uri, "--out", "a.xyz"), f"{uri} holds neither policy.json nor best/")
    _refused(elign("evaluate", "--policy", uri), f"{uri} holds neither policy.json nor best/")
    _refused(elign("pretrain", "--data", "qm9", "--run-dir", "s3://b/x"), "writes into a local folder")
