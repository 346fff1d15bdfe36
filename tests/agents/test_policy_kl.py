"""The divergence from the teacher equals what plain model calls give, token by token, and the image matters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import answered, prompts_of, text_env, tiny_policy

from gtr_agents.algorithms.ppo import PPO
from gtr_agents.guidance.base import Scorer
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.static import StaticTeacher
from gtr_agents.types import FloatArray, Prompt, Rollout, Step, Trajectory


def changed(state: dict[str, torch.Tensor], size: float = 0.02) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(1)
    return {name: p + size * torch.randn(p.shape, generator=noise) for name, p in state.items()}


@pytest.fixture
def student(schooled: Path) -> VLMPolicy:
    return VLMPolicy.from_pretrained(schooled)


def annotated(student: VLMPolicy, teacher_state: dict[str, torch.Tensor], prompts: list[Prompt]) -> list[Step]:
    """Steps of the student on these prompts, with the opinion of the teacher as training asks for it."""
    teacher = StaticTeacher()
    teacher.start(teacher_state)
    algorithm = PPO(student, lambda: text_env("EZPoints-v0"), guidance=ReverseKL(beta=1.0), teacher=teacher)
    steps = [Step(p, r, 0.0, True, False) for p, r in zip(prompts, answered(student, prompts), strict=True)]
    algorithm.guidance.annotate(Rollout([Trajectory(steps, 0.0, seed=0)], 1.0), algorithm._teacher_scores)
    return steps


def plain_log_probs(model: Any, processor: Any, prompt: Prompt, token_ids: list[int]) -> list[float]:
    """Log-probs from plain logits, one call of the model per token: no code of this project, no padding, no cache."""
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.text}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    tokenizer = processor.tokenizer
    banned = [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]
    result = []
    for n, token in enumerate(token_ids):
        inputs = processor(text=text, images=prompt.image, return_tensors="pt")
        ids = torch.cat([inputs["input_ids"], torch.tensor([token_ids[:n]], dtype=torch.long)], 1)
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -1].double()
        logits[banned] = -torch.inf
        result.append(float(torch.log_softmax(logits, -1)[token]))
    return result


def recomputed_kl(student: VLMPolicy, teacher: Any, step: Step) -> float:
    """Mean of max(log p_student - log p_teacher, 0) over the tokens that are not action."""
    ids = step.response.token_ids.tolist()
    own = plain_log_probs(student.model, student.processor, step.prompt, ids)
    other = plain_log_probs(teacher, student.processor, step.prompt, ids)
    thought = step.response.thought_mask.tolist()
    terms = [max(a - b, 0.0) for a, b, is_thought in zip(own, other, thought, strict=True) if is_thought]
    return sum(terms) / len(terms)


def test_the_divergence_equals_that_from_plain_logits(student: VLMPolicy) -> None:
    state = changed(student.merge_state())
    steps = annotated(student, state, prompts_of(n=6, env_id="EZPoints-v0"))
    teacher = model_with(student, state)
    expected = [recomputed_kl(student, teacher, step) for step in steps]
    assert [-step.guidance_reward for step in steps] == pytest.approx(expected, abs=1e-4)
    assert min(expected) > 1e-3
    # The action is left out, so there must be one.
    assert all(0 < step.response.thought_mask.sum() < len(step.response.thought_mask) for step in steps)


def model_with(student: VLMPolicy, state: dict[str, torch.Tensor]) -> Any:
    """A plain model of its own with these weights."""
    with torch.random.fork_rng(devices=[]):
        model = type(student.model)(student.model.config)
    model.load_state_dict(state, strict=False)  # tied weights stand there once
    model.tie_weights()
    return model.eval()


def test_another_image_changes_the_divergence() -> None:
    student, state = tiny_policy(), tiny_policy(seed=9).merge_state()
    prompts = prompts_of(n=4)
    steps = annotated(student, state, prompts)
    for i, step in enumerate(steps):
        blind = Step(replace(step.prompt, image=prompts[i - 1].image), step.response, 0.0, True, False)
        ReverseKL().annotate(Rollout([Trajectory([blind], 0.0, seed=0)], 1.0), teacher_scores(student, state))
        assert abs(blind.guidance_reward - step.guidance_reward) > 1e-3


def teacher_scores(student: VLMPolicy, state: dict[str, torch.Tensor]) -> Scorer:
    def score(steps: list[Step]) -> list[FloatArray]:
        with student.using(state):
            return student.score([s.prompt for s in steps], [s.response.token_ids for s in steps])

    return score


def test_a_teacher_equal_to_the_student_has_no_divergence(student: VLMPolicy) -> None:
    steps = annotated(student, student.merge_state(), prompts_of(n=6, env_id="EZPoints-v0"))
    assert max(abs(step.guidance_reward) for step in steps) <= 1e-6


def test_asking_the_teacher_leaves_the_student_as_it_was(student: VLMPolicy) -> None:
    before = student.merge_state()
    annotated(student, changed(before), prompts_of(n=2, env_id="EZPoints-v0"))
    after = student.merge_state()
    assert all(torch.equal(before[name], after[name]) for name in before)
