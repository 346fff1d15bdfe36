"""A small run folder made by hand, for the tests of everything that reads one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gtr_agents.recorder import RunFolder
from gtr_agents.types import Answer, Prompt, Response, Step, TokenComparison, Trajectory
from gtr_envs.cards.thoughts import Finding

HOSTILE = "</script><img src=x onerror=alert(1)> \u2028 {{ 7*7 }}"
"""What a model could write to break out of a page: markup, a line separator, a template expression."""


def a_step(action: str | None, reward: float = 0.0, *, legal: bool = True, thought: str = "make 24") -> Step:
    answer = Answer(thought, action, None if action else "no JSON object")
    log_probs = np.array([-0.5, -2.0, -np.inf], np.float32)
    response = Response(
        text=f"{thought} {action}",
        answer=answer,
        prompt_ids=np.arange(3),
        token_ids=np.array([0, 1, 2]),
        log_probs=log_probs,
        log_probs_t1=log_probs * 2,
        thought_mask=np.array([True, True, False]),
        value=0.0,
    )
    prompt = Prompt("What next?", np.zeros((8, 8, 3), np.uint8), "You play cards.", ("(", "1", "="))
    step = Step(prompt, response, reward, terminated=False, truncated=False, legal=legal)
    step.info = {"numbers": [1, 2, 3, 4]}
    step.finding = Finding.CORRECT if legal else Finding.WRONG_ACTION
    return step


def an_episode(*, success: bool, solvable: bool = True, thought: str = "make 24", seed: int = 7) -> Trajectory:
    steps = [a_step("(", thought=thought), a_step(None, -1.0, legal=False), a_step("=", 10.0 if success else -1.0)]
    return Trajectory(steps, 0.0, seed=seed, success=success, solvable=solvable)


def record(
    run: RunFolder,
    trajectory: Trajectory,
    *,
    update: int,
    role: str,
    extra_frame: bool = True,
    compared: bool = False,
) -> str:
    n_steps = len(trajectory.steps)
    frames = [np.full((30, 30, 3), 10 * i, np.uint8) for i in range(n_steps + extra_frame)]
    return run.record_episode(
        trajectory,
        update=update,
        role=role,
        env="Points24-v0",
        frames=frames,
        expert_actions=["(", "1", None][:n_steps],
        token_texts=token_texts,
        observations=["", "(", "("][:n_steps],
        comparisons=[a_comparison()] * n_steps if compared else None,
    )


def a_comparison() -> TokenComparison:
    return TokenComparison(*(np.array(values, np.float32) for values in ([-1, -4, -9], [-1, -1, -9], [0, 0.3, 2])))


def token_texts(ids: Sequence[int]) -> list[str]:
    return [f"<{i}>" for i in ids]


def evaluation(rate: float, low: float, high: float, role: str = "student") -> dict[str, Any]:
    return {f"eval/{role}/success_rate": rate, f"eval/{role}/success_low": low, f"eval/{role}/success_high": high}


def finished_run(path: Path) -> RunFolder:
    """Two updates, evaluated before and after, with an episode of each player."""
    run = RunFolder(path)
    run.write_config({"config": {"env": {"id": "Points24-v0"}, "seed": 3}, "preset": "tiny"})
    lines: list[dict[str, Any]] = [
        {"sft/step": 25, "sft/loss": 2.0},
        {"sft/step": 50, "sft/loss": 1.0},
        {"update": 0, "env_steps": 0} | evaluation(0.2, 0.15, 0.26) | evaluation(0.2, 0.15, 0.26, "teacher"),
        {"update": 1, "env_steps": 100, "rollout/success_rate": 0.25, "train/ratio_error_first_epoch": 1e-6},
        {"update": 2, "env_steps": 200, "rollout/success_rate": 0.35, "train/ratio_error_first_epoch": 2e-6},
        {"update": 2, "env_steps": 200} | evaluation(0.4, 0.34, 0.47) | evaluation(0.5, 0.44, 0.57, "teacher"),
    ]
    # Written by hand: the log would import torch for TensorBoard, and no reader needs that.
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    record(run, an_episode(success=False), update=0, role="start")
    record(run, an_episode(success=True, thought=HOSTILE), update=2, role="student", compared=True)
    record(run, an_episode(success=False, seed=8), update=2, role="student", compared=True)
    record(run, an_episode(success=True), update=2, role="teacher", compared=True)
    run.write_summary(
        {
            "preset": "tiny",
            "env": "Points24-v0",
            "method": "gtr-turbo",
            "success_rate_before": 0.2,
            "success_rate_before_interval": [0.15, 0.26],
            "success_rate_after": 0.4,
            "success_rate_after_interval": [0.34, 0.47],
            "success_rate_after_greedy": 0.45,
            "success_rate_teacher": 0.5,
            "success_rate_teacher_interval": [0.44, 0.57],
            "episodes": 200,
            "evaluation_split": "test",
            "env_steps": 200,
            "updates": 2,
            "wall_seconds": 61.0,
            "seed": 3,
            "interrupted": False,
        }
    )
    return run
