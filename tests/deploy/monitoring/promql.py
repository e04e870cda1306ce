"""Just enough of PromQL to name the metrics and labels of an expression; promtool judges the grammar."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KEYWORDS = {"by", "or", "and", "offset", "without", "unless"}


def series_in(expression: str) -> dict[str, set[str]]:
    """Metric -> labels that its matchers use."""
    found: dict[str, set[str]] = {}
    for match in re.finditer(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", expression):
        labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match[2])
        found.setdefault(match[1], set()).update(labels)
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|on)\s*\([^)]*\)|\boffset\s+\w+', " ", expression)
    for match in _WORD.finditer(bare):
        is_function = bare[match.end() :].lstrip().startswith("(")
        if not is_function and match[0] not in _KEYWORDS:
            found.setdefault(match[0], set())
    return found


def grouping_labels(expression: str) -> set[str]:
    """Labels that it aggregates by."""
    return {
        label.strip() for inner in re.findall(r"\bby\s*\(([^)]*)\)", expression) for label in inner.split(",")
    }


def concrete(expression: str, window: str = "5m") -> str:
    """Grafana's variables filled in."""
    return expression.replace("$__rate_interval", window).replace("$run", ".*")
