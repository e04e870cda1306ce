"""The sets of molecules that an evaluation judges: sampled, read, or drawn from the data; kept in a folder.

What a folder holds is taken from there when it was made the same way, so that an interrupted evaluation goes
on with the very same molecules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from elign.common.checkpoint import read_description, resolve_policy
from elign.common.data import content_sha256, load_dataset
from elign.common.molecule_io import read_molecules, write_molecules
from elign.common.molecules import Molecules
from elign.common.progress import Progress
from elign.common.storage import write_json
from elign.learner.data_ceiling import split_ceiling
from elign.samples import FileSource, PolicySource, draw_sizes, sample_sizes

ShowProgress = Callable[[str], AbstractContextManager[Progress]]


def gather(
    sources: Mapping[str, PolicySource | FileSource],
    number: int,
    seed: int,
    data: str | None,
    folder: Path | None,
    show_progress: ShowProgress,
) -> tuple[dict[str, Molecules], Molecules | None]:
    """(``number`` molecules of each source, and of the data as ``data``; the data's other molecules).

    All policies get the sizes that the first one draws; a file gives its first molecules.
    """
    first = next((s for s in sources.values() if isinstance(s, PolicySource)), None)
    sizes = [] if first is None else draw_sizes(first.policy, number, seed)
    sets: dict[str, Molecules] = {}
    for name, source in sources.items():
        if isinstance(source, FileSource):
            sets[name] = source.molecules[:number]
            made_from: dict[str, Any] = {"file": source.name, "sha256": content_sha256(sets[name])}
            _keep(folder, name, sets[name], made_from)
            continue
        made_from = source_facts(source) | {"seed": seed, "number": number}
        stored = _stored(folder, name, made_from)
        if stored is None:
            with show_progress(f"sampling {source.name}") as progress:
                stored = sample_sizes(source, sizes, seed=seed, progress=progress)
            _keep(folder, name, stored, made_from)
        sets[name] = stored
    if data is None:
        return sets, None
    whole = load_dataset(data)
    wanted = next(iter(sets.values())).num_atoms.tolist()
    sets["data"], rest = split_ceiling(whole.molecules, wanted, seed=seed)
    _keep(folder, "data", sets["data"], {"data": data, "sha256": whole.sha256, "seed": seed})
    return sets, rest


def source_facts(source: PolicySource | FileSource) -> dict[str, Any]:
    """What tells a source from any other: name, checksum, size, denoising steps."""
    if isinstance(source, FileSource):
        return {"file": source.name, "molecules": len(source.molecules)}
    folder = resolve_policy(source.name)
    description = read_description(folder)
    return {
        "policy": source.name,
        "sha256": description["sha256"],
        "parameters": description["num_parameters"],
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "steps": source.num_steps,
    }


def _stored(folder: Path | None, name: str, made_from: Mapping[str, Any]) -> Molecules | None:
    if folder is None or not (folder / f"{name}.parquet").is_file() or not _facts(folder, name).is_file():
        return None
    if json.loads(_facts(folder, name).read_text(encoding="utf-8")) != made_from:
        return None
    return read_molecules(folder / f"{name}.parquet")


def _keep(folder: Path | None, name: str, molecules: Molecules, made_from: Mapping[str, Any]) -> None:
    if folder is None:
        return
    _facts(folder, name).unlink(missing_ok=True)  # never facts beside molecules that are not theirs
    write_molecules(folder / f"{name}.parquet", molecules)
    write_json(_facts(folder, name), made_from)


def _facts(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
