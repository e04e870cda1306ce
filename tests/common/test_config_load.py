"""Promises of the configuration: later layers win, dumps load back equal, errors name key and value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from elign.common.config import (
    ActorSettings,
    LearnerSettings,
    RewardSettings,
    RolloutSettings,
    RunSettings,
    TrainConfig,
)
from elign.common.config import PolicySettings as Policy
from elign.common.config_load import config_schema, dump_config, list_presets, load_config, load_settings
from elign.common.errors import ConfigError
from elign.common.yaml_files import parse_yaml

POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
FRACTION = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
WEIGHT = st.floats(min_value=0.0, max_value=1e10)
COUNT = st.integers(min_value=1, max_value=2**40)

CONFIGS = st.builds(
    TrainConfig,
    policy=st.builds(Policy, checkpoint=st.text(st.characters(exclude_categories=["Cs"]))),
    rollout=st.builds(RolloutSettings, num_steps=st.integers(2, 1000), shared_prefix=FRACTION, groups=COUNT),
    actors=st.builds(ActorSettings, max=COUNT),
    reward=st.builds(
        RewardSettings,
        force_field=st.sampled_from(
            ["2e-5", "1_000", "null", "yes", "1:30", "0x1f", "~", " a", "a: b", "#x", "-"]
        ),
        energy_weight=WEIGHT,
        stability_weight=WEIGHT,
        energy_mode=st.sampled_from(["shaped", "delta", "terminal"]),
        force_power=st.sampled_from([1, 2]),
    ),
    learner=st.builds(
        LearnerSettings,
        learning_rate=POSITIVE,
        final_learning_rate=POSITIVE,
        ema_decay=st.none() | st.floats(min_value=0.01, max_value=0.99),
    ),
    run=st.builds(RunSettings, seed=st.integers(-(2**60), 2**60), iterations=COUNT),
)


@example(TrainConfig(policy=Policy(checkpoint="\x85")))  # a line break to YAML
@given(CONFIGS)
def test_what_is_dumped_loads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, config: TrainConfig
) -> None:
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(None, file, []) == config


def test_the_presets_load_and_are_these_three() -> None:
    assert list_presets() == ["laptop", "paper-geom", "paper-qm9"]
    configs = {name: load_config(name, None, []) for name in list_presets()}
    assert configs["laptop"].policy.checkpoint == "elign-qm9-small"
    paper = configs["paper-qm9"]
    assert (paper.rollout.groups, paper.rollout.samples_per_group, paper.rollout.num_steps) == (4, 24, 1000)
    assert 0.6 <= paper.rollout.shared_prefix <= 0.7
    assert (paper.learner.learning_rate, paper.learner.final_learning_rate) == (4e-6, 2e-7)
    assert (paper.learner.clip_range, paper.learner.kl_coefficient) == (2e-3, 0.04)
    assert (paper.reward.force_weight, paper.reward.energy_weight, paper.reward.gamma) == (1.0, 0.05, 1.0)
    assert configs["paper-geom"].reward.energy_weight == 0.1


def test_overrides_win_over_the_file_which_wins_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "rollout:\n  groups: 3\nactors: {max: 5}\nlearner: {learning_rate: 3e-5}\n", encoding="utf-8"
    )
    config = load_config(
        "laptop", file, ["rollout.groups=7", "learner.ema_decay=null", "reward.device=cuda:1"]
    )
    assert (config.rollout.groups, config.actors.max, config.rollout.num_steps) == (7, 5, 50)
    assert (config.learner.learning_rate, config.reward.device) == (3e-5, "cuda:1")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("", encoding="utf-8")
    assert load_config("laptop", file, []) == load_config("laptop", None, [])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rollout.num_step=3", ["rollout.num_step", "did you mean rollout.num_steps", "samples_per_group"]),
        (
            "num_steps=3",
            ["num_steps", "rollout.num_steps", "top level: policy, rollout, actors, reward, learner, run"],
        ),
        ("rolout.groups=3", ["rolout", "rollout"]),
        ("rollout.num_steps=1", ["rollout.num_steps = 1", "greater than or equal to 2"]),
        ("rollout.num_steps=true", ["rollout.num_steps = true", "integer"]),
        ("run.seed=1.5", ["run.seed = 1.5", "integer"]),
        ("reward.energy_mode=shape", ["reward.energy_mode", "'delta'", "did you mean shaped"]),
        ("reward.force_power=3", ["reward.force_power = 3", "1 or 2"]),
        ("reward.force_clip=.inf", ["reward.force_clip", "finite"]),
        ("learner.learning_rate=.nan", ["learner.learning_rate", "NaN"]),
        ("rollout=3", ["rollout = 3", "section", "num_steps"]),
        ("rollout.groups.x=3", ["rollout.groups", "integer"]),
        ("rollout.groups", ["rollout.groups", "section.key=value"]),
        ("actors.min=3", ["actors", "min = 3 is more than max = 2"]),
        ("learner.learning_rate=[1", ["--set learner.learning_rate", "line 1"]),
        ("=3", ["=3", "section.key=value"]),
    ],
)
def test_a_wrong_setting_names_key_value_and_what_is_allowed(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("laptop", None, [override])
    for word in words:
        assert word in str(caught.value)


def test_all_wrong_settings_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("laptop", None, ["rollout.groups=0", "run.seeed=1"])
    assert len(str(caught.value).splitlines()) == 2


def test_an_unknown_preset_lists_the_presets() -> None:
    with pytest.raises(
        ConfigError, match=r"'labtop' \(did you mean laptop\?\); presets: laptop, paper-geom, paper-qm9"
    ):
        load_config("labtop", None, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run:\n  seed: [1\n", ["line 3", "expected"]),
        ("run:\n  seed: 1\n  seed: 2\n", ["line 3", "'seed' occurs twice"]),
        ("run: {1: 2}\n", ["line 1", "a key must be a name"]),
        ("run: !!python/object/apply:os.system [ls]\n", ["line 1", "python/object"]),
        ("- 1\n", ["list", "mapping"]),
        ("just words\n", ["str", "mapping"]),
    ],
)
def test_a_malformed_file_is_named_with_the_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config("laptop", file, [])
    for word in [str(file), *words]:
        assert word in str(caught.value)


def test_a_missing_a_binary_and_a_folder_are_no_configuration(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for path in [tmp_path / "missing.yaml", tmp_path, binary]:
        with pytest.raises(ConfigError, match=str(path)):
            load_config(None, path, [])


def test_numbers_are_read_as_in_yaml_1_2() -> None:
    assert parse_yaml("[2e-5, 1E3, -3.e+2, .5e1, 2e-5x, '2e-5']", "here") == [
        2e-5,
        1e3,
        -300.0,
        5.0,
        "2e-5x",
        "2e-5",
    ]


def test_settings_of_any_model_can_be_loaded() -> None:
    class Small(BaseModel):
        sizes: tuple[int, ...]
        name: str = "a"

    assert load_settings(Small, {"name": "b"}, None, ["sizes=[1, 2]"]) == Small(sizes=(1, 2), name="b")
    with pytest.raises(ConfigError, match="the setting sizes is missing"):
        load_settings(Small, {}, None, [])


def test_the_schema_describes_every_section() -> None:
    schema = config_schema()
    assert set(schema["properties"]) == {"policy", "rollout", "actors", "reward", "learner", "run"}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["RolloutSettings"]["properties"]["num_steps"]["minimum"] == 2
