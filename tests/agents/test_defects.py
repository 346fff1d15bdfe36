"""Every known defect of the public reference code is seen by a check, and not there without its switch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from defects import DEFECTS
from small_families import FAMILIES
from small_models import answered, prompts_of, text_env, tiny_policy

from gtr_agents.algorithms.ppo import PPO
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.merging import merge
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.types import Answer, Rollout, Step, Trajectory

State = dict[str, torch.Tensor]


def weights(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(6, 5, generator=generator)}


def teacher_after(checkpoints: list[State], **options: Any) -> State:
    teacher = TeacherManager(**options)
    teacher.start(weights(0))
    for checkpoint in checkpoints:
        teacher.add(checkpoint)
    return dict(teacher.teacher_state())


def rewards(policy: VLMPolicy, teacher_state: State, steps: list[Step]) -> list[float]:
    """What training pays the steps for the agreement with a teacher of these weights."""
    teacher = TeacherManager()
    teacher.start(teacher_state)
    algorithm = PPO(policy, lambda: text_env("EZPoints-v0"), guidance=ReverseKL(), teacher=teacher)
    rollout = Rollout([Trajectory(steps, 0.0, seed=0)], 1.0)
    algorithm.guidance.annotate(rollout, algorithm.teacher_view())
    return [step.guidance_reward for step in rollout.steps]


def steps_of(policy: VLMPolicy) -> list[Step]:
    prompts = prompts_of(n=4)
    return [Step(p, r, 0.0, True, False) for p, r in zip(prompts, answered(policy, prompts), strict=True)]


def a_further_checkpoint_moves_the_teacher() -> None:
    assert not torch.equal(teacher_after([weights(1), weights(2)])["w"], teacher_after([weights(1)])["w"])


def history_counts_by_its_weight() -> None:
    expected = merge(weights(0), [weights(1), weights(2)], weights=[0.5, 0.5])["w"]
    assert torch.allclose(teacher_after([weights(1), weights(2)], weights="ema", alpha=0.5)["w"], expected, atol=1e-6)


def copies_of_a_checkpoint_merge_to_its_size() -> None:
    merged = teacher_after([weights(1)] * 4, density=1.0)["w"] - weights(0)["w"]
    assert float(merged.norm() / (weights(1)["w"] - weights(0)["w"]).norm()) == pytest.approx(1.0, abs=1e-5)


def the_picture_enters_the_divergence() -> None:
    policy, other = tiny_policy(), tiny_policy(seed=9).merge_state()
    steps = steps_of(policy)
    seen = rewards(policy, other, steps)
    swapped = [replace(s, prompt=replace(s.prompt, image=255 - s.prompt.image)) for s in steps]
    assert min(abs(np.subtract(seen, rewards(policy, other, swapped)))) > 1e-4


def a_teacher_like_the_student_says_nothing() -> None:
    policy = tiny_policy()
    assert rewards(policy, policy.merge_state(), steps_of(policy)) == pytest.approx([0.0] * 4, abs=1e-5)


def an_unreadable_answer_is_paid_by_the_same_rule() -> None:
    policy = tiny_policy()
    steps = [replace(s, response=replace(s.response, answer=Answer(error="unreadable"))) for s in steps_of(policy)]
    assert rewards(policy, policy.merge_state(), steps) == pytest.approx([0.0] * 4, abs=1e-5)


def two_scorings_are_identical(adapted: VLMPolicy) -> None:
    prompts = prompts_of("paper", n=2)
    ids = [np.array([5, 6, 7, 8]), np.array([9, 10, 11, 12])]
    first, second = (np.concatenate(adapted.score(prompts, ids)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


CHECKS: dict[str, tuple[Callable[..., None], ...]] = {
    "frozen": (a_further_checkpoint_moves_the_teacher,),
    "forgetful": (history_counts_by_its_weight,),
    "quarter": (copies_of_a_checkpoint_merge_to_its_size,),
    "stale": (
        a_further_checkpoint_moves_the_teacher,
        history_counts_by_its_weight,
        copies_of_a_checkpoint_merge_to_its_size,
    ),
    "blind": (the_picture_enters_the_divergence,),
    "shifted": (a_teacher_like_the_student_says_nothing,),
    "noise": (the_picture_enters_the_divergence, a_teacher_like_the_student_says_nothing),
    "hundred": (an_unreadable_answer_is_paid_by_the_same_rule,),
    "dropout": (two_scorings_are_identical,),
}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> VLMPolicy:
    """A small LLaVA with a LoRA adapter, which has dropout, that has learned something."""
    folder = FAMILIES["llava"](tmp_path_factory.mktemp("llava"))
    policy = VLMPolicy.from_pretrained(folder, template="paper", lora={"r": 4, "dropout": 0.5})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize(
    ("defect", "check"), [pytest.param(d, c, id=f"{d}-{c.__name__}") for d, checks in CHECKS.items() for c in checks]
)
def test_the_check_sees_the_defect(defect: str, check: Callable[..., None], adapted: VLMPolicy) -> None:
    arguments = (adapted,) if check is two_scorings_are_identical else ()
    check(*arguments)
    with torch.random.fork_rng(devices=[]), DEFECTS[defect](), pytest.raises(AssertionError):
        check(*arguments)


def test_every_defect_has_a_check_and_leaves_no_trace() -> None:
    assert CHECKS.keys() == DEFECTS.keys()
    own = (TeacherManager._publish, TeacherManager.add, ReverseKL.annotate, VLMPolicy.score)
    for defect in DEFECTS.values():
        with contextlib.suppress(ValueError), defect():
            raise ValueError
    assert own == (TeacherManager._publish, TeacherManager.add, ReverseKL.annotate, VLMPolicy.score)
