"""Decides which actions typed characters name."""

from __future__ import annotations

from collections.abc import Sequence


def complete_typing(typed: str, actions: Sequence[str]) -> tuple[list[str], str]:
    """Find the actions that typed characters already name without doubt.

    Args:
        typed: Characters since the last action, e.g. ``"1+"``.
        actions: Names of all actions.

    Returns:
        Actions to play now, and the characters that still wait. A name that begins another one waits for a further
        character or for Enter.

    >>> complete_typing("1", ["1", "10", "+"]), complete_typing("1+", ["1", "10", "+"])
    (([], '1'), (['1', '+'], ''))
    """
    played = []
    while typed:
        longer = [name for name in actions if name.startswith(typed) and name != typed]
        if longer or not any(typed.startswith(name) for name in actions):
            break
        longest = max((name for name in actions if typed.startswith(name)), key=len)
        played.append(longest)
        typed = typed[len(longest) :]
    return played, typed


def split_actions(line: str, actions: Sequence[str]) -> list[str]:
    """Read a line as one action, or as several in a row with or without blanks between them.

    Args:
        line: What was typed.
        actions: Names of all actions.

    Returns:
        Actions in order; the line itself if it is no row of actions.

    >>> split_actions("10*(3", ["10", "1", "3", "*", "("]), split_actions("ten times", ["10", "1", "3", "*", "("])
    (['10', '*', '(', '3'], ['ten times'])
    """
    found = [line] if line in actions else []
    rest = "" if found else line
    while rest := rest.lstrip():
        longest = max((name for name in actions if rest.startswith(name)), key=len, default="")
        if not longest:
            return [line]
        found.append(longest)
        rest = rest[len(longest) :]
    return found
