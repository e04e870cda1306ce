"""Settings of a post-training run: typed, read once at the edge (``config_load``), then passed down.

Defaults are those of the paper (arXiv 2601.21985) where it states them; presets are in ``presets/``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Base of every settings model: unknown keys are errors, numbers are finite, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PolicySettings(Settings):
    """The diffusion policy that is post-trained."""

    checkpoint: str = Field("elign-qm9-small", description="Name of a shipped policy, or a path")


class RolloutSettings(Settings):
    """How trajectories are sampled."""

    num_steps: int = Field(
        1000, ge=2, description="Denoising steps; fewer than 1000 stride over the schedule"
    )
    shared_prefix: float = Field(0.6, ge=0.0, lt=1.0, description="Fraction of the steps shared by a group")
    groups: int = Field(4, ge=1, description="Groups (prompts) per iteration")
    samples_per_group: int = Field(24, ge=2, description="Samples per group, K")
    formulas: tuple[str, ...] = Field(
        (),
        description="Compositions such as C7H10O2 of which each group takes one; none: sizes as in the data",
    )
    conditions: tuple[float, ...] = Field(
        (), description="Values of a conditional policy's property, normalized, of which each group takes one"
    )
    max_policy_lag: int = Field(
        0,
        ge=0,
        description="Iterations by which the sampling policy may be behind the learner, so that sampling and "
        "learning overlap; 0 takes turns, and one seed gives one run",
    )


class ActorSettings(Settings):
    """Rollout actors: how many, and what each takes."""

    min: int = Field(1, ge=1, description="elign scale goes no lower")
    max: int = Field(2, ge=1, description="Actors that are wanted from the start; elign scale goes no higher")
    num_cpus: float = Field(1.0, gt=0, description="CPUs of an actor")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of an actor, such as 0.25")
    plan_timeout_s: float = Field(
        600.0, gt=0, description="An actor that samples longer at one group is replaced"
    )
    max_tries: int = Field(5, ge=1, description="Tries before a group is set aside and reported")

    @model_validator(mode="after")
    def _in_order(self) -> ActorSettings:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is more than max = {self.max}")
        return self


class RewardSettings(Settings):
    """Force field and rewards (DESIGN: two channels, normalized independently, and a stability channel)."""

    force_field: str = Field(
        "elign-mace-small", description="A name (elign force-fields list), a path, or ase:MODULE:CLASS"
    )
    force_field_options: dict[str, str | int | float | bool | None] = Field(
        {}, description="Keyword arguments of an ase: calculator"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["float32", "float64"] = "float32"
    replicas: int = Field(1, ge=1, description="Copies of the force field that share the queries")
    num_cpus: float = Field(1.0, ge=0, description="CPUs of a replica")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of a replica, such as 0.5")
    timeout_s: float = Field(
        300.0, gt=0, description="A replica that evaluates longer at one query is replaced"
    )
    runtime_env: dict[str, Any] = Field(
        {}, description="Ray runtime environment of a replica, as in {py_executable: /envs/other/bin/python}"
    )
    force_weight: float = Field(1.0, ge=0, description="w_F")
    energy_weight: float = Field(0.05, ge=0, description="w_E; 0 switches the energy channel off")
    stability_weight: float = Field(0.0, ge=0, description="w_S; 0 in the paper")
    force_power: Literal[1, 2] = Field(1, description="2: the paper's squared form of the force reward")
    force_clip: float = Field(30.0, gt=0, description="RMS force above this counts as this, eV/Å")
    force_limit: float = Field(200.0, gt=0, description="A force beyond this is a named failure, eV/Å")
    min_distance: float = Field(0.4, gt=0, description="Atoms closer than this are a named failure, Å")
    energy_clip: float | None = Field(
        None, gt=0, description="|formation energy| beyond this counts as this, eV/atom; before normalization"
    )
    force_only_stable: bool = Field(
        False, description="The force channel knows only stable molecules; others are masked in it"
    )
    energy_only_stable: bool = Field(
        False, description="The energy channel knows only stable molecules; others are masked in it"
    )
    valence_penalty: float = Field(
        0.0,
        ge=0,
        description="Per unit of mean valence error; off the stability channel before normalization",
    )
    valence_form: Literal["hard", "smooth"] = Field(
        "smooth", description="Bond orders as whole numbers, or as sigmoids of the distance"
    )
    invalid_penalty: float = Field(
        0.0, ge=0, description="If RDKit refuses the molecule; off the stability channel before normalization"
    )
    duplicate_penalty: float = Field(
        0.0, ge=0, description="Times 1 - 1/n for n alike in a group; off the stability channel, likewise"
    )
    known_penalty: float = Field(
        0.0, ge=0, description="If it is among known_molecules; off the stability channel, likewise"
    )
    known_molecules: str | None = Field(
        None, description="List of canonical SMILES (.gz) that are not novel, as a policy's training set"
    )
    composition_data: str | None = Field(
        None,
        description="Molecules, qm9 or a file, to whose energies a value per element is fitted that energies "
        "then count from; none given: from the force field's own references",
    )
    energy_mode: Literal["shaped", "delta", "terminal"] = "shaped"
    gamma: float = Field(1.0, gt=0, le=1)
    potential_schedule: Literal["uniform", "adaptive"] = "uniform"
    potential_evaluations: int = Field(8, ge=1, description="States per sample whose potential is judged")

    @model_validator(mode="after")
    def _penalties_count(self) -> RewardSettings:
        """A penalty that could have no effect is a mistake."""
        penalties = ("valence_penalty", "invalid_penalty", "duplicate_penalty", "known_penalty")
        given = [name for name in penalties if getattr(self, name) > 0]
        if given and self.stability_weight == 0:
            raise ValueError(
                f"{given[0]} is taken off the stability channel, so stability_weight must not be 0"
            )
        if self.known_penalty > 0 and self.known_molecules is None:
            raise ValueError("known_penalty needs known_molecules, a list of SMILES")
        return self


class LearnerSettings(Settings):
    """FED-GRPO update."""

    learning_rate: float = Field(4e-6, gt=0)
    final_learning_rate: float = Field(2e-7, gt=0)
    warmup_iterations: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip_range: float = Field(2e-3, gt=0, lt=1)
    advantage_clip: float = Field(5.0, gt=0)
    normalization: Literal["disentangled", "mixed"] = Field(
        "disentangled", description="Each channel in its group, or their sum as in plain GRPO (an ablation)"
    )
    kl_coefficient: float = Field(0.04, ge=0, description="beta; 0 drops the reference policy")
    epochs: int = Field(1, ge=1)
    minibatch_size: int = Field(512, ge=1, description="Transitions per optimizer step")
    grad_clip: float = Field(1.0, gt=0)
    skip_last: int = Field(0, ge=0, description="Final steps left out of the loss (tiny sigma)")
    steps_per_iteration: int | None = Field(
        None, ge=1, description="Trained steps of a group, drawn anew each iteration; none given: all"
    )
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Averaged weights, used by best")
    learners: int = Field(
        1,
        ge=1,
        description="Processes that share each minibatch; one learns in the run's own process",
    )
    num_gpus: float = Field(0.0, ge=0, description="GPUs of a learner")


class RunSettings(Settings):
    """Length, seed and what is kept."""

    seed: int = 0
    iterations: int = Field(100, ge=1)
    sample_every: int = Field(10, ge=1, description="Iterations between Parquet files of sampled molecules")
    checkpoint_every: int = Field(10, ge=1)
    keep_last: int = Field(2, ge=1, description="Checkpoints kept besides the best")
    watch: int = Field(
        8, ge=0, description="Molecules an iteration that GFN2-xTB judges too, to see a reward that is gamed"
    )
    best_window: int = Field(10, ge=1, description="Iterations averaged when choosing the best checkpoint")


class TrainConfig(Settings):
    """Everything ``elign train`` needs."""

    policy: PolicySettings = PolicySettings()
    rollout: RolloutSettings = RolloutSettings()
    actors: ActorSettings = ActorSettings()
    reward: RewardSettings = RewardSettings()
    learner: LearnerSettings = LearnerSettings()
    run: RunSettings = RunSettings()
