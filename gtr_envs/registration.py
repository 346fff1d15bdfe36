"""Decides which environment ids exist and where they come from; nothing is imported until one is made."""

from __future__ import annotations

import gymnasium

ENVS: dict[str, str] = {
    "Points24-v0": "gtr_envs.cards.points24:Points24Env",
    "EZPoints-v0": "gtr_envs.cards.ezpoints:EZPointsEnv",
    "NumberLine-v0": "gtr_envs.cards.number_line:NumberLineEnv",
    "VisualBlackjack-v0": "gtr_envs.cards.blackjack:VisualBlackjackEnv",
    "Points24Duel-v0": "gtr_envs.cards.duel.opponents:AgainstEnv",
}
"""Every environment id with its entry point."""

VECTOR_ENVS: dict[str, str] = {
    "Points24-v0": "gtr_envs.cards.vector:Points24VectorEnv",
}
"""Entry points of the ids that bring their own vector environment."""

HOUSEHOLD_ENVS: dict[str, str] = {
    "ALFWorld-v0": "gtr_envs.alfworld.env:ALFWorldEnv",
}
"""Ids that need the extra ``alfworld``."""

COMPAT_ENVS: dict[str, str] = {
    "gym_cards/Points24-v0": "gtr_envs.cards.gym_cards.points:GymCardsPoints24Env",
    "gym_cards/EZPoints-v0": "gtr_envs.cards.gym_cards.points:GymCardsEZPointsEnv",
    "gym_cards/NumberLine-v0": "gtr_envs.cards.gym_cards.number_line:GymCardsNumberLineEnv",
    "gym_cards/Blackjack-v0": "gtr_envs.cards.gym_cards.blackjack:GymCardsBlackjackEnv",
}
"""Ids of the public package ``gym_cards``, with our entry points; pictures only, no vision-text environments."""
COMPAT_MAX_STEPS = 300
"""Step limit of the public ids."""


def register_envs() -> None:
    """Make every id known to Gymnasium; ids that are known already, as from the public package, are left alone."""
    for env_id, entry_point in {**ENVS, **HOUSEHOLD_ENVS}.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point, vector_entry_point=VECTOR_ENVS.get(env_id))
    for env_id, entry_point in COMPAT_ENVS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point, max_episode_steps=COMPAT_MAX_STEPS)
