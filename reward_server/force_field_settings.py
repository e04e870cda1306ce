"""Settings of ``elign force-fields train``: what is labelled, what is built, how it is trained."""

from __future__ import annotations

from pydantic import Field

from elign.common.config import Settings
from elign.reward_server.structures import Family


class ForceFieldTrainingSettings(Settings):
    """Defaults are those of the first of the trainings that made ``elign-mace-small``; see its card."""

    seed: int = 0
    equilibrium: int = Field(
        12000, ge=0, description="Structures near equilibrium; a fifth of them is relaxed"
    )
    displaced: int = Field(default=10000, ge=0, description="Structures with noise of 0.02 to 0.4 Å")
    broken: int = Field(default=5000, ge=0, description="Structures with wrong elements, hydrogens and bonds")
    pairs: int = Field(default=150, ge=0, description="Pairs of atoms of every two elements")
    held_out_every: int = Field(
        default=20, ge=2, description="Every so-many-th source molecule is only tested on"
    )
    sample_repeats: int = Field(
        default=1, ge=1, description="How often an epoch shows what a policy made; the rest it shows once"
    )
    processes: int = Field(default=1, ge=1, description="Processes that compute GFN2-xTB labels")

    initial: str | None = Field(
        default=None,
        description="Folder of a force field to start from: its architecture and references stay",
    )
    channels: int = Field(default=64, ge=16)
    r_max: float = Field(default=5.0, gt=0, description="Cut-off, Å")
    max_ell: int = Field(default=2, ge=0)
    correlation: int = Field(default=2, ge=1)
    radial_width: int = Field(default=32, ge=1)

    epochs: int = Field(default=19, ge=1)
    batch_size: int = Field(default=16, ge=1, description="Structures per optimizer step")
    learning_rate: float = Field(default=0.12, gt=0, description="Of Muon, for wide linear maps")
    adam_learning_rate: float = Field(default=1e-2, gt=0, description="Of Adam, for the rest")
    warmup_steps: int = Field(default=200, ge=0)
    ema_decay: float = Field(default=0.999, gt=0, lt=1)
    grad_clip: float = Field(default=10.0, gt=0)
    energy_weight: float = Field(default=5.0, ge=0, description="Of the error of the energy per atom")
    rms_force_weight: float = Field(
        default=0.0, ge=0, description="Of the error of the RMS force, by which the reward ranks molecules"
    )
    softening: float = Field(
        0.5, gt=0, description="A structure's weight is 1/(softening + its RMS force in eV/Å)"
    )
    max_force: float = Field(
        default=60.0, gt=0, description="Atoms with larger forces (eV/Å) need only feel so much of it"
    )
    checkpoint_every: int = Field(
        200, ge=1, description="Steps between checkpoints an interrupted run goes on from"
    )

    @property
    def counts(self) -> dict[Family, int]:
        """How many structures are made of each family."""
        return {"equilibrium": self.equilibrium, "displaced": self.displaced, "broken": self.broken}
