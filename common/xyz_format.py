"""Plain and extended XYZ, written with as many digits as float32 has and read strictly.

Extended XYZ keeps scalar properties as ``key=value`` in the second line; plain XYZ has no place for them.
When reading, columns other than element and position are passed over, and only properties that every molecule
has are returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers as number_of
from ase.data import chemical_symbols

from elign.common.errors import DataError
from elign.common.molecules import Molecules

_PAIR = re.compile(r"""([A-Za-z_][\w.\-]*)\s*=\s*("(?:[^"\\]|\\.)*"|\S+)""")
_LAYOUT = "species:S:1:pos:R:3"
_NOT_PROPERTIES = ("Properties", "Lattice", "pbc")


def write_xyz(
    path: Path, molecules: Molecules, properties: Mapping[str, np.ndarray], *, extended: bool
) -> None:
    """All molecules into one file, Å; ``properties`` are left out unless ``extended``."""
    with path.open("w", encoding="utf-8") as file:
        for i, (numbers, positions) in enumerate(molecules.arrays()):
            words = [f"Properties={_LAYOUT}"] if extended else []
            if extended:
                words += [f"{key}={_encode(values[i])}" for key, values in properties.items()]
                words.append('pbc="F F F"')
            lines = [str(len(numbers)), " ".join(words)]
            for z, x in zip(numbers, positions, strict=True):
                lines.append(f"{chemical_symbols[z]:<2} " + " ".join(f"{float(c):.9g}" for c in x))
            file.write("\n".join(lines) + "\n")


def read_xyz(path: Path) -> tuple[Molecules, dict[str, np.ndarray]]:
    """Molecules and the scalar properties they all have; raises DataError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file, so not XYZ") from error
    numbers, positions, comments = [], [], []
    for start, count in _frames(path, lines):
        pairs = {key: _decode(value) for key, value in _PAIR.findall(lines[start + 1])}
        columns = _columns(str(pairs.get("Properties", _LAYOUT)), f"{path}, line {start + 2}")
        z, x = _atoms(path, lines, start + 2, count, columns)
        numbers.append(z)
        positions.append(x)
        comments.append({key: value for key, value in pairs.items() if key not in _NOT_PROPERTIES})
    return Molecules.from_lists(numbers, positions), shared_properties(comments)


def shared_properties(rows: Sequence[Mapping[str, float | int | bool | str]]) -> dict[str, np.ndarray]:
    """name -> [B] for the properties that all rows have; numbers of mixed kinds become float."""
    names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    shared = {}
    for name in names:
        values = [row[name] for row in rows]
        texts = any(isinstance(value, str) for value in values)
        shared[name] = np.array([str(v) for v in values], dtype=object) if texts else np.array(values)
    return shared


def _frames(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(index of its first line, number of atoms) of each molecule; empty lines between them are allowed."""
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if not lines[at].strip().isdecimal():
            raise DataError(f"{path}, line {at + 1}: expected a number of atoms, found {lines[at][:40]!r}")
        count = int(lines[at])
        if at + 2 + count > len(lines):
            raise DataError(f"{path}, line {at + 1}: {count} atoms announced but the file ends before them")
        yield at, count
        at += 2 + count


def _columns(layout: str, where: str) -> tuple[int, int]:
    """Columns of the element and of x in an extended-XYZ ``Properties`` string."""
    fields = layout.split(":")
    starts, at = {}, 0
    for name, width in zip(fields[0::3], fields[2::3], strict=False):
        starts[name] = at
        at += int(width) if width.isdecimal() else 1
    if "species" not in starts or "pos" not in starts:
        raise DataError(f"{where}: Properties={layout!r} has no species or no pos")
    return starts["species"], starts["pos"]


def _atoms(
    path: Path, lines: Sequence[str], first: int, count: int, columns: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    numbers, positions = np.zeros(count, dtype=np.int64), np.zeros((count, 3), dtype=np.float32)
    species, pos = columns
    for i in range(count):
        words = lines[first + i].split()
        try:
            numbers[i] = _element(words[species])
            positions[i] = [float(word) for word in words[pos : pos + 3]]
        except (ValueError, IndexError, KeyError) as error:
            raise DataError(
                f"{path}, line {first + i + 1}: expected an element and three coordinates, "
                f"found {lines[first + i][:60]!r}"
            ) from error
    return numbers, positions


def _element(word: str) -> int:
    return int(word) if word.isdecimal() else number_of[word.capitalize()]


def _encode(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "T" if value else "F"
    if isinstance(value, (str, np.str_)):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
    if value is None:
        return '""'
    return repr(value.item() if isinstance(value, np.generic) else value)


def _decode(text: str) -> float | int | bool | str:
    if text.startswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if text in ("T", "F"):
        return text == "T"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
