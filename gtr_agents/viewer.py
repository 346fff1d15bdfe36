"""Decides which recorded episodes the report shows step by step, and how they lie in its page."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gtr_agents.recorder import RunFolder

MAX_PER_GROUP = 6
"""So many episodes of each player, update and outcome go into the report; the folder holds the others."""
MAX_UPDATES = 8
"""So many moments of training, the start aside."""

_ORDER = {"start": 0, "student": 1, "teacher": 2}


def select_episodes(episodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose the episodes a reader looks at: of each player and update some successes and some failures.

    Args:
        episodes: All recorded ones.

    Returns:
        At most :data:`MAX_PER_GROUP` of each player, update and outcome, of the start and of :data:`MAX_UPDATES`
        updates spread evenly to the last; the start first, then student and teacher by update. Tasks that were
        recorded most often, and so can be followed, go first.
    """
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    recorded: Counter[object] = Counter()
    for episode in episodes:
        groups.setdefault((_ORDER.get(episode["role"], 3), episode["update"]), []).append(episode)
        recorded[episode.get("seed")] += 1
    kept = set(spread(sorted({update for order, update in groups if order}), MAX_UPDATES))
    chosen = []
    for order, update in sorted(groups):
        if order and update not in kept:
            continue
        group = sorted(groups[order, update], key=lambda episode: -recorded[episode.get("seed")])
        for outcome in (True, False):
            chosen += [episode for episode in group if episode["success"] is outcome][:MAX_PER_GROUP]
    return chosen


def spread(values: Sequence[int], n: int) -> list[int]:
    """Thin a sequence out evenly.

    Args:
        values: In order.
        n: How many may stay, at least 2.

    Returns:
        At most ``n`` of them, the first and the last among them.

    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(values) <= n:
        return list(values)
    return [values[round(i * (len(values) - 1) / (n - 1))] for i in range(n)]


def viewer_data(run: RunFolder, episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Prepare episodes for the viewer on the page.

    Frames, prompts and lists of legal actions come again and again, so each is held once and named by its number.

    Args:
        run: Where the frames are.
        episodes: As recorded; fields that older runs did not record may be missing.

    Returns:
        ``shared``, a list of texts (a frame is a ``data:`` address) and lists of texts; and ``episodes``, where
        ``frame``, ``final_frame``, ``system``, ``prompt`` and ``legal_actions`` are places in it, or None where
        nothing was recorded.
    """
    shared: dict[Hashable, int] = {}

    def place(value: Hashable) -> int | None:
        return None if value is None else shared.setdefault(value, len(shared))

    def prepared(step: Mapping[str, Any]) -> dict[str, Any]:
        legal = step.get("legal_actions")
        return {
            **step,
            "frame": place(_data_url(run.frame(step["frame"]))),
            "system": place(step.get("system") or None),
            "prompt": place(step["prompt"]),
            "legal_actions": place(None if legal is None else tuple(legal)),
        }

    shown = [
        {
            **episode,
            "steps": [prepared(step) for step in episode["steps"]],
            "final_frame": place(_data_url(run.frame(episode.get("final_frame")))),
        }
        for episode in episodes
    ]
    return {"shared": list(shared), "episodes": shown}


def _data_url(file: Path | None) -> str | None:
    return None if file is None else f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
