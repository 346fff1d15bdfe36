"""A training loop in the manner of the public reference code, as something to be compared with.

The public code of RL4VLM, and of GTR after it, plays one environment. A step makes the model's inputs, samples an
answer with ``generate`` at batch size 1, and then passes prompt and answer through the model once more for the value
and the log-probabilities. An update goes through the samples one by one, makes their inputs again, and accumulates
gradients. This is that order of work in our own words, on our model, prompts, parser and losses.

One thing is left out in its favour: the public code pads every answer to twice the largest length before it scores it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from transformers import BatchFeature

from gtr_agents.advantages import normalise, trajectory_advantages
from gtr_agents.algorithms.ppo import PPOSettings
from gtr_agents.losses import clipped_policy_loss, clipped_value_loss, turn_log_prob
from gtr_agents.parsing import parse_answer
from gtr_agents.policies.inputs import chat_messages
from gtr_agents.policies.sampling import policy_log_probs
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.types import Prompt, Response, Step, Trajectory

FORMAT_REWARD = (3.0, -2.0)


@dataclass(slots=True)
class _Play:
    """The episode that is being played."""

    prompt: Prompt
    trajectory: Trajectory


class ReferenceLoop:
    """One environment, one answer at a time.

    Args:
        policy: whose model, processor, value head, template and temperature are used; trained in place.
        env: takes action strings.
        settings: gamma, lambda, clip range, minibatch (samples whose gradients are accumulated) and learning rate.
        seeds: of the episodes.
        seed: of the sampling.
    """

    def __init__(
        self, policy: VLMPolicy, env: gym.Env[Any, Any], settings: PPOSettings, seeds: Iterator[int], seed: int = 0
    ) -> None:
        self.policy = policy
        self.env = env
        self.settings = settings
        self.seeds = seeds
        self.suppressed: list[int] = policy.banned.nonzero().flatten().tolist()
        self.instructions: str = getattr(env.unwrapped, "instructions", "")
        self.optimizer = torch.optim.Adam(
            policy.trainable_parameters(), lr=settings.learning_rate, eps=settings.adam_eps, betas=settings.adam_betas
        )
        self.accumulated = 0
        self._play: _Play | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._state = torch.random.get_rng_state()

    # --- playing ------------------------------------------------------------------------------------------------------

    def collect(self, n_steps: int) -> list[Trajectory]:
        """Play ``n_steps`` steps; the episode that runs at the end goes on in the next call."""
        parts: list[Trajectory] = []
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # generate() knows the global generator only
            torch.random.set_rng_state(self._state)
            for _ in range(n_steps):
                play = self._play or self._reset()
                self._play = play if not self._step(play) else None
                if self._play is None:
                    parts.append(play.trajectory)
            self._state = torch.random.get_rng_state()
            if self._play is not None and self._play.trajectory.steps:
                cut = self._play.trajectory
                cut.bootstrap_value = self.value(self._play.prompt)
                parts.append(cut)
                self._play.trajectory = Trajectory([], 0.0, cut.seed)
        return parts

    def _reset(self) -> _Play:
        seed = next(self.seeds)
        observation, info = self.env.reset(seed=seed)
        return _Play(self._prompt(observation, info), Trajectory([], 0.0, seed))

    def _prompt(self, observation: dict[str, Any], info: dict[str, Any]) -> Prompt:
        return self.policy.template.render(observation, info.get("legal_actions", ()), self.instructions)

    def _step(self, play: _Play) -> bool:
        """Play one step of the episode; True if it was the last."""
        prompt, response = play.prompt, self.act(play.prompt)
        observation, reward, terminated, truncated, info = self.env.step(response.answer.action or "")
        play.trajectory.steps.append(
            Step(
                prompt=prompt,
                response=response,
                reward=float(reward),
                terminated=terminated,
                truncated=truncated,
                legal=bool(info.get("legal", True)),
                format_reward=FORMAT_REWARD[0 if response.answer.valid_format else 1],
            )
        )
        play.prompt = self._prompt(observation, info)
        if truncated and not terminated:
            play.trajectory.bootstrap_value = self.value(play.prompt)
        return bool(terminated or truncated)

    def act(self, prompt: Prompt) -> Response:
        """Sample an answer, then score it in a second pass."""
        policy = self.policy
        inputs = self.inputs(prompt)
        n_prompt = inputs["input_ids"].shape[1]
        output = policy.model.generate(
            **inputs,
            do_sample=True,
            temperature=policy.temperature,
            top_k=0,
            max_new_tokens=policy.max_new_tokens,
            suppress_tokens=self.suppressed,
            eos_token_id=policy.eos_id,
            pad_token_id=policy.pad_id,
            output_scores=True,
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
        ids = output.sequences[0, n_prompt:]
        log_probs, value = self.score(prompt, ids)
        text = policy.tokenizer.batch_decode([ids], skip_special_tokens=True)[0]
        template = policy.template
        answer = parse_answer(
            text, template.required_keys, thought_key=template.thought_key, action_key=template.action_key
        )
        return Response(
            text=text,
            answer=answer,
            prompt_ids=inputs["input_ids"][0].numpy(),
            token_ids=ids.numpy(),
            log_probs=log_probs.numpy(),
            log_probs_t1=log_probs.numpy(),
            thought_mask=policy.thought_mask(ids.tolist(), text, answer),
            value=float(value),
            entropy=0.0,
            truncated=int(ids[-1]) != policy.eos_id,
        )

    def inputs(self, prompt: Prompt) -> BatchFeature:
        """Template, tokens and picture of one prompt; nothing is kept."""
        text = self.policy.processor.apply_chat_template(
            chat_messages(prompt), tokenize=False, add_generation_prompt=True
        )
        made: BatchFeature = self.policy.processor(text=[text], images=[[prompt.image]], return_tensors="pt")
        return made

    def score(self, prompt: Prompt, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass prompt and answer [T] through the model: log-probs at the sampling temperature [T], and the value."""
        inputs = dict(self.inputs(prompt))
        n_prompt = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids[None]], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        output = self.policy.model(**inputs, use_cache=False, output_hidden_states=True)
        scores = policy_log_probs(output.logits[0, n_prompt - 1 : -1], self.policy.banned, self.policy.temperature)
        value = self.policy.value_head(output.hidden_states[-1][:, n_prompt - 1])
        return scores.gather(-1, ids[:, None]).squeeze(-1), value[0]

    def value(self, prompt: Prompt) -> float:
        """The value of a state, in a pass of its own."""
        output = self.policy.model(**self.inputs(prompt), output_hidden_states=True)
        return float(self.policy.value_head(output.hidden_states[-1][:, -1])[0])

    # --- training -----------------------------------------------------------------------------------------------------

    def update(self, trajectories: list[Trajectory]) -> None:
        """Go through the samples once, one by one; an optimizer step after every ``minibatch_size`` of them."""
        s = self.settings
        pairs = [trajectory_advantages(t, gamma=s.gamma, lam=s.lam) for t in trajectories]
        advantages = normalise(torch.cat([torch.from_numpy(a) for a, _ in pairs]).numpy())
        returns = torch.cat([torch.from_numpy(r) for _, r in pairs]).tolist()
        steps = [step for t in trajectories for step in t.steps]
        for i in torch.randperm(len(steps), generator=torch.Generator().manual_seed(0)).tolist():
            (self.loss(steps[i], float(advantages[i]), returns[i]) / s.minibatch_size).backward()
            self.accumulated += 1
            if self.accumulated % s.minibatch_size == 0:
                torch.nn.utils.clip_grad_norm_(self.policy.trainable_parameters(), s.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()

    def loss(self, step: Step, advantage: float, returned: float) -> torch.Tensor:
        """PPO's loss of one sample."""
        s, response = self.settings, step.response
        log_probs, value = self.score(step.prompt, torch.from_numpy(response.token_ids))
        thought = torch.from_numpy(response.thought_mask)[None]
        mask = torch.ones_like(thought)
        policy_loss, _ = clipped_policy_loss(
            turn_log_prob(log_probs[None], thought, mask, s.thought_coef),
            turn_log_prob(torch.from_numpy(response.log_probs)[None], thought, mask, s.thought_coef),
            torch.tensor([advantage]),
            s.clip_range,
        )
        value_loss = clipped_value_loss(
            value[None], torch.tensor([response.value]), torch.tensor([returned]), s.clip_range
        )
        return policy_loss + s.value_coef * value_loss
