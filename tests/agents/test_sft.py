"""Supervised training: the loss is that of the answers' tokens, and it falls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import pytest
import torch
from small_models import same_weights, text_env, tiny_policy, weights_of

from gtr_agents.demonstrations import Demonstration, demonstrations
from gtr_agents.errors import TrainingError
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.sft import SFTSettings, _backward, build_optimizers, schedule, train_sft

SHORT = SFTSettings(steps=3, batch_size=4, learning_rate=1e-3, warmup_steps=1)


def data(policy: VLMPolicy, env_id: str = "EZPoints-v0") -> Iterator[Demonstration]:
    return demonstrations(lambda: text_env(env_id), policy.template, np.random.default_rng(0), buffer=64)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls_by_more_than_half_in_thirty_steps(optimizer: str) -> None:
    policy, losses = tiny_policy(), []
    settings = SFTSettings(
        steps=30, batch_size=8, learning_rate=1e-2, warmup_steps=5, optimizer=optimizer, muon_learning_rate=0.02
    )
    train_sft(policy, data(policy), settings, lambda _, m: losses.append(m["sft/loss"]))
    assert losses[0] > 4.0
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_the_loss_is_the_cross_entropy_of_answer_and_end_token() -> None:
    policy = tiny_policy()
    batch = list(islice(data(policy, "Points24-v0"), 4))
    assert len({len(d.answer) for d in batch}) > 1  # padding is part of the test
    expected, n_tokens = 0.0, 0
    for demonstration in batch:
        turn = [{"type": "image"}, {"type": "text", "text": demonstration.prompt.text}]
        text = policy.processor.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
        )
        whole = policy.processor(
            text=text + demonstration.answer + "<|end|>", images=demonstration.prompt.image, return_tensors="pt"
        )
        n = len(policy.tokenizer(demonstration.answer + "<|end|>", add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logits = policy.model(**whole).logits[0, -n - 1 : -1].double()
        logits[:, [i for i in policy.tokenizer.all_special_ids if i != policy.eos_id]] = -torch.inf
        chosen = whole["input_ids"][0, -n:]
        expected -= float(torch.log_softmax(logits, -1).gather(-1, chosen.unsqueeze(-1)).sum())
        n_tokens += n
    gradients = []
    for size in (len(batch), 3):
        policy.model.zero_grad()
        assert _backward(policy, batch, size) == pytest.approx(expected / n_tokens, abs=1e-4)
        gradients.append([p.grad.clone() for p in policy.model.parameters() if p.grad is not None])
    assert all(torch.allclose(whole, cut, atol=1e-5) for whole, cut in zip(*gradients, strict=True))


def test_the_same_data_gives_the_same_weights_whatever_the_temperature() -> None:
    results = []
    for temperature in (0.2, 0.2, 1.0):
        policy = tiny_policy(temperature=temperature)
        train_sft(policy, data(policy), SHORT)
        results.append(weights_of(policy))
    assert same_weights(results[0], results[1])
    assert same_weights(results[0], results[2])  # imitation is at temperature 1, whatever is sampled later


def test_the_value_head_is_left_alone() -> None:
    policy = tiny_policy()
    before = {n: p.clone() for n, p in policy.value_head.state_dict().items()}
    train_sft(policy, data(policy), SHORT)
    assert same_weights(before, policy.value_head.state_dict())
    assert not policy.model.training


def test_every_step_is_told_with_its_loss() -> None:
    policy, told = tiny_policy(), []
    last = train_sft(policy, data(policy), SHORT, lambda step, metrics: told.append((step, metrics["sft/loss"])))
    assert [step for step, _ in told] == [1, 2, 3]
    assert last["sft/loss"] == told[-1][1]
    assert last["sft/seconds"] > 0


def test_a_loss_that_is_not_finite_stops_with_the_step() -> None:
    policy = tiny_policy()
    with torch.no_grad():
        next(policy.model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="step 0"):
        train_sft(policy, data(policy), SHORT)


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    settings = SFTSettings(steps=100, warmup_steps=10)
    shares = [schedule(step, settings) for step in range(101)]
    assert shares[:10] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert shares[10] == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0.0)
    assert shares[10:] == sorted(shares[10:], reverse=True)


@pytest.mark.parametrize("settings", [SFTSettings(steps=5, warmup_steps=50), SFTSettings(steps=5, warmup_steps=0)])
def test_a_short_run_has_a_rate_at_every_step(settings: SFTSettings) -> None:
    assert all(0 < schedule(step, settings) <= 1 for step in range(5))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_weight_has_one_optimizer(optimizer: str) -> None:
    model = tiny_policy().model
    optimizers = build_optimizers(model, SFTSettings(optimizer=optimizer))
    owned = [id(p) for one in optimizers for group in one.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    assert len(optimizers) == (2 if optimizer == "muon" else 1)


def test_frozen_weights_stay() -> None:
    policy = tiny_policy()
    frozen = policy.model.model.vision_tower
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    before = {n: p.clone() for n, p in frozen.state_dict().items()}
    train_sft(policy, data(policy), replace(SHORT, optimizer="muon"))
    assert same_weights(before, frozen.state_dict())


def test_a_handful_of_demonstrations_is_learned_by_heart() -> None:
    policy = tiny_policy(max_new_tokens=20)
    few = list(islice(data(policy), 4))
    train_sft(policy, cycle(few), SFTSettings(steps=60, batch_size=4, learning_rate=5e-3, warmup_steps=5))
    assert [r.text for r in policy.act([d.prompt for d in few])] == [d.answer for d in few]
