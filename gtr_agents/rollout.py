"""Playing episodes with a policy: environments in slots, one batch of prompts per step."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import gymnasium as gym

from gtr_agents.errors import CheckpointError, ConfigError, EnvironmentFailedError, HangError
from gtr_agents.types import Prompt, Response, Rollout, Step, Trajectory
from gtr_agents.watchdog import Limits, Watchdog

if TYPE_CHECKING:
    import torch

    from gtr_agents.prompts import PromptTemplate

_BULKY = ("legal_actions", "action_mask")
Noise: TypeAlias = "torch.Generator | Sequence[torch.Generator] | None"
"""Source of a batch's randomness, or one for each prompt; None for greedy answers."""
NoiseOf: TypeAlias = "Callable[[int], torch.Generator]"
"""From the reset seed of an episode to a source of randomness of its own."""


class Actor(Protocol):
    """What the collector needs of a policy."""

    template: PromptTemplate

    def act(self, prompts: Sequence[Prompt], *, generator: Noise = None) -> list[Response]:
        """Answer a batch of prompts."""

    def predict_values(self, prompts: Sequence[Prompt]) -> Sequence[float]:
        """Predict the values of states."""


@dataclass(slots=True)
class _Slot:
    """One environment and the episode it is in."""

    index: int
    env: gym.Env[Any, Any]
    trajectory: Trajectory | None = None
    prompt: Prompt | None = None
    info: dict[str, Any] = field(default_factory=dict)
    noise: torch.Generator | None = None
    """The episode's own randomness, if it has any."""
    actions: list[str] = field(default_factory=list)
    """What was done since the reset: with the seed, it leads back to the same state."""


class RolloutCollector:
    """Plays text-action environments with a policy, many at once.

    Environments are stepped one by one and not through a Gymnasium vector environment: whole episodes of a group need
    slots that can stand idle while others finish, which autoreset (on or off) does not offer.

    Args:
        make_env: makes one environment that takes action strings (see ``gtr_envs.wrappers.TextAction``).
        n_envs: how many episodes are played at once.
        format_reward: reward for a well-formed answer, and for another one (the paper's presets: 3, -2).
        ask_expert: True notes in every step what the environment's expert would have answered.
        watchdog: ends what hangs; None lets it.

    Raises:
        ConfigError: if the expert is to be asked and the environment has none.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        n_envs: int,
        format_reward: tuple[float, float] = (0.0, 0.0),
        *,
        ask_expert: bool = False,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.watchdog = watchdog or Watchdog(Limits(step_s=0, answer_s=0))
        self.format_reward = format_reward
        self.ask_expert = ask_expert
        self._slots = [_Slot(index, make_env()) for index in range(n_envs)]
        first = self._slots[0].env
        self.instructions: str = getattr(first.unwrapped, "instructions", "")
        if ask_expert and not hasattr(first.unwrapped, "expert_thought"):
            raise ConfigError(
                f"{first.spec.id if first.spec else first} has no expert_thought(): no oracle can teach it."
            )

    def play_episodes(
        self,
        policy: Actor,
        seeds: Sequence[int],
        *,
        generator: torch.Generator | NoiseOf | None = None,
        on_episode: Callable[[Trajectory], None] | None = None,
    ) -> Rollout:
        """Play one whole episode per seed.

        Episodes that were running before are dropped.

        Args:
            policy: who plays.
            seeds: reset seeds; equal seeds are equal tasks.
            generator: source of the policy's randomness, for all or, as a function of the reset seed, for each episode
                its own; None plays greedily.
            on_episode: called with each finished episode.

        Returns:
            The episodes in the order of ``seeds``.
        """
        started = time.perf_counter()
        waiting = iter(range(len(seeds)))
        order: dict[int, int] = {}
        done: list[Trajectory | None] = [None] * len(seeds)
        for slot in self._slots:
            slot.trajectory = None
        while True:
            for slot in self._slots:
                if slot.trajectory is None and (episode := next(waiting, None)) is not None:
                    order[slot.index] = episode
                    self._reset(slot, policy, seeds[episode])
                    slot.noise = generator(seeds[episode]) if callable(generator) else None
            active = [slot for slot in self._slots if slot.trajectory is not None]
            if not active:
                break
            noise: Noise = [s.noise for s in active if s.noise is not None] if callable(generator) else generator
            for slot, finished in self._act(active, policy, noise):
                done[order[slot.index]] = finished
                if on_episode is not None:
                    on_episode(finished)
        return Rollout([t for t in done if t is not None], time.perf_counter() - started)

    def play_steps(
        self,
        policy: Actor,
        n_steps: int,
        seeds: Iterator[int],
        *,
        generator: torch.Generator | None = None,
        on_episode: Callable[[Trajectory], None] | None = None,
    ) -> Rollout:
        """Play at least ``n_steps`` steps; episodes that are running at the end go on in the next call.

        Args:
            policy: who plays.
            n_steps: number of steps, rounded up to a multiple of the number of environments.
            seeds: reset seeds of the episodes to come.
            generator: source of the policy's randomness; None plays greedily.
            on_episode: called with each finished episode.

        Returns:
            Finished episodes and the parts of running ones, each with its bootstrap value.
        """
        started = time.perf_counter()
        trajectories: list[Trajectory] = []
        for _ in range(-(-n_steps // len(self._slots))):
            for slot in self._slots:
                if slot.trajectory is None:
                    self._reset(slot, policy, next(seeds))
            for _slot, finished in self._act(self._slots, policy, generator):
                trajectories.append(finished)
                if on_episode is not None:
                    on_episode(finished)
        running = [slot for slot in self._slots if slot.trajectory is not None and slot.trajectory.steps]
        values = self._values(policy, running)
        for slot, value in zip(running, values, strict=True):
            part = slot.trajectory
            assert part is not None
            part.bootstrap_value, part.complete = float(value), False
            trajectories.append(part)
            slot.trajectory = Trajectory(
                [], 0.0, part.seed, slot.index, solvable=part.solvable, earlier_return=part.episode_return
            )
        return Rollout(trajectories, time.perf_counter() - started)

    def running(self) -> list[dict[str, Any] | None]:
        """Describe the running episodes, for a checkpoint between two calls of :meth:`play_steps`.

        Returns:
            What :meth:`resume` needs, as JSON holds it, one entry per environment; None where no episode is running.
        """
        episodes: list[dict[str, Any] | None] = []
        for slot in self._slots:
            part, prompt = slot.trajectory, slot.prompt
            if part is None or prompt is None:
                episodes.append(None)
                continue
            episodes.append(
                {
                    "seed": part.seed,
                    "actions": list(slot.actions),
                    "earlier_return": part.earlier_return,
                    "prompt": _digest(prompt),
                }
            )
        return episodes

    def resume(self, policy: Actor, episodes: Sequence[Mapping[str, Any] | None]) -> None:
        """Bring the environments back to where they were, by the same seeds and actions.

        Args:
            policy: whose prompts were shown.
            episodes: what :meth:`running` returned.

        Raises:
            CheckpointError: if an environment does not come back to the same state.
        """
        for slot, episode in zip(self._slots, episodes, strict=True):
            if episode is None:
                continue
            self._reset(slot, policy, episode["seed"])
            ended = False
            for action in episode["actions"]:
                observation, _, terminated, truncated, info = slot.env.step(action)
                ended = ended or terminated or truncated
                self._see(slot, policy, observation, info)
            assert slot.trajectory is not None
            assert slot.prompt is not None
            if ended or _digest(slot.prompt) != episode["prompt"]:
                raise CheckpointError(
                    f"Environment {slot.index} (seed {episode['seed']}) did not come back to its state after "
                    f"{len(episode['actions'])} actions: reset(seed=...) and the same actions must lead to the same "
                    "observation. Was the environment, or its version, changed since the checkpoint?"
                )
            slot.actions = list(episode["actions"])
            slot.trajectory.earlier_return = episode["earlier_return"]

    def close(self) -> None:
        """Close all environments."""
        for slot in self._slots:
            slot.env.close()

    def _reset(self, slot: _Slot, policy: Actor, seed: int) -> None:
        slot.actions = []
        with self._guarded(slot, seed, f"reset(seed={seed})"):
            observation, info = slot.env.reset(seed=seed)
        slot.trajectory = Trajectory([], 0.0, seed, slot.index, solvable=info.get("solvable"))
        self._see(slot, policy, observation, info)

    def _see(self, slot: _Slot, policy: Actor, observation: dict[str, Any], info: dict[str, Any]) -> None:
        slot.info = {key: value for key, value in info.items() if key not in _BULKY}
        slot.prompt = policy.template.render(observation, info.get("legal_actions", ()), self.instructions)

    def _act(self, slots: Sequence[_Slot], policy: Actor, generator: Noise) -> list[tuple[_Slot, Trajectory]]:
        """Play one step in every slot; returns the episodes that ended."""
        prompts = [slot.prompt for slot in slots if slot.prompt is not None]
        finished = []
        with self.watchdog.watch(f"The model, answering {len(prompts)} prompts,", self.watchdog.limits.answer_s):
            responses = policy.act(prompts, generator=generator)
        for slot, prompt, response in zip(slots, prompts, responses, strict=True):
            assert slot.trajectory is not None
            if response.failure:
                slot.trajectory.complete, slot.trajectory.failure = False, response.failure
                finished.append((slot, slot.trajectory))
                slot.trajectory = None
                continue
            finding = _audited(slot.env, response)
            expert_answer = _expert_answer(slot.env, policy.template) if self.ask_expert else None
            # An unreadable answer is an illegal action with the environment's own penalty, never a random one.
            action = response.answer.action or ""
            with self._guarded(slot, slot.trajectory.seed, f"step({action!r})"):
                observation, reward, terminated, truncated, info = slot.env.step(action)
            slot.actions.append(action)
            slot.trajectory.steps.append(
                Step(
                    prompt=prompt,
                    response=response,
                    reward=float(reward),
                    terminated=terminated,
                    truncated=truncated,
                    legal=bool(info.get("legal", True)),
                    format_reward=self.format_reward[0 if response.answer.valid_format else 1],
                    expert_answer=expert_answer,
                    finding=finding,
                    info=slot.info,
                )
            )
            self._see(slot, policy, observation, info)
            if terminated or truncated:
                slot.trajectory.success = bool(info.get("success", False))
                finished.append((slot, slot.trajectory))
                slot.trajectory = None
        cut = [(slot, t) for slot, t in finished if t.complete and not t.steps[-1].terminated]
        for (_, trajectory), value in zip(cut, self._values(policy, [slot for slot, _ in cut]), strict=True):
            trajectory.bootstrap_value = float(value)
        return finished

    def _values(self, policy: Actor, slots: Sequence[_Slot]) -> Sequence[float]:
        """Values of the states that some slots are in."""
        prompts = [slot.prompt for slot in slots if slot.prompt is not None]
        if not prompts:
            return []
        with self.watchdog.watch(f"The model, valuing {len(prompts)} states,", self.watchdog.limits.answer_s):
            return policy.predict_values(prompts)

    @contextlib.contextmanager
    def _guarded(self, slot: _Slot, seed: int, call: str) -> Iterator[None]:
        """Name the environment, and how to bring it there again, when it hangs or breaks."""
        where = f"Environment {slot.index}, {call}"
        after = f"after reset(seed={seed}) and the actions {slot.actions}"
        try:
            with self.watchdog.watch(f"{where} {after}", self.watchdog.limits.step_s):
                yield
        except HangError:
            raise
        except Exception as error:
            raise EnvironmentFailedError(f"{where} failed {after}: {type(error).__name__}: {error}") from error


def _digest(prompt: Prompt) -> str:
    """Fingerprint of what a policy is shown."""
    return hashlib.sha256(prompt.text.encode() + prompt.image.tobytes()).hexdigest()


def _expert_answer(env: gym.Env[Any, Any], template: PromptTemplate) -> str | None:
    """What the environment's expert would answer in its present state; None if there is no way to win any more."""
    thought = env.unwrapped.expert_thought()  # type: ignore[attr-defined]
    return None if thought.action is None else template.write_thought(thought)


def _audited(env: gym.Env[Any, Any], response: Response) -> StrEnum | None:
    """What the environment says about an answer to its present state, if it can judge thoughts."""
    audit = getattr(env.unwrapped, "audit", None)
    if audit is None:
        return None
    answer = response.answer
    stated = {name: answer.fields.get(name) for name in ("cards", "formula")}
    finding: StrEnum = audit(answer.thought, answer.action, **stated)
    return finding
