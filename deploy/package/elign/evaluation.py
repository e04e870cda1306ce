"""Evaluation of policies, or of files of molecules, by name: get molecules alike, judge them, compare.

Composes the learner's evaluation with the reward server's judges. Two policies get the same sizes and seeds,
so that molecules are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from elign.common.chemistry import canonical_smiles, read_reference_smiles
from elign.common.data import load_dataset
from elign.common.errors import ConfigError, DataError
from elign.common.molecules import Molecules
from elign.common.progress import Progress
from elign.common.scoring import ForceField
from elign.evaluation_sets import gather
from elign.learner.alarms import evaluation_alarms
from elign.learner.dft_measures import dft_composition, dft_judgement
from elign.learner.distributions import Reference
from elign.learner.evaluate import compare, evaluate_molecules
from elign.learner.evaluation_outcome import Outcome
from elign.learner.measures import Judgement
from elign.learner.relaxation_measures import relaxation_judgement
from elign.learner.speed import Speed, compare_speed
from elign.reward_server.dft_batch import DftSettings
from elign.reward_server.dft_table import DftTable
from elign.reward_server.mace_force_field import MaceForceField
from elign.reward_server.relaxation import relax
from elign.reward_server.xtb import Gfn2ForceField
from elign.samples import FileSource, PolicySource, draw_sizes, open_force_field, sample_sizes

SHIPPED_FORCE_FIELD = "elign-mace-small"
DFT_FILE = "dft.parquet"
_TIMED_MOLECULES = 32
ShowProgress = Callable[[str], AbstractContextManager[Progress]]
Source = PolicySource | FileSource


@dataclass(frozen=True)
class EvaluationPlan:
    """What is judged, and how.

    number: molecules of each side. force_fields: names or paths of the judges. reference: known molecules,
    see ``load_reference``. data: a data set by name or file, for distances and as the ceiling. relax: the
    force field that relaxes. speed: whether two policies are timed. folder: keeps molecules and DFT answers.
    """

    number: int
    seed: int
    device: str
    force_fields: Sequence[str]
    reference: str | None = None
    data: str | None = None
    dft: DftSettings | None = None
    relax: str | None = None
    speed: bool = False
    folder: Path | None = None


def evaluate_sources(
    trained: Source, baseline: Source | None, plan: EvaluationPlan, show_progress: ShowProgress
) -> Outcome:
    """Judge ``trained``; with a ``baseline``, that too, and compare.

    Raises DataError when the two make molecules of different data sets, ConfigError when the plan asks for
    what these sources do not have.
    """
    dataset = _common_dataset(trained, baseline)
    _check_plan(plan, trained, baseline)
    # opened first: a wrong name should not cost the time of sampling
    judges = open_judges(plan.force_fields, dataset, device=plan.device)
    relaxing = None if plan.relax is None else open_force_field(plan.relax, device=plan.device)
    known = None if plan.reference is None else load_reference(plan.reference, dataset)
    sources = {"trained": trained} | ({} if baseline is None else {"baseline": baseline})
    sets, rest = gather(sources, plan.number, plan.seed, plan.data, plan.folder, show_progress)
    reference = None if rest is None else Reference.of(rest, dataset)

    judgements: dict[str, list[Judgement]] = {name: [] for name in sets}
    if relaxing is not None:
        for name, molecules in sets.items():
            with show_progress(f"relaxing {name}") as progress:
                relaxed = relax(relaxing, molecules, dataset, progress=progress)
            judgements[name].append(relaxation_judgement(relaxed, relaxing.name))
    if plan.dft is not None and plan.folder is not None:
        for name, judgement in _by_dft(sets, plan.dft, plan.folder, show_progress).items():
            judgements[name].append(judgement)

    scorers = {judge.name: judge.evaluate for judge in judges}
    judged = {
        name: evaluate_molecules(
            molecules, dataset, scorers, known, data=reference, judgements=judgements[name], seed=plan.seed
        )
        for name, molecules in sets.items()
    }
    before, after, ceiling = judged.get("baseline"), judged["trained"], judged.get("data")
    paired = before is not None and before.num_atoms.tolist() == after.num_atoms.tolist()
    result = after if before is None else compare(before, after, paired=paired, seed=plan.seed)
    names = [judge.name for judge in judges]
    found = evaluation_alarms(result, ceiling, field=names[0], judge=names[-1])
    speed = _speed(trained, baseline, plan) if plan.speed else None
    return Outcome(dataset, result, ceiling, sets, reference, found, speed)


def open_judges(names: Sequence[str], dataset: str, *, device: str) -> list[ForceField]:
    """The force fields that judge molecules of ``dataset``.

    Beside the shipped force field, GFN2-xTB counts formation energies from that one's element references,
    which were fitted to GFN2-xTB on QM9: so both have one zero, and energy is not lowered by another element
    mix alone, as it is when counted from free atoms.
    """
    judges = [open_force_field(name, device=device) for name in names]
    shipped = next(
        (j for j in judges if isinstance(j, MaceForceField) and j.name == SHIPPED_FORCE_FIELD), None
    )
    if shipped is None or dataset != "qm9":
        return judges
    shared = Gfn2ForceField(reference_energies=shipped.reference_energies)
    return [shared if judge.name == Gfn2ForceField.name else judge for judge in judges]


def load_reference(name_or_path: str, dataset: str) -> frozenset[str]:
    """Canonical SMILES of known molecules: from a list (.gz), or of a data set by name or file."""
    if Path(name_or_path).suffix == ".gz":
        return read_reference_smiles(name_or_path)
    molecules = load_dataset(name_or_path).molecules
    return frozenset(name for name in canonical_smiles(molecules, dataset) if name is not None)


def _common_dataset(trained: Source, baseline: Source | None) -> str:
    """A policy's data set must be known; files may hold anything, and geom has the elements of all."""
    sources = [trained] if baseline is None else [baseline, trained]
    policies = {source.dataset for source in sources if isinstance(source, PolicySource)}
    wanted = {source.dataset for source in sources}
    if len(policies) > 1 or (policies == {"qm9"} and "geom" in wanted):
        named = ", ".join(f"{source.name} has molecules of {source.dataset}" for source in sources)
        raise DataError(f"{named}; only molecules of the same data set can be compared")
    return "geom" if "geom" in wanted else "qm9"


def _check_plan(plan: EvaluationPlan, trained: Source, baseline: Source | None) -> None:
    if plan.dft is not None and plan.folder is None:
        raise ConfigError("--dft needs --out DIR: its answers are kept there, so that none is computed twice")
    if plan.speed and not (isinstance(trained, PolicySource) and isinstance(baseline, PolicySource)):
        raise ConfigError("--speed needs two policies: --policy and --baseline")


def _by_dft(
    sets: Mapping[str, Molecules], settings: DftSettings, folder: Path, show_progress: ShowProgress
) -> dict[str, Judgement]:
    """Each set's judgement; energies above composition where there are data to fit that to."""
    from elign.dft_evaluation import run_dft  # here: it loads Ray

    with show_progress(f"DFT, {settings.level.label}") as progress:
        results = run_dft(sets, settings, DftTable(folder / DFT_FILE), progress)
    chosen = {name: molecules[: settings.number] for name, molecules in sets.items()}
    composition = dft_composition(results["data"], chosen["data"]) if "data" in results else None
    return {name: dft_judgement(results[name], chosen[name], composition) for name in sets}


def _speed(trained: Source, baseline: Source | None, plan: EvaluationPlan) -> Speed:
    assert isinstance(trained, PolicySource)
    assert isinstance(baseline, PolicySource)
    sizes = draw_sizes(trained.policy, _TIMED_MOLECULES, plan.seed)
    on_gpu = next(trained.policy.parameters()).is_cuda
    works = (lambda s=source: sample_sizes(s, sizes, seed=plan.seed) for source in (baseline, trained))
    return compare_speed(*works, molecules=len(sizes), on_gpu=on_gpu, seed=plan.seed)
