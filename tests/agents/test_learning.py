"""Small proofs that the learners learn; the large ones are the runs of docs/results.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from small_models import text_env, tiny_policy

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.grpo import GRPO, GRPOSettings
from gtr_agents.algorithms.policy_gradient import PolicyGradient
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.demonstrations import demonstrations
from gtr_agents.evaluation import Evaluator
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.sft import SFTSettings, train_sft


class OneRightAction(gym.Env[Any, Any]):
    """One step; the right action is paid 1, any other nothing."""

    def __init__(self, right: str) -> None:
        self.right = right

    def _observe(self) -> dict[str, Any]:
        return {"image": np.full((96, 96, 3), 90, np.uint8), "text": ""}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._observe(), {}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        won = action == self.right
        return self._observe(), float(won), True, False, {"success": won}


@pytest.mark.parametrize("method", ["tree", "critic", "grpo"])
def test_reinforcement_finds_the_action_that_pays(schooled: Path, method: str) -> None:
    policy = VLMPolicy.from_pretrained(schooled, temperature=1.0)
    played = Evaluator(lambda: OneRightAction(""), episodes=64)(policy)
    actions = Counter(t.steps[0].response.answer.action for t in played.trajectories)
    # Pay for what the policy does now and then, not for its habit.
    right = [action for action, _ in actions.most_common() if action][1]
    evaluator = Evaluator(lambda: OneRightAction(right), episodes=128)
    assert 0.0 < evaluator(policy).success_rate < 0.3
    options: dict[str, Any] = {"epochs": 1, "minibatch_size": 32, "learning_rate": 1e-3}
    rollout = RolloutSettings(n_envs=64, n_steps=64, hands=0 if method == "critic" else 4, attempts=16)
    algorithm: PolicyGradient
    if method == "grpo":
        algorithm = GRPO(policy, lambda: OneRightAction(right), settings=GRPOSettings(**options), rollout=rollout)
    else:
        settings = PPOSettings(baseline=method, thought_coef=0.0, **options)
        algorithm = PPO(policy, lambda: OneRightAction(right), settings=settings, rollout=rollout)
    algorithm.learn(updates=14)
    assert evaluator(policy).interval[0] > 0.35


@pytest.mark.slow
def test_imitation_learns_to_write_well_formed_answers() -> None:
    policy = tiny_policy(max_new_tokens=24)
    data = demonstrations(lambda: text_env("EZPoints-v0"), policy.template, np.random.default_rng(0), buffer=256)
    train_sft(policy, data, SFTSettings(steps=150, batch_size=32, learning_rate=5e-3, warmup_steps=10))
    result = Evaluator("EZPoints-v0", episodes=50, env_kwargs={"image_size": 96})(policy, greedy=True)
    assert result.metrics["valid_rate"] >= 0.95
    assert result.metrics["legal_rate"] >= 0.3


@pytest.mark.slow
def test_imitation_learns_to_read_cards_and_to_win() -> None:
    policy = tiny_policy(max_new_tokens=24)
    make_env = lambda: text_env("EZPoints-v0", deal="balanced")  # noqa: E731
    data = demonstrations(make_env, policy.template, np.random.default_rng(0), buffer=256)
    train_sft(policy, data, SFTSettings(steps=400, batch_size=32, learning_rate=3e-3, warmup_steps=20))
    result = Evaluator(make_env, episodes=60)(policy, greedy=True)
    assert result.metrics["cards_accuracy"] >= 0.8
    assert result.interval[0] > 0.5  # always adding wins half of the hands
