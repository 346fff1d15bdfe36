"""Decides which command a text means: exactly one of those that can be given, in either grammar, or none."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PUT = re.compile(r"put (?P<thing>.+?) (?:in/on|in|on|into|onto) (?P<place>.+)")


def normalise(text: str) -> str:
    """Write a command in its plainest form.

    Args:
        text: What was said.

    Returns:
        Lower case, single blanks, no closing full stop, and ``move O to R`` for ``put O in/on R``.

    >>> normalise(" Put  Cup 1 in/on Shelf 2.")
    'move cup 1 to shelf 2'
    """
    plain = " ".join(text.lower().split()).removesuffix(".").rstrip()
    put = _PUT.fullmatch(plain)
    return f"move {put['thing']} to {put['place']}" if put else plain


def find_command(text: str, admissible: Iterable[str]) -> str | None:
    """Find the command that a text means.

    Args:
        text: What was said.
        admissible: Commands that can be given, as the engine writes them.

    Returns:
        The command whose plainest form equals that of the text, never one that merely begins alike; None if there is
        none.

    >>> find_command("go to drawer 11", ["go to drawer 1", "go to drawer 11"])
    'go to drawer 11'
    """
    wanted = normalise(text)
    return next((command for command in admissible if normalise(command) == wanted), None)
