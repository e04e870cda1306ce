"""YAML read strictly and written so that it reads back equal.

Two things differ from plain PyYAML: a key that occurs twice (or is no name) is an error, and ``2e-5`` is a
number (YAML 1.2), not a string.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from elign.common.errors import ConfigError

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """Safe YAML with numbers like 2e-5, keys that are names, and no repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            problem = None
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                problem = "a key must be a name"
            elif key.value in seen:
                problem = f"the key '{key.value}' occurs twice"
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """The counterpart of ``_Loader``: quotes a string that it would read as a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse_yaml(text: str, source: str) -> Any:
    """The value that ``text`` holds. Raises ConfigError naming ``source`` and the line where it breaks."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: runs no code
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from error


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in the file at ``path``; an empty file is an empty mapping.

    Raises ConfigError when the file is missing, unreadable, no text, malformed, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file in UTF-8, so it cannot be a YAML configuration"
        ) from error
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}; a configuration is a mapping of sections")
    return value


def to_yaml(value: Any) -> str:
    """YAML text of plain data, keys in their order, that ``parse_yaml`` reads back equal."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False))
