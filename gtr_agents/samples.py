"""Decides which evaluation episodes are kept to look at, and asks what student and teacher say about their tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from gtr_agents.algorithms.base import text_env_maker
from gtr_agents.evaluation import replay_frames
from gtr_agents.types import Step, TokenComparison, Trajectory

if TYPE_CHECKING:
    from gtr_agents.algorithms.base import Learner
    from gtr_agents.config import RunConfig
    from gtr_agents.evaluation import EvaluationResult
    from gtr_agents.recorder import RunFolder


def record_samples(config: RunConfig, run: RunFolder, result: EvaluationResult, learner: Learner, role: str) -> None:
    """Record some episodes of an evaluation with frames; those recorded before are not written twice.

    The tasks are chosen once, at the start, and followed through the run: what changes is the player.

    Args:
        config: the run's configuration.
        run: where they are written, and where those of the start are found.
        result: the evaluation.
        learner: whose update it is; its policy has the student's weights.
        role: who played: ``start``, ``student`` or ``teacher``.
    """
    known = [(episode["role"], episode["update"], episode["seed"]) for episode in run.episodes()]
    followed = {seed for player, _, seed in known if player == "start"}
    # Evaluations in between play the first episodes only, and there should be something to follow in them.
    first = result.trajectories[: config.evaluation.interim_episodes]
    chosen = [
        trajectory
        for trajectory in choose(first, config.evaluation.recorded, followed)
        if (role, learner.n_updates, trajectory.seed) not in known
    ]
    comparisons = None if role == "start" else compare(learner, [s for t in chosen for s in t.steps], role)
    kwargs = config.env.kwargs | config.env.evaluation | {"render_mode": "rgb_array"}
    done = 0
    for trajectory in chosen:
        frames, expert, texts = replay_frames(text_env_maker(config.env.id, kwargs), trajectory)
        end = done + len(trajectory.steps)
        run.record_episode(
            trajectory,
            update=learner.n_updates,
            role=role,
            env=config.env.id,
            frames=frames,
            expert_actions=expert,
            token_texts=learner.policy.token_texts,
            observations=texts,
            comparisons=None if comparisons is None else comparisons[done:end],
        )
        done = end


def choose(trajectories: Sequence[Trajectory], n: int, followed: Collection[int] = ()) -> list[Trajectory]:
    """Choose what is recorded.

    Args:
        trajectories: the episodes of an evaluation.
        n: how many at most, where nothing is followed yet.
        followed: seeds of the tasks that are followed.

    Returns:
        The episodes of the followed tasks; without any, as many won as lost ones, as far as there are both.
    """
    if followed:
        return [t for t in trajectories if t.seed in followed]
    won = [t for t in trajectories if t.success]
    lost = [t for t in trajectories if not t.success and t.solvable is not False]
    return (won[: max(n - n // 2, n - len(lost))] + lost[: max(n // 2, n - len(won))])[:n]


def compare(learner: Learner, steps: Sequence[Step], role: str) -> list[TokenComparison] | None:
    """Ask student and teacher about tokens that one of them sampled; three passes over a handful of answers.

    Args:
        learner: its policy is the student; the teacher's weights are swapped in and out again.
        steps: what was played.
        role: who played them, ``student`` or ``teacher``; its own scores are known already.

    Returns:
        One comparison a step; None for a learner without a teacher that has weights.
    """
    if learner.teacher is None or not steps:
        return None
    view, own = learner.teacher_view(), [step.response.log_probs_t1 for step in steps]
    if role == "student":
        student, teacher = own, view.score(steps)
    else:
        student = learner.policy.score([s.prompt for s in steps], [s.response.token_ids for s in steps])
        teacher = own
    divergence = view.divergence(steps, "reverse")
    return [TokenComparison(*parts) for parts in zip(student, teacher, divergence, strict=True)]
