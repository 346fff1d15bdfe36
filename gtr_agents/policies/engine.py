"""The seam behind ``VLMPolicy.act``: something faster than ``generate`` may write, and the policy scores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from gtr_agents.types import Prompt

if TYPE_CHECKING:
    from gtr_agents.policies.vlm import VLMPolicy


class Engine(Protocol):
    """Writes answers with a copy of the policy's weights.

    Its own probabilities are not used: the policy scores every answer once more with the model that is trained, so
    PPO's ratio is 1 before the first step whatever the engine's arithmetic is. The price is a forward pass.
    """

    def load(self, policy: VLMPolicy) -> None:
        """Take the policy's present weights; called before ``generate`` whenever they have changed."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], *, temperature: float, max_new_tokens: int, seeds: Sequence[int] | None
    ) -> list[list[int]]:
        """Write one answer for each prompt.

        Args:
            prompts: what to answer.
            temperature: of sampling, > 0.
            max_new_tokens: limit of an answer.
            seeds: of the sampling, one for each prompt; None answers greedily.

        Returns:
            Token ids of each answer, at least one, the end token included; never a banned token (``policy.banned``).
        """
        ...
