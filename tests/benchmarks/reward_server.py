"""The README's table of the reward server: packing against one molecule at a time, and what serving costs.

    python tests/benchmarks/reward_server.py --qm9 qm9.npz [--queries 100000] [--number 400]

Prints Markdown. Rates of one thread are by its processor time, so that other work on the machine does not
count; whatever goes through Ray is by the clock, in rounds that alternate with the same batches in-process.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ase import Atoms
from rdkit import Chem
from rdkit.Chem import AllChem

from elign.common.config import RewardSettings
from elign.common.datasets import get_dataset
from elign.common.devices import cpu_name
from elign.common.molecule_io import read_molecules
from elign.common.molecules import Molecules
from elign.common.scoring import RewardQuery
from elign.reward_server.budget import find_budget
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.mace_model import importing_mace, load_network
from elign.reward_server.packing import count_edges, plan_batches
from elign.reward_server.registry import list_force_fields, load_force_field
from elign.reward_server.reward_actor import start_reward_server, stop_reward_server

FORCE_FIELD = "elign-mace-small"
QUERY = 80  # molecules: a group of 16 with four potential evaluations
ROUNDS = 5
PrintRow = Callable[[str, str], None]


def chain(num_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """An alkane, alcohol or amine of so many atoms (5 or more), embedded and relaxed by MMFF94."""
    carbons, end = {
        2: ((num_atoms - 2) // 3, ""),
        0: ((num_atoms - 3) // 3, "O"),
        1: ((num_atoms - 4) // 3, "N"),
    }[num_atoms % 3]
    graph = Chem.AddHs(Chem.MolFromSmiles("C" * carbons + end))
    AllChem.EmbedMolecule(graph, randomSeed=num_atoms, useRandomCoords=True)
    AllChem.MMFFOptimizeMolecule(graph, maxIters=300)
    numbers = np.array([atom.GetAtomicNum() for atom in graph.GetAtoms()])
    return numbers, graph.GetConformer().GetPositions()


def geom_like(number: int, rng: np.random.Generator) -> Molecules:
    """Chains with the sizes of GEOM-Drugs, the largest (181 atoms) among them, each shaken by 0.05 Å."""
    histogram = get_dataset("geom").size_histogram
    sizes = np.array([size for size in histogram if size >= 5])
    weights = np.array([histogram[int(size)] for size in sizes], dtype=np.float64)
    drawn = [181, *rng.choice(sizes, size=number - 1, p=weights / weights.sum())]
    made = {int(size): chain(int(size)) for size in set(drawn)}
    structures = [made[int(size)] for size in drawn]
    return Molecules.from_lists(
        [z for z, _ in structures], [x + 0.05 * rng.standard_normal(x.shape) for _, x in structures]
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def ase_calculator() -> Any:
    """mace's own, with the same weights in mace's own network."""
    with importing_mace():
        from mace.calculators import MACECalculator

    network, _ = load_network(_folder(FORCE_FIELD), torch.float32)
    return MACECalculator(models=[network], device="cpu", default_dtype="float32")


def _folder(name: str) -> Path:
    path = next(entry.path for entry in list_force_fields() if entry.name == name)
    assert path is not None
    return path


def one_at_a_time(calculator: Any, molecules: Molecules) -> None:
    for numbers, positions in molecules.arrays():
        atoms = Atoms(numbers, positions, calculator=calculator)
        atoms.get_potential_energy()
        atoms.get_forces()


def packed_rate(field: MaceForceField, molecules: Molecules) -> float:
    """Molecules a second."""
    return len(molecules) / cpu_seconds(lambda: field.evaluate(molecules))


def throughput(field: MaceForceField, name: str, molecules: Molecules, print_row: PrintRow) -> None:
    """ASE gets every eighth molecule by size, so that both see the same sizes; each its best round."""
    few = molecules[torch.argsort(molecules.num_atoms)[4::8]]
    calculator = ase_calculator()
    one_at_a_time(calculator, few[:5])
    field.evaluate(molecules)
    ase, packed = 0.0, 0.0
    for _ in range(ROUNDS):
        ase = max(ase, len(few) / cpu_seconds(lambda: one_at_a_time(calculator, few)))
        packed = max(packed, packed_rate(field, molecules))
    print_row(f"{name}: ASE calculator, one at a time", f"{ase:.0f} molecules/s")
    print_row(f"{name}: packed", f"{packed:.0f} molecules/s")
    print_row(f"{name}: packed / ASE", f"**{packed / ase:.1f}x**")
    torch_sim(packed, name, molecules, print_row)


def torch_sim(packed: float, name: str, molecules: Molecules, print_row: PrintRow) -> None:
    """The same network in torch-sim's batches (``pip install torch-sim-atomistic``), of the best size.

    packed: molecules a second of the force field. States are made before the clock runs.
    """
    if importlib.util.find_spec("torch_sim") is None:
        print_row(f"{name}: torch-sim", "not installed")
        return
    import torch_sim
    from torch_sim.models.mace import MaceModel

    network, _ = load_network(_folder(FORCE_FIELD), torch.float32)
    cpu = torch.device("cpu")
    model = MaceModel(model=network, device=cpu, dtype=torch.float32, compute_stress=False)
    ordered = molecules[torch.argsort(molecules.num_atoms)]
    systems = [Atoms(numbers, positions, cell=100 * np.eye(3)) for numbers, positions in ordered.arrays()]
    rates = {}
    for size in (1, 8, 32, 128):
        states = [
            torch_sim.initialize_state(systems[i : i + size], cpu, torch.float32)
            for i in range(0, len(systems), size)
        ]
        model(states[0])
        seconds = [cpu_seconds(lambda states=states: [model(s) for s in states]) for _ in range(2)]
        rates[size] = len(systems) / min(seconds)
    best = max(rates, key=lambda size: rates[size])
    print_row(f"{name}: torch-sim, {best} molecules a batch", f"{rates[best]:.0f} molecules/s")
    print_row(f"{name}: packed / torch-sim", f"**{packed / rates[best]:.1f}x**")


def packing(field: MaceForceField, name: str, molecules: Molecules, print_row: PrintRow) -> None:
    edges = count_edges(molecules, field.cutoff)
    used = int(edges.sum()) / (len(plan_batches(edges, field.max_edges)) * field.max_edges)
    waste = f"{100 * (1 - used):.1f} %"
    print_row(f"{name}: edges of the budget left unused, {len(molecules):,} molecules (no padding)", waste)


def compare_budgets(field: MaceForceField, molecules: Molecules, print_row: PrintRow) -> None:
    fixed, found = field.max_edges, find_budget(field.seconds_of)
    rates = dict.fromkeys((fixed, found), 0.0)
    for _ in range(ROUNDS):
        for field.max_edges in rates:
            rates[field.max_edges] = max(rates[field.max_edges], packed_rate(field, molecules))
    field.max_edges = fixed
    print_row("budget: fixed by the model / found by the search", f"{fixed:,} / {found:,} edges")
    print_row("throughput at the fixed budget / at the found one", f"{rates[fixed] / rates[found]:.2f}")


def serve(server: Any, queries: Sequence[Molecules], callers: int) -> float:
    """Seconds until so many callers, each one query after the other, have all answers."""

    def call(own: Sequence[Molecules], name: str) -> None:
        for query in own:
            ray.get(server.evaluate.remote(query, caller=name))

    threads = [threading.Thread(target=call, args=(queries[i::callers], str(i))) for i in range(callers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def serving(server: Any, field: MaceForceField, molecules: Molecules, print_row: PrintRow) -> None:
    """By the clock, which other work on the machine disturbs, and by processor time, which it does not: that
    of all processes a query goes through, against that of the same batches in this process."""
    queries = [molecules[start : start + QUERY] for start in range(0, len(molecules) - QUERY + 1, QUERY)]
    pids = process_ids(server)
    serve(server, queries[:2], 1)
    clock: dict[int, list[float]] = {1: [], 4: [], 16: []}
    processor: dict[int, list[float]] = {1: [], 4: [], 16: []}
    for _ in range(ROUNDS):
        for callers in clock:
            work = queries * max(1, callers // len(queries))
            begin = time.perf_counter()
            spent = cpu_seconds(lambda work=work: [field.evaluate(query) for query in work])
            in_process = time.perf_counter() - begin
            before = sum(processor_seconds(pid) for pid in pids)
            clock[callers].append(in_process / serve(server, work, callers))
            processor[callers].append(spent / (sum(processor_seconds(pid) for pid in pids) - before))
    for callers in clock:
        values = [100 * statistics.median(kind[callers]) for kind in (clock, processor)]
        what = f"through Ray / in-process, {callers} callers, queries of {QUERY}"
        print_row(what, f"{values[0]:.0f} % by the clock, {values[1]:.0f} % by processor time")


def process_ids(server: Any) -> list[int]:
    """Of this process, the server and its replicas."""
    stats = ray.get(server.stats.remote())
    replicas = [int(name.split()[-1]) for name in stats.dispatch.replicas]
    return [os.getpid(), stats.process_id, *replicas]


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency(server: Any, molecules: Molecules, print_row: PrintRow) -> None:
    times = []
    for i in range(200):
        time.sleep(0.02)
        begin = time.perf_counter()
        ray.get(server.evaluate.remote(molecules[[i % len(molecules)]]))
        times.append(1e3 * (time.perf_counter() - begin))
    p50, p99 = np.percentile(times, [50, 99])
    print_row("latency of a single molecule, light load", f"p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(server: Any, molecules: Molecules, number: int, print_row: PrintRow) -> None:
    """Every tenth query is a group's, the others are single molecules; 64 at a time."""
    pids = process_ids(server)[1:]
    waiting: list[Any] = []
    sizes: list[float] = []
    for i in range(number):
        one = molecules[[i % len(molecules)]]
        one = Molecules(one.positions * (1 + 1e-7 * i), one.atomic_numbers, one.node_mask)
        call = server.score.remote(RewardQuery(i, one, (1, 0), (0,), one)) if i % 10 == 0 else None
        waiting.append(call or server.evaluate.remote(one))
        if len(waiting) == 64:
            ray.get(waiting)
            waiting = []
        if i % (number // 10) == 0:
            sizes.append(sum(resident_mb(pid) for pid in pids))
    ray.get(waiting)
    sizes.append(sum(resident_mb(pid) for pid in pids))
    print_row(
        f"memory of server and replica over {number:,} queries",
        f"{sizes[1]:.0f} MB after a tenth, {sizes[-1]:.0f} MB at the end",
    )


@contextmanager
def small_ray() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="e", dir="/tmp")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    try:
        yield
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--qm9", type=Path, required=True, help="molecules of QM9, .npz in the usual layout")
    parser.add_argument("--number", type=int, default=400, help="molecules of each set")
    parser.add_argument("--queries", type=int, default=2_000, help="of the memory test")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    data = read_molecules(given.qm9)
    qm9 = data[torch.from_numpy(rng.permutation(len(data))[: given.number])]
    mix = Molecules.cat([qm9[: given.number // 2], geom_like(given.number // 2, rng)])
    field = load_force_field(FORCE_FIELD)
    assert isinstance(field, MaceForceField)

    def print_row(what: str, value: str) -> None:
        print(f"| {what} | {value} |", flush=True)

    machine = f"{cpu_name()}, Python {platform.python_version()}"
    print(f"{machine}, {FORCE_FIELD}\n")
    print("| measure | value |\n|---|---:|")
    for name, molecules in (("QM9 sizes", qm9), ("half QM9, half GEOM sizes", mix)):
        throughput(field, name, molecules, print_row)
    packing(field, "QM9 sizes", data, print_row)
    compare_budgets(field, qm9, print_row)
    with small_ray():
        server = start_reward_server(RewardSettings(force_field=FORCE_FIELD, device="cpu"), "qm9")
        serving(server, field, qm9, print_row)
        latency(server, qm9, print_row)
        memory(server, qm9, given.queries, print_row)
        stop_reward_server(server)


if __name__ == "__main__":
    main()
