"""Decides which environment ids exist and where they come from; nothing is imported until one is made."""

from __future__ import annotations

import gymnasium

ENVS: dict[str, str] = {
    "Points24-v0": "gtr_envs.cards.points24:Points24Env",
    "EZPoints-v0": "gtr_envs.cards.ezpoints:EZPointsEnv",
    "NumberLine-v0": "gtr_envs.cards.number_line:NumberLineEnv",
    "VisualBlackjack-v0": "gtr_envs.cards.blackjack:VisualBlackjackEnv",
}
"""Every environment id with its entry point."""


def register_envs() -> None:
    """Make every id of :data:`ENVS` known to Gymnasium; ids that are known already are left alone."""
    for env_id, entry_point in ENVS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point)
