"""Two players race to 24 on one hand: a PettingZoo environment, and a solver to play against.

Importing this package needs PettingZoo; importing ``gtr_envs`` does not.
"""

from __future__ import annotations

from gtr_envs.cards.duel.opponents import AgainstEnv, Opponent, SolverOpponent, against
from gtr_envs.cards.duel.race import AGENTS, DuelEnv, env, raw_env

parallel_env = DuelEnv
"""The environment itself, under the name that PettingZoo's users look for."""

__all__ = [
    "AGENTS",
    "AgainstEnv",
    "DuelEnv",
    "Opponent",
    "SolverOpponent",
    "against",
    "env",
    "parallel_env",
    "raw_env",
]
