"""The three dashboards: what is learned, how fast, and whether the cluster is well."""

from __future__ import annotations

import re

from elign.monitoring.events import EVENTS
from elign.monitoring.panels import Dashboard, Panel, Query, Row

_RUN = '{run=~"$run"}'


def _gauge(name: str, legend: str = "{{run}}", matchers: str = "") -> Query:
    """A gauge of the chosen runs; one series a run, whichever process of it reports."""
    by = ", ".join(dict.fromkeys(["run", *re.findall(r"{{(\w+)}}", legend)]))
    return Query(f'max by ({by}) (ray_elign_{name}{{run=~"$run"{matchers}}})', legend)


def _rate(name: str, by: str = "", matchers: str = "") -> str:
    """Growth of a counter a second, by run and another tag."""
    tags = f"run, {by}" if by else "run"
    return f'sum by ({tags}) (rate(ray_elign_{name}_total{{run=~"$run"{matchers}}}[$__rate_interval]))'


TRAINING = Dashboard(
    "elign-training",
    "Elign: training",
    "What a run learns, and whether it learns the right thing.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Iteration",
                    (_gauge("iteration"),),
                    "Iterations completed since the run began.",
                    kind="stat",
                ),
                Panel(
                    "Stable atoms",
                    (_gauge("atom_stability"),),
                    "Share with a right valence.",
                    "percentunit",
                    "stat",
                ),
                Panel(
                    "RMS force",
                    (_gauge("rms_force", matchers=', statistic="mean"'),),
                    "Mean over the samples, eV/Å; lower is calmer.",
                    kind="stat",
                ),
                Panel(
                    "Alarms",
                    (Query(f"sum by (run) (ray_elign_alarm{_RUN})", "{{run}}"),),
                    "Raised by the watch on gaming; any but 0 wants a look.",
                    kind="stat",
                ),
            ),
        ),
        Row(
            "Rewards",
            tuple(
                Panel(
                    f"{channel.capitalize()} reward",
                    (_gauge("reward", "{{run}} {{statistic}}", f', channel="{channel}"'),),
                    "Raw, before normalization within groups; mean and quantiles of an iteration's samples.",
                )
                for channel in ("force", "energy", "stability")
            ),
        ),
        Row(
            "Molecules",
            (
                Panel(
                    "RMS force",
                    (_gauge("rms_force", "{{run}} {{statistic}}"),),
                    "By the force field that gives the rewards, eV/Å.",
                ),
                Panel(
                    "Stability",
                    (
                        _gauge("atom_stability", "{{run}} atoms"),
                        _gauge("molecule_stability", "{{run}} molecules"),
                    ),
                    "Share of atoms, and of whole molecules, with a right valence.",
                    "percentunit",
                ),
                Panel(
                    "Validity and variety",
                    (
                        _gauge("validity", "{{run}} valid"),
                        _gauge("uniqueness", "{{run}} unique"),
                        _gauge("one_piece", "{{run}} in one piece"),
                    ),
                    "Falling uniqueness means that the policy repeats itself.",
                    "percentunit",
                ),
            ),
        ),
        Row(
            "Update",
            (
                Panel(
                    "KL to the reference",
                    (_gauge("kl"),),
                    "Distance from the starting policy; 0 where learner.kl_coefficient is 0.",
                ),
                Panel(
                    "Clipped transitions",
                    (_gauge("clip_fraction"),),
                    "Share outside the clip range.",
                    "percentunit",
                ),
                Panel(
                    "Ratio",
                    (_gauge("ratio", "{{run}} {{statistic}}"),),
                    "Of new to behaviour probability: its mean, and its largest deviation from 1.",
                ),
            ),
        ),
        Row(
            "Optimizer",
            (
                Panel("Squared log-ratio", (_gauge("log_ratio_squared"),), "Mean; trouble shows here first."),
                Panel("Gradient norm", (_gauge("gradient_norm"),), "Before clipping."),
                Panel("Learning rate", (_gauge("learning_rate"),), "Follows its schedule."),
            ),
        ),
        Row(
            "Is the reward being gamed?",
            (
                Panel(
                    "Same molecules, two judges",
                    (_gauge("watch_rms_force", "{{run}} {{judge}}"),),
                    "field gives the rewards, judge (GFN2-xTB) does not, eV/Å; a growing gap is a bad sign.",
                ),
                Panel(
                    "Elements",
                    (_gauge("element_share", "{{run}} {{element}}"),),
                    "Part of all atoms.",
                    "percentunit",
                ),
                Panel("Alarms", (_gauge("alarm", "{{run}} {{alarm}}"),), "1 while raised."),
            ),
        ),
    ),
    EVENTS,
)

THROUGHPUT = Dashboard(
    "elign-throughput",
    "Elign: throughput",
    "Where the time of a run goes, from actors over the reward server to the learner.",
    (
        Row(
            "Molecules",
            (
                Panel(
                    "Molecules a second",
                    (_gauge("molecules_per_second"),),
                    "Sampled, judged and learned from; of the last iteration.",
                ),
                Panel(
                    "Time by phase",
                    (
                        Query(
                            _rate("phase_seconds", "phase", ', phase=~"broadcast|rollout|advantages|update"'),
                            "{{run}} {{phase}}",
                        ),
                    ),
                    "Share of the driver's time; together with its rest they are 1.",
                    "percentunit",
                    stacked=True,
                ),
                Panel(
                    "Actors",
                    (_gauge("actors", "{{run}} {{state}}"),),
                    "Rollout actors that are wanted, and those in each state.",
                ),
                Panel(
                    "Idle",
                    (_gauge("idle_share", "{{run}} {{who}}"),),
                    "Part of their time in which actors, and the learner, had nothing to do.",
                    "percentunit",
                ),
            ),
        ),
        Row(
            "Reward server",
            (
                Panel(
                    "Policy lag",
                    (_gauge("policy_lag", "{{run}} {{statistic}}"),),
                    "Iterations by which the sampling policy was behind; 0 when the two take turns.",
                ),
                Panel("Queue", (_gauge("reward_queue_length"),), "Queries that wait for a replica."),
                Panel(
                    "Latency",
                    tuple(
                        Query(
                            f"histogram_quantile({quantile}, sum by (run, le) (rate("
                            f"ray_elign_reward_latency_seconds_bucket{_RUN}[$__rate_interval])))",
                            f"{{{{run}}}} p{round(100 * quantile)}",
                        )
                        for quantile in (0.5, 0.9, 0.99)
                    ),
                    "From a query's arrival to its answer.",
                    "s",
                ),
                Panel(
                    "Batch fill",
                    (
                        Query(
                            f"{_rate('reward_molecules_evaluated')} / {_rate('reward_batches')}",
                            "{{run}}",
                        ),
                    ),
                    "Molecules given to the force field at a time; repeats are left out.",
                ),
                Panel(
                    "Busy replicas",
                    (
                        Query(_rate("reward_force_field_seconds"), "{{run}} busy"),
                        _gauge("reward_replicas", "{{run}} up"),
                    ),
                    "Mean number of replicas in the force field, beside those that are up.",
                ),
            ),
        ),
    ),
    EVENTS,
)

CLUSTER = Dashboard(
    "elign-cluster",
    "Elign: cluster and failures",
    "Nodes and actors as Ray sees them, and what went wrong in the runs.",
    (
        Row(
            "Failures",
            (
                Panel(
                    "Molecules without a reward",
                    (Query(_rate("failures", "kind"), "{{run}} {{kind}}"),),
                    "A second, by reason; none gets a made-up reward.",
                    stacked=True,
                ),
                Panel(
                    "Lost actors and their groups",
                    (
                        Query(f"sum by (run) (ray_elign_actors_lost_total{_RUN})", "{{run}} actors"),
                        Query(f"sum by (run, fate) (ray_elign_plans_total{_RUN})", "{{run}} {{fate}}"),
                    ),
                    "Since the run (re)started; an actor is replaced, and a rerun costs time only.",
                ),
                Panel(
                    "Reward server",
                    (
                        Query(
                            f"sum by (run) (ray_elign_reward_replicas_replaced_total{_RUN})",
                            "{{run}} replaced",
                        ),
                        Query(
                            'sum by (run) (ray_elign_reward_queries_total{run=~"$run", outcome="failed"})',
                            "{{run}} failed queries",
                        ),
                    ),
                    "Replicas that were lost and replaced, and queries without an answer.",
                ),
                Panel(
                    "Skipped by the learner",
                    (
                        Query(
                            f"sum by (run) (ray_elign_skipped_optimizer_steps_total{_RUN})", "{{run}} steps"
                        ),
                        Query(f"sum by (run) (ray_elign_rows_left_out_total{_RUN})", "{{run}} transitions"),
                    ),
                    "Gradients that were not finite, and ratios that ran away.",
                ),
            ),
        ),
        Row(
            "Ray",
            (
                Panel(
                    "Actors by state",
                    (Query("sum by (Name, State) (ray_actors)", "{{Name}} {{State}}"),),
                    "All actors of the cluster; of whatever run.",
                ),
                Panel(
                    "CPUs by node",
                    (Query("max by (instance) (ray_node_cpu_utilization)", "{{instance}}"),),
                    "Percent of the node's cores that are busy.",
                    "percent",
                ),
                Panel(
                    "Memory by node",
                    (
                        Query("max by (instance) (ray_node_mem_used)", "{{instance}} used"),
                        Query("max by (instance) (ray_node_mem_total)", "{{instance}} there"),
                    ),
                    "A node that comes near its memory loses processes.",
                    "bytes",
                ),
            ),
        ),
        Row(
            "Devices",
            (
                Panel(
                    "GPUs",
                    (
                        Query(
                            "max by (instance, GpuIndex) (ray_node_gpus_utilization)",
                            "{{instance}} {{GpuIndex}}",
                        ),
                    ),
                    "Utilisation in percent; empty without a GPU.",
                    "percent",
                ),
                Panel(
                    "GPU memory",
                    (Query("max by (instance, GpuIndex) (ray_node_gram_used)", "{{instance}} {{GpuIndex}}"),),
                    "Used, in megabytes; empty without a GPU.",
                    "decmbytes",
                ),
                Panel(
                    "Object store",
                    (Query("max by (instance) (ray_object_store_memory)", "{{instance}}"),),
                    "Trajectories and weights on their way.",
                    "bytes",
                ),
            ),
        ),
        Row(
            "Learner",
            (
                Panel(
                    "Memory",
                    (_gauge("learner_memory_bytes", "{{run}} {{learner}} {{device}}"),),
                    "Resident, and on its GPU the most so far.",
                    "bytes",
                ),
                Panel(
                    "Busy cores",
                    (Query(_rate("learner_cpu_seconds", "learner"), "{{run}} {{learner}}"),),
                    "Cores that each learner's process keeps busy; an only one is the driver, too.",
                ),
            ),
        ),
    ),
    EVENTS,
)

DASHBOARDS = (TRAINING, THROUGHPUT, CLUSTER)

RAY_METRICS = {
    "ray_actors": ("Name", "State"),
    "ray_node_cpu_utilization": ("instance",),
    "ray_node_mem_used": ("instance",),
    "ray_node_mem_total": ("instance",),
    "ray_node_gpus_utilization": ("instance", "GpuIndex"),
    "ray_node_gram_used": ("instance", "GpuIndex"),
    "ray_object_store_memory": ("instance",),
}
"""Metrics of Ray's own that the dashboards use, and the labels of theirs that count here."""
NEEDS_GPU = frozenset({"ray_node_gpus_utilization", "ray_node_gram_used"})
