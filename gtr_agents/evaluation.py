"""Success on fixed episodes, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from gtr_agents.algorithms.base import MakeEnv, text_env_maker
from gtr_agents.diagnostics import success_by_task_type, trajectory_metrics
from gtr_agents.errors import unknown_name
from gtr_agents.metrics import wilson_interval
from gtr_agents.rollout import RolloutCollector
from gtr_agents.seeding import torch_generator
from gtr_agents.types import Trajectory

if TYPE_CHECKING:
    from gtr_agents.policies.vlm import VLMPolicy
    from gtr_agents.watchdog import Watchdog

Split = Literal["validation", "test"]
"""validation: fixed episodes for choosing settings. test: others, for what is reported; never choose by them."""

TASK_FACTS = ("game", "source", "split", "task_type", "cards")
"""What ``info`` may tell of the task that an episode is about."""
_FIRST_SEEDS: dict[Split, int] = {"validation": 1_000_000, "test": 2_000_000}


def episode_seeds(split: Split, episodes: int) -> range:
    """Reset seeds of a split's first ``episodes`` episodes, the same in every run.

    Raises:
        UnknownNameError: if there is no such split.
    """
    if split not in _FIRST_SEEDS:
        raise unknown_name("split", split, get_args(Split))
    return range(_FIRST_SEEDS[split], _FIRST_SEEDS[split] + episodes)


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation found."""

    metrics: dict[str, float]
    """As :func:`gtr_agents.diagnostics.trajectory_metrics`, and ``success_low`` and ``success_high``."""
    trajectories: list[Trajectory]
    """The episodes, in the order of their seeds."""

    @property
    def success_rate(self) -> float:
        """Share of all episodes that succeeded, in [0, 1]."""
        return self.metrics["success_rate"]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return self.metrics["success_low"], self.metrics["success_high"]

    @property
    def by_task_type(self) -> dict[str, list[int]]:
        """Task type -> episodes won, episodes played; empty where tasks have no types."""
        types = success_by_task_type(self.trajectories)
        return {name: [sum(outcomes), len(outcomes)] for name, outcomes in types.items()}

    def episodes(self) -> list[dict[str, Any]]:
        """One plain record an episode: seed, success, return, steps, and which task it was if the environment says."""
        return [
            {
                "seed": t.seed,
                **{key: t.steps[0].info[key] for key in TASK_FACTS if t.steps and key in t.steps[0].info},
                "success": t.success,
                "return": t.episode_return,
                "steps": len(t.steps),
            }
            for t in self.trajectories
        ]


class Evaluator:
    """Plays the same fixed episodes again and again, with whatever policy it is given.

    Args:
        env: id of a registered environment, or a function that makes one with text actions.
        episodes: how many fixed episodes.
        env_kwargs: arguments for ``gymnasium.make`` when ``env`` is an id.
        n_envs: episodes played at once.
        split: which fixed episodes: test for what is reported, validation for choosing settings.
        seed: seed of the policy's sampling noise, the same for every policy.
        watchdog: ends what hangs; None lets it.
    """

    def __init__(
        self,
        env: str | MakeEnv,
        *,
        episodes: int = 500,
        env_kwargs: Mapping[str, Any] | None = None,
        n_envs: int = 250,
        split: Split = "test",
        seed: int = 0,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.watchdog = watchdog
        self.make_env = text_env_maker(env, env_kwargs)
        self.seeds: Sequence[int] = episode_seeds(split, episodes)
        self.n_envs = min(n_envs, episodes)
        self.seed = seed
        self._collector: RolloutCollector | None = None

    def __call__(
        self,
        policy: VLMPolicy,
        *,
        greedy: bool = False,
        episodes: int | None = None,
        on_episode: Callable[[Trajectory], None] | None = None,
    ) -> EvaluationResult:
        """Play the episodes.

        Args:
            policy: who plays, at its own temperature.
            greedy: True takes the likeliest token instead of sampling.
            episodes: play only the first so many.
            on_episode: called with each finished episode.

        Returns:
            Metrics and episodes.
        """
        if self._collector is None:
            self._collector = RolloutCollector(self.make_env, self.n_envs, watchdog=self.watchdog)
        generator = None if greedy else torch_generator(self.seed, "evaluation")
        rollout = self._collector.play_episodes(
            policy, list(self.seeds[:episodes]), generator=generator, on_episode=on_episode
        )
        metrics = trajectory_metrics(rollout.trajectories)
        successes = sum(t.success for t in rollout.trajectories)
        metrics["success_low"], metrics["success_high"] = wilson_interval(successes, len(rollout.trajectories))
        return EvaluationResult(metrics, rollout.trajectories)


def evaluate(
    policy: VLMPolicy,
    env: str | MakeEnv,
    *,
    episodes: int = 500,
    greedy: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
    split: Split = "test",
    seed: int = 0,
) -> EvaluationResult:
    """Measure the success of a policy on fixed episodes; arguments as for :class:`Evaluator`."""
    return Evaluator(env, episodes=episodes, env_kwargs=env_kwargs, split=split, seed=seed)(policy, greedy=greedy)


def replay_frames(make_env: MakeEnv, trajectory: Trajectory) -> tuple[list[Any], list[str | None], list[str]]:
    """Play the actions of an episode again, for pictures.

    Args:
        make_env: makes an environment with ``render_mode="rgb_array"``.
        trajectory: an episode played from its seed.

    Returns:
        One frame before each action and one at the end; the expert's action and the text observation before
        each action.
    """
    env = make_env()
    observation, _ = env.reset(seed=trajectory.seed)
    frames, expert, texts = [env.render()], [], []
    for step in trajectory.steps:
        advise = getattr(env.unwrapped, "expert_action", None)
        expert.append(advise() if advise is not None else None)
        texts.append(str(observation["text"]))
        observation, *_ = env.step(step.response.answer.action or "")
        frames.append(env.render())
    env.close()
    return frames, expert, texts
