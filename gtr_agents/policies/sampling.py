"""The sampling density: one definition, used when an answer is sampled and when it is scored again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


def policy_log_probs(logits: torch.Tensor, banned: torch.Tensor, temperature: float) -> torch.Tensor:
    """Turn raw logits into the log-probabilities that the policy samples from.

    Args:
        logits: raw logits, [..., V], any float type.
        banned: True marks a token that is never sampled, bool [V].
        temperature: sampling temperature, > 0.

    Returns:
        fp32 log-probabilities, [..., V]; minus infinity where banned. fp32 because the sum over an answer in bf16 has
        steps wider than PPO's clip range.
    """
    scores = logits.float().masked_fill(banned, float("-inf"))
    return torch.log_softmax(scores / temperature, dim=-1)


def entropy_of(log_probs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of log-probabilities [..., V] (minus infinity counts as probability 0), shape [...]."""
    return -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(-1)


def _exponential(shape: torch.Size, generator: torch.Generator | Sequence[torch.Generator]) -> torch.Tensor:
    """Draw waiting times [B, V], all from one generator or each row from its own."""
    if isinstance(generator, torch.Generator):
        return torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return torch.stack([torch.empty(shape[1:], device=g.device).exponential_(generator=g) for g in generator])


class SamplingRecorder(LogitsProcessor):
    """Samples the next token inside ``generate`` with a given generator; records its log-probability.

    ``generate`` itself draws from the global generator and cannot be given another. So sampling happens here: Gumbel
    noise from our generator is added to the log-probabilities and ``generate`` runs greedily, which picks exactly a
    sample of the softmax. Only the chosen token's log-probability is kept: memory does not grow with the vocabulary.

    Args:
        banned: True marks a token that is never sampled, bool [V].
        temperature: sampling temperature, > 0; also used for the recorded log-probabilities when greedy.
        generator: source of randomness, or one for each row of the batch; None samples greedily.
    """

    def __init__(
        self,
        banned: torch.Tensor,
        temperature: float,
        generator: torch.Generator | Sequence[torch.Generator] | None,
    ) -> None:
        self.banned = banned
        self.temperature = temperature
        self.generator = generator
        self.log_probs: list[torch.Tensor] = []
        self.log_probs_t1: list[torch.Tensor] = []
        self.entropies: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Perturb the scores [B, V] so that their argmax is a sample."""
        del input_ids  # the policy's density does not depend on them, unlike that of a repetition penalty
        log_probs = policy_log_probs(scores, self.banned, self.temperature)
        perturbed = log_probs
        if self.generator is not None:
            waiting = _exponential(log_probs.shape, self.generator)
            perturbed = log_probs - waiting.log().to(log_probs.device)
        chosen = perturbed.argmax(-1, keepdim=True)
        self.log_probs.append(log_probs.gather(-1, chosen).squeeze(-1))
        at_one = log_probs if self.temperature == 1.0 else policy_log_probs(scores, self.banned, 1.0)
        self.log_probs_t1.append(at_one.gather(-1, chosen).squeeze(-1))
        self.entropies.append(entropy_of(log_probs))
        return perturbed
