"""Decides which pieces the texts of ALFWorld are made of, for tokenizers that are built for it."""

from __future__ import annotations

import re
from functools import lru_cache

from gtr_envs.alfworld.wheel import load_world

MAX_NUMBER = 60
"""Things and receptacles of a class are numbered from 1; the largest rooms have 47 receptacles."""
_HEADINGS = ("Not seen:", "\nHere:", "\nCarrying:", "\nTask:", "Task:", "Commands so far: ", "\n", ".", ",", ":", ";")
_VERBS = (
    "go to",
    "open",
    "close",
    "take",
    "move",
    "heat",
    "cool",
    "clean",
    "use",
    "examine",
    "look",
    "inventory",
    "find",
    "want",
)
_FEEDBACK = (
    "You are in the middle of a room.",
    "Nothing happens.",
    "You arrive at",
    "You open the",
    "You close the",
    "You pick up the",
    "You move the",
    "You heat the",
    "You cool the",
    "You clean the",
    "You turn on the",
    ". On the",
    ". The",
    ", you see",
    " is closed.",
    " is open. In it",
    " nothing.",
    " nothing",
    " open",
    " closed",
    " clean",
    " cold",
    " hot",
    " on",
    ", and",
    " from the",
    " to the",
    " using the",
    " from",
    " to",
    " with",
    " a",
)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """List the pieces; a class of things is the same piece wherever it stands.

    Returns:
        Headings, verbs, the engine's phrases, the words of the task sentences, classes and numbers; classes, words and
        numbers with the blank before them. No piece twice.

    Raises:
        DependencyError: If the extra ``alfworld`` is not installed.
    """
    world = load_world()
    holding = {kind for holder, held in world.may_hold.items() for kind in (holder, *held)}
    kinds = {kind.lower() for kind in holding.union(*world.treatable.values())}
    sentences = " ".join(sentence for _, templates in world.goals.values() for sentence in templates)
    words = re.findall(r"[a-z]+", re.sub(r"{\w+}", "", sentences))
    numbers = range(1, MAX_NUMBER + 1)
    pieces = (
        *_HEADINGS,
        *_VERBS,
        *(f", {verb}" for verb in _VERBS),
        *(f": {verb}" for verb in _VERBS),
        *_FEEDBACK,
        *(f" {word}" for word in sorted({*kinds, *words})),
    )
    return tuple(dict.fromkeys((*pieces, *(f" {n}" for n in numbers), *(f"-{n}" for n in numbers))))
