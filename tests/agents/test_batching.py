"""Rollouts as batches: nothing lost, nothing twice, padding known by the mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtr_agents.batching import make_batch, micro_batches, minibatches, token_batches
from gtr_agents.types import Answer, Prompt, Response, Step


def step(n: int, value: float) -> Step:
    ids = np.arange(n)
    thought = np.arange(n) % 2 == 0
    log_probs = -np.ones(n, np.float32) * (1 + np.arange(n, dtype=np.float32))
    response = Response("", Answer(), ids, ids, log_probs, log_probs * 2, thought, value=value)
    return Step(Prompt("", np.zeros((1, 1, 3), np.uint8)), response, 0.0, False, False)


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (10, 64), (1, 1), (7, 2)])
def test_minibatches_hold_every_sample_once_and_are_nearly_equal(n: int, size: int) -> None:
    pieces = list(minibatches(n, size, np.random.default_rng(0)))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(n))
    assert max(map(len, pieces)) <= size
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_minibatches_are_shuffled_by_their_generator() -> None:
    first, again, other = (
        np.concatenate(list(minibatches(50, 8, np.random.default_rng(seed)))).tolist() for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first != sorted(first)


def test_no_sample_gives_no_minibatch() -> None:
    assert list(minibatches(0, 8, np.random.default_rng(0))) == []


def test_micro_batches_hold_the_minibatch_sorted_by_length() -> None:
    lengths = np.array([9, 1, 8, 2, 7, 3])
    pieces = list(micro_batches(np.array([0, 1, 2, 3, 5]), lengths, 2))
    assert [piece.tolist() for piece in pieces] == [[1, 3], [5, 2], [0]]


def test_a_batch_is_padded_and_masked() -> None:
    batch = make_batch([step(2, 0.5), step(3, 1.5)], np.array([1.0, -1.0]), np.array([4.0, 5.0]), torch.device("cpu"))
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.thought_mask.tolist() == [[True, False, False], [True, False, True]]
    assert batch.log_probs.tolist() == [[-1.0, -2.0, 0.0], [-1.0, -2.0, -3.0]]
    assert batch.values.tolist() == [0.5, 1.5]
    assert batch.advantages.tolist() == [1.0, -1.0]
    assert batch.returns.tolist() == [4.0, 5.0]
    assert [ids.tolist() for ids in batch.token_ids] == [[0, 1], [0, 1, 2]]


def padded(piece: np.ndarray, prompts: np.ndarray, answers: np.ndarray) -> int:
    return len(piece) * int(prompts[piece].max() + answers[piece].max())


@pytest.mark.parametrize("seed", range(5))
def test_token_batches_hold_every_sample_once_within_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompts, answers = rng.integers(1, 60, 40), rng.integers(1, 40, 40)
    chosen = rng.permutation(40)[:30]
    pieces = list(token_batches(chosen, prompts, answers, size=6, budget=120))
    assert sorted(np.concatenate(pieces).tolist()) == sorted(chosen.tolist())
    assert max(map(len, pieces)) <= 6
    assert all(len(piece) == 1 or padded(piece, prompts, answers) <= 120 for piece in pieces)
    assert len(pieces) < 30


def test_the_budget_is_met_exactly_and_the_longest_come_first() -> None:
    prompts, answers = np.array([10, 10, 30, 10, 10]), np.array([5, 5, 15, 5, 5])
    pieces = list(token_batches(np.arange(5), prompts, answers, size=9, budget=30))
    assert [piece.tolist() for piece in pieces] == [[2], [0, 1], [3, 4]]  # 45 by itself, then 2 * 15 twice
    assert [len(p) for p in token_batches(np.arange(5), prompts, answers, size=9, budget=29)] == [1] * 5


def test_padding_counts_to_the_longest_prompt_and_the_longest_answer() -> None:
    prompts, answers = np.array([20, 1]), np.array([1, 20])
    assert len(list(token_batches(np.arange(2), prompts, answers, size=9, budget=79))) == 2
    assert len(list(token_batches(np.arange(2), prompts, answers, size=9, budget=80))) == 1


def test_no_sample_gives_no_token_batch() -> None:
    none = np.array([], dtype=np.int64)
    assert list(token_batches(none, none, none, size=8, budget=10)) == []
