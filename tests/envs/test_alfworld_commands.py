"""Which command a text means; needs no engine."""

from __future__ import annotations

import pytest

from gtr_envs.alfworld.commands import find_command, normalise

ADMISSIBLE = ["go to drawer 1", "go to drawer 11", "move cup 1 to shelf 2", "look", "open drawer 1"]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("go to drawer 11", "go to drawer 11"),
        ("go to drawer 1", "go to drawer 1"),
        ("  Go  To\tDRAWER 11. ", "go to drawer 11"),
        ("put cup 1 in/on shelf 2", "move cup 1 to shelf 2"),
        ("put cup 1 on shelf 2", "move cup 1 to shelf 2"),
        ("Put cup 1 in shelf 2.", "move cup 1 to shelf 2"),
        ("move cup 1 to shelf 2", "move cup 1 to shelf 2"),
        ("look", "look"),
    ],
)
def test_a_command_is_found_in_either_grammar(text: str, command: str) -> None:
    assert find_command(text, ADMISSIBLE) == command


@pytest.mark.parametrize(
    "text",
    ["", "go to drawer", "go to drawer 111", "I go to drawer 11", "looking", "put cup 1 shelf 2", "look look", "go"],
)
def test_what_merely_looks_alike_is_no_command(text: str) -> None:
    assert find_command(text, ADMISSIBLE) is None


def test_games_of_the_old_grammar_are_played_in_the_new_one_too() -> None:
    assert find_command("move cup 1 to shelf 2", ["put cup 1 in/on shelf 2"]) == "put cup 1 in/on shelf 2"


def test_normal_form_is_its_own_normal_form() -> None:
    for command in ADMISSIBLE:
        assert normalise(normalise(command)) == normalise(command) == command
