"""Decides how played episodes are kept: a folder each, with a line and a picture for every step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from gtr_envs.checks import checked_int
from gtr_envs.core import IllegalText, VisionTextEnv
from gtr_envs.errors import OptionError
from gtr_envs.rendering import Frame
from gtr_envs.wrappers.pictures import VIDEO_WRITERS, png_bytes, require_video

STEPS = "steps.jsonl"
"""The lines of an episode that has ended."""
UNFINISHED_STEPS = "steps.part.jsonl"
"""The lines of an episode that is running or was broken off."""
_PREFIX = "episode-"
DEFAULT_FPS = 4
"""Pictures a second where the environment names no number."""


class RecordEpisodes(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Writes episodes to disk as they are played.

    Every recorded episode gets a folder of its own, ``episode-000000`` and so on. It holds ``steps.jsonl`` with a
    line for the reset and for every step, the pictures ``0000.png``, ``0001.png`` ..., and, if asked for,
    ``episode.gif`` or ``episode.mp4``. A picture is the rendered frame in render mode ``"rgb_array"``, otherwise the
    observed picture; without either there are lines only.

    A line holds the step's number ``t``, the ``text`` of the observation, the ``action`` as it was passed and its
    ``action_name`` (null if it names none), ``reward``, ``terminated``, ``truncated``, ``legal``, the name of the
    ``picture``, and in ``info`` all that can be written as JSON. The line of the reset has ``t`` = 0, no action and no
    reward, but the ``episode`` (how many the wrapper had begun before) and its ``seed``.

    The lines stand in ``steps.part.jsonl`` until the episode has ended and everything else is written; an episode
    that is broken off keeps that name and can be read up to its last step. Folders that are there are never written
    to again: numbers go on behind the highest one, also if several processes record into one folder.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], folder: str | os.PathLike[str], every: int = 1, video: str | None = None
    ) -> None:
        """Wrap an environment.

        Args:
            env: Any environment.
            folder: Where to record; made if it does not exist.
            every: Record the first episode and every so many after it, at least 1.
            video: None, ``"gif"`` or ``"mp4"``.

        Raises:
            OptionError: If ``every`` cannot be used, the folder is a file, or there is no picture for a video.
            UnknownNameError: If the kind of video is unknown.
            DependencyError: If the kind of video needs a library that is not installed.
        """
        RecordConstructorArgs.__init__(self, folder=os.fspath(folder), every=every, video=video)
        super().__init__(env)
        self._every = checked_int("every", every, least=1)
        self._renders = env.render_mode == "rgb_array"
        if video is not None:
            require_video(video)
            if not self._renders and _observed_picture(env.observation_space.sample()) is None:
                raise OptionError(
                    f"Expected an environment with pictures for video={video!r}, got {env!r}; make it with "
                    "render_mode='rgb_array'."
                )
        self._video = video
        self._root = Path(folder)
        if self._root.exists() and not self._root.is_dir():
            raise OptionError(f"Expected a folder to record into, got the file {str(folder)!r}; name another path.")
        self._root.mkdir(parents=True, exist_ok=True)
        taken = [path.name.removeprefix(_PREFIX) for path in self._root.glob(f"{_PREFIX}*")]
        self._next_folder = max((int(number) for number in taken if number.isdecimal()), default=-1) + 1
        self._n_episodes = 0
        self._episode: _Episode | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, and its record if its turn has come; an unfinished record stays as it is.

        Args:
            seed: Handed on.
            options: Handed on.

        Returns:
            The first observation and its info.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode = None
        if self._n_episodes % self._every == 0:
            self._episode = _Episode(self._new_folder(), keeps_frames=self._video is not None)
            line = {"episode": self._n_episodes, "seed": seed}
            self._episode.add(line | _told(observation, info), self._picture(observation))
        self._n_episodes += 1
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one action and write it down.

        Args:
            action: Handed on.

        Returns:
            What the environment returns.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._episode is not None:
            line = _told(observation, info) | {
                "action": _written(action),
                "action_name": self._name_of(action),
                "reward": float(reward),
                "terminated": bool(terminated),
                "truncated": bool(truncated),
            }
            self._episode.add(line, self._picture(observation))
            if terminated or truncated:
                self._episode.finish(self._video, self.metadata.get("render_fps", DEFAULT_FPS))
                self._episode = None
        return observation, reward, terminated, truncated, info

    def _new_folder(self) -> Path:
        """Make the next folder; a number that another process has taken meanwhile is passed over."""
        while True:
            path = self._root / f"{_PREFIX}{self._next_folder:06d}"
            self._next_folder += 1
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path

    def _picture(self, observation: Any) -> Frame | None:
        return self.env.render() if self._renders else _observed_picture(observation)  # type: ignore[return-value]

    def _name_of(self, action: Any) -> str | None:
        """The name of an action given by index or by name; None if it names none."""
        named = self.env.unwrapped
        if not isinstance(named, VisionTextEnv) or isinstance(action, IllegalText):
            return None
        index = named.action_from_text(action) if isinstance(action, str) else action
        return None if isinstance(index, IllegalText) else named.action_tokens[int(index)]


class _Episode:
    """The folder of one episode."""

    def __init__(self, folder: Path, *, keeps_frames: bool) -> None:
        self._folder = folder
        self._keeps_frames = keeps_frames
        self._frames: list[Frame] = []
        self._n_lines = 0

    def add(self, line: dict[str, Any], frame: Frame | None) -> None:
        """Write a picture, then the line that names it."""
        name = None if frame is None else f"{self._n_lines:04d}.png"
        if frame is not None:
            (self._folder / f"{name}.part").write_bytes(png_bytes(frame))
            (self._folder / f"{name}.part").rename(self._folder / str(name))
            if self._keeps_frames:
                self._frames.append(frame.copy())
        written = json.dumps({"t": self._n_lines, **line, "picture": name}, default=_plain)
        # Opened for every line, so that nothing is lost with the process and the wrapper can be copied.
        with (self._folder / UNFINISHED_STEPS).open("a", encoding="utf-8") as lines:
            lines.write(written + "\n")
        self._n_lines += 1

    def finish(self, video: str | None, fps: int) -> None:
        """Write the moving picture, and at last give the lines their final name."""
        if video is not None:
            part, whole = self._folder / f"episode.part.{video}", self._folder / f"episode.{video}"
            VIDEO_WRITERS[video](part, self._frames, fps)
            part.rename(whole)
        (self._folder / UNFINISHED_STEPS).rename(self._folder / STEPS)


def _observed_picture(observation: Any) -> Frame | None:
    """The picture of an observation, uint8 [H, W, 3]; None if it has none."""
    picture = observation.get("image") if isinstance(observation, dict) else observation
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return picture
    return None


def _told(observation: Any, info: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries of a line that a reset and a step share; those of a step are empty."""
    writable = {key: value for key, value in info.items() if isinstance(key, str) and _is_writable(value)}
    return {
        "text": observation.get("text") if isinstance(observation, dict) else None,
        **dict.fromkeys(("action", "action_name", "reward", "terminated", "truncated")),
        "legal": writable.get("legal"),
        "info": writable,
    }


def _written(action: Any) -> Any:
    """An action as JSON can hold it."""
    if isinstance(action, IllegalText):
        return action.text
    return action if _is_writable(action) else repr(action)


def _is_writable(value: Any) -> bool:
    """Say whether JSON can hold a value."""
    try:
        json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _plain(value: Any) -> Any:
    """Turn numbers and lists of NumPy into Python's; pictures and other objects are refused."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim <= 1):
        return value.tolist()
    raise TypeError(f"expected something JSON can hold, got {type(value)}")
