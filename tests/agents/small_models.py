"""Models, environments and actors small enough to be built in every test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import gtr_envs  # noqa: F401 - registers the environments
from gtr_agents.policies.tiny import build_tiny_vlm
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.prompts import PromptTemplate, get_template
from gtr_agents.seeding import torch_generator
from gtr_agents.types import Answer, Prompt, Response, Rollout, Step, Trajectory
from gtr_envs.wrappers import TextAction

SIZES = {"hidden_size": 64, "layers": 2, "heads": 2, "ff_size": 128, "vision_layers": 1}
"""Arguments of ``build_tiny_vlm`` for a model that does everything at once and nothing well."""


def tiny_policy(template: str = "compact", *, seed: int = 0, **options: Any) -> VLMPolicy:
    """A fresh policy with random weights."""
    model, processor = build_tiny_vlm(template, seed=seed, **SIZES)
    settings = {"template": template, "temperature": 0.7, "max_new_tokens": 12, "value_widths": (32, 16)}
    return VLMPolicy(model, processor, **(settings | options))


def fit_critic_badly(policy: VLMPolicy, seed: int = 5) -> None:
    """Give the value head values other than 0, which it starts with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        last = policy.value_head.net[-1]
        last.weight.normal_(0.0, 0.5, generator=generator)
        last.bias.fill_(0.3)


def text_env(env_id: str = "Points24-v0", **kwargs: Any) -> gym.Env[Any, Any]:
    """An environment with small pictures that takes action texts."""
    return TextAction(gym.make(env_id, **({"image_size": 96} | kwargs)))


def prompts_of(template: str = "compact", n: int = 4, env_id: str = "Points24-v0") -> list[Prompt]:
    """Prompts of different hands after 0, 1, 2, 0, ... actions, so that their lengths differ."""
    env = text_env(env_id)
    prompts = []
    for seed in range(n):
        observation, info = env.reset(seed=seed)
        for _ in range(seed % 3):
            observation, _, _, _, info = env.step(info["legal_actions"][0])
        prompts.append(get_template(template).render(observation, info["legal_actions"], env.unwrapped.instructions))
    env.close()
    return prompts


def generator(seed: int = 0) -> torch.Generator:
    return torch_generator(seed, "test")


def weights_of(policy: VLMPolicy) -> dict[str, torch.Tensor]:
    """Copies of every weight of model and value head."""
    own = {f"model.{name}": p for name, p in policy.model.named_parameters()}
    head = {f"head.{name}": p for name, p in policy.value_head.named_parameters()}
    return {name: p.detach().clone() for name, p in (own | head).items()}


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """True if both hold the same tensors, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def answered(policy: VLMPolicy, prompts: Sequence[Prompt], seed: int = 0) -> list[Response]:
    return policy.act(prompts, generator=generator(seed))


def random_rollout(policy: VLMPolicy, n: int = 16, template: str = "compact", seed: int = 0) -> Rollout:
    """Answers of the policy with rewards that have nothing to do with them; two steps an episode."""
    rng = np.random.default_rng(seed)
    prompts = prompts_of(template, n)
    responses = answered(policy, prompts, seed)
    steps = [
        Step(prompt, response, float(rng.normal()), terminated=i % 2 == 1, truncated=False)
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    pairs = [steps[i : i + 2] for i in range(0, n, 2)]
    return Rollout([Trajectory(pair, 0.0, seed=i // 2) for i, pair in enumerate(pairs)], 1.0)


class CountingEnv(gym.Env[Any, Any]):
    """Counts "up" to a goal. The text is the count; "stop" terminates, after ``limit`` steps it is truncated."""

    instructions = "Count."

    def __init__(self, goal: int = 3, limit: int = 5) -> None:
        self.goal, self.limit = goal, limit
        self.count = self.age = 0

    def _observe(self) -> dict[str, Any]:
        image = np.full((96, 96, 3), 40 * self.count % 256, np.uint8)
        return {"image": image, "text": str(self.count)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.count = self.age = 0
        return self._observe(), {"legal_actions": ["up", "stop"], "solvable": (seed or 0) % 2 == 0, "numbers": [0]}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        self.count += action == "up"
        legal = action in ("up", "stop")
        terminated, truncated = action == "stop", self.age >= self.limit
        info: dict[str, Any] = {"legal_actions": ["up", "stop"], "legal": legal, "numbers": [self.count]}
        if terminated or truncated:
            info["success"] = terminated and self.count == self.goal
        reward = 10.0 * info.get("success", False) if legal else -1.0
        return self._observe(), reward, terminated, truncated and not terminated, info


class ScriptedActor:
    """Answers and values states by rules over the text observation, and remembers every prompt."""

    template = PromptTemplate("plain", "$instructions|$observation|$legal_actions", ())

    def __init__(
        self, rule: Callable[[str], str | None], value: Callable[[str], float] = lambda text: float(text) + 0.5
    ) -> None:
        self.rule = rule
        self.value = value
        self.seen: list[Prompt] = []
        self.valued: list[Prompt] = []

    def act(self, prompts: Sequence[Prompt], *, generator: torch.Generator | None = None) -> list[Response]:
        del generator
        self.seen += prompts
        return [self._respond(prompt) for prompt in prompts]

    def predict_values(self, prompts: Sequence[Prompt]) -> list[float]:
        self.valued += prompts
        return [self.value(prompt.text.split("|")[1]) for prompt in prompts]

    def _respond(self, prompt: Prompt) -> Response:
        action = self.rule(prompt.text.split("|")[1])
        answer = Answer(action=action, valid_format=True) if action is not None else Answer(error="unreadable")
        ids = np.array([1, 2], np.int64)
        half = np.array([-0.5, -0.25], np.float32)
        return Response(action or "", answer, ids, ids, half, half, np.array([True, False]), value=0.0)
