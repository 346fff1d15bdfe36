"""Imitation of the teacher's thoughts (GTR, GTR-Turbo (SFT)), and of one's own successes (rejection sampling)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from gtr_agents.errors import ConfigError, TrainingError, unknown_name
from gtr_agents.guidance.base import Guidance, TeacherView, ThoughtSampling
from gtr_agents.guidance.imitation import Imitation, ImitationSet
from gtr_agents.parsing import parse_answer
from gtr_agents.types import Correction, Rollout

SOURCES = ("teacher", "own_success")
"""Whose answers are imitated: the teacher's, or the agent's own in episodes that it won."""


class ThoughtSFT(Guidance):
    """Adds the cross-entropy of corrected thoughts to the loss of PPO.

    Source: GTR, arXiv 2503.08525, and the SFT variant of GTR-Turbo, arXiv 2512.13043. For every step whose answer was
    well formed the teacher writes an answer of its own to the same image and prompt. Its action is replaced by the
    agent's and not trained, nor is the end of the answer: the actions stay PPO's. All samples of the run are kept
    (DAgger), and in every epoch as many are drawn as there are steps.

    Args:
        weight: Of the cross-entropy (mean over trained tokens, in nats) beside the loss of PPO, > 0.
        source: ``"teacher"``, or ``"own_success"``: the agent's own answers in episodes that it won, complete, no
            teacher needed (rejection sampling, a baseline).
        temperature: Of the teacher's first attempt, if it is a model of ours; a failed one raises it by a tenth.
        max_temperature: Where that ends.
        retries: Attempts per step, >= 1; then there is no sample for it.
        max_size: Keep at most so many samples, the newest; None keeps all.
        max_age: Keep samples for so many updates; None keeps all.
        half_life: A sample's chance to be drawn halves with every so many updates of age; None draws uniformly.
        stop_unsolvable: True ends an episode where the teacher says that it cannot be won any more (GTR): that step
            gets ``stop_reward`` and what came after it is not trained on.
        stop_reward: Reward of such a step.

    Raises:
        ConfigError: If a number is outside its range.
        UnknownNameError: If there is no such source.
    """

    def __init__(
        self,
        weight: float = 1.0,
        source: Literal["teacher", "own_success"] = "teacher",
        temperature: float = 0.2,
        max_temperature: float = 0.9,
        retries: int = 5,
        max_size: int | None = None,
        max_age: int | None = None,
        half_life: float | None = None,
        stop_unsolvable: bool = False,
        stop_reward: float = -1.0,
    ) -> None:
        if source not in SOURCES:
            raise unknown_name("source of thoughts", source, SOURCES)
        if not 0.0 < weight < float("inf"):
            raise ConfigError(f"weight must be finite and above 0, got {weight!r}")
        if not 0.0 < temperature <= max_temperature < float("inf"):
            raise ConfigError(
                f"expected 0 < temperature <= max_temperature, got {temperature!r} and {max_temperature!r}"
            )
        if retries < 1:
            raise ConfigError(f"retries must be at least 1, got {retries!r}")
        self.weight = weight
        self.source = source
        self.needs = "thoughts" if source == "teacher" else "nothing"
        self.sampling = ThoughtSampling(temperature, max_temperature=max_temperature, retries=retries)
        self.stop_unsolvable = stop_unsolvable
        self.stop_reward = stop_reward
        self.data = ImitationSet(max_size, max_age, half_life)

    def annotate(self, rollout: Rollout, teacher: TeacherView, progress: float = 0.0) -> dict[str, float]:
        """Add the samples of a rollout to the dataset; rewards change only where an episode is ended.

        Of several processes each asks about its own rollout, and all get the samples of all.

        Args:
            rollout: Its trajectories may be cut, see ``stop_unsolvable``.
            teacher: Who is asked.
            progress: Unused.

        Returns:
            ``guidance/samples``, ``guidance/dataset`` (samples in all), ``guidance/dataset_mb``, and as shares of the
            steps that the teacher was asked about ``guidance/approved``, ``guidance/failed``, ``guidance/unsolvable``
            and ``guidance/same_action`` (of the answers: how often the teacher would have acted alike).

        Raises:
            TrainingError: If the teacher returns too few or too many corrections.
        """
        del progress
        if self.source == "own_success":
            samples = list(_own_successes(rollout))
            shares: dict[str, float] = {}
        else:
            samples, shares = self._corrected(rollout, teacher)
        samples = [sample for part in self.ranks.gather(samples) for sample in part]
        self.data.extend(samples)
        return shares | {
            "guidance/samples": float(len(samples)),
            "guidance/dataset": float(len(self.data)),
            "guidance/dataset_mb": self.data.n_bytes / 1e6,
        }

    def draw(self, n: int, rng: np.random.Generator) -> list[Imitation]:
        """Draw samples from the whole run; see :class:`ImitationSet`."""
        return self.data.draw(n, rng)

    def commit(self) -> None:
        """Keep what the update added."""
        self.data.commit()

    def save(self, folder: Path) -> None:
        """Save the dataset."""
        self.data.save(folder)

    def load(self, folder: Path) -> None:
        """Take the dataset back.

        Raises:
            CheckpointError: If it is incomplete or damaged.
        """
        self.data.load(folder)

    def _corrected(self, rollout: Rollout, teacher: TeacherView) -> tuple[list[Imitation], dict[str, float]]:
        """Ask about all well-formed answers; returns samples and metrics."""
        asked = [step for step in rollout.steps if step.response.answer.valid_format and step.response.answer.action]
        corrections = teacher.think(asked, self.sampling)
        if len(corrections) != len(asked):
            raise TrainingError(f"expected corrections of {len(asked)} steps, got {len(corrections)}")
        template = teacher.template
        samples: list[Imitation] = []
        same: list[bool] = []
        for step, correction in zip(asked, corrections, strict=True):
            if correction.answer is None:
                continue
            fields = parse_answer(correction.answer, template.required_keys, action_key=template.action_key).fields
            same.append(str(fields[template.action_key]).strip().lower() == step.response.answer.action)
            fields = fields | {template.action_key: step.response.answer.action}
            token_ids, thought = teacher.tokenise(template.write_answer(fields))
            samples.append(Imitation(step.prompt, token_ids, thought))
        if self.stop_unsolvable:
            hopeless = {id(s) for s, c in zip(asked, corrections, strict=True) if c.solvable is False}
            self._cut(rollout, hopeless)
        return samples, _shares(corrections, same)

    def _cut(self, rollout: Rollout, hopeless: set[int]) -> None:
        """End trajectories at their first hopeless step."""
        for trajectory in rollout.trajectories:
            at = next((t for t, step in enumerate(trajectory.steps) if id(step) in hopeless), None)
            if at is None:
                continue
            del trajectory.steps[at + 1 :]
            last = trajectory.steps[-1]
            last.reward, last.terminated, last.truncated = self.stop_reward, True, False
            trajectory.bootstrap_value = 0.0


def _own_successes(rollout: Rollout) -> Iterator[Imitation]:
    """The agent's well-formed answers in the episodes that it won, every token trained."""
    for trajectory in rollout.trajectories:
        if trajectory.success:
            for step in trajectory.steps:
                if step.response.answer.valid_format:
                    ids = step.response.token_ids
                    yield Imitation(step.prompt, ids, np.ones(len(ids), np.bool_))


def _shares(corrections: list[Correction], same: list[bool]) -> dict[str, float]:
    """Metrics of what the teacher said."""
    n = max(len(corrections), 1)
    shares = {
        "guidance/approved": sum(c.ok for c in corrections) / n,
        "guidance/failed": sum(c.error is not None for c in corrections) / n,
        "guidance/unsolvable": sum(c.solvable is False for c in corrections) / n,
    }
    return shares | ({"guidance/same_action": sum(same) / len(same)} if same else {})
