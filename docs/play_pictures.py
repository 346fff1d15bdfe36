"""Draw the pictures of the page about playing: ``python docs/play_pictures.py`` writes them to ``docs/images``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gymnasium

from gtr_envs.play import PICTURE_SIZE, Game, Screen
from gtr_envs.rendering import Event
from gtr_envs.wrappers.pictures import png_bytes

FOLDER = Path(__file__).parent / "images"
ASK = "tab"
"""The key that asks for a hint."""


def draw(name: str, env_id: str, keys: Sequence[str], seed: int, **kwargs: float) -> None:
    """Press keys in a window that nobody sees, and save what it shows at the end.

    Args:
        name: Name of the file, without its ending.
        env_id: What is played.
        keys: Keys in order.
        seed: Decides the hand.
        **kwargs: Arguments of the environment.
    """
    env = gymnasium.make(env_id, render_mode="rgb_array", render_size=PICTURE_SIZE, **kwargs)
    screen = Screen(Game(env, seed))
    for key in keys:
        screen.handle(Event("key", key=key))
    (FOLDER / f"{name}.png").write_bytes(png_bytes(screen.frame()))


def main() -> None:
    """Draw a hint, a lost duel and a push."""
    draw("play_hint", "Points24-v0", [*"2+3", ASK], seed=3)
    draw("play_duel", "Points24Duel-v0", [*"6*(9-2)/", *"10="], seed=3, opponent=1.0)
    draw("play_push", "VisualBlackjack-v0", [*"stand"], seed=first_push())


def first_push() -> int:
    """Find a hand of Blackjack that ends in a draw for somebody who stands.

    Returns:
        The smallest such seed.
    """
    game = Game(gymnasium.make("VisualBlackjack-v0"))
    seed = -1
    while game.result != "draw":
        seed += 1
        game.new(seed)
        game.play("stand")
    return seed


if __name__ == "__main__":
    main()
