"""The learner's loop: repeatable, resumable bit for bit, and a teacher that follows."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import same_weights, text_env, tiny_policy, weights_of

from gtr_agents.algorithms.base import Learner, RolloutSettings, signals_held
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import CheckpointError, ConfigError
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.types import Prompt, Rollout

SETTINGS = PPOSettings(
    baseline="tree", gamma=1.0, epochs=2, minibatch_size=8, learning_rate=1e-3, final_learning_rate=1e-4
)
HANDS = RolloutSettings(n_envs=4, hands=3, attempts=2, format_valid=0.0, format_invalid=-1.0)
TIMES = ("rollout/seconds", "guidance/seconds", "rollout/steps_per_second")


def easy_env() -> Any:
    return text_env("EZPoints-v0", illegal="terminate")


class Watcher:
    """Keeps what it is told; may interrupt."""

    def __init__(self, interrupt_at: int = 0) -> None:
        self.phases: list[str] = []
        self.metrics: list[dict[str, float]] = []
        self.rollouts: list[Rollout] = []
        self.units = 0
        self.interrupt_at = interrupt_at

    def on_phase(self, name: str, total: int | None) -> None:
        del total
        self.phases.append(name)

    def on_progress(self, n: int) -> None:
        self.units += n

    def on_update(self, learner: Learner, rollout: Rollout, metrics: dict[str, float]) -> None:
        self.metrics.append({name: value for name, value in metrics.items() if name not in TIMES})
        self.rollouts.append(rollout)
        if learner.n_updates == self.interrupt_at:
            raise KeyboardInterrupt


def learner(policy: VLMPolicy, *, seed: int = 3, beta: float = 5.0, **options: Any) -> PPO:
    arguments = {"settings": SETTINGS, "rollout": HANDS} | options
    return PPO(policy, easy_env, guidance=ReverseKL(beta=beta), teacher=TeacherManager(), seed=seed, **arguments)


@pytest.fixture(scope="module")
def uninterrupted(schooled: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Weights and metrics of four updates without a break."""
    watcher = Watcher()
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    algorithm.learn(updates=4, callbacks=[watcher])
    return weights_of(algorithm.policy), watcher.metrics


def test_the_same_seed_gives_the_same_run(schooled: Path, uninterrupted: Any) -> None:
    weights, metrics = uninterrupted
    for seed, same in ((3, True), (4, False)):
        watcher = Watcher()
        algorithm = learner(VLMPolicy.from_pretrained(schooled), seed=seed)
        algorithm.learn(updates=4, callbacks=[watcher])
        assert (watcher.metrics == metrics) is same
        assert same_weights(weights, weights_of(algorithm.policy)) is same


def test_a_stopped_and_resumed_run_is_the_uninterrupted_one(schooled: Path, tmp_path: Path, uninterrupted: Any) -> None:
    weights, metrics = uninterrupted
    first, second = Watcher(interrupt_at=2), Watcher()
    started = learner(VLMPolicy.from_pretrained(schooled))
    with pytest.raises(KeyboardInterrupt):
        started.learn(updates=4, callbacks=[first])
    folder = started.save(tmp_path / "checkpoint")
    resumed = learner(VLMPolicy.from_pretrained(folder), seed=77)  # the checkpoint's seed counts
    resumed.restore(folder)
    assert (resumed.n_updates, resumed.num_timesteps, resumed.seed) == (2, started.num_timesteps, 3)
    resumed.learn(updates=4, callbacks=[second])
    assert first.metrics + second.metrics == metrics
    assert same_weights(weights, weights_of(resumed.policy))


def test_episodes_that_were_running_go_on_after_a_break(schooled: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "settings": PPOSettings(epochs=1, minibatch_size=8, learning_rate=1e-3),
        "rollout": RolloutSettings(n_envs=3, n_steps=9),
    }
    whole = Watcher()
    algorithm = learner(VLMPolicy.from_pretrained(schooled), **options)
    algorithm.learn(updates=4, callbacks=[whole])
    assert not all(t.complete for rollout in whole.rollouts[:3] for t in rollout.trajectories)  # some were cut
    first, second, third = Watcher(interrupt_at=1), Watcher(interrupt_at=2), Watcher()
    started = learner(VLMPolicy.from_pretrained(schooled), **options)
    for watcher, name in ((first, "one"), (second, "two")):
        with pytest.raises(KeyboardInterrupt):
            started.learn(updates=4, callbacks=[watcher])
        folder = started.save(tmp_path / name)
        started = learner(VLMPolicy.from_pretrained(folder), **options)
        started.restore(folder)
        again = started.save(tmp_path / f"{name} again")  # saved before it went on
        assert (again / "algorithm.json").read_text() == (folder / "algorithm.json").read_text()
    started.learn(updates=4, callbacks=[third])
    assert first.metrics + second.metrics + third.metrics == whole.metrics
    assert same_weights(weights_of(algorithm.policy), weights_of(started.policy))
    returns = [[t.episode_return for r in w.rollouts for t in r.trajectories] for w in (whole, third)]
    assert returns[1] == returns[0][-len(returns[1]) :]


@pytest.mark.parametrize("resumed", [False, True])
def test_an_interruption_between_two_steps_goes_back_to_where_the_episodes_were(
    schooled: Path, tmp_path: Path, resumed: bool
) -> None:
    options: dict[str, Any] = {
        "settings": PPOSettings(epochs=1, minibatch_size=8, learning_rate=1e-3),
        "rollout": RolloutSettings(n_envs=3, n_steps=24),
    }

    class Impatient(Watcher):
        def on_progress(self, n: int) -> None:
            super().on_progress(n)
            if len(self.metrics) == 1:  # an episode of the second update has ended, others are running
                raise KeyboardInterrupt

    whole, first, rest = Watcher(), Impatient(), Watcher()
    learner(VLMPolicy.from_pretrained(schooled), **options).learn(updates=3, callbacks=[whole])
    algorithm = learner(VLMPolicy.from_pretrained(schooled), **options)
    with pytest.raises(KeyboardInterrupt):
        algorithm.learn(updates=3, callbacks=[first])
    if resumed:
        folder = algorithm.save(tmp_path / "checkpoint")
        algorithm = learner(VLMPolicy.from_pretrained(folder), **options)
        algorithm.restore(folder)
    algorithm.learn(updates=3, callbacks=[rest])
    assert first.metrics + rest.metrics == whole.metrics


def test_every_update_keeps_the_ratio_and_moves_the_teacher(uninterrupted: Any) -> None:
    _, metrics = uninterrupted
    assert [m["train/ratio_error_first_epoch"] <= 1e-4 for m in metrics] == [True] * 4
    assert [m["teacher/checkpoints"] for m in metrics] == [1, 2, 3, 4]
    assert metrics[0]["guidance/kl"] <= 1e-6  # the first teacher is the start model
    assert all(m["guidance/kl"] > 1e-5 for m in metrics[1:])
    assert all(m["guidance/reward"] == pytest.approx(-5.0 * m["guidance/kl"]) for m in metrics)


def test_a_callback_hears_of_every_phase_and_episode(schooled: Path) -> None:
    watcher = Watcher()
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    algorithm.learn(updates=1, callbacks=[watcher])
    assert watcher.phases == ["collecting", "teacher scoring", "updating"]
    assert watcher.units == 6
    rollout = watcher.rollouts[0]
    assert [t.seed for t in rollout.trajectories][::2] == [t.seed for t in rollout.trajectories][1::2]
    assert len({t.seed for t in rollout.trajectories}) == 3
    assert algorithm.num_timesteps == len(rollout.steps)


def test_every_step_is_scored_by_the_teacher_of_its_time(schooled: Path) -> None:
    watcher = Watcher()
    learner(VLMPolicy.from_pretrained(schooled)).learn(updates=1, callbacks=[watcher])
    for step in watcher.rollouts[0].steps:
        assert step.teacher_log_probs is not None
        assert step.teacher_log_probs == pytest.approx(step.response.log_probs_t1, abs=1e-4)


def test_the_weight_of_the_divergence_follows_the_run(schooled: Path) -> None:
    watcher = Watcher()
    guidance = ReverseKL(beta=4.0, final_beta=0.0, estimator="abs")
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    algorithm.guidance = guidance
    algorithm.learn(updates=4, callbacks=[watcher])
    divergence = [metrics["guidance/kl"] for metrics in watcher.metrics]
    assert all(kl > 0 for kl in divergence[1:])
    betas = [-metrics["guidance/reward"] / kl for metrics, kl in zip(watcher.metrics[1:], divergence[1:], strict=True)]
    assert betas == pytest.approx([3.0, 2.0, 1.0])


def test_a_run_without_guidance_has_a_teacher_that_says_nothing(schooled: Path) -> None:
    algorithm = PPO(
        VLMPolicy.from_pretrained(schooled), easy_env, settings=SETTINGS, rollout=HANDS, teacher=TeacherManager()
    )
    watcher = Watcher()
    algorithm.learn(updates=2, callbacks=[watcher])
    assert "guidance/kl" not in watcher.metrics[0]
    assert watcher.metrics[1]["teacher/checkpoints"] == 2
    assert all(step.guidance_reward == 0 for step in watcher.rollouts[1].steps)
    with algorithm.as_teacher() as teacher:
        assert teacher is algorithm.policy


def test_a_run_without_any_teacher_says_so(schooled: Path) -> None:
    algorithm = PPO(VLMPolicy.from_pretrained(schooled), easy_env, settings=SETTINGS, rollout=HANDS)
    with pytest.raises(ConfigError, match="no teacher"), algorithm.as_teacher():
        pass


def test_the_length_of_a_run_must_be_told(schooled: Path) -> None:
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    with pytest.raises(ConfigError, match="total_timesteps or updates"):
        algorithm.learn()
    with pytest.raises(ConfigError, match="updates="):
        algorithm.learn(total_timesteps=100)


def test_environment_steps_become_updates(schooled: Path) -> None:
    critic = PPOSettings(epochs=1, minibatch_size=8)
    algorithm = learner(
        VLMPolicy.from_pretrained(schooled), settings=critic, rollout=RolloutSettings(n_envs=2, n_steps=4)
    )
    algorithm.learn(total_timesteps=9)
    assert (algorithm.n_updates, algorithm.num_timesteps) == (2, 8)


def test_a_run_that_is_over_does_nothing_more(schooled: Path) -> None:
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    algorithm.learn(updates=1)
    weights = weights_of(algorithm.policy)
    algorithm.learn(updates=1)
    assert same_weights(weights, weights_of(algorithm.policy))


def test_a_checkpoint_replaces_the_one_before_and_leaves_nothing_beside_it(schooled: Path, tmp_path: Path) -> None:
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    algorithm.save(tmp_path / "last")  # before any update: no moments, no teacher
    assert PPO.load(tmp_path / "last", easy_env).n_updates == 0
    algorithm.learn(updates=1)
    algorithm.save(tmp_path / "last")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert json.loads((tmp_path / "last" / "algorithm.json").read_text())["n_updates"] == 1
    assert (tmp_path / "last" / "teacher").is_dir()


def test_a_failed_save_leaves_the_checkpoint_before(
    schooled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    algorithm.save(tmp_path / "last")

    def full_disk() -> dict[str, Any]:
        raise OSError("no space left")

    monkeypatch.setattr(algorithm, "state", full_disk)
    with pytest.raises(OSError, match="no space"):
        algorithm.save(tmp_path / "last")
    assert PPO.load(tmp_path / "last", easy_env).n_updates == 0


def test_a_folder_that_is_no_checkpoint_is_refused(schooled: Path, tmp_path: Path) -> None:
    shutil.copytree(schooled, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"algorithm\.json"):
        PPO.load(tmp_path / "model", easy_env)


def test_predicting_answers_one_observation(schooled: Path) -> None:
    algorithm = learner(VLMPolicy.from_pretrained(schooled))
    env = easy_env()
    observation, _ = env.reset(seed=0)
    action = algorithm.predict(observation)
    assert action == algorithm.predict(observation)
    assert isinstance(algorithm.predict(observation, deterministic=False), str)
    env.step(action)


def test_predicting_shows_what_training_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("paper", max_new_tokens=2)
    shown: list[Prompt] = []
    act = policy.act
    monkeypatch.setattr(policy, "act", lambda prompts, **kwargs: (shown.extend(prompts), act(prompts, **kwargs))[1])
    env = easy_env()
    observation, info = env.reset(seed=0)
    learner(policy).predict(observation, info)
    trained = policy.template.render(observation, info["legal_actions"], env.unwrapped.instructions)
    assert shown[0].text == trained.text
    assert shown[0].legal_actions == tuple(info["legal_actions"])


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_ctrl_c_waits_until_a_protected_block_is_done() -> None:
    done = False

    def protected() -> None:
        nonlocal done
        with signals_held():
            os.kill(os.getpid(), signal.SIGINT)
            done = True

    with pytest.raises(KeyboardInterrupt):
        protected()
    assert done
