"""Files that are either the old one or the whole new one, never half of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from elign.common.errors import StorageError


def write_atomic(path: Path | str, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary sibling, then put it in place of ``path`` in one step.

    Raises StorageError (naming the path and the cause) when the disk is full or not writable; ``path`` then
    still holds what it held before.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(descriptor)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        raise StorageError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; what stood there is untouched"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Atomic, indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path | str, text: str) -> None:
    """Atomic, UTF-8."""
    write_atomic(path, lambda temporary: _fill(temporary, text))


def write_directory(path: Path | str, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary folder, then put it in place of the folder ``path``."""
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        write(temporary)
        temporary.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.replace(old / "old")
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        raise StorageError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; what stood there is untouched"
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary)


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
