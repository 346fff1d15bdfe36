"""Rollouts as training samples: one per environment step, in seeded minibatches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gtr_agents.types import Prompt, Step


@dataclass(slots=True)
class Batch:
    """Steps with their advantages, padded. B steps, T response tokens."""

    prompts: list[Prompt]
    """The prompts the steps were acted under."""
    token_ids: list[NDArray[np.int64]]
    """Sampled token ids, [T] each, unpadded."""
    mask: torch.Tensor
    """True marks a sampled token, False padding; bool [B, T]."""
    thought_mask: torch.Tensor
    """True marks a thought token; bool [B, T]."""
    log_probs: torch.Tensor
    """Log-probs when sampled, fp32 [B, T]; 0 at padding."""
    values: torch.Tensor
    """State values when sampled, fp32 [B]."""
    advantages: torch.Tensor
    """Normalised advantages, fp32 [B]."""
    returns: torch.Tensor
    """Value targets, fp32 [B]."""
    token_advantages: torch.Tensor | None = None
    """What a teacher adds to the advantage of single tokens, fp32 [B, T], 0 at padding; None if nothing."""
    initial_log_probs: torch.Tensor | None = None
    """Log-probs under the model that training began with, fp32 [B, T], 0 at padding; None if not asked for."""


def make_batch(
    steps: Sequence[Step], advantages: NDArray[np.float64], returns: NDArray[np.float64], device: torch.device
) -> Batch:
    """Pad steps into a batch on a device; ``advantages`` and ``returns`` are [B]."""
    responses = [step.response for step in steps]
    shape = (len(steps), max(len(r.token_ids) for r in responses))
    mask, thought_mask = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    log_probs = np.zeros(shape, np.float32)
    token_advantages = initial = None
    if steps[0].initial_log_probs is not None:
        initial = np.zeros(shape, np.float32)
    if any(step.token_advantages is not None for step in steps):
        token_advantages = np.zeros(shape, np.float32)
    for row, response in enumerate(responses):
        n = len(response.token_ids)
        if token_advantages is not None and (opinion := steps[row].token_advantages) is not None:
            token_advantages[row, :n] = opinion
        if initial is not None:
            initial[row, :n] = steps[row].initial_log_probs
        mask[row, :n] = True
        thought_mask[row, :n] = response.thought_mask
        log_probs[row, :n] = response.log_probs
    return Batch(
        prompts=[step.prompt for step in steps],
        token_ids=[r.token_ids for r in responses],
        mask=torch.from_numpy(mask).to(device),
        thought_mask=torch.from_numpy(thought_mask).to(device),
        log_probs=torch.from_numpy(log_probs).to(device),
        values=torch.tensor([r.value for r in responses], dtype=torch.float32, device=device),
        advantages=torch.tensor(advantages, dtype=torch.float32, device=device),
        returns=torch.tensor(returns, dtype=torch.float32, device=device),
        token_advantages=None if token_advantages is None else torch.from_numpy(token_advantages).to(device),
        initial_log_probs=None if initial is None else torch.from_numpy(initial).to(device),
    )


def minibatches(n: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Shuffle ``range(n)`` and cut it into minibatches of nearly equal size, at most ``size`` each."""
    if n:
        yield from np.array_split(rng.permutation(n), -(-n // size))


def micro_batches(indices: NDArray[np.intp], lengths: NDArray[np.int64], size: int) -> Iterator[NDArray[np.intp]]:
    """Cut a minibatch into pieces of similar token length, at most ``size`` each: the same gradient, less padding.

    Args:
        indices: the minibatch.
        lengths: token length of every sample of the rollout.
        size: largest piece.
    """
    ordered = indices[np.argsort(lengths[indices], kind="stable")]
    if len(ordered):
        yield from np.array_split(ordered, -(-len(ordered) // size))


def token_batches(
    indices: NDArray[np.intp], prompts: NDArray[np.int64], answers: NDArray[np.int64], size: int, budget: int
) -> Iterator[NDArray[np.intp]]:
    """Cut a minibatch into pieces of similar length that hold at most ``budget`` padded tokens each.

    What a forward pass costs is n * (longest prompt + longest answer), padding included: prompts are padded on the
    left, answers on the right. The longest samples come first, so that what does not fit fails at the start.

    Args:
        indices: the minibatch.
        prompts: prompt tokens of every sample of the rollout, those of its picture included, int64 [N].
        answers: answer tokens of every sample of the rollout, int64 [N].
        size: most samples of a piece.
        budget: most padded tokens of a piece; a sample that is longer by itself is a piece of its own.
    """
    ordered = indices[np.argsort(-(prompts + answers)[indices], kind="stable")]
    start, longest_prompt, longest_answer = 0, 0, 0
    for end, index in enumerate(ordered):
        prompt, answer = max(longest_prompt, prompts[index]), max(longest_answer, answers[index])
        n = end + 1 - start
        if n > 1 and (n > size or n * (prompt + answer) > budget):
            yield ordered[start:end]
            start, prompt, answer = end, prompts[index], answers[index]
        longest_prompt, longest_answer = prompt, answer
    if len(ordered):
        yield ordered[start:]
