"""The policies that come with Elign load, are small, know their data, and make molecules worth the name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elign.common.checkpoint import SHIPPED, list_policies, load_policy
from elign.common.chemistry import read_reference_smiles
from elign.common.policy import project
from elign.common.sampling import sample_molecules
from elign.common.stability import stable_atoms
from tests.common.egnn_reference import ReferencePolicy

NAME = "elign-qm9-small"
ALIGNED = "elign-qm9-small-aligned"


@pytest.mark.parametrize("name", [NAME, ALIGNED])
def test_shipped_policies_are_listed_with_their_cards_and_provenance(name: str) -> None:
    entry = next(entry for entry in list_policies() if entry.name == name)
    assert entry.num_bytes < 2_000_000
    assert {"summary", "data", "command", "seed", "machine", "licence"} <= set(entry.metadata)
    assert "Licence" in (entry.path / "README.md").read_text(encoding="utf-8")


def test_shipped_policies_make_mostly_stable_atoms_and_the_aligned_one_more_stable_molecules() -> None:
    sizes = [16, 17, 18, 19] * 10
    stable_molecules = {}
    for name, floor in ((NAME, 0.86), (ALIGNED, 0.92)):
        molecules = sample_molecules(load_policy(name), sizes, num_steps=50, seed=0)
        assert torch.isfinite(molecules.positions).all()
        stable = stable_atoms(molecules)
        assert float(stable.sum()) / sum(sizes) > floor
        stable_molecules[name] = int((stable == molecules.num_atoms).sum())
    assert stable_molecules[ALIGNED] > stable_molecules[NAME] + 4


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(2, 29), min_size=1, max_size=12), st.integers(1, 1000), st.integers(0, 99))
def test_predicted_noise_equals_the_published_formulation(sizes: list[int], time: int, seed: int) -> None:
    policy = load_policy(NAME).double()
    reference = ReferencePolicy(policy.spec).double().eval()
    reference.load_state_dict(policy.state_dict())
    mask = torch.arange(29)[None] < torch.tensor(sizes)[:, None]
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(*mask.shape, policy.state_dim, generator=generator, dtype=torch.float64)
    z, t = project(z, mask), torch.full((len(sizes),), time)
    with torch.no_grad():
        mine, expected = policy.eps(z, t, mask), reference.eps(z, t, mask)
    assert float((mine - expected).abs().max() / expected.abs().max()) < 1e-10


def test_training_molecules_are_known_for_novelty() -> None:
    known = read_reference_smiles(SHIPPED / NAME / "training_smiles.txt.gz")
    assert len(known) > 10_000
    assert all(smiles for smiles in known)
