"""The FED-GRPO loss: a clipped surrogate of the policy gradient, and a KL term to the reference policy.

ratio = exp(log_prob - log_prob_proximal)
loss  = mean w max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps)) + beta KL
KL    = sum |mu - mu_ref|^2 / (2 sigma^2) over the real degrees of freedom

The proximal policy is the one an update starts from. In turns it has sampled the rows itself, and w = 1. A
row that an older policy sampled has w = exp(log_prob_proximal - log_prob_behaviour), bounded. So clipping
keeps the update small, not the distance from who sampled (the decoupled objective of Hilton et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""A row whose ratio is beyond e^±20 is left out of the loss: its sample has left the numbers in which a
log-probability means something (atoms thousands of Å apart), and would take the whole minibatch with it."""
MAX_STALENESS_WEIGHT = 2.0
"""The most that a row of an older policy counts: its importance weight, truncated (Espeholt et al. 2018)."""


def bounded_ratio(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio), within e^-20 .. e^20. NaN stays NaN, in the gradient too: clamp() would hide it."""
    upper = torch.where(log_ratio > MAX_LOG_RATIO, MAX_LOG_RATIO, log_ratio)
    return torch.where(upper < -MAX_LOG_RATIO, -MAX_LOG_RATIO, upper).exp()


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """max(-A r, -A clip(r, 1-eps, 1+eps)) for each row; ``log_ratio`` and ``advantage`` are [B]."""
    ratio = bounded_ratio(log_ratio)
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1.0 - clip_range, 1.0 + clip_range))


def gaussian_kl(mu: Tensor, mu_reference: Tensor, sigma: Tensor, node_mask: Tensor) -> Tensor:
    """[B] KL of two Gaussians of equal width: mu, mu_reference [B, N, D], sigma [B], node_mask [B, N]."""
    scaled = (mu - mu_reference) / sigma[:, None, None] * node_mask[..., None]
    return 0.5 * scaled.square().sum((1, 2))


@dataclass(frozen=True)
class LossTerms:
    """loss: scalar with gradient. The others are detached, [B]; clipped and left_out are bool."""

    loss: Tensor
    ratio: Tensor
    log_ratio: Tensor
    surrogate: Tensor
    kl: Tensor
    clipped: Tensor
    left_out: Tensor


def fed_grpo_loss(
    *,
    log_prob: Tensor,
    log_prob_proximal: Tensor,
    log_prob_behaviour: Tensor,
    advantage: Tensor,
    weight: Tensor,
    kl: Tensor | None,
    clip_range: float,
    kl_coefficient: float,
) -> LossTerms:
    """The loss of a minibatch of B transitions; all arguments are [B], the log-probabilities in float64.

    log_prob_proximal: by the policy the update starts from; equal to log_prob_behaviour where that sampled
    the row. weight: what a row counts, 0 for filling rows; the loss is the sum of weight times the row's
    loss, so the parts of a minibatch add up. kl: None when there is no reference policy.
    """
    log_ratio = (log_prob - log_prob_proximal).to(advantage.dtype)
    log_staleness = (log_prob_proximal - log_prob_behaviour).to(advantage.dtype)
    # NaN is not left out: that must show in the gradient
    left_out = (log_ratio.detach().abs() > MAX_LOG_RATIO) | (log_staleness.abs() > MAX_LOG_RATIO)
    staleness_weight = bounded_ratio(log_staleness).clamp(max=MAX_STALENESS_WEIGHT)
    surrogate = staleness_weight * clipped_surrogate(log_ratio, advantage, clip_range)
    total = surrogate if kl is None else surrogate + kl_coefficient * kl
    # torch.where and not a product alone: 0 * inf of a filling row would be NaN
    loss = torch.where((weight > 0) & ~left_out, weight * total, 0.0).sum()
    ratio = bounded_ratio(log_ratio.detach())
    return LossTerms(
        loss=loss,
        ratio=ratio,
        log_ratio=log_ratio.detach(),
        surrogate=surrogate.detach(),
        kl=torch.zeros_like(ratio) if kl is None else kl.detach(),
        clipped=(ratio - 1.0).abs() > clip_range,
        left_out=left_out,
    )


@dataclass
class UpdateStatistics:
    """Sums over all rows and optimizer steps of one update, exact whatever the split into minibatches.

    Everything float64. log_ratio_squared_by_step, rows_by_step: [T'], indexed by the transition's place after
    the branch.
    """

    log_ratio_squared_by_step: Tensor
    rows_by_step: Tensor
    rows: float = 0.0
    rows_left_out: float = 0.0
    weighted_loss: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    ratio: float = 0.0
    ratio_max_deviation: float = 0.0
    grad_norm: float = 0.0
    optimizer_steps: int = 0
    skipped_optimizer_steps: int = 0

    @classmethod
    def empty(cls, num_steps: int) -> UpdateStatistics:
        return cls(torch.zeros(num_steps, dtype=torch.float64), torch.zeros(num_steps, dtype=torch.float64))

    def add_rows(self, terms: LossTerms, real: Tensor, step: Tensor, kl_coefficient: float) -> None:
        """Count the rows of one minibatch; real [B] bool is False for filling rows, step [B] int64."""
        self.rows_left_out += float((real & terms.left_out).sum())
        real = real & ~terms.left_out
        ratio, log_ratio = terms.ratio[real].double().cpu(), terms.log_ratio[real].double().cpu()
        kl = terms.kl[real].double().cpu()
        squared = log_ratio.square()
        self.log_ratio_squared_by_step.index_add_(0, step[real].cpu(), squared)
        self.rows_by_step.index_add_(0, step[real].cpu(), torch.ones_like(squared))
        self.rows += float(real.sum())
        self.weighted_loss += float(terms.surrogate[real].double().sum() + kl_coefficient * kl.sum())
        self.kl += float(kl.sum())
        self.clipped += float(terms.clipped[real].sum())
        self.ratio += float(ratio.sum())
        deviation = float((ratio - 1.0).abs().max()) if len(ratio) else 0.0
        self.ratio_max_deviation = max(self.ratio_max_deviation, deviation)

    def add_step(self, grad_norm: float, *, skipped: bool) -> None:
        """Count one optimizer step, or one that was left out because its gradient was not finite."""
        if skipped:
            self.skipped_optimizer_steps += 1
        else:
            self.optimizer_steps += 1
            self.grad_norm += grad_norm

    def merge(self, other: UpdateStatistics) -> None:
        """Add the sums of another epoch."""
        self.merge_rows(other)
        self.grad_norm += other.grad_norm
        self.optimizer_steps += other.optimizer_steps
        self.skipped_optimizer_steps += other.skipped_optimizer_steps

    def merge_rows(self, other: UpdateStatistics) -> None:
        """Add the rows that another learner saw in the same optimizer steps."""
        self.log_ratio_squared_by_step += other.log_ratio_squared_by_step
        self.rows_by_step += other.rows_by_step
        self.rows += other.rows
        self.rows_left_out += other.rows_left_out
        self.weighted_loss += other.weighted_loss
        self.kl += other.kl
        self.clipped += other.clipped
        self.ratio += other.ratio
        self.ratio_max_deviation = max(self.ratio_max_deviation, other.ratio_max_deviation)

    def metrics(self) -> dict[str, float]:
        """Means over the rows; see ``run_metrics`` for what each name means."""
        rows = max(self.rows, 1.0)
        by_step = self.log_ratio_squared_by_step / self.rows_by_step.clamp(min=1)
        return {
            "loss": self.weighted_loss / rows,
            "kl": self.kl / rows,
            "clip_fraction": self.clipped / rows,
            "rows_left_out": self.rows_left_out,
            "ratio_mean": self.ratio / rows,
            "ratio_max_deviation": self.ratio_max_deviation,
            "log_ratio_squared": float(self.log_ratio_squared_by_step.sum()) / rows,
            "log_ratio_squared_max_step": float(by_step.max()),
            "grad_norm": self.grad_norm / max(self.optimizer_steps, 1),
            "optimizer_steps": float(self.optimizer_steps),
            "skipped_optimizer_steps": float(self.skipped_optimizer_steps),
        }
