"""Which plans are asked for when, and which of the results an iteration learns from.

Synchronously, an iteration asks for its groups and waits for them. With ``rollout.max_policy_lag`` > 0 plans
are asked for that many iterations ahead, so that actors sample while the learner learns; an iteration takes
what is finished first, and what was sampled by too old a policy is dropped and sampled again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elign.common.config import TrainConfig
from elign.common.errors import RolloutError
from elign.common.prompts import Prompts, make_plans
from elign.common.rollout import RolloutPlan, ScoredTrajectory, SetAside
from elign.learner.rollout_source import RolloutSource


@dataclass(frozen=True)
class PlanState:
    """Where a run is in its plans. next_group: the first group never asked for; open_groups: asked for, not
    used yet. Plans are functions of seed and group id, so this is all there is to remember."""

    next_group: int = 0
    open_groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Harvest:
    """What an iteration learns from, by ascending group id, and how it came about.

    lags: of each group, by how many iterations its policy was behind. dropped_stale: trajectories that were
    too old. The rest as in ``Collection``.
    """

    scored: list[ScoredTrajectory]
    set_aside: tuple[SetAside, ...]
    lags: tuple[int, ...]
    plans_rerun: int
    dropped_stale: int
    actor_seconds: float
    waiting_seconds: float

    def metrics(self) -> dict[str, float]:
        """Figures for ``metrics.parquet``."""
        sampling = sum(s.seconds["sampling"] for s in self.scored)
        idle = 1.0 - sampling / self.actor_seconds if self.actor_seconds else float("nan")
        return {
            "policy_lag_mean": sum(self.lags) / len(self.lags),
            "policy_lag_max": float(max(self.lags)),
            "plans_rerun": float(self.plans_rerun),
            "plans_set_aside": float(len(self.set_aside)),
            "plans_dropped_stale": float(self.dropped_stale),
            "reward_wait_s": self.waiting_seconds,
            "idle_share_actors": idle,
        }


class PlanFeed:
    """Keeps a ``RolloutSource`` supplied; policy versions are numbers of completed iterations."""

    def __init__(self, source: RolloutSource, config: TrainConfig, prompts: Prompts) -> None:
        self._source, self._config, self._prompts = source, config, prompts
        self._unsent: list[int] = []
        self._sent: set[int] = set()
        self._next_group = 0

    @property
    def state(self) -> PlanState:
        return PlanState(self._next_group, tuple(sorted([*self._unsent, *self._sent])))

    def restore(self, state: PlanState) -> None:
        """Go on from there; what was open is sampled anew."""
        self._source.forget()
        self._next_group, self._unsent, self._sent = state.next_group, list(state.open_groups), set()

    def gather(self, completed_iterations: int) -> Harvest:
        """The groups of the next iteration; the weights of now must be published.

        Raises RolloutError when every group was set aside.
        """
        rollout, groups = self._config.rollout, self._config.rollout.groups
        ahead = min(rollout.max_policy_lag, self._config.run.iterations - completed_iterations - 1)
        self._ask_up_to(groups * (1 + max(ahead, 0)))
        scored: list[ScoredTrajectory] = []
        set_aside: list[SetAside] = []
        rerun = dropped = 0
        seconds = waiting = 0.0
        while (missing := groups - len(scored) - len(set_aside)) > 0:
            taken = self._source.take(missing)
            oldest = completed_iterations - rollout.max_policy_lag
            stale = [s.trajectory.plan for s in taken.scored if s.trajectory.policy_version < oldest]
            self._source.submit(stale)
            scored += [s for s in taken.scored if s.trajectory.policy_version >= oldest]
            set_aside += taken.set_aside
            rerun, dropped = rerun + taken.plans_rerun, dropped + len(stale)
            seconds, waiting = seconds + taken.actor_seconds, waiting + taken.waiting_seconds
        if not scored:
            raise RolloutError(f"no group could be completed; {set_aside[0]}")
        scored.sort(key=lambda s: s.trajectory.plan.group_id)
        self._sent -= {s.trajectory.plan.group_id for s in scored} | {s.plan.group_id for s in set_aside}
        lags = tuple(completed_iterations - s.trajectory.policy_version for s in scored)
        return Harvest(scored, tuple(set_aside), lags, rerun, dropped, seconds, waiting)

    def _ask_up_to(self, number: int) -> None:
        """As many groups as that are to be under way."""
        missing = number - len(self._sent) - len(self._unsent)
        self._unsent += range(self._next_group, self._next_group + max(missing, 0))
        self._next_group += max(missing, 0)
        self._source.submit(self._plans(self._unsent))
        self._sent.update(self._unsent)
        self._unsent = []

    def _plans(self, groups: Sequence[int]) -> list[RolloutPlan]:
        return [
            make_plans(
                self._prompts,
                run_seed=self._config.run.seed,
                first_group=group,
                num_groups=1,
                num_samples=self._config.rollout.samples_per_group,
            )[0]
            for group in groups
        ]
