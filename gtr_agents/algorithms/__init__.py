"""How an update is made: one file for each algorithm, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gtr_agents.errors import unknown_name

if TYPE_CHECKING:
    from gtr_agents.algorithms.policy_gradient import PolicyGradient

ALGORITHMS: Mapping[str, str] = {
    "ppo": "gtr_agents.algorithms.ppo:PPO",
    "grpo": "gtr_agents.algorithms.grpo:GRPO",
}
"""Algorithms by name, as ``module:class`` so that importing the table loads no torch."""


def algorithm_class(name: str) -> type[PolicyGradient]:
    """Return the algorithm of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in ALGORITHMS:
        raise unknown_name("algorithm", name, ALGORITHMS)
    module, _, attribute = ALGORITHMS[name].partition(":")
    found: Any = getattr(import_module(module), attribute)
    return found  # type: ignore[no-any-return]
