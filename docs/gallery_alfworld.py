"""Draw ALFWorld: ``python docs/gallery_alfworld.py`` writes a filmstrip and a GIF of every task type, and the styles.

They go to ``docs/images/alfworld``. Needs the extra ``alfworld``. The player is the demonstrator,
who has to look for things.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image

import gtr_envs  # noqa: F401 - importing it registers the ids
from gtr_envs.alfworld.wheel import TASK_TYPES
from gtr_envs.rendering import Frame, line_frame, wrap_text
from gtr_envs.styles import STYLES
from gtr_envs.wrappers import TextAction

FOLDER = Path(__file__).parent / "images" / "alfworld"
NUMBERS = range(40)
"""Games of each type that are tried; a film of about the wanted length is shown."""
SHOWN = 4
"""Frames of a filmstrip."""
WANTED = 8
"""States of a film, as near as there is one."""
STRIP_SIZE, GIF_SIZE = 240, 320
SHOWN_IN_STYLES = "embedded/train/pick_heat_then_place_in_recep/3"
CAPTION_LINE = 15
MILLISECONDS = 1100
"""How long a GIF shows a frame; the last one three times as long."""
GAP = 6
INK, PAPER = (40, 40, 40), (255, 255, 255)


class Scene(NamedTuple):
    """One state of an episode."""

    frame: Frame
    """The picture."""
    caption: str
    """The command that is played next, or how it ended."""


def film(task_type: str, size: int) -> list[Scene]:
    """Play games of a type and choose one of about the wanted length.

    Args:
        task_type: One of ``TASK_TYPES``.
        size: Side of the frames in pixels.

    Returns:
        All its states.
    """
    env = TextAction(gym.make("ALFWorld-v0", data="embedded", image_size=size, max_steps=100))
    lengths = {number: len(_played(env, task_type, number)) for number in NUMBERS}
    best = min(lengths, key=lambda number: (abs(lengths[number] - WANTED), number))
    scenes = _played(env, task_type, best)
    env.close()
    return scenes


def _played(env: gym.Env[Any, Any], task_type: str, number: int) -> list[Scene]:
    observation, info = env.reset(options={"game": f"embedded/valid_unseen/{task_type}/{number}"})
    demonstrator: Any = env.unwrapped
    scenes = []
    for thought in demonstrator.demonstrate(np.random.default_rng(0)):
        scenes.append(Scene(observation["image"], f"> {thought.action}"))
        observation, _, terminated, truncated, info = env.step(thought.action)
        if terminated or truncated:
            break
    return [*scenes, Scene(observation["image"], "done" if info["success"] else "not done")]


def filmstrip(scenes: Sequence[Scene]) -> bytes:
    """Put states side by side, evenly chosen, with the first and the last.

    Args:
        scenes: Of an episode.

    Returns:
        A PNG file.
    """
    chosen = [scenes[round(i)] for i in np.linspace(0, len(scenes) - 1, min(SHOWN, len(scenes)))]
    columns = [np.concatenate([scene.frame, _caption(scene.caption, scene.frame.shape[1])]) for scene in chosen]
    gap = np.full((len(columns[0]), GAP, 3), PAPER, np.uint8)
    strip = np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)
    file = BytesIO()
    Image.fromarray(strip).quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def moving(scenes: Sequence[Scene]) -> bytes:
    """Show every state one after the other.

    Args:
        scenes: Of an episode.

    Returns:
        A GIF file.
    """
    pages = [np.concatenate([scene.frame, _caption(scene.caption, scene.frame.shape[1])]) for scene in scenes]
    first, *rest = (Image.fromarray(page).quantize(128) for page in pages)
    times = [MILLISECONDS] * len(rest) + [3 * MILLISECONDS]
    file = BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0, optimize=True)
    return file.getvalue()


def styles() -> bytes:
    """Show one moment in every style.

    Returns:
        A PNG file.
    """
    frames = []
    for style in STYLES:
        env = TextAction(gym.make("ALFWorld-v0", data="embedded", image_size=STRIP_SIZE, style=style))
        env.reset(seed=0, options={"game": SHOWN_IN_STYLES})
        expert: Any = env.unwrapped
        observation = env.step(expert.expert_action())[0]
        frames.append(np.concatenate([observation["image"], _caption(style, STRIP_SIZE)]))
        env.close()
    rows = [np.concatenate(frames[i : i + SHOWN], axis=1) for i in range(0, len(frames), SHOWN)]
    file = BytesIO()
    Image.fromarray(np.concatenate(rows)).quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


def _caption(text: str, width: int) -> Frame:
    """Two lines below a picture."""
    caption = np.full((2 * CAPTION_LINE + 8, width, 3), PAPER, np.uint8)
    for i, line in enumerate(wrap_text(text, CAPTION_LINE, width - 8)[:2]):
        written = line_frame(line, CAPTION_LINE, INK, PAPER)[:, : width - 8]
        top = 4 + i * CAPTION_LINE
        caption[top : top + written.shape[0], 4 : 4 + written.shape[1]] = written
    return caption


def main() -> None:
    """Write a strip and a film for every task type, and the sheet of styles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the pictures")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for task_type in TASK_TYPES:
        strip, gif = folder / f"{task_type}.png", folder / f"{task_type}.gif"
        strip.write_bytes(filmstrip(film(task_type, STRIP_SIZE)))
        gif.write_bytes(moving(film(task_type, GIF_SIZE)))
    (folder / "styles.png").write_bytes(styles())


if __name__ == "__main__":
    main()
