"""Settings read once at the edge: preset, then the user's YAML file, then ``--set a.b=c``; the later wins.

    config = load_config("laptop", None, ["run.iterations=10", "learner.learning_rate=1e-5"])

Whatever is wrong becomes one ``ConfigError`` that names the dotted key, its value and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from elign.common.config import TrainConfig
from elign.common.errors import ConfigError
from elign.common.yaml_files import parse_yaml, read_yaml_mapping, to_yaml

S = TypeVar("S", bound=BaseModel)


def list_presets() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("elign.common").joinpath("presets")
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_config(preset: str | None, file: Path | None, overrides: Sequence[str]) -> TrainConfig:
    """The configuration of a training run; without a preset the defaults of ``TrainConfig`` are the ground.

    overrides: "section.key=value", the value parsed as YAML. Raises ConfigError.
    """
    values: dict[str, Any] = {} if preset is None else _preset_values(preset)
    return load_settings(TrainConfig, values, file, overrides)


def load_settings(model: type[S], base: Mapping[str, Any], file: Path | None, overrides: Sequence[str]) -> S:
    """Settings of any model from ``base`` values, a YAML file and overrides, the later one winning.

    Raises ConfigError.
    """
    values = dict(base)
    if file is not None:
        values = _merged(values, read_yaml_mapping(file))
    for override in overrides:
        values = _merged(values, _parse_override(override))
    try:
        # JSON mode: strict about types (true is no number), yet a list may become a tuple.
        return model.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problems = [_explain(model, details) for details in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems)) from error


def dump_config(config: BaseModel) -> str:
    """YAML text with every setting; loading it gives an equal configuration."""
    return to_yaml(config.model_dump(mode="json"))


def config_schema() -> dict[str, Any]:
    """JSON schema of a training configuration, for editors and validators."""
    return TrainConfig.model_json_schema()


def _preset_values(name: str) -> dict[str, Any]:
    presets = list_presets()
    if name not in presets:
        raise ConfigError(
            f"there is no preset '{name}'{_suggest(name, presets)}; presets: {', '.join(presets)}"
        )
    with resources.as_file(resources.files("elign.common").joinpath("presets", f"{name}.yaml")) as path:
        return read_yaml_mapping(path)


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {text}: wanted section.key=value, for example --set run.iterations=10")
    nested: Any = parse_yaml(value, f"--set {key}")
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with the values of ``new``, mappings merged key by key."""
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def _explain(model: type[BaseModel], details: ErrorDetails) -> str:
    """One line for one of pydantic's errors."""
    *place, name = [str(part) for part in details["loc"]]
    key = ".".join([*place, name])
    section, inner = _section(model, place), _section(model, [*place, name])
    if details["type"] == "extra_forbidden" and section is not None:
        inside = f"in {'.'.join(place)}" if place else "at the top level"
        return f"unknown setting {key}{_suggest_key(model, name)}; allowed {inside}: {_names(section)}"
    if details["type"] == "missing":
        return f"the setting {key} is missing and has no default"
    value = _show(details["input"])
    if details["type"] == "value_error":  # of settings that do not go together
        return f"{key}: {details['msg'].removeprefix('Value error, ')}"
    if inner is not None:
        return f"{key} = {value}: {key} is a section, with the keys {_names(inner)}"
    reason = details["msg"].removeprefix("Input ")
    return f"{key} = {value}: {reason}{_suggest_literal(section, name, details['input'])}"


def _names(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)


def _section(model: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    """The settings model at a dotted place, None where that place is no section."""
    for part in location:
        field = model.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return None
        model = field.annotation
    return model


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all sections and settings."""
    keys = []
    for name in model.model_fields:
        keys.append(f"{prefix}{name}")
        inner = _section(model, [name])
        if inner is not None:
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys


def _suggest(name: str, known: Sequence[str]) -> str:
    matches = get_close_matches(name, known, n=2, cutoff=0.7)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def _suggest_key(model: type[BaseModel], name: str) -> str:
    """Settings of nearly this name in whatever section."""
    by_name = {key.rpartition(".")[2]: key for key in _all_keys(model)}
    matches = [by_name[match] for match in get_close_matches(name, by_name, n=2, cutoff=0.7)]
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def _suggest_literal(section: type[BaseModel] | None, name: str, value: Any) -> str:
    """The allowed word nearest to a misspelt one."""
    if section is None or name not in section.model_fields or not isinstance(value, str):
        return ""
    return _suggest(value, [a for a in get_args(section.model_fields[name].annotation) if isinstance(a, str)])


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
