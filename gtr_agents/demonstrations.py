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

LATER_STATES = 3
"""How many states after the first one are demonstrated per episode."""


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
    buffer: int = 2048,
) -> Iterator[Demonstration]:
    """Yield demonstrations from an endless stream of expert episodes, shuffled through a buffer.

    The environment must offer ``plan(rng, mistaken)``: the actions from here to the end, a winning way if there is one;
    when ``mistaken``, a well-formed way that is chosen blindly (it almost always fails). An imperfect demonstrator is
    realistic, and leaves reinforcement learning something to improve.

    Args:
        make_env: makes one environment that takes action strings.
        template: format of prompt and answer.
        rng: source of tasks, plans and order.
        mistake_rate: share of episodes that follow a mistaken plan, in [0, 1].
        buffer: demonstrations that are shuffled together.

    Yields:
        Demonstrations; their thought is the whole plan.

    Raises:
        ConfigError: if the environment has no expert.
    """
    env = make_env()
    if not hasattr(env.unwrapped, "plan"):
        raise ConfigError(f"{env.spec.id if env.spec else env} has no plan(): it cannot demonstrate.")
    pool: list[Demonstration] = []
    while True:
        pool.extend(_episode(env, template, rng, mistake_rate))
        while len(pool) >= buffer:
            index = int(rng.integers(len(pool)))
            pool[index], pool[-1] = pool[-1], pool[index]
            yield pool.pop()


def _episode(
    env: gym.Env[Any, Any], template: PromptTemplate, rng: np.random.Generator, mistake_rate: float
) -> Iterator[Demonstration]:
    """Play one expert episode; yield what the expert would answer at its start and in a few later states.

    The whole plan is made in the first state; later ones mostly copy it. Showing all of them would spend most of the
    training on copying.
    """
    expert: Any = env.unwrapped
    observation, info = env.reset(seed=int(rng.integers(2**31)))
    plan = expert.plan(rng=rng, mistaken=bool(rng.random() < mistake_rate))
    later = rng.choice(np.arange(1, len(plan)), size=min(LATER_STATES, len(plan) - 1), replace=False)
    shown = {0, *later.tolist()}
    for t, action in enumerate(plan):
        if t in shown:
            values = {
                "cards": info.get("numbers"),
                "formula": observation["text"],
                "thoughts": "".join(plan),
                "action": action,
            }
            prompt = template.render(observation, info["legal_actions"], expert.instructions)
            yield Demonstration(prompt, template.write_answer(values))
        if t >= max(shown):
            return
        observation, _, _, _, info = env.step(action)
