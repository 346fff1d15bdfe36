"""GTR-Turbo (KL): minus the reverse KL divergence from the teacher, as a reward on the thought tokens."""

from __future__ import annotations

from typing import Literal

import numpy as np

from gtr_agents.errors import ConfigError, TrainingError, unknown_name
from gtr_agents.guidance.base import Scorer
from gtr_agents.losses import KL_ESTIMATORS, Reduce, kl_per_step
from gtr_agents.types import BoolArray, FloatArray, Response, Rollout

SCOPES = ("thought", "full")
"""Which tokens are guided: those outside the action, or all."""


class ReverseKL:
    """Rewards every step with ``-beta * KL(policy, teacher)`` over its sampled tokens.

    Source: GTR-Turbo, arXiv 2512.13043, Algorithm 2. Both models are compared at temperature 1 on exactly the
    tokens that were sampled. No gradient flows through the reward. With teacher = policy it is 0.

    Args:
        beta: Weight of the divergence, >= 0.
        estimator: Name in :data:`gtr_agents.losses.KL_ESTIMATORS`; ``"clip"`` is the paper's best.
        scope: ``"thought"`` guides the tokens outside the action, ``"full"`` all (worse in the paper).
        reduce: ``"mean"`` or ``"sum"`` over the guided tokens of a step.
        final_beta: Weight towards which beta moves linearly over the run, >= 0; None keeps beta constant.

    Raises:
        ConfigError: If beta or its final value is negative or not finite.
        UnknownNameError: If estimator, scope or reduction do not exist.
    """

    def __init__(
        self,
        beta: float = 1.0,
        estimator: str = "clip",
        scope: Literal["thought", "full"] = "thought",
        reduce: Reduce = "mean",
        final_beta: float | None = None,
    ) -> None:
        for name, value in (("beta", beta), ("final_beta", final_beta)):
            if value is not None and not 0.0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and >= 0, got {value!r}")
        if estimator not in KL_ESTIMATORS:
            raise unknown_name("KL estimator", estimator, KL_ESTIMATORS)
        if scope not in SCOPES:
            raise unknown_name("KL scope", scope, SCOPES)
        if reduce not in ("mean", "sum"):
            raise unknown_name("KL reduction", reduce, ("mean", "sum"))
        self.beta = beta
        self.final_beta = final_beta
        self.estimator = estimator
        self.scope = scope
        self.reduce: Reduce = reduce

    def annotate(self, rollout: Rollout, scorer: Scorer, progress: float = 0.0) -> dict[str, float]:
        """Fill ``guidance_reward`` and ``teacher_log_probs`` of every step.

        Args:
            rollout: Its steps are changed in place.
            scorer: Scores the sampled tokens under the teacher.
            progress: Share of the run that is done, in [0, 1); where the schedule of beta stands.

        Returns:
            Means over the steps: ``guidance/kl`` (the configured estimate), ``guidance/kl_k3`` (mean over
            tokens, comparable between configurations) and ``guidance/reward``.

        Raises:
            TrainingError: If the scorer returns too few or too many scores, or values that are not finite.
        """
        steps, beta = rollout.steps, self.beta_at(progress)
        scores = scorer(steps)
        if len(scores) != len(steps):
            raise TrainingError(f"expected teacher scores for {len(steps)} steps, got {len(scores)}")
        kl, kl_k3 = np.zeros(len(steps)), np.zeros(len(steps))
        for i, (step, teacher) in enumerate(zip(steps, scores, strict=True)):
            _check_scores(step.response, teacher)
            mask = self._guided(step.response)
            student = step.response.log_probs_t1
            kl[i] = kl_per_step(student, teacher, mask, self.estimator, self.reduce)
            kl_k3[i] = kl_per_step(student, teacher, mask, "k3")
            step.teacher_log_probs = teacher
            step.guidance_reward = -beta * float(kl[i])
        if not steps:
            return {"guidance/kl": 0.0, "guidance/kl_k3": 0.0, "guidance/reward": 0.0}
        return {
            "guidance/kl": float(kl.mean()),
            "guidance/kl_k3": float(kl_k3.mean()),
            "guidance/reward": float(-beta * kl.mean()),
        }

    def beta_at(self, progress: float) -> float:
        """Return the weight of the divergence at a share of the run, in [0, 1]."""
        if self.final_beta is None:
            return self.beta
        return self.beta + progress * (self.final_beta - self.beta)

    def _guided(self, response: Response) -> BoolArray:
        return response.thought_mask if self.scope == "thought" else np.ones_like(response.thought_mask)


def _check_scores(response: Response, teacher: FloatArray) -> None:
    if teacher.shape != response.log_probs_t1.shape:
        raise TrainingError(
            f"expected teacher log-probs of shape {response.log_probs_t1.shape}, one per sampled token, "
            f"got {teacher.shape}; score the sampled token ids, not re-tokenised text"
        )
    if not np.isfinite(teacher).all():
        raise TrainingError("the teacher's log-probs hold NaN or infinity; check the merged weights and banned tokens")
