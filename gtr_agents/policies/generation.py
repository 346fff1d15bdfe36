"""Answers as the model writes them, or as it scores what another program wrote: tokens, log-probs, hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gtr_agents.policies.features import model_arguments
from gtr_agents.policies.inputs import Inputs
from gtr_agents.policies.sampling import SamplingRecorder, entropy_of, policy_log_probs


@dataclass(slots=True)
class Generated:
    """Answers of a batch with what the model says of them. B responses, T tokens (padded)."""

    tokens: np.ndarray[Any, Any]
    """Sampled token ids, int64 [B, T]."""
    lengths: list[int]
    """How many of them are real, the end token included; B."""
    log_probs: torch.Tensor
    """Of the tokens at the sampling temperature, fp32 [B, T]."""
    log_probs_t1: torch.Tensor
    """The same at temperature 1."""
    entropies: torch.Tensor
    """Entropy at each position in nats, fp32 [B, T]."""
    hidden: torch.Tensor
    """Last hidden state of the last prompt token, [B, H]."""


def write_answers(
    network: Any, inputs: Inputs, recorder: SamplingRecorder, *, max_new_tokens: int, eos_id: int, pad_id: int
) -> Generated:
    """Let a model write answers; everything comes from the pass that samples.

    Args:
        network: the transformers model.
        inputs: collated prompts.
        recorder: samples, and remembers what it sampled.
        max_new_tokens: limit of an answer.
        eos_id: the token that ends an answer.
        pad_id: the token that fills up shorter ones.
    """
    with capture_hidden(network) as hidden:
        sequences = network.generate(
            **model_arguments(inputs),
            synced_gpus=False,  # weights are whole, also of a model that is split while it trains
            max_new_tokens=max_new_tokens,
            logits_processor=[recorder],
            eos_token_id=eos_id,
            pad_token_id=pad_id,
        )
    tokens = sequences[:, inputs["input_ids"].shape[1] :].cpu().numpy()
    return Generated(
        tokens=tokens,
        lengths=_answer_lengths(tokens, eos_id),
        log_probs=torch.stack(recorder.log_probs, 1),
        log_probs_t1=torch.stack(recorder.log_probs_t1, 1),
        entropies=torch.stack(recorder.entropies, 1),
        hidden=hidden[0][:, -1],
    )


def score_answers(
    logits: torch.Tensor,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    lengths: list[int],
    banned: torch.Tensor,
    temperature: float,
) -> Generated:
    """Describe answers that another program wrote as if the model had written them.

    Args:
        logits: of the positions before each token, [B, T, V].
        hidden: last hidden state of the last prompt token, [B, H].
        targets: the answers' tokens, int64 [B, T].
        lengths: how many of them are real; B.
        banned: True marks a token that is never sampled, bool [V].
        temperature: of the sampling.
    """
    log_probs = policy_log_probs(logits, banned, temperature)
    at_one = log_probs if temperature == 1.0 else policy_log_probs(logits, banned, 1.0)
    chosen = targets.unsqueeze(-1)
    return Generated(
        tokens=targets.cpu().numpy(),
        lengths=lengths,
        log_probs=log_probs.gather(-1, chosen).squeeze(-1),
        log_probs_t1=at_one.gather(-1, chosen).squeeze(-1),
        entropies=entropy_of(log_probs),
        hidden=hidden,
    )


@contextmanager
def capture_hidden(model: Any) -> Iterator[list[torch.Tensor]]:
    """Collect the input of the output layer in the first forward: last hidden states [B, kept positions, H]."""
    captured: list[torch.Tensor] = []

    def keep(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        if not captured:
            captured.append(args[0])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()


def draw_seeds(generator: torch.Generator | Sequence[torch.Generator], n: int) -> list[int]:
    """A seed for each of n prompts, all from one generator or each from its own."""
    generators = [generator] * n if isinstance(generator, torch.Generator) else generator
    return [int(torch.randint(2**31, (), generator=g, device=g.device)) for g in generators]


def _answer_lengths(tokens: np.ndarray[Any, Any], eos_id: int) -> list[int]:
    """Number of real tokens per row of [B, T], the end token included."""
    ends = tokens == eos_id
    lengths: list[int] = np.where(ends.any(1), ends.argmax(1) + 1, tokens.shape[1]).tolist()
    return lengths
