"""The data that flows through training: prompt, response, step, trajectory, rollout.

Plain frozen dataclasses over strings and NumPy arrays; no torch, so that they are cheap to import, store, log and
replay. Axes: T response tokens, P prompt tokens, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Image = NDArray[np.uint8]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A setting between 0 and 1; configurations are checked against it."""


_LENGTH_CLASS = 128
"""Characters; coarse, so that the order of batches is left alone where it matters little."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Prompt:
    """What the policy is shown at one environment step. Compared by identity: the same text twice is two prompts."""

    text: str
    """The user's turn as text, without the image."""
    image: Image
    """The picture, uint8 [H, W, 3], RGB."""
    system: str = ""
    """The system turn; empty if the template has none."""
    legal_actions: tuple[str, ...] = ()
    """Actions the environment would accept now, as strings."""

    @property
    def length_class(self) -> int:
        """Prompts of the same class are about equally long: batches of one class need little padding."""
        return len(self.text) // _LENGTH_CLASS


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer text after parsing. Either ``action`` or ``error`` is set, never a guess."""

    thought: str = ""
    """Everything the model wrote as its reasoning (the value of the thoughts field); empty if it is missing."""
    action: str | None = None
    """The action string exactly as read (trimmed, lower-cased), or None if the answer could not be read."""
    error: str | None = None
    """Why the answer could not be read; None if it could."""
    fields: dict[str, Any] = field(default_factory=dict)
    """All fields of the JSON object that was read."""
    valid_format: bool = False
    """True if the answer is one JSON object with every required key."""
    action_span: tuple[int, int] | None = None
    """Character offsets [start, end) of the action part in the answer text; None if there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """One sampled answer with what is needed to score it again, exactly as it was sampled."""

    text: str
    """The sampled text, without the end-of-answer token."""
    answer: Answer
    """The text, parsed."""
    prompt_ids: IntArray
    """Prompt token ids, int64 [P], unpadded."""
    token_ids: IntArray
    """Sampled token ids, int64 [T], the end-of-answer token included when it was sampled."""
    log_probs: FloatArray
    """Log-probability of each sampled token at the sampling temperature, float32 [T]."""
    log_probs_t1: FloatArray
    """The same at temperature 1 (the guidance compares models at temperature 1), float32 [T]."""
    thought_mask: BoolArray
    """True marks a thought token, False an action token; bool [T]. Every sampled token is one or the other."""
    value: float
    """State value predicted from the last prompt token."""
    entropy: float = 0.0
    """Mean entropy of the sampling distribution over the answer's tokens, in nats."""
    truncated: bool = False
    """True if the answer was cut at the token limit."""
    failure: str = ""
    """Why there is no answer at all (a model elsewhere could not be asked); the episode ends without an action."""


@dataclass(slots=True)
class Step:
    """One environment step. Rewards of different origin are kept apart and added only for the advantage."""

    prompt: Prompt
    """The prompt this step was acted under; scoring always uses this one."""
    response: Response
    """What the policy answered."""
    reward: float
    """The environment's reward."""
    terminated: bool
    """True if the environment ended the episode by its rules."""
    truncated: bool
    """True if the episode was cut by a limit."""
    legal: bool = True
    """True if the environment accepted the action."""
    format_reward: float = 0.0
    """Reward for a valid answer format."""
    guidance_reward: float = 0.0
    """Reward from the teacher, e.g. minus beta times the KL divergence of the thought."""
    teacher_log_probs: FloatArray | None = None
    """Teacher log-probabilities of the sampled tokens at temperature 1, float32 [T]; None without a teacher."""
    info: dict[str, Any] = field(default_factory=dict)
    """What the environment told *before* this step's action: state facts used by metrics (``numbers``, ...)."""
    initial_log_probs: FloatArray | None = None
    """Log-probs of the sampled tokens under the model that training began with, float32 [T]; None if not asked for."""
    token_advantages: FloatArray | None = None
    """The teacher's opinion token by token, added to the step's normalised advantage, float32 [T]; None for none."""
    expert_answer: str | None = None
    """What the environment's expert would have answered here, in the template's format; None if nobody asked."""
    finding: StrEnum | None = None
    """What the environment's audit says about the thought, e.g. "misread card"; None where there is no audit."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenComparison:
    """What student and teacher say about the sampled tokens of one step, both at temperature 1."""

    student: FloatArray
    """The student's log-probability of each token, float32 [T]."""
    teacher: FloatArray
    """The teacher's, float32 [T]."""
    kl: FloatArray
    """KL(student, teacher) in nats over the whole vocabulary at each token's position, float32 [T]."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What a teacher says about the thought of one step, or why it said nothing."""

    answer: str | None = None
    """A well-formed answer whose thought is to be imitated (its action never is); None if there is nothing to learn."""
    ok: bool = False
    """True if the teacher approves of the student's thought: nothing to imitate, and no failure."""
    solvable: bool | None = None
    """False if the teacher says that the task cannot be won any more; None if it does not say."""
    error: str | None = None
    """Why the teacher has no opinion (time-out, unreadable answer, spent budget, ...); None if it has one."""


@dataclass(slots=True)
class Trajectory:
    """Consecutive steps of one episode, complete or cut at the end of a rollout."""

    steps: list[Step]
    """The steps, in order."""
    bootstrap_value: float
    """Value of the state after the last step: 0 if terminated, V(next) if truncated or cut."""
    seed: int
    """The seed the episode was reset with; equal seeds are equal hands (the group of a group baseline)."""
    env_index: int = 0
    """Which environment of the collector played it."""
    success: bool = False
    """True if the environment reported success."""
    solvable: bool | None = None
    """Whether the task can be won at all; None if the environment does not say so."""
    complete: bool = True
    """True if the episode ended; False if it was cut by the end of the rollout."""
    earlier_return: float = 0.0
    """Sum of the environment's rewards in earlier rollouts, if this is the rest of an episode."""
    failure: str = ""
    """Why the episode was given up before its end; it says nothing about the policy then. Empty if it was not."""

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of the environment's rewards, those of earlier rollouts included."""
        return self.earlier_return + float(sum(step.reward for step in self.steps))


@dataclass(frozen=True, slots=True)
class Rollout:
    """What one collection phase brought home."""

    trajectories: list[Trajectory]
    """The trajectories, in the order they were started."""
    seconds: float
    """Wall time of the collection."""

    @property
    def steps(self) -> list[Step]:
        """All steps, trajectory by trajectory."""
        return [step for trajectory in self.trajectories for step in trajectory.steps]
