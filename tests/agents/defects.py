"""Known defects of the public reference code (docs/method.md), to be switched on: checks must see them.

    python tests/agents/defects.py stale train ablation-points24 --out runs/stale    # the gtr command with a defect

Nothing outside the tests and `benchmarks/ablations.py` uses this file.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from gtr_agents.algorithms.teacher_view import LearnerTeacher
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.types import FloatArray, Rollout, Step


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Merging again into a name that exists does nothing: the teacher of the second update stays for ever."""
    publish = TeacherManager._publish

    def once(self: TeacherManager) -> None:
        if self.version < 2:
            publish(self)

    with mock.patch.object(TeacherManager, "_publish", once):
        yield


@contextlib.contextmanager
def forgetful() -> Iterator[None]:
    """The history's weight comes without the history's adapter and is dropped: only the newest checkpoint counts."""
    add = TeacherManager.add

    def afresh(self: TeacherManager, checkpoint: Any, id: str | None = None) -> None:
        self._merge = self._new_merge(self._started().base)
        add(self, checkpoint, id)

    with mock.patch.object(TeacherManager, "add", afresh):
        yield


@contextlib.contextmanager
def quarter() -> Iterator[None]:
    """Both factors of LoRA are halved, and so a quarter of the merged task vector is left."""
    publish = TeacherManager._publish

    def smaller(self: TeacherManager) -> None:
        with mock.patch.object(self, "lam", self.lam / 4):
            publish(self)

    with mock.patch.object(TeacherManager, "_publish", smaller):
        yield


@contextlib.contextmanager
def stale() -> Iterator[None]:
    """The three defects of the released teacher together."""
    with frozen(), forgetful(), quarter():
        yield


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """The teacher is asked without the picture."""
    score = LearnerTeacher.score

    def without_picture(self: LearnerTeacher, steps: Sequence[Step]) -> list[FloatArray]:
        black = [replace(s, prompt=replace(s.prompt, image=np.zeros_like(s.prompt.image))) for s in steps]
        return score(self, black)

    with mock.patch.object(LearnerTeacher, "score", without_picture):
        yield


@contextlib.contextmanager
def shifted() -> Iterator[None]:
    """The teacher's log-probs stand one token beside those of the student."""
    score = LearnerTeacher.score

    def beside(self: LearnerTeacher, steps: Sequence[Step]) -> list[FloatArray]:
        return [np.roll(row, 1) for row in score(self, steps)]

    with mock.patch.object(LearnerTeacher, "score", beside):
        yield


@contextlib.contextmanager
def noise() -> Iterator[None]:
    """The divergence of the release: without the picture and shifted."""
    with blind(), shifted():
        yield


@contextlib.contextmanager
def hundred() -> Iterator[None]:
    """The divergence of an answer without a thought or an action is set to 100."""
    annotate = ReverseKL.annotate

    def punished(self: ReverseKL, rollout: Rollout, *rest: Any) -> dict[str, float]:
        metrics = annotate(self, rollout, *rest)
        for step in rollout.steps:
            if not step.response.answer.valid_format:
                step.guidance_reward = -100 * self.beta
        return metrics

    with mock.patch.object(ReverseKL, "annotate", punished):
        yield


@contextlib.contextmanager
def dropout() -> Iterator[None]:
    """Scoring runs with dropout."""
    score = VLMPolicy.score

    def training(self: VLMPolicy, *arguments: Any, **options: Any) -> list[FloatArray]:
        self.model.train()
        try:
            return score(self, *arguments, **options)
        finally:
            self.model.eval()

    with mock.patch.object(VLMPolicy, "score", training):
        yield


DEFECTS = {
    defect.__name__: defect for defect in (frozen, forgetful, quarter, stale, blind, shifted, noise, hundred, dropout)
}
"""Every defect by its name: a context in which it is there."""


if __name__ == "__main__":
    from gtr_agents.cli import main

    name = sys.argv.pop(1)
    with DEFECTS[name]():
        main()
