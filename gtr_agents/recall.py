"""Associative recall: a model trained from scratch learns to look a word up before it learns from demonstrations."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gtr_agents.errors import ConfigError, TrainingError
from gtr_agents.sft import SFTSettings, build_optimizers

if TYPE_CHECKING:
    from gtr_agents.policies.vlm import VLMPolicy

MAX_PAIRS = 10
"""A list holds 2 to so many pairs."""
FIRST_WORDS = 24
"""Recall is learned with so many words first; they are doubled whenever it is mastered. With few words the model finds
the principle (compare what stands before) many times sooner than with all."""
MASTERED = 0.97
"""Share of right answers over the last batches at which it goes on."""
WINDOW = 10
"""Batches that share is taken over."""
WARMUP_STEPS = 30
"""Linear warm-up of the learning rates, which then stay: the principle is found at once after a long wait."""


class RecallBatch(NamedTuple):
    """Lists with questions about them."""

    token_ids: torch.Tensor
    """int64 [B, 4 N]: N pairs of word and number, then N questions, each a word and its answer."""
    answers: torch.Tensor
    """bool [B, 4 N]; True marks a token that answers the word before it."""


def recall_batch(
    rng: np.random.Generator, words: NDArray[np.int64], numbers: NDArray[np.int64], absent: int, size: int, n_pairs: int
) -> RecallBatch:
    """Draw lists of pairs and questions about them: ``cup 3, pan 1, .. pan -> 1, mug -> absent``.

    Args:
        rng: source of randomness.
        words: token ids to ask for, [W] with W >= 2 n_pairs.
        numbers: token ids to answer with, [V].
        absent: the answer to a word that is not in the list.
        size: lists.
        n_pairs: pairs in a list, and questions about it; about half of the words asked for are in it.

    Returns:
        The batch.
    """
    drawn = np.stack([rng.choice(words, size=2 * n_pairs, replace=False) for _ in range(size)])
    values = rng.choice(numbers, size=(size, n_pairs))
    known = np.concatenate([values, np.full((size, n_pairs), absent)], axis=1)
    asked = np.stack([rng.permutation(2 * n_pairs)[:n_pairs] for _ in range(size)])
    rows = np.arange(size)[:, None]
    pairs = np.stack([drawn[:, :n_pairs], values], axis=-1).reshape(size, -1)
    questions = np.stack([drawn[rows, asked], known[rows, asked]], axis=-1).reshape(size, -1)
    token_ids = np.concatenate([pairs, questions], axis=1)
    answers = np.zeros(token_ids.shape, dtype=bool)
    answers[:, 2 * n_pairs + 1 :: 2] = True
    return RecallBatch(torch.from_numpy(token_ids), torch.from_numpy(answers))


def train_recall(
    policy: VLMPolicy,
    settings: SFTSettings,
    rng: np.random.Generator,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train a model to look words up in lists of its own vocabulary, until it does or ``recall_steps`` are over.

    Whether a thing is among those before the agent is seen by comparing words. A pretrained model does that with its
    induction heads (arXiv 2209.11895); a small one that learns from demonstrations alone learns words by heart long
    before it compares any, because hardly a token of a demonstration depends on it. Synthetic recall, with an answer
    to every second token, is the usual test of the ability (arXiv 2312.04927), and here the way to it.

    Args:
        policy: trained in place; its tokenizer must know words and numbers as single tokens.
        settings: optimizer, learning rates, ``batch_size``, ``recall_steps``.
        rng: source of the lists.
        on_step: called after every optimizer step with its number (from 1) and metrics.

    Returns:
        Metrics of the last step: ``recall/accuracy`` over the last batches, ``recall/words``.

    Raises:
        ConfigError: if the tokenizer knows too few words or numbers.
        TrainingError: if the loss is not finite.
    """
    words, numbers = recall_vocabulary(policy)
    rng.shuffle(words)
    n_words = FIRST_WORDS
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    optimizers = build_optimizers(policy.model, settings)
    recent: deque[float] = deque(maxlen=WINDOW)
    metrics: dict[str, float] = {}
    for step in range(settings.recall_steps):
        n_pairs = int(rng.integers(2, MAX_PAIRS + 1))
        batch = recall_batch(rng, words[:n_words], numbers, policy.eos_id, settings.batch_size, n_pairs)
        share = min(1.0, (step + 1) / WARMUP_STEPS)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak_lr"]
        token_ids, answers = batch.token_ids.to(policy.device), batch.answers[:, 1:].to(policy.device)
        logits = policy.model(input_ids=token_ids, use_cache=False).logits[:, :-1][answers]
        targets = token_ids[:, 1:][answers]
        loss = torch.nn.functional.cross_entropy(logits, targets)
        if not torch.isfinite(loss):
            raise TrainingError(f"The recall loss became {float(loss)} at step {step}; lower the learning rate.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        recent.append(float((logits.argmax(-1) == targets).float().mean()))
        accuracy = float(np.mean(recent))
        metrics = {"recall/accuracy": accuracy, "recall/words": float(min(n_words, len(words)))}
        if on_step is not None:
            on_step(step + 1, metrics)
        if len(recent) == WINDOW and accuracy > MASTERED:
            if n_words >= len(words):
                break
            n_words *= 2
            recent.clear()
    return metrics


def recall_vocabulary(policy: VLMPolicy) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the words and the numbers of which each is one token, with the blank before it.

    Args:
        policy: whose tokenizer.

    Returns:
        Token ids of words, and of numbers, each in ascending order.

    Raises:
        ConfigError: if there are fewer than ``2 MAX_PAIRS`` words or fewer than two numbers.
    """
    pieces = sorted((index, text) for text, index in policy.tokenizer.get_added_vocab().items())
    words, numbers = (
        np.array([index for index, text in pieces if re.fullmatch(kind, text)], dtype=np.int64)
        for kind in (r" [a-z]+", r" [0-9]+")
    )
    if len(words) < 2 * MAX_PAIRS or len(numbers) < 2:
        raise ConfigError(
            f"Recall needs a tokenizer with at least {2 * MAX_PAIRS} words and 2 numbers as single tokens; this one "
            f"has {len(words)} and {len(numbers)}. Set sft.recall_steps to 0."
        )
    return words, numbers
