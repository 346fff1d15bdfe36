"""From configurations to objects: what a preset promises is what is built."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import SIZES, same_weights, tiny_policy, weights_of

from gtr_agents.build import (
    build_algorithm,
    build_evaluator,
    build_guidance,
    build_policy,
    build_teacher,
    held_out_hands,
    training_env,
)
from gtr_agents.config import RunConfig, load_config, preset_names, resolve
from gtr_agents.evaluation import episode_seeds
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies import lora
from gtr_agents.teachers.ema import EmaTeacher
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.teachers.static import StaticTeacher
from gtr_envs.cards.deck import parse_card
from gtr_envs.registration import HOUSEHOLD_ENVS

CARDS = {"env": {"id": "Points24-v0", "kwargs": {"image_size": 96}}, "policy": {"template": "compact", "tiny": SIZES}}


def config(**sections: Any) -> RunConfig:
    return resolve(CARDS | {"evaluation": {"episodes": 40}} | sections)


def hand(info: dict[str, Any]) -> tuple[int, ...]:
    return tuple(parse_card(card).rank for card in info["cards"])


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_deals_training_hands_and_builds_its_algorithm(name: str) -> None:
    preset = load_config(name)
    # Importing the engine here, to see whether it is there, would draw from the global generator.
    if preset.env.id in HOUSEHOLD_ENVS and find_spec("textworld") is None:
        pytest.skip("ALFWorld's engine is not installed")
    env = training_env(preset)()
    observation, _ = env.reset(seed=0)
    assert observation["image"].ndim == 3
    algorithm = build_algorithm(preset, tiny_policy(), seed=0)
    assert algorithm.teacher is not None
    assert (algorithm.guidance is None) == (preset.guidance.name == "none")
    assert build_evaluator(preset).make_env().reset(seed=episode_seeds("test", 1)[0])


def test_evaluation_hands_are_never_dealt_in_training() -> None:
    chosen = config(env={"id": "EZPoints-v0", "kwargs": {"image_size": 96}}, evaluation={"episodes": 6})
    kept = held_out_hands(chosen)
    assert kept == sorted(set(kept))
    evaluation = build_evaluator(chosen).make_env()
    assert {hand(evaluation.reset(seed=seed)[1]) for seed in episode_seeds("test", 6)} == set(kept)
    tuning = replace(chosen, evaluation=replace(chosen.evaluation, split="validation"))
    assert held_out_hands(tuning) != kept
    env = training_env(chosen)()
    dealt = {hand(env.reset(seed=seed)[1]) for seed in range(300)}
    assert dealt.isdisjoint(kept)
    shared = replace(chosen, evaluation=replace(chosen.evaluation, hold_out=False))
    env = training_env(shared)()
    assert not {hand(env.reset(seed=seed)[1]) for seed in range(300)}.isdisjoint(kept)


def test_training_and_evaluation_have_their_own_arguments() -> None:
    chosen = config(
        env={
            "id": "Points24-v0",
            "kwargs": {"image_size": 80},
            "train": {"illegal": "terminate"},
            "evaluation": {"max_tokens": 9},
        }
    )
    train, test = training_env(chosen)().unwrapped, build_evaluator(chosen).make_env().unwrapped
    assert (train.image_size, train.ends_on_illegal, train.max_tokens) == (80, True, 21)
    assert (test.image_size, test.ends_on_illegal, test.max_tokens) == (80, False, 9)


def test_the_seed_of_the_run_decides_the_tiny_model() -> None:
    chosen = config()
    first, again, other = (build_policy(chosen, seed) for seed in (0, 0, 1))
    assert same_weights(weights_of(first), weights_of(again))
    assert not same_weights(first.merge_state(), other.merge_state())
    assert not same_weights(first.value_head.state_dict(), other.value_head.state_dict())
    assert (first.temperature, first.template.name) == (chosen.policy.temperature, "compact")


def test_a_start_model_replaces_the_configured_one(tmp_path: Path) -> None:
    start = tiny_policy(seed=8)
    start.save(tmp_path)
    policy = build_policy(config(policy=CARDS["policy"] | {"temperature": 0.3, "value_widths": [32, 16]}), 0, tmp_path)
    assert same_weights(policy.merge_state(), start.merge_state())
    assert policy.temperature == 0.3


def test_a_start_model_gets_the_configured_adapter(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path)
    settings = CARDS["policy"] | {"lora": {"r": 2}, "value_widths": [32, 16]}
    assert lora.is_adapted(build_policy(config(policy=settings), 0, tmp_path).model)


def test_guidance_and_teacher_are_those_of_the_configuration() -> None:
    assert build_guidance(config()) is None
    guidance = build_guidance(config(guidance={"name": "reverse_kl", "beta": 3.0, "estimator": "abs"}))
    assert isinstance(guidance, ReverseKL)
    assert (guidance.beta, guidance.estimator) == (3.0, "abs")
    teacher = build_teacher(config(teacher={"weights": "ema", "alpha": 0.25}))
    assert isinstance(teacher, TeacherManager)
    assert (teacher.weights, teacher.alpha) == ("ema", 0.25)
    assert isinstance(build_teacher(config(teacher={"name": "static"})), StaticTeacher)
    average = build_teacher(config(teacher={"name": "ema", "alpha": 0.1, "density": 0.5}))  # which it does not know
    assert isinstance(average, EmaTeacher)
    assert average.alpha == 0.1


def test_a_teacher_gets_its_form_and_the_folder_of_its_accumulators(tmp_path: Path) -> None:
    options = {"form": "adapter", "rank": 8, "accumulators": "disk", "window": 3}
    teacher = build_teacher(config(teacher=options), tmp_path / "live")
    assert isinstance(teacher, TeacherManager)
    assert (teacher.form, teacher.rank, teacher.accumulators, teacher.window) == ("adapter", 8, "disk", 3)
    teacher.start({"w": torch.zeros(2, 2)})
    assert (tmp_path / "live").is_dir()
