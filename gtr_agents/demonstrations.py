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

    The environment must offer ``expert_thought()``: what an expert reads, plans, says and does now (see
    ``gtr_envs.cards.thoughts.Thought``). If it also offers ``plan(rng, mistaken)``, the actions from here to the end,
    the episode follows that; when ``mistaken``, it is a well-formed way that is chosen blindly and almost always fails.
    An imperfect demonstrator is realistic, and leaves reinforcement learning something to improve.

    Args:
        make_env: makes one environment that takes action strings.
        template: format of prompt and answer.
        rng: source of tasks, plans and order.
        mistake_rate: share of episodes that follow a mistaken plan, in [0, 1].
        buffer: demonstrations that are shuffled together.

    Yields:
        Demonstrations; their thought is the plan or its words, as the template says.

    Raises:
        ConfigError: if the environment has no expert, or no plan to make mistakes in.
    """
    env = make_env()
    name = env.spec.id if env.spec else env
    if not hasattr(env.unwrapped, "expert_thought"):
        raise ConfigError(f"{name} has no expert_thought(): it cannot demonstrate.")
    if mistake_rate and not hasattr(env.unwrapped, "plan"):
        raise ConfigError(f"{name} has no plan() to make mistakes in; set mistake_rate to 0.")
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

    A plan is made in the first state; later ones mostly copy it. Showing all of them would spend most of the training
    on copying.
    """
    states = list(_expert_states(env, template, rng, mistake_rate))
    if states:
        later = rng.choice(np.arange(1, len(states)), size=min(LATER_STATES, len(states) - 1), replace=False)
        yield from (states[t] for t in sorted({0, *later.tolist()}))


def _expert_states(
    env: gym.Env[Any, Any], template: PromptTemplate, rng: np.random.Generator, mistake_rate: float
) -> Iterator[Demonstration]:
    """Play one expert episode to its end; yield every state with the expert's answer to it."""
    expert: Any = env.unwrapped
    observation, info = env.reset(seed=int(rng.integers(2**31)))
    mistaken = bool(rng.random() < mistake_rate)
    plan = expert.plan(rng=rng, mistaken=mistaken) if hasattr(expert, "plan") else None
    over = False
    while not over:
        thought = expert.expert_thought() if plan is None else expert.expert_thought(plan)
        if thought.action is None:
            return
        values = {
            "cards": list(thought.numbers),
            "formula": thought.formula,
            "thoughts": (template.thought == "plan" and thought.plan) or thought.words,
            "action": thought.action,
        }
        prompt = template.render(observation, info["legal_actions"], expert.instructions)
        yield Demonstration(prompt, template.write_answer(values))
        plan = plan and plan[1:]
        observation, _, terminated, truncated, info = env.step(thought.action)
        over = terminated or truncated
