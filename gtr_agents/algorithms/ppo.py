"""PPO over environment steps whose action is a written answer, with an optional teacher for the thoughts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat

from gtr_agents.advantages import normalise, trajectory_advantages
from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.policy_gradient import PolicyGradient, UpdateSettings
from gtr_agents.baselines import tree_advantages
from gtr_agents.batching import Batch
from gtr_agents.errors import ConfigError
from gtr_agents.losses import clipped_policy_loss, clipped_value_loss, token_policy_loss, turn_log_prob
from gtr_agents.types import Rollout, Share

if TYPE_CHECKING:
    from gtr_agents.guidance.base import Guidance
    from gtr_agents.policies.vlm import PolicyOutput


@dataclass(frozen=True, slots=True)
class PPOSettings(UpdateSettings):
    """How PPO makes an update. Defaults are the paper's (arXiv 2512.13043) unless a line says otherwise."""

    gamma: Share = 0.9
    """Discount per environment step, in [0, 1]."""
    lam: Share = 0.95
    """GAE lambda, in [0, 1]."""
    baseline: Literal["critic", "tree"] = "critic"
    """What a step is compared with: the value head (GAE), or the other attempts at the same hand (ours)."""
    normalise: Literal["batch", "none"] = "batch"
    """Whether advantages are shifted and scaled to mean 0 and standard deviation 1, over all steps of all processes."""
    thought_coef: NonNegativeFloat = 0.5
    """Weight of the thought tokens in the turn-level ratio (Points24: 0.5, ALFWorld: 0.2)."""
    ratio: Literal["turn", "token"] = "turn"
    """One PPO ratio per step, or one per token (VL-DAC, arXiv 2508.04280)."""
    token_scope: Literal["action", "all"] = "all"
    """Which tokens the token-level ratio trains."""
    value_coef: NonNegativeFloat = 0.5
    """Weight of the value loss; unused with the tree baseline. ``policy.value_stop_gradient`` decouples it (VL-DAC)."""
    placement: Literal["reward", "advantage"] = "reward"
    """Where guidance enters: the reward before GAE, or the advantage."""


class PPO(PolicyGradient):
    """Proximal policy optimisation of written answers, with an optional teacher for the thoughts.

    Without guidance this is RL4VLM (arXiv 2405.10292); with :class:`ReverseKL` and a :class:`TeacherManager` it is
    GTR-Turbo (KL) (arXiv 2512.13043). With ``ratio="token"`` and a value head that sends no gradient into the model
    (``value_stop_gradient``) it is VL-DAC (arXiv 2508.04280). Deviations from textbook PPO: the ratio is of whole
    answers, with thought tokens weighted; no entropy bonus unless asked for; dropout is off throughout.

    Args:
        policy: the policy to train, in place.
        env: id of a registered environment, or a function that makes one with text actions.
        settings: how an update is made.
        **kwargs: as :class:`Learner`.

    Raises:
        ConfigError: if settings contradict each other.
    """

    settings_class = PPOSettings
    settings: PPOSettings

    @property
    def uses_values(self) -> bool:  # type: ignore[override]
        """True if the value head is trained."""
        return self.settings.baseline == "critic"

    @classmethod
    def check(cls, settings: PPOSettings, rollout: RolloutSettings, guidance: Guidance | None) -> None:
        """Raise :class:`ConfigError` if the settings contradict each other; before anything is built."""
        if guidance is not None and guidance.per_token and settings.ratio != "token":
            raise ConfigError("Guidance per token needs one ratio per token: set ppo.ratio to token.")
        if settings.baseline == "tree" and rollout.attempts < 2:
            raise ConfigError("The tree baseline compares attempts at one hand: it needs rollout.attempts >= 2.")
        if settings.baseline == "tree" and not rollout.hands:
            raise ConfigError("The tree baseline needs whole episodes in groups: set rollout.hands above 0.")
        if settings.baseline == "tree" and settings.placement != "reward":
            raise ConfigError("The tree baseline counts guidance as a reward: set ppo.placement to reward.")

    def advantages(self, rollout: Rollout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Raw advantages and value targets of all steps of a rollout, trajectory by trajectory, [N] each."""
        s = self.settings
        if s.baseline == "tree":
            advantages = np.concatenate(tree_advantages(rollout.trajectories, gamma=s.gamma))
            return advantages, np.zeros_like(advantages)
        pairs = [
            trajectory_advantages(t, gamma=s.gamma, lam=s.lam, placement=s.placement) for t in rollout.trajectories
        ]
        return np.concatenate([a for a, _ in pairs]), np.concatenate([r for _, r in pairs])

    def scaled(self, advantages: NDArray[np.float64]) -> NDArray[np.float64]:
        """Normalise over all steps of all processes, if the settings say so; [N]."""
        return normalise(advantages) if self.settings.normalise == "batch" else advantages

    def policy_loss(self, batch: Batch, output: PolicyOutput) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Clipped surrogate and value loss of a batch."""
        s = self.settings
        if s.ratio == "token":
            mask = batch.mask if s.token_scope == "all" else batch.mask & ~batch.thought_mask
            advantages = batch.advantages
            if batch.token_advantages is not None:
                advantages = advantages.unsqueeze(-1) + batch.token_advantages
            policy_loss, terms = token_policy_loss(output.log_probs, batch.log_probs, advantages, mask, s.clip_range)
        else:
            policy_loss, terms = clipped_policy_loss(
                turn_log_prob(output.log_probs, batch.thought_mask, batch.mask, s.thought_coef),
                turn_log_prob(batch.log_probs, batch.thought_mask, batch.mask, s.thought_coef),
                batch.advantages,
                s.clip_range,
            )
        loss = policy_loss
        terms["policy_loss"] = policy_loss.detach()
        if s.baseline == "critic":
            value_loss = clipped_value_loss(output.values, batch.values, batch.returns, s.clip_range)
            loss = loss + s.value_coef * value_loss
            terms["value_loss"] = value_loss.detach()
        return loss, terms
