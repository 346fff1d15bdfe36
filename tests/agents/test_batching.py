"""Rollouts as batches: nothing lost, nothing twice, padding known by the mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtr_agents.batching import make_batch, micro_batches, minibatches
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
