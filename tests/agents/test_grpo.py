"""GRPO compares the episodes of a group; and what all policy-gradient updates can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import (
    fit_critic_badly,
    largest_difference,
    random_rollout,
    same_weights,
    text_env,
    tiny_policy,
    weights_of,
)

from gtr_agents.algorithms import ALGORITHMS, algorithm_class
from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.grpo import GRPO, GRPOSettings, group_advantages
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import ConfigError, UnknownNameError
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.losses import learning_rate_at, token_policy_loss
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.types import Rollout

GROUPS = RolloutSettings(n_envs=4, hands=2, attempts=4)
STEP = {"epochs": 1, "minibatch_size": 16, "learning_rate": 1e-3, "adam_eps": 1e-3}


def grouped_rollout(policy: VLMPolicy) -> Rollout:
    """Eight episodes of two steps: two groups of four."""
    rollout = random_rollout(policy, n=16)
    for index, trajectory in enumerate(rollout.trajectories):
        trajectory.seed = index // 4
    return rollout


def grpo(policy: VLMPolicy, **settings: Any) -> GRPO:
    return GRPO(policy, text_env, settings=GRPOSettings(**(STEP | settings)), rollout=GROUPS)


# --- advantages -------------------------------------------------------------------------------------------------------


def test_advantages_have_the_hand_values() -> None:
    assert group_advantages(np.array([1.0, 0.0, 0.0, 1.0])) == pytest.approx(
        np.array([1, -1, -1, 1]) * 0.5 / (np.sqrt(1 / 3) + 1e-4)
    )
    assert group_advantages(np.array([3.0, 0.0, 0.0]), scaled=False) == pytest.approx([2.0, -1.0, -1.0])
    assert group_advantages(np.array([5.0])).tolist() == [0.0]
    assert group_advantages(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_every_step_has_the_advantage_of_its_episode(scale: str) -> None:
    policy = tiny_policy()
    rollout = grouped_rollout(policy)
    for trajectory, value in zip(rollout.trajectories, [1, 0, 0, 1, 6, 0, 0, 0], strict=True):
        for step, share in zip(trajectory.steps, (0.5, 0.2), strict=True):  # three kinds of reward, over two steps
            step.reward, step.format_reward, step.guidance_reward = share * value, 0.1 * value, 0.05 * value
    algorithm = grpo(policy, scale=scale)
    raw, targets = algorithm.advantages(rollout)
    assert targets.tolist() == [0.0] * 16
    episodes = raw.reshape(8, 2)
    assert (episodes[:, 0] == episodes[:, 1]).all()
    first, second = episodes[:4, 0], episodes[4:, 0]
    if scale == "group":
        assert first == pytest.approx(np.array([1, -1, -1, 1]) * np.sqrt(3) / 2, rel=1e-3)
        assert second == pytest.approx(np.array([1.5, -0.5, -0.5, -0.5]), rel=1e-3)
    else:
        assert first == pytest.approx([0.5, -0.5, -0.5, 0.5])
        assert second == pytest.approx([4.5, -1.5, -1.5, -1.5])
    trained = algorithm.scaled(raw)
    assert trained.std() == pytest.approx(1.0, rel=1e-3) if scale == "batch" else (trained == raw).all()


def test_episodes_must_come_in_groups() -> None:
    for rollout in (RolloutSettings(hands=0), RolloutSettings(hands=4, attempts=1)):
        with pytest.raises(ConfigError, match=r"needs rollout\.hands above 0 and rollout\.attempts >= 2"):
            GRPO(tiny_policy(), text_env, rollout=rollout)


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_upper_bound_can_be_higher_and_the_divisor_constant() -> None:
    new = torch.log(torch.tensor([[1.25, 0.7, 9.0]]))
    mask = torch.tensor([[True, True, False]])
    gain = torch.ones(1)
    for options, objective in (
        ({}, (1.2 + 0.7) / 2),
        ({"clip_high": 0.28}, (1.25 + 0.7) / 2),
        ({"divisor": 10.0}, (1.2 + 0.7) / 10),
    ):
        loss, terms = token_policy_loss(new, torch.zeros(1, 3), gain, mask, 0.2, **options)
        assert float(loss) == pytest.approx(-objective)
        assert float(terms["clip_fraction"]) == (0.5 if options == {"clip_high": 0.28} else 1.0)


@pytest.mark.parametrize("settings", [{}, {"scale": "none", "length": "constant"}, {"clip_high": 0.3}])
def test_an_update_moves_the_model_and_leaves_the_value_head(settings: dict[str, Any]) -> None:
    policy = tiny_policy()
    rollout, before = grouped_rollout(policy), weights_of(policy)
    metrics = grpo(policy, **settings).update(rollout, 0.0)
    after = weights_of(policy)
    assert metrics["train/ratio_error_first_epoch"] < 1e-4
    assert "train/value_loss" not in metrics
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("head."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("model."))


def test_pieces_of_a_minibatch_add_up_to_it() -> None:
    results = []
    for size in (16, 3):
        policy = tiny_policy()
        grpo(policy, micro_batch_size=size, length="constant", entropy_coef=0.01).update(grouped_rollout(policy), 0.0)
        results.append(weights_of(policy))
    assert largest_difference(*results) < 1e-5


# --- what every update can be told ------------------------------------------------------------------------------------


def ppo(policy: VLMPolicy, **settings: Any) -> PPO:
    return PPO(policy, text_env, settings=PPOSettings(**(STEP | settings)))


def test_the_entropy_bonus_raises_the_entropy() -> None:
    changes = []
    for weight in (0.0, 1.0):
        policy = tiny_policy()
        rollout = random_rollout(policy)
        for step in rollout.steps:
            step.reward = 0.0
        algorithm = ppo(policy, entropy_coef=weight, value_coef=0.0, ratio="token")
        metrics = algorithm.update(rollout, 0.0)
        assert ("train/entropy" in metrics) is (weight > 0)
        prompts, ids = [s.prompt for s in rollout.steps], [s.response.token_ids for s in rollout.steps]
        with torch.no_grad():
            output = policy.evaluate(prompts, ids)
        changes.append(float(output.entropy[output.mask].mean()))
    assert changes[1] > changes[0] + 0.01


@pytest.mark.parametrize("algorithm", [ppo, grpo], ids=["ppo", "grpo"])
def test_the_divergence_from_the_start_holds_the_policy_back(algorithm: Any, tmp_path: Path) -> None:
    moved = []
    for weight in (0.0, 100.0):
        policy = tiny_policy()
        start = policy.merge_state()
        learner = algorithm(policy, kl_coef=weight, epochs=6)
        rollout = grouped_rollout(policy)
        metrics = learner.update(rollout, 0.0)
        assert ("train/kl_to_initial" in metrics) is (weight > 0)
        steps = rollout.steps
        prompts, ids = [s.prompt for s in steps], [s.response.token_ids for s in steps]
        own = np.concatenate(policy.score(prompts, ids))
        with policy.using(start):
            first = np.concatenate(policy.score(prompts, ids))
        moved.append(float(np.mean(np.exp(first - own) - 1 - (first - own))))
        if weight:  # the weights that training began with come back, too
            folder = learner.save(tmp_path / "checkpoint")
            again = type(learner).load(folder, text_env, settings=learner.settings, rollout=learner.rollout_settings)
            assert same_weights(again._initial, start)
    assert moved[1] < 0.5 * moved[0]


def test_the_passes_end_when_the_policy_has_moved_far_enough() -> None:
    metrics = {}
    for target in (None, 1e-6, 1e9):
        policy = tiny_policy()
        metrics[target] = ppo(policy, target_kl=target, epochs=5).update(random_rollout(policy), 0.0)
    assert "train/stopped_early" not in metrics[None]
    assert metrics[1e9] | {"train/stopped_early": 0.0} == metrics[None] | {"train/stopped_early": 0.0}
    assert metrics[1e-6]["train/stopped_early"] == 1.0
    assert metrics[1e-6]["train/approx_kl"] < metrics[None]["train/approx_kl"]


def test_the_learning_rate_follows_its_schedule_over_exactly_the_run() -> None:
    rates = {s: [learning_rate_at(s, n / 4, 1.0, 0.0) for n in range(5)] for s in ("cosine", "linear", "constant")}
    assert rates["linear"] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert rates["constant"] == [1.0] * 5
    assert rates["cosine"] == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466, 0.0])
    policy = tiny_policy()
    metrics = ppo(policy, schedule="linear", final_learning_rate=0.0).update(random_rollout(policy), 0.75)
    assert metrics["train/learning_rate"] == pytest.approx(0.25e-3)


def test_advantages_are_normalised_unless_told_otherwise() -> None:
    raw = np.array([1.0, 3.0])
    assert ppo(tiny_policy()).scaled(raw) == pytest.approx([-0.7071, 0.7071], rel=1e-3)
    assert (ppo(tiny_policy(), normalise="none").scaled(raw) == raw).all()


def test_a_value_head_that_is_decoupled_sends_no_gradient_into_the_model() -> None:
    gradients = {}
    for stop in (True, False):
        policy = tiny_policy(value_stop_gradient=stop)
        fit_critic_badly(policy)  # a fresh one ends in zeros, which let no gradient through
        rollout = random_rollout(policy)
        algorithm = ppo(policy, ratio="token", normalise="none", value_coef=1.0)
        for step in rollout.steps:
            step.reward = 0.0
        algorithm.scaled = np.zeros_like  # type: ignore[method-assign] # no policy gradient: only the value's is left
        algorithm.update(rollout, 0.0)
        gradients[stop] = [p.grad for p in policy.model.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert not gradients[True]
    assert gradients[False]


# --- the table --------------------------------------------------------------------------------------------------------


def test_algorithms_are_found_by_name() -> None:
    assert [algorithm_class(name) for name in sorted(ALGORITHMS)] == [GRPO, PPO]
    with pytest.raises(UnknownNameError, match=r"grpoo.*grpo"):
        algorithm_class("grpoo")


def test_a_guided_run_of_grpo_is_resumed_bit_for_bit(schooled: Path, tmp_path: Path) -> None:
    def learner(folder: Path) -> GRPO:
        return GRPO(
            VLMPolicy.from_pretrained(folder),
            lambda: text_env("EZPoints-v0", illegal="terminate"),
            settings=GRPOSettings(minibatch_size=8, learning_rate=1e-3, kl_coef=0.1),
            rollout=RolloutSettings(n_envs=4, hands=2, attempts=3),
            guidance=ReverseKL(beta=5.0),
            teacher=TeacherManager(),
            seed=3,
        )

    whole = learner(schooled)
    whole.learn(updates=2)
    folder = whole.save(tmp_path / "checkpoint")
    resumed = learner(folder)
    resumed.restore(folder)
    for algorithm in (whole, resumed):
        algorithm.learn(updates=3)
    assert same_weights(weights_of(resumed.policy), weights_of(whole.policy))
