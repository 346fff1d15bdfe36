"""GTR-Turbo (KL): minus the reverse KL divergence from the teacher, as a reward on the thought tokens."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gtr_agents.errors import ConfigError, TrainingError, unknown_name
from gtr_agents.guidance.base import Direction, Guidance, TeacherView
from gtr_agents.losses import KL_ESTIMATORS, kl_terms, reduce_terms
from gtr_agents.types import BoolArray, FloatArray, Response, Rollout, Step

SCOPES = ("thought", "thoughts_field", "full")
"""Which tokens are guided: those outside the action, those of the thought field's value only, or all."""
EXACT: dict[str, Direction] = {"full": "reverse", "forward": "forward"}
"""Estimators that look at the whole vocabulary at every position, not only at the sampled token."""
ESTIMATORS = (*KL_ESTIMATORS, *EXACT)
"""All estimators."""
REDUCTIONS = ("mean", "sum", "per_token")
"""What becomes of the guided tokens of a step: one reward, their mean or sum; or an advantage for each of them."""


class ReverseKL(Guidance):
    """Rewards every step with ``-beta * KL(policy, teacher)`` over its sampled tokens.

    Source: GTR-Turbo, arXiv 2512.13043, Algorithm 2. Both models are compared at temperature 1 on exactly the
    tokens that were sampled. No gradient flows through the reward. With teacher = policy it is 0.

    Args:
        beta: Weight of the divergence, >= 0.
        estimator: Name in :data:`gtr_agents.losses.KL_ESTIMATORS`; ``"clip"`` is the paper's best. Or exact over the
            whole vocabulary at every position, which costs a pass of the policy more: ``"full"`` for
            KL(policy, teacher), ``"forward"`` for KL(teacher, policy).
        scope: ``"thought"`` guides the tokens outside the action, ``"thoughts_field"`` only those of the thought
            field's value, ``"full"`` all (worse in the paper).
        reduce: ``"mean"`` or ``"sum"`` over the guided tokens of a step makes its reward. ``"per_token"`` rewards
            nothing, but lowers the normalised advantage of every guided token by its own term; only for the
            token-level ratio.
        final_beta: Weight towards which beta moves linearly over the run, >= 0; None keeps beta constant.

    Raises:
        ConfigError: If beta or its final value is negative or not finite.
        UnknownNameError: If estimator, scope or reduction do not exist.
    """

    def __init__(
        self,
        beta: float = 1.0,
        estimator: str = "clip",
        scope: Literal["thought", "thoughts_field", "full"] = "thought",
        reduce: Literal["mean", "sum", "per_token"] = "mean",
        final_beta: float | None = None,
    ) -> None:
        for name, value in (("beta", beta), ("final_beta", final_beta)):
            if value is not None and not 0.0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and >= 0, got {value!r}")
        if estimator not in ESTIMATORS:
            raise unknown_name("KL estimator", estimator, ESTIMATORS)
        if scope not in SCOPES:
            raise unknown_name("KL scope", scope, SCOPES)
        if reduce not in REDUCTIONS:
            raise unknown_name("KL reduction", reduce, REDUCTIONS)
        self.beta = beta
        self.final_beta = final_beta
        self.estimator = estimator
        self.scope = scope
        self.reduce = reduce
        self.needs = "scores"
        self.per_token = reduce == "per_token"

    def annotate(self, rollout: Rollout, teacher: TeacherView, progress: float = 0.0) -> dict[str, float]:
        """Fill ``teacher_log_probs`` and ``guidance_reward`` (or ``token_advantages``) of every step.

        Args:
            rollout: Its steps are changed in place.
            teacher: Scores the sampled tokens.
            progress: Share of the run that is done, in [0, 1); where the schedule of beta stands.

        Returns:
            Means over the steps: ``guidance/kl`` (the configured estimate), ``guidance/kl_k3`` (mean over
            tokens, comparable between configurations) and ``guidance/reward``.

        Raises:
            TrainingError: If the teacher returns too few or too many scores, or values that are not finite.
        """
        steps, beta = rollout.steps, self.beta_at(progress)
        scores = teacher.score(steps)
        if len(scores) != len(steps):
            raise TrainingError(f"expected teacher scores for {len(steps)} steps, got {len(scores)}")
        for step, score in zip(steps, scores, strict=True):
            _check_scores(step.response, score)
            step.teacher_log_probs = score
        terms = self._terms(steps, teacher)
        kl, kl_k3 = np.zeros(len(steps)), np.zeros(len(steps))
        for i, (step, term, score) in enumerate(zip(steps, terms, scores, strict=True)):
            mask = self._guided(step, teacher)
            kl[i] = reduce_terms(term, mask, "sum" if self.reduce == "sum" else "mean")
            kl_k3[i] = reduce_terms(kl_terms(step.response.log_probs_t1, score, "k3"), mask)
            if self.per_token:
                step.token_advantages = np.where(mask, -beta * term, 0.0).astype(np.float32)
            else:
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

    def _terms(self, steps: list[Step], teacher: TeacherView) -> list[NDArray[np.float64]]:
        """The divergence at every sampled token, [T] per step."""
        if self.estimator in EXACT:
            exact = teacher.divergence(steps, EXACT[self.estimator])
            for step, values in zip(steps, exact, strict=True):
                _check_scores(step.response, values)
            return [values.astype(np.float64) for values in exact]
        return [kl_terms(s.response.log_probs_t1, s.teacher_log_probs, self.estimator) for s in steps]  # type: ignore[arg-type]

    def _guided(self, step: Step, teacher: TeacherView) -> BoolArray:
        if self.scope == "thoughts_field":
            return teacher.thought_field(step)
        thought = step.response.thought_mask
        return thought if self.scope == "thought" else np.ones_like(thought)


def _check_scores(response: Response, teacher: FloatArray) -> None:
    if teacher.shape != response.log_probs_t1.shape:
        raise TrainingError(
            f"expected teacher log-probs of shape {response.log_probs_t1.shape}, one per sampled token, "
            f"got {teacher.shape}; score the sampled token ids, not re-tokenised text"
        )
    if not np.isfinite(teacher).all():
        raise TrainingError("the teacher's log-probs hold NaN or infinity; check the merged weights and banned tokens")
