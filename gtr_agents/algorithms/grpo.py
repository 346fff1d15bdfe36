"""GRPO: several episodes of the same task are compared with each other, and no critic is needed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.policy_gradient import PolicyGradient, UpdateSettings
from gtr_agents.batching import Batch
from gtr_agents.errors import ConfigError
from gtr_agents.losses import token_policy_loss
from gtr_agents.types import Rollout

if TYPE_CHECKING:
    from gtr_agents.guidance.base import Guidance
    from gtr_agents.policies.vlm import PolicyOutput

EPSILON = 1e-4
"""Added to the standard deviation of a group (as in arXiv 2402.03300's public code)."""


@dataclass(frozen=True, slots=True)
class GRPOSettings(UpdateSettings):
    """How GRPO makes an update (arXiv 2402.03300)."""

    clip_range: PositiveFloat = 0.2
    """How far the ratio may fall below 1."""
    clip_high: PositiveFloat | None = None
    """How far the ratio may rise above 1 (DAPO, arXiv 2503.14476: 0.28); null for the same as ``clip_range``."""
    epochs: PositiveInt = 1
    """Passes over the rollout per update."""
    scale: Literal["group", "batch", "none"] = "group"
    """Advantages are divided by the standard deviation of the group, or of all steps, or not (Dr. GRPO)."""
    length: Literal["mean", "constant"] = "mean"
    """A step's loss is the mean over its tokens; or their sum over the longest answer allowed (Dr. GRPO)."""


class GRPO(PolicyGradient):
    """Group relative policy optimisation of written answers over whole episodes (arXiv 2402.03300).

    The episodes of an update come in groups: ``rollout.attempts`` attempts at each of ``rollout.hands`` tasks, from
    identical resets. An episode's advantage, the same for all of its steps, is its return (of the environment, the
    format and the guidance, undiscounted) minus the mean of its group. The ratio is per token. With
    ``scale="none"`` and ``length="constant"`` it is Dr. GRPO (arXiv 2503.20783).

    Args:
        policy: the policy to train, in place.
        env: id of a registered environment, or a function that makes one with text actions.
        settings: how an update is made.
        **kwargs: as :class:`Learner`.

    Raises:
        ConfigError: if episodes do not come in groups.
    """

    settings_class = GRPOSettings
    settings: GRPOSettings

    @classmethod
    def check(cls, settings: GRPOSettings, rollout: RolloutSettings, guidance: Guidance | None) -> None:  # noqa: ARG003
        """Raise :class:`ConfigError` if episodes do not come in groups."""
        if not rollout.hands or rollout.attempts < 2:
            raise ConfigError(
                "GRPO compares several episodes of one task: it needs rollout.hands above 0 and rollout.attempts >= 2, "
                f"got {rollout.hands} and {rollout.attempts}."
            )

    def advantages(self, rollout: Rollout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Every step gets its episode's advantage, [N]; there are no value targets, so zeros [N]."""
        returns = [sum(s.reward + s.format_reward + s.guidance_reward for s in t.steps) for t in rollout.trajectories]
        groups: dict[int, list[int]] = defaultdict(list)
        for index, trajectory in enumerate(rollout.trajectories):
            groups[trajectory.seed].append(index)
        episodes = np.zeros(len(returns))
        for members in groups.values():
            episodes[members] = group_advantages(np.array(returns)[members], scaled=self.settings.scale == "group")
        steps = np.repeat(episodes, [len(t.steps) for t in rollout.trajectories])
        return steps, np.zeros_like(steps)

    def scaled(self, advantages: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale over all processes, if the settings say so; never shifted, as groups have mean 0 already; [N]."""
        if self.settings.scale != "batch":
            return advantages
        scaled: NDArray[np.float64] = advantages / (advantages.std() + EPSILON)
        return scaled

    def policy_loss(self, batch: Batch, output: PolicyOutput) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Clipped surrogate of a batch, with one ratio per token."""
        s = self.settings
        advantages = batch.advantages
        if batch.token_advantages is not None:
            advantages = advantages.unsqueeze(-1) + batch.token_advantages
        loss, terms = token_policy_loss(
            output.log_probs,
            batch.log_probs,
            advantages,
            batch.mask,
            s.clip_range,
            clip_high=s.clip_high,
            divisor=self.policy.max_new_tokens if s.length == "constant" else None,
        )
        terms["policy_loss"] = loss.detach()
        return loss, terms


def group_advantages(returns: NDArray[np.float64], *, scaled: bool = True) -> NDArray[np.float64]:
    """Compare the episodes of one group.

    Args:
        returns: of the episodes, [G].
        scaled: True divides by the group's standard deviation (n - 1), as in arXiv 2402.03300, eq. 21.

    Returns:
        float64 [G], with mean 0; zeros for a group of one.
    """
    if len(returns) < 2:
        return np.zeros(len(returns))
    centred: NDArray[np.float64] = returns - returns.mean()
    return centred / (returns.std(ddof=1) + EPSILON) if scaled else centred
