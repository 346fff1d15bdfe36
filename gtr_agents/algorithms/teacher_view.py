"""How a learner's teacher answers what guidance asks of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gtr_agents.guidance.base import Direction, ThoughtSampling
from gtr_agents.parsing import find_value_span, parse_answer
from gtr_agents.types import BoolArray, Correction, FloatArray, IntArray, Prompt, Step

if TYPE_CHECKING:
    from gtr_agents.merging.state_dict import StateDict
    from gtr_agents.policies.vlm import VLMPolicy
    from gtr_agents.teachers.base import Teacher, Thinker

DISTRIBUTION_ENTRIES = 2**26
"""Log-probs of whole vocabularies that are held at once, for each of the two models: 256 MB in fp32."""


class LearnerTeacher:
    """The teacher of one update: a thinker if there is one, else the policy itself with the teacher's weights.

    Args:
        policy: The student; it lends its body to the teacher, and is the same as before afterwards.
        teacher: Where the teacher's weights come from; None if nobody will ask for scores.
        thinker: Who writes thoughts instead; None lets the weights write them.
        generator: Source of randomness of thoughts that the weights write.
        batch_size: Answers written at once.
        on_done: Told how many further steps were thought about.
    """

    def __init__(
        self,
        policy: VLMPolicy,
        teacher: Teacher | None,
        thinker: Thinker | None,
        *,
        generator: torch.Generator,
        batch_size: int,
        on_done: Callable[[int], None],
    ) -> None:
        self.policy = policy
        self.template = policy.template
        self.teacher = teacher
        self.thinker = thinker
        self.generator = generator
        self.batch_size = batch_size
        self.on_done = on_done

    def score(self, steps: Sequence[Step]) -> list[FloatArray]:
        """Score sampled tokens under the teacher: same tokens, same prompt and image, temperature 1."""
        with self.policy.using(self._weights()):
            return self.policy.score([s.prompt for s in steps], [s.response.token_ids for s in steps])

    def divergence(self, steps: Sequence[Step], direction: Direction) -> list[FloatArray]:
        """Compare the whole distributions of student and teacher at every sampled position, piece by piece."""
        results: list[FloatArray] = []
        longest = max((len(step.response.token_ids) for step in steps), default=1)
        size = max(1, DISTRIBUTION_ENTRIES // (max(longest, 1) * self.policy.banned.numel()))
        for start in range(0, len(steps), size):
            piece = steps[start : start + size]
            prompts, token_ids = [s.prompt for s in piece], [s.response.token_ids for s in piece]
            student = self.policy.distributions(prompts, token_ids)
            with self.policy.using(self._weights()):
                teacher = self.policy.distributions(prompts, token_ids)
            values = kl_divergence(*((student, teacher) if direction == "reverse" else (teacher, student)))
            rows = values.cpu().numpy()
            results.extend(row[: len(ids)].copy() for row, ids in zip(rows, token_ids, strict=True))
        return results

    def think(self, steps: Sequence[Step], sampling: ThoughtSampling) -> list[Correction]:
        """Ask the thinker; or let the weights answer the same prompts until an answer is well formed.

        Several attempts at one task pass through the same states: the weights are asked once for each of them.
        """
        if self.thinker is not None:
            return self.thinker.think(steps, self.template, self.on_done)
        shown: dict[object, list[int]] = {}
        for i, step in enumerate(steps):
            shown.setdefault(_content(step.prompt), []).append(i)
        corrections = [Correction(error="no answer was well formed")] * len(steps)
        pending = list(shown.values())
        temperature = sampling.temperature
        with self.policy.using(self._weights()):
            for attempt in range(sampling.retries):
                failed = []
                for start in range(0, len(pending), self.batch_size):
                    piece = pending[start : start + self.batch_size]
                    prompts = [steps[alike[0]].prompt for alike in piece]
                    answers = self.policy.act(prompts, generator=self.generator, temperature=temperature)
                    for alike, response in zip(piece, answers, strict=True):
                        if response.answer.valid_format and response.answer.action:
                            for i in alike:
                                corrections[i] = Correction(answer=response.text)
                        else:
                            failed.append(alike)
                    if attempt == 0:
                        self.on_done(sum(map(len, piece)))
                pending = failed
                if not pending:
                    break
                temperature = min(temperature * sampling.growth, sampling.max_temperature)
        return corrections

    def tokenise(self, answer: str) -> tuple[IntArray, BoolArray]:
        """Cut an answer into tokens and mark its thought, by character offsets as for sampled answers."""
        ids: list[int] = self.policy.tokenizer(answer, add_special_tokens=False)["input_ids"]
        parsed = parse_answer(
            answer,
            self.template.required_keys,
            thought_key=self.template.thought_key,
            action_key=self.template.action_key,
        )
        return np.array(ids, np.int64), self.policy.thought_mask(ids, answer, parsed)

    def thought_field(self, step: Step) -> BoolArray:
        """Mark the tokens that write the value of the thought field; none if the answer has no such field."""
        response = step.response
        span = find_value_span(response.text, self.template.thought_key)
        if span is None:
            return np.zeros(len(response.token_ids), np.bool_)
        return self.policy.span_mask(response.token_ids.tolist(), response.text, span)

    def _weights(self) -> StateDict:
        assert self.teacher is not None  # the learner refuses guidance whose teacher cannot answer
        return self.teacher.teacher_state()


def _content(prompt: Prompt) -> tuple[str, str, bytes]:
    """What is equal for prompts that show the same."""
    return prompt.system, prompt.text, hashlib.blake2b(prompt.image.tobytes()).digest()


def kl_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute KL(first, second) of log-probabilities over the last axis.

    Args:
        first: Log-probabilities, [..., V]; minus infinity is probability 0 and counts nothing.
        second: The same; minus infinity only where ``first`` is.

    Returns:
        The divergence in nats, >= 0 up to rounding, [...].
    """
    terms = first.exp() * (first - second)
    return torch.where(first > float("-inf"), terms, 0.0).sum(-1)
