"""What is measured about played episodes: success, validity, and the health of the thoughts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gtr_agents.metrics import self_bleu
from gtr_agents.types import Step, Trajectory

SELF_BLEU_EPISODES = 32
"""Self-BLEU compares all pairs of answers of an episode; this many episodes give it within a few hundredths."""


def trajectory_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Summarise played episodes (method of arXiv 2503.08525 for the collapse diagnostics).

    Args:
        trajectories: episodes; rates of success and return count complete ones only.

    Returns:
        Named rates in [0, 1], lengths in tokens or steps, entropies in nats. Names whose value is undefined are absent.
    """
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    complete = [trajectory for trajectory in trajectories if trajectory.complete]
    solvable = [trajectory for trajectory in complete if trajectory.solvable]
    metrics: dict[str, float] = {"episodes": float(len(complete)), "steps": float(len(steps))}
    _mean(metrics, "success_rate", [t.success for t in complete])
    _mean(metrics, "success_rate_solvable", [t.success for t in solvable])
    for name, outcomes in success_by_task_type(complete).items():
        _mean(metrics, f"success_{name}", outcomes)
    _mean(metrics, "return", [t.episode_return for t in complete])
    _mean(metrics, "episode_length", [len(t.steps) for t in complete])
    _mean(metrics, "valid_rate", [s.response.answer.valid_format for s in steps])
    _mean(metrics, "readable_rate", [s.response.answer.action is not None for s in steps])
    _mean(metrics, "legal_rate", [s.legal for s in steps])
    _mean(metrics, "cards_accuracy", [read for s in steps if (read := reads_cards(s)) is not None])
    findings = [s.finding for s in steps if s.finding is not None]
    for kind in type(findings[0]) if findings else ():
        _mean(metrics, f"audit_{kind.name.lower()}", [finding is kind for finding in findings])
    _mean(metrics, "thought_tokens", [s.response.thought_mask.sum() for s in steps])
    _mean(metrics, "answer_tokens", [len(s.response.token_ids) for s in steps])
    _mean(metrics, "cut_rate", [s.response.truncated for s in steps])
    _mean(metrics, "entropy", [s.response.entropy for s in steps])
    _mean(metrics, "action_log_prob", [action_log_prob(s) for s in steps if not s.response.thought_mask.all()])
    scores = [self_bleu([s.response.text for s in t.steps]) for t in complete[:SELF_BLEU_EPISODES] if len(t.steps) > 1]
    _mean(metrics, "self_bleu", [score for score in scores if score is not None])
    return metrics


def success_by_task_type(trajectories: Sequence[Trajectory]) -> dict[str, list[bool]]:
    """Whether each episode succeeded, by the type of its task, sorted; empty where tasks have no types."""
    found: dict[str, list[bool]] = {}
    for trajectory in trajectories:
        task_type = trajectory.steps[0].info.get("task_type") if trajectory.steps else None
        if task_type is not None:
            found.setdefault(task_type, []).append(trajectory.success)
    return dict(sorted(found.items()))


def reads_cards(step: Step) -> bool | None:
    """True if the answer names the cards (in order) that are on the table; None where the task has none."""
    numbers = step.info.get("numbers")
    return None if numbers is None else step.response.answer.fields.get("cards") == list(numbers)


def action_log_prob(step: Step) -> float:
    """Summed log-probability of the action tokens: the policy's confidence in its action, in nats."""
    response = step.response
    return float(response.log_probs[~response.thought_mask].sum())


def _mean(metrics: dict[str, float], name: str, values: Sequence[object]) -> None:
    if len(values):
        metrics[name] = float(np.mean(np.asarray(values, dtype=np.float64)))
