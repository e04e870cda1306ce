"""The policy that comes with Elign loads, is small, knows its data, and makes molecules worth the name."""

import torch

from elign.common.checkpoint import SHIPPED, list_policies, load_policy
from elign.common.chemistry import read_reference_smiles
from elign.common.sampling import sample_molecules
from elign.common.stability import stable_atoms

NAME = "elign-qm9-small"


def test_shipped_policy_is_listed_with_its_card_and_provenance() -> None:
    entry = next(entry for entry in list_policies() if entry.name == NAME)
    assert entry.num_bytes < 2_000_000
    assert {"summary", "data", "command", "seed", "machine", "licence"} <= set(entry.metadata)
    assert "Licence" in (entry.path / "README.md").read_text(encoding="utf-8")


def test_shipped_policy_samples_mostly_stable_atoms() -> None:
    policy = load_policy(NAME)
    sizes = [16, 17, 18, 19] * 10
    molecules = sample_molecules(policy, sizes, num_steps=50, seed=0)
    assert torch.isfinite(molecules.positions).all()
    assert float(stable_atoms(molecules).sum()) / sum(sizes) > 0.75


def test_training_molecules_are_known_for_novelty() -> None:
    known = read_reference_smiles(SHIPPED / NAME / "training_smiles.txt.gz")
    assert len(known) > 10_000
    assert all(smiles for smiles in known)
