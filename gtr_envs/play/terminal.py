"""Decides how a game is played line by line."""

from __future__ import annotations

from typing import TextIO

from gtr_envs.play.game import NO_UNDO, Game
from gtr_envs.play.typed import split_actions

HELP = f"""Type an action and press Enter; several at once are played up to the first illegal one.
Other words: hint, new, help, quit. {NO_UNDO}"""
CARD_NAMES = "Cards are written suit first: HT is the ten of hearts, SQ the queen of spades."


def play_in_terminal(game: Game, stdin: TextIO, stdout: TextIO) -> None:
    """Read words until ``quit`` or the end of the input.

    Args:
        game: The game; its environment tells the whole state in words.
        stdin: Where lines are read.
        stdout: Where lines are written.
    """

    def say(*lines: str) -> None:
        stdout.write("\n".join(lines) + "\n")
        stdout.flush()

    say(*_introduction(game))
    while True:
        say("", game.observation["text"], *_choices(game))
        stdout.write("> ")
        stdout.flush()
        line = stdin.readline()
        word = line.strip()
        if not line or word == "quit":
            say(*([] if line else [""]), game.score, "Goodbye.")
            return
        if word == "help":
            say(*_introduction(game))
        elif word == "undo":
            say(NO_UNDO)
        elif word == "new" or (game.over and not word):
            game.new()
        elif word == "hint":
            game.hint()
            say(game.message)
        else:
            actions = split_actions(word, game.actions)
            while actions:
                game.play(actions.pop(0))
                say(game.message)
                # Whoever typed on has counted on this action.
                if actions and (game.over or not game.info.get("legal", True)):
                    say(f"Not played: {' '.join(actions)}")
                    break


def _introduction(game: Game) -> list[str]:
    """The task, and what can be typed."""
    has_cards = any("cards" in name for name in game.info)
    return [game.inner.instructions, *([CARD_NAMES] if has_cards else []), HELP]


def _choices(game: Game) -> list[str]:
    """What can be said now."""
    if game.over:
        headline, moves, *rest = game.summary()
        return [f"{headline} {moves}", *rest, "Press Enter for a new game, or type quit."]
    return ["actions: " + "  ".join(game.legal)]
