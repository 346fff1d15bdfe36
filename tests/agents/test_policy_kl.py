"""The divergence from the teacher equals what plain model calls give, token by token, and the image matters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import answered, generator, prompts_of, text_env, tiny_policy

from gtr_agents.algorithms import teacher_view
from gtr_agents.algorithms.ppo import PPO
from gtr_agents.algorithms.teacher_view import LearnerTeacher
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.losses import kl_terms
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.static import StaticTeacher
from gtr_agents.types import Prompt, Rollout, Step, Trajectory


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
    algorithm.guidance.annotate(Rollout([Trajectory(steps, 0.0, seed=0)], 1.0), algorithm.teacher_view())
    return steps


def plain_log_probs(model: Any, processor: Any, prompt: Prompt, token_ids: list[int]) -> list[float]:
    """Log-probs from plain logits, one call of the model per token: no code of this project, no padding, no cache."""
    rows = plain_distributions(model, processor, prompt, token_ids)
    return [float(row[token]) for row, token in zip(rows, token_ids, strict=True)]


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
        ReverseKL().annotate(Rollout([Trajectory([blind], 0.0, seed=0)], 1.0), view_of(student, state))
        assert abs(blind.guidance_reward - step.guidance_reward) > 1e-3


def view_of(student: VLMPolicy, state: dict[str, torch.Tensor]) -> LearnerTeacher:
    """The teacher with these weights, as guidance sees it."""
    teacher = StaticTeacher()
    teacher.start(state)
    return PPO(student, lambda: text_env("EZPoints-v0"), teacher=teacher).teacher_view()


def test_the_exact_divergences_equal_those_from_plain_logits(
    student: VLMPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = changed(student.merge_state())
    prompts = prompts_of(n=3, env_id="EZPoints-v0")
    steps = [Step(p, r, 0.0, True, False) for p, r in zip(prompts, answered(student, prompts), strict=True)]
    view = view_of(student, state)
    # Two steps at a time: the result must not depend on the pieces.
    longest = max(len(step.response.token_ids) for step in steps)
    monkeypatch.setattr(teacher_view, "DISTRIBUTION_ENTRIES", 2 * longest * student.banned.numel())
    reverse, forward = view.divergence(steps, "reverse"), view.divergence(steps, "forward")
    teacher = model_with(student, state)
    for step, there, back in zip(steps, reverse, forward, strict=True):
        ids = step.response.token_ids.tolist()
        p = plain_distributions(student.model, student.processor, step.prompt, ids)
        q = plain_distributions(teacher, student.processor, step.prompt, ids)
        allowed = ~student.banned
        terms = (p.exp() * (p - q))[:, allowed], (q.exp() * (q - p))[:, allowed]
        assert there == pytest.approx(terms[0].sum(-1).numpy(), abs=1e-5)
        assert back == pytest.approx(terms[1].sum(-1).numpy(), abs=1e-5)
        assert min(there.max(), back.max(), abs(there - back).max()) > 1e-4


def test_the_exact_divergence_is_the_mean_of_the_sampled_one() -> None:
    """k3 estimates the reverse divergence without bias: at one position, over many samples, it agrees."""
    student = tiny_policy(max_new_tokens=1)
    view = view_of(student, changed(student.merge_state(), 0.05))
    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]
    steps = [
        Step(prompt, r, 0.0, True, False) for r in student.act([prompt] * 400, generator=generator(), temperature=1.0)
    ]
    exact = view.divergence(steps[:1], "reverse")[0][0]
    scores = view.score(steps)
    k3 = [kl_terms(s.response.log_probs_t1, score, "k3")[0] for s, score in zip(steps, scores, strict=True)]
    assert np.mean(k3) == pytest.approx(exact, abs=4 * np.std(k3) / 20)
    assert exact > 0


def test_the_thought_field_is_marked_by_characters(student: VLMPolicy) -> None:
    view = view_of(student, student.merge_state())
    prompt = prompts_of(n=1, env_id="EZPoints-v0")[0]
    text = '{"cards": [2, 3], "thoughts": "2*3", "action": "2"}'
    ids, thought = view.tokenise(text)
    response = replace(answered(student, [prompt])[0], text=text, token_ids=ids)
    marked = view.thought_field(Step(prompt, response, 0.0, True, False))
    assert "".join(student.token_texts(ids[marked])) == "2*3"
    assert "".join(student.token_texts(ids[~thought])).endswith('2"}')
    nothing = replace(response, text="2", token_ids=view.tokenise("2")[0])
    assert not view.thought_field(Step(prompt, nothing, 0.0, True, False)).any()


def plain_distributions(model: Any, processor: Any, prompt: Prompt, token_ids: list[int]) -> torch.Tensor:
    """Log-probs of the whole vocabulary at every position, float64 [T, V], by one plain call per token."""
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.text}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    tokenizer = processor.tokenizer
    banned = [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]
    rows = []
    for n in range(len(token_ids)):
        inputs = processor(text=text, images=prompt.image, return_tensors="pt")
        ids = torch.cat([inputs["input_ids"], torch.tensor([token_ids[:n]], dtype=torch.long)], 1)
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -1].double()
        logits[banned] = -torch.inf
        rows.append(torch.log_softmax(logits, -1))
    return torch.stack(rows)


def test_a_teacher_equal_to_the_student_has_no_divergence(student: VLMPolicy) -> None:
    steps = annotated(student, student.merge_state(), prompts_of(n=6, env_id="EZPoints-v0"))
    assert max(abs(step.guidance_reward) for step in steps) <= 1e-6


def test_asking_the_teacher_leaves_the_student_as_it_was(student: VLMPolicy) -> None:
    before = student.merge_state()
    annotated(student, changed(before), prompts_of(n=2, env_id="EZPoints-v0"))
    after = student.merge_state()
    assert all(torch.equal(before[name], after[name]) for name in before)
