"""Sent to a cluster and run there by the Python that jobs get: says which Elign it has, as a line of JSON.

It must work where nothing but Ray is installed, so it imports Elign only to see whether it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def fingerprint(package: Path) -> str:
    """Of all files in a package's folder, wherever that lies; caches do not count."""
    digest = hashlib.sha256()
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(package, followlinks=True)
        for name in names
        if not folder.endswith("__pycache__")
    ]
    for path in sorted(found):
        digest.update(f"{path.relative_to(package)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def lacking(requirements: list[str]) -> list[str]:
    """Those that this Python does not meet."""
    from packaging.requirements import Requirement

    return [text for text in requirements if not _is_met(Requirement(text))]


def _is_met(requirement) -> bool:  # type: ignore[no-untyped-def]
    try:
        return bool(requirement.specifier.contains(version(requirement.name), prereleases=True))
    except PackageNotFoundError:
        return False


def _elign() -> dict[str, str] | None:
    spec = find_spec("elign")
    if spec is None or spec.origin is None:
        return None
    import elign

    return {"version": elign.__version__, "fingerprint": fingerprint(Path(spec.origin).parent)}


if __name__ == "__main__":
    answer = {
        "python": platform.python_version(),
        "elign": _elign(),
        "lacking": lacking(json.loads(sys.argv[1])),
    }
    print(json.dumps(answer))
