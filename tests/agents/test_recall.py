"""Associative recall: right questions, and a model that learns to answer them."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import SIZES, same_weights, tiny_policy, weights_of

from gtr_agents.errors import ConfigError
from gtr_agents.policies.tiny import build_tiny_vlm
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.recall import MASTERED, recall_batch, recall_vocabulary, train_recall
from gtr_agents.sft import SFTSettings

WORDS = tuple(f" {first}{second}" for first in "abcde" for second in "vwxyz")
NUMBERS = (" 1", " 2", " 3")


def reader(backbone: str = "lfm2") -> VLMPolicy:
    model, processor = build_tiny_vlm(
        "compact-goal", vocabulary=(*WORDS, *NUMBERS), backbone=backbone, output_scale=0.1, **SIZES
    )
    return VLMPolicy(model, processor, template="compact-goal")


def test_every_question_has_its_right_answer_and_half_of_the_words_are_absent() -> None:
    words, numbers, absent = np.arange(100, 140), np.arange(10, 20), 7
    batch = recall_batch(np.random.default_rng(0), words, numbers, absent, size=200, n_pairs=6)
    assert batch.token_ids.shape == batch.answers.shape == (200, 24)
    n_absent = 0
    for ids, answers in zip(batch.token_ids.tolist(), batch.answers.tolist(), strict=True):
        known = dict(zip(ids[0:12:2], ids[1:12:2], strict=True))
        assert len(known) == 6
        assert set(known) <= set(words)
        assert set(known.values()) <= set(numbers)
        assert [i for i, marked in enumerate(answers) if marked] == list(range(13, 24, 2))
        for word, answer in zip(ids[12::2], ids[13::2], strict=True):
            assert answer == known.get(word, absent)
            n_absent += answer == absent
    assert 0.4 < n_absent / (200 * 6) < 0.6


def test_words_and_numbers_are_found_in_the_tokenizer() -> None:
    policy = reader()
    words, numbers = recall_vocabulary(policy)
    assert sorted(policy.tokenizer.decode([i]) for i in words) == sorted(WORDS)
    assert sorted(policy.tokenizer.decode([i]) for i in numbers) == sorted(NUMBERS)


def test_a_tokenizer_without_words_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"20 words and 2 numbers.*recall_steps to 0"):
        train_recall(tiny_policy(), SFTSettings(recall_steps=1), np.random.default_rng(0))


def test_a_model_learns_to_look_up_and_stops_when_it_can() -> None:
    policy, steps = reader(), []
    settings = SFTSettings(recall_steps=600, batch_size=64, optimizer="muon", muon_learning_rate=0.007)
    metrics = train_recall(policy, settings, np.random.default_rng(0), lambda step, _: steps.append(step))
    assert metrics["recall/accuracy"] > MASTERED
    assert metrics["recall/words"] == len(WORDS)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) < 600
    fresh = recall_batch(np.random.default_rng(1), *recall_vocabulary(policy), policy.eos_id, size=100, n_pairs=8)
    guesses = policy.model(input_ids=fresh.token_ids).logits[:, :-1].argmax(-1)
    asked = fresh.answers[:, 1:]
    assert (guesses[asked] == fresh.token_ids[:, 1:][asked]).float().mean() > 0.9


def test_the_generator_decides_the_weights() -> None:
    runs = []
    for seed in (3, 3, 4):
        policy = reader()
        train_recall(policy, SFTSettings(recall_steps=3, batch_size=4), np.random.default_rng(seed))
        runs.append(weights_of(policy))
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])
