"""Demonstrations: what an expert would answer in every state of an episode, with mistakes on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from gtr_agents.errors import ConfigError
from gtr_agents.prompts import PromptTemplate
from gtr_agents.types import Prompt

BUFFER = 2048
"""Demonstrations that are shuffled together, if so many are needed."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One state and the answer to imitate there."""

    prompt: Prompt
    """What the model will be shown."""
    answer: str
    """What it should write."""


def demonstrations(
    make_env: Callable[[], gym.Env[Any, Any]],
    template: PromptTemplate,
    rng: np.random.Generator,
    *,
    mistake_rate: float = 0.0,
    later_states: int = 3,
    slip_rate: float = 0.0,
    buffer: int = BUFFER,
) -> Iterator[Demonstration]:
    """Yield demonstrations from an endless stream of expert episodes, shuffled through a buffer.

    The environment must offer ``demonstrate(rng, mistaken=...)``, an iterator over what a demonstrator reads, plans,
    says and does in each state (see ``gtr_envs.cards.thoughts.Thought``), or ``expert_thought()``, the same for the
    present state. A ``mistaken`` demonstrator follows a well-formed way that almost always fails: an imperfect
    demonstrator is realistic, and leaves reinforcement learning something to improve.

    Args:
        make_env: makes one environment that takes action strings.
        template: format of prompt and answer.
        rng: source of tasks, plans and order.
        mistake_rate: share of episodes whose demonstrator is mistaken, in [0, 1].
        later_states: how many states after the first one are taken from an episode. Where the first one decides the
            plan and later ones mostly copy it, all of them would spend most of the training on copying.
        slip_rate: share of steps at which something else is played than what is demonstrated: an action that was legal
            at some time of the episode. It shows how to go on where one's own mistakes lead, which a perfect
            demonstrator never sees; in [0, 1].
        buffer: demonstrations that are shuffled together.

    Yields:
        Demonstrations; their thought is the plan or its words, as the template says.

    Raises:
        ConfigError: if the environment has no expert, or none that makes mistakes.
    """
    env = make_env()
    name = env.spec.id if env.spec else env
    if not hasattr(env.unwrapped, "expert_thought"):
        raise ConfigError(f"{name} has no expert_thought(): it cannot demonstrate.")
    if mistake_rate and not hasattr(env.unwrapped, "demonstrate"):
        raise ConfigError(f"{name} has no demonstrate() that makes mistakes; set mistake_rate to 0.")
    pool: list[Demonstration] = []
    while True:
        states = list(_expert_states(env, template, rng, mistake_rate, slip_rate))
        if states:
            later = rng.choice(np.arange(1, len(states)), size=min(later_states, len(states) - 1), replace=False)
            pool.extend(states[t] for t in sorted({0, *later.tolist()}))
        while len(pool) >= buffer:
            index = int(rng.integers(len(pool)))
            pool[index], pool[-1] = pool[-1], pool[index]
            yield pool.pop()


def _expert_states(
    env: gym.Env[Any, Any],
    template: PromptTemplate,
    rng: np.random.Generator,
    mistake_rate: float,
    slip_rate: float,
) -> Iterator[Demonstration]:
    """Play one expert episode to its end; yield every state with the expert's answer to it."""
    expert: Any = env.unwrapped
    observation, info = env.reset(seed=int(rng.integers(2**31)))
    mistaken = bool(rng.random() < mistake_rate)
    thoughts = expert.demonstrate(rng, mistaken=mistaken) if hasattr(expert, "demonstrate") else _thoughts(expert)
    seen: dict[str, None] = {}
    for thought in thoughts:
        prompt = template.render(observation, info["legal_actions"], expert.instructions)
        yield Demonstration(prompt, template.write_thought(thought))
        seen |= dict.fromkeys(info["legal_actions"])
        slips = slip_rate > 0 and rng.random() < slip_rate
        action = list(seen)[int(rng.integers(len(seen)))] if slips else thought.action
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return


def _thoughts(expert: Any) -> Iterator[Any]:
    """What the expert of an environment without demonstrations of its own thinks in one state after the other."""
    while (thought := expert.expert_thought()).action is not None:
        yield thought
