"""Draw the gallery: ``python docs/gallery.py`` writes a sheet for every environment to ``docs/images/gallery``.

Every registered environment is drawn, in every style if it has styles: a new one needs no edit here. States come from
played episodes: an expert's, where there is one, and a blind player's that keeps to the legal actions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from gtr_envs.cards import duel
from gtr_envs.core import DEFAULT_IMAGE_SIZE, VisionTextEnv
from gtr_envs.registration import COMPAT_ENVS, ENVS
from gtr_envs.rendering import Frame, text_frame
from gtr_envs.styles import STYLES

FOLDER = Path(__file__).parent / "images" / "gallery"
SEEDS = range(12)
"""Games that are played; the longest are shown."""
BLIND_ACTIONS = 9
"""Actions of the blind player, if the episode is not over before."""
N_COLORS = 256
"""Colours of a sheet: its file is a third of one with all colours, and looks the same."""
AT_A_GLANCE = (
    ("VisualBlackjack-v0", "classic"),
    ("Points24-v0", "desert"),
    ("NumberLine-v0", "night"),
    ("EZPoints-v0", "arcade"),
)
"""Environment and style of each frame of the sheet that shows the variety in one row."""
GAP = 6
CAPTION_HEIGHT = 22
INK, PAPER = (40, 40, 40), (255, 255, 255)


def longest(env: gym.Env[Any, Any], choose: Callable[[], int | None], limit: int | None = None) -> list[Frame]:
    """Play some episodes and keep the longest.

    Args:
        env: The environment, made with ``render_mode="rgb_array"``.
        choose: Chooses each action; None gives up.
        limit: Most actions of an episode; None plays to the end.

    Returns:
        The frame of every state, the first one included.
    """
    return max((_episode(env, choose, limit, seed) for seed in SEEDS), key=len)


def _episode(env: gym.Env[Any, Any], choose: Callable[[], int | None], limit: int | None, seed: int) -> list[Frame]:
    env.reset(seed=seed)
    frames, over = [_frame(env)], False
    while not over and len(frames) - 1 != limit and (action := choose()) is not None:
        _, _, terminated, truncated, _ = env.step(action)
        frames.append(_frame(env))
        over = terminated or truncated
    return frames


def _frame(env: gym.Env[Any, Any]) -> Frame:
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    return frame


def states(env_id: str, **kwargs: Any) -> list[Frame]:
    """Play an environment and keep what is worth seeing.

    Args:
        env_id: Its id.
        **kwargs: Its arguments.

    Returns:
        Four frames: a new game, half of an expert's episode, its end, and blind play; for an environment without an
        expert a new game, and a third, two thirds and the end of a blind episode.
    """
    env = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True, **kwargs)
    game, rng = env.unwrapped, np.random.default_rng(0)
    env.reset(seed=len(SEEDS))
    new = _frame(env)
    if not isinstance(game, VisionTextEnv):
        env.action_space.seed(0)
        played = longest(env, env.action_space.sample)
        return [new, *(played[(len(played) - 1) * third // 3] for third in (1, 2, 3))]

    def expert() -> int | None:
        action = game.expert_action()
        return None if action is None else game.action_tokens.index(action)

    def blind() -> int:
        legal = [token for token in game.legal_actions if token != "="] or game.action_tokens
        return game.action_tokens.index(legal[int(rng.integers(len(legal)))])

    played = longest(env, expert)
    return [new, played[len(played) // 2], played[-1], longest(env, blind, BLIND_ACTIONS)[-1]]


def duel_states(size: int, style: str) -> list[Frame]:
    """Let an expert and a blind player race.

    Args:
        size: Side of the frames in pixels.
        style: The style.

    Returns:
        Four frames: the first player's picture and what a spectator sees, half-way and at the end.
    """
    race = duel.parallel_env(render_mode="rgb_array", image_size=size, render_size=size, style=style)
    rng = np.random.default_rng(0)
    race.reset(seed=len(SEEDS))
    first, second = race.possible_agents
    shown: list[tuple[Frame, Frame]] = []
    while race.agents:
        legal = race.legal_actions(second)
        tokens = {first: race.expert_action(first) or "=", second: legal[int(rng.integers(len(legal)))]}
        race.step({agent: race.action_tokens.index(token) for agent, token in tokens.items()})
        shown.append((race.picture(first, size), race.render()))
    return [*shown[len(shown) // 2], *shown[-1]]


def sheet(rows: Mapping[str, Sequence[Frame]]) -> bytes:
    """Put frames on a sheet, a row with a caption for each name.

    Args:
        rows: Frames of one size by the row's name; a row without a name has no caption.

    Returns:
        A PNG file.
    """
    parts = [
        part for name, frames in rows.items() for part in ([_caption(name, frames)] if name else []) + [_row(frames)]
    ]
    picture = Image.fromarray(np.concatenate(parts)).quantize(N_COLORS, dither=Image.Dither.NONE)
    file = BytesIO()
    picture.save(file, "png", optimize=True)
    return file.getvalue()


def _row(frames: Iterable[Frame]) -> Frame:
    """Frames side by side."""
    apart = ((0, GAP), (0, GAP), (0, 0))
    return np.concatenate([np.pad(frame, apart, constant_values=255) for frame in frames], axis=1)


def _caption(text: str, frames: Sequence[Frame]) -> Frame:
    """A line as wide as a row."""
    line = text_frame(text, CAPTION_HEIGHT, INK, PAPER)
    band = np.full((CAPTION_HEIGHT, _row(frames).shape[1], 3), PAPER, dtype=np.uint8)
    band[:, : line.shape[1]] = line[:, : band.shape[1]]
    return band


def main() -> None:
    """Draw all sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the sheets go")
    parser.add_argument("--size", type=int, default=DEFAULT_IMAGE_SIZE, help="side of a frame in pixels")
    options = parser.parse_args()
    size = options.size
    sheets = {
        env_id: {style: states(env_id, image_size=size, render_size=size, style=style) for style in STYLES}
        for env_id in ENVS
    }
    sheets["duel"] = {style: duel_states(size, style) for style in STYLES}
    sheets["overview"] = {"": [sheets[env_id][style][1] for env_id, style in AT_A_GLANCE]}
    sheets["gym_cards"] = {env_id: states(env_id) for env_id in COMPAT_ENVS}
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, rows in sheets.items():
        (options.folder / f"{name}.png").write_bytes(sheet(rows))


if __name__ == "__main__":
    main()
