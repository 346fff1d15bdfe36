"""Train vision-language agents with reinforcement learning and a free teacher (GTR-Turbo, arXiv 2512.13043).

Importing this package is cheap: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gtr_agents.requirements import explain

if TYPE_CHECKING:
    from gtr_agents.algorithms.base import RolloutSettings
    from gtr_agents.algorithms.grpo import GRPO, GRPOSettings
    from gtr_agents.algorithms.ppo import PPO, PPOSettings
    from gtr_agents.evaluation import evaluate
    from gtr_agents.guidance.reverse_kl import ReverseKL
    from gtr_agents.guidance.thought_sft import ThoughtSFT
    from gtr_agents.policies.tiny import build_tiny_vlm
    from gtr_agents.policies.vlm import VLMPolicy
    from gtr_agents.prompts import PromptTemplate
    from gtr_agents.runs import Run, resume, train
    from gtr_agents.teachers.external import ExternalTeacher
    from gtr_agents.teachers.merged import TeacherManager
    from gtr_agents.teachers.oracle import OracleTeacher

__version__ = "0.1.0"

__all__ = [
    "GRPO",
    "PPO",
    "ExternalTeacher",
    "GRPOSettings",
    "OracleTeacher",
    "PPOSettings",
    "PromptTemplate",
    "ReverseKL",
    "RolloutSettings",
    "Run",
    "TeacherManager",
    "ThoughtSFT",
    "VLMPolicy",
    "build_tiny_vlm",
    "evaluate",
    "resume",
    "train",
]

_HOMES = {
    "ExternalTeacher": "gtr_agents.teachers.external",
    "GRPO": "gtr_agents.algorithms.grpo",
    "GRPOSettings": "gtr_agents.algorithms.grpo",
    "OracleTeacher": "gtr_agents.teachers.oracle",
    "PPO": "gtr_agents.algorithms.ppo",
    "PPOSettings": "gtr_agents.algorithms.ppo",
    "PromptTemplate": "gtr_agents.prompts",
    "ReverseKL": "gtr_agents.guidance.reverse_kl",
    "RolloutSettings": "gtr_agents.algorithms.base",
    "Run": "gtr_agents.runs",
    "TeacherManager": "gtr_agents.teachers.merged",
    "ThoughtSFT": "gtr_agents.guidance.thought_sft",
    "VLMPolicy": "gtr_agents.policies.vlm",
    "build_tiny_vlm": "gtr_agents.policies.tiny",
    "evaluate": "gtr_agents.evaluation",
    "resume": "gtr_agents.runs",
    "train": "gtr_agents.runs",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use; a package that is missing is named with the command that installs it."""
    if name in _HOMES:
        try:
            return getattr(import_module(_HOMES[name]), name)
        except ImportError as error:
            explain(error)
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names too."""
    return sorted([*globals(), *__all__])
