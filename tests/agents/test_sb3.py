"""Stable-Baselines3's own callbacks, logger and evaluation in our training."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from small_models import CountingEnv, text_env
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.integrations.sb3 import SB3Callbacks, SB3Model, TextVecEnv
from gtr_agents.policies.vlm import VLMPolicy


def easy_env() -> Any:
    return text_env("EZPoints-v0", illegal="terminate")


def learner(schooled: Path) -> PPO:
    return PPO(
        VLMPolicy.from_pretrained(schooled),
        easy_env,
        settings=PPOSettings(epochs=1, minibatch_size=16, learning_rate=1e-4),
        rollout=RolloutSettings(n_envs=4, hands=4, attempts=2),
        seed=1,
    )


class Counting(BaseCallback):
    """Counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.ended = False

    def _on_step(self) -> bool:
        self.seen.append(self.num_timesteps)
        assert len(self.locals["rollout"].trajectories) == 8
        assert self.training_env.num_envs == 1
        return True

    def _on_training_end(self) -> None:
        self.ended = True


def test_its_callbacks_and_logger_follow_our_training(schooled: Path, tmp_path: Path) -> None:
    evaluation = EvalCallback(
        TextVecEnv(easy_env, n_envs=3, seed=5),
        n_eval_episodes=6,
        eval_freq=2,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path / "best"),
        verbose=0,
        warn=False,
    )
    counting, event = Counting(), Counting()
    logger = configure(str(tmp_path / "log"), ["csv"])
    callbacks = SB3Callbacks(
        evaluation,
        CheckpointCallback(3, str(tmp_path / "kept")),
        EveryNTimesteps(1, event),
        counting,
        logger=logger,
    )
    algorithm = learner(schooled)
    algorithm.learn(updates=4, callbacks=[callbacks])
    callbacks.close()
    logger.close()
    assert counting.ended
    assert (len(counting.seen), counting.seen) == (4, event.seen)
    assert counting.seen[-1] == algorithm.num_timesteps
    results = np.load(tmp_path / "evaluations.npz")
    assert results["results"].shape == results["successes"].shape == (2, 6)
    assert results["timesteps"].tolist() == [counting.seen[1], counting.seen[3]]
    saved = tmp_path / "kept" / f"rl_model_{counting.seen[2]}_steps.zip"
    assert PPO.load(saved, easy_env).n_updates == 3
    assert (tmp_path / "best" / "best_model" / "algorithm.json").is_file()
    with (tmp_path / "log" / "progress.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {"train/policy_loss", "rollout/success_rate", "eval/mean_reward", "eval/success_rate"} <= lines[0].keys()


def test_a_callback_can_stop_the_training(schooled: Path) -> None:
    threshold = StopTrainingOnRewardThreshold(reward_threshold=-100.0, verbose=0)
    evaluation = EvalCallback(
        TextVecEnv(easy_env), callback_on_new_best=threshold, n_eval_episodes=1, eval_freq=2, verbose=0, warn=False
    )
    algorithm = learner(schooled)
    heard: list[int] = []

    class Later:
        def on_phase(self, name: str, total: int | None) -> None: ...

        def on_progress(self, n: int) -> None: ...

        def on_update(self, learner: PPO, rollout: Any, metrics: dict[str, float]) -> None:
            del rollout, metrics
            heard.append(learner.n_updates)

    algorithm.learn(updates=9, callbacks=[SB3Callbacks(evaluation), Later()])
    assert algorithm.n_updates == 2
    assert heard == [1, 2]


def test_its_evaluation_finds_what_ours_finds(schooled: Path) -> None:
    algorithm, env = learner(schooled), TextVecEnv(easy_env, n_envs=2, seed=3)
    rewards, lengths = evaluate_policy(SB3Model(algorithm), env, 6, return_episode_rewards=True, warn=False)
    again, _ = evaluate_policy(SB3Model(algorithm), env, 6, return_episode_rewards=True, warn=False)
    assert rewards == again  # every reset begins the same tasks
    own = []
    for index in range(2):
        single = TextVecEnv(easy_env, n_envs=2, seed=3)
        for episode in range(3):
            observation, info = single._begin(index)
            total, steps, ended = 0.0, 0, False
            while not ended:
                action = algorithm.predict(observation, info)
                observation, reward, terminated, truncated, info = single.envs[index].step(action)
                total, steps, ended = total + float(reward), steps + 1, terminated or truncated
            own.append((episode, index, total, steps))
    assert sorted(zip(rewards, lengths, strict=True)) == sorted((total, steps) for _, _, total, steps in own)


def test_an_environment_that_ends_begins_anew() -> None:
    class Spaced(CountingEnv):
        observation_space = gym.spaces.Dict()
        action_space = gym.spaces.Text(8)

    env = TextVecEnv(lambda: Spaced(goal=1, limit=3), n_envs=2)
    first = env.reset()
    assert [shown["text"] for shown in first] == ["0", "0"]
    assert first[0]["legal_actions"] == ("up", "stop")
    observations, rewards, ended, infos = env.step(["up", "stop"])
    assert (ended.tolist(), [shown["text"] for shown in observations]) == ([False, True], ["1", "0"])
    assert infos[1]["terminal_observation"]["text"] == "0"
    assert (infos[1]["is_success"], infos[1]["TimeLimit.truncated"]) == (False, False)
    observations, rewards, ended, infos = env.step(["stop", "up"])
    assert (rewards.tolist(), infos[0]["is_success"]) == ([10.0, 0.0], True)
    for _ in range(2):
        observations, rewards, ended, infos = env.step(["up", "up"])
    assert infos[1]["TimeLimit.truncated"]
    env.set_attr("goal", 7, 1)
    assert env.get_attr("goal") == [1, 7]
    assert env.env_method("_observe")[0]["text"] == str(env.get_attr("count")[0])
    assert env.env_is_wrapped(CountingEnv) == [False, False]
    env.close()


@pytest.mark.parametrize("deterministic", [True, False])
def test_several_observations_are_answered_as_one_by_one(schooled: Path, deterministic: bool) -> None:
    algorithm, env = learner(schooled), TextVecEnv(easy_env, n_envs=3)
    model = SB3Model(algorithm)
    observations = env.reset()
    actions, state = model.predict(observations, deterministic=deterministic)
    assert state is None
    if deterministic:
        assert actions == [algorithm.predict(shown, shown) for shown in observations]
    assert model.predict(observations, deterministic=deterministic)[0] == actions
