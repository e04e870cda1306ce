"""Promises of ``elign profile`` on a real local Ray: tables, JSON whose parts add up, clean ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

import elign.profiling.run as elign_profiling
from elign.common.checkpoint import save_policy
from elign.common.config_load import load_config
from elign.common.policy import DiffusionPolicy, PolicySpec
from elign.profiling.run import profile_training

Elign = Callable[..., "subprocess.CompletedProcess[str]"]
CONFIG = """
policy: {checkpoint: tiny}
rollout: {num_steps: 6, shared_prefix: 0.5, groups: 3, samples_per_group: 3}
actors: {max: 2}
reward: {force_field: gfn2-xtb, stability_weight: 1.0, energy_weight: 0.0}
learner: {kl_coefficient: 0.01, clip_range: 0.1, learning_rate: 1e-4, minibatch_size: 8}
"""


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    # short: Ray's sockets have a length limit
    folder = f"/tmp/elign-ray-{os.getpid()}"
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    yield
    ray.shutdown()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A configuration of a tiny random policy, and that policy by name."""
    spec = PolicySpec(hidden=8, num_layers=1, size_histogram={4: 1, 6: 1})
    save_policy(DiffusionPolicy(spec), tmp_path / "home" / "policies" / "tiny", {})
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path


def test_a_profile_adds_up(elign: Elign, tiny: Path) -> None:
    done = elign("profile", "--config", "tiny.yaml", "--iterations", "2", "--out", "p.json")
    assert done.returncode == 0, done.stderr
    for word in ("waiting for rewards", "rollout actor (each of 2)", "of ceiling", "p.json"):
        assert word in done.stdout
    assert "profiling 3/3" in done.stderr
    assert sorted(path.name for path in tiny.iterdir()) == ["home", "p.json", "tiny.yaml"]

    profile = json.loads((tiny / "p.json").read_text())
    assert profile["schema"] == "elign.profile/1"
    assert profile["iterations"] == 2
    times, rollout = profile["times"], profile["rollout"]
    parts = [seconds for name, seconds in times.items() if name != "wall"]
    assert times["wall"] == pytest.approx(sum(parts))
    assert min(parts) > 0
    assert sum(rollout.values()) == pytest.approx(times["rollout"])
    assert set(profile["processes"]) == {"driver and learner", "rollout actor", "reward server"}
    for process in profile["processes"].values():
        shares = process["busy"] + (process["waiting"] or 0.0) + process["idle"]
        assert shares == pytest.approx(1.0)
        assert process["peak_bytes"] >= process["rest_bytes"] > 0
        assert process["cpu_seconds"] > 0
    for phase in ("sampling", "update"):
        rates = profile["arithmetic"][phase]
        assert rates["flops"] > 0
        assert rates["flops_per_second"] == pytest.approx(rates["flops"] / rates["thread_seconds"])
    assert profile["config"]["actors"]["max"] == 2


@pytest.mark.usefixtures("elign")
def test_a_signal_ends_it_after_the_iteration(tiny: Path) -> None:
    seen: list[int] = []

    def interrupt(done: int, _: int) -> None:
        seen.append(done)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        profile_training(load_config(None, tiny / "tiny.yaml", []), iterations=9, on_iteration=interrupt)
    assert seen == [1]


def test_an_interrupted_command_says_so_and_writes_nothing(
    elign: Elign, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(elign_profiling, "profile_training", interrupted)
    done = elign("profile", "--config", "tiny.yaml")
    assert done.returncode == 130
    assert done.stderr == "stopped; no profile was written\n"
    assert done.stdout == ""
    assert not (tiny / "profile.json").exists()


def test_wrong_input_is_refused_before_any_work(elign: Elign) -> None:
    for arguments, word in (
        ((), "--preset laptop"),
        (("--preset", "labtop"), "laptop, paper-geom, paper-qm9"),
        (("--preset", "laptop", "--set", "actors.maxi=3"), "did you mean actors.max"),
        (("--preset", "laptop", "--set", "reward.force_field=nobody"), "gfn2-xtb"),
        (("--preset", "laptop", "--set", "policy.checkpoint=nobody"), "nobody"),
    ):
        done = elign("profile", *arguments)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
        assert done.stdout == ""
