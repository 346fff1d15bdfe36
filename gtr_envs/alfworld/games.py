"""Decides which games there are and where they come from: made here from seeds, or ALFRED's own files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gtr_envs.alfworld.households import SPLITS, game_data, make_household, trajectory_data
from gtr_envs.alfworld.situation import Task
from gtr_envs.alfworld.wheel import TASK_TYPES, load_world
from gtr_envs.checks import checked_int
from gtr_envs.errors import GameError, require_known

DATA_VARIABLE = "ALFWORLD_DATA"
"""Environment variable that upstream keeps the folder of the real games in."""
VERSIONS = ("json_2.1.1", "json_2.1.2", "json_2.1.3")
"""Folders of the real data, the first that is there is taken."""
EMBEDDED = "embedded"
N_GAMES = 1_000_000
"""Numbers of embedded games that are drawn at random; any other number can be named too."""
GAME_FILE, TRAJECTORY_FILE = "game.tw-pddl", "traj_data.json"
_SENTENCE = re.compile(r"Your task is to: (.*?)\.\"")


@dataclass(frozen=True, slots=True)
class Game:
    """Something to be played."""

    key: str
    """Its name, by which it can be asked for again."""
    source: str
    """``"embedded"`` or ``"alfred"``."""
    split: str
    """One of ``households.SPLITS``."""
    task: Task
    """What is to be done."""
    sentence: str
    """The task in words."""
    scene: int | None
    """Number of the floor plan; None if it is unknown."""
    data: Mapping[str, Any]
    """The content of its ``game.tw-pddl`` file."""
    trajectory: Mapping[str, Any]
    """The content of its ``traj_data.json`` file; of an embedded game, without what THOR needs."""


class GameSource(Protocol):
    """Where games come from."""

    name: str
    """``"embedded"`` or ``"alfred"``."""

    def draw(self, rng: np.random.Generator) -> str:
        """Draw the key of a game."""

    def load(self, key: str) -> Game:
        """Get the game of a key."""


class EmbeddedSource:
    """Games that are made here, as many as are wanted, in the rooms and by the tables of ALFWorld itself.

    Scores on them are not comparable with published ones: what lies where is not ALFRED's.
    """

    name = EMBEDDED

    def __init__(self, split: str, task_types: Sequence[str] = TASK_TYPES, games: int | None = None) -> None:
        """Choose what is drawn.

        Args:
            split: One of ``households.SPLITS``.
            task_types: Which of ``wheel.TASK_TYPES`` are drawn, each equally often.
            games: How many different games are drawn, equally many of each type; None for a million of each.
        """
        self.split, self.task_types = split, tuple(task_types)
        self._numbers = N_GAMES if games is None else games // len(self.task_types)

    def draw(self, rng: np.random.Generator) -> str:
        """Draw the key of a game, such as ``"embedded/train/pick_and_place_simple/17"``.

        Args:
            rng: The generator to draw from.

        Returns:
            The key.
        """
        task_type = self.task_types[int(rng.integers(len(self.task_types)))]
        return f"{EMBEDDED}/{self.split}/{task_type}/{int(rng.integers(self._numbers))}"

    def load(self, key: str) -> Game:
        """Make the game of a key; the split and task type of the key need not be those that are drawn.

        Args:
            key: As :meth:`draw` writes it.

        Returns:
            The game.

        Raises:
            GameError: If the key does not name a game.
        """
        parts = key.split("/")
        if len(parts) != 4 or parts[0] != EMBEDDED or not parts[3].isdecimal():
            raise GameError(
                f"Expected a game such as 'embedded/train/{TASK_TYPES[0]}/17' (split, task type, number), got {key!r}."
            )
        _, split, task_type, number = parts
        require_known("split", split, SPLITS)
        require_known("task type", task_type, TASK_TYPES)
        world = load_world()
        household = make_household(world, split, task_type, int(number))
        task = Task(task_type, household.target.lower(), household.parent.lower(), household.lamp.lower())
        scene = household.scene.number
        return Game(
            key,
            EMBEDDED,
            split,
            task,
            household.sentence,
            scene,
            game_data(world, household),
            trajectory_data(household),
        )


class AlfredSource:
    """ALFRED's real games, as ``alfworld-download`` puts them on disk, with upstream's filters."""

    name = "alfred"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str,
        task_types: Sequence[str] = TASK_TYPES,
        games: int | None = None,
    ) -> None:
        """Look for games; takes some seconds for the whole of the data.

        Args:
            folder: The folder that holds ``json_2.1.1``, or that folder itself.
            split: One of ``households.SPLITS``.
            task_types: Which of ``wheel.TASK_TYPES`` are played.
            games: How many are played at most, equally many of each type and spread over all; None for all.

        Raises:
            GameError: If there are no such games.
        """
        self.split = split
        self._root = _split_folder(Path(folder), split)
        by_type: dict[str, list[str]] = {task_type: [] for task_type in task_types}
        for task_type, key in self._find():
            if task_type in by_type:
                by_type[task_type].append(key)
        most = None if games is None else games // len(by_type)
        self.keys: tuple[str, ...] = tuple(sorted(key for keys in by_type.values() for key in _spread(keys, most)))
        if not self.keys:
            raise GameError(
                f"Expected games of the types {list(task_types)} below {self._root}, found none that can be played. "
                f"{_DOWNLOAD}"
            )

    def draw(self, rng: np.random.Generator) -> str:
        """Draw the key of a game: its folder below that of the split.

        Args:
            rng: The generator to draw from.

        Returns:
            The key.
        """
        return self.keys[int(rng.integers(len(self.keys)))]

    def load(self, key: str) -> Game:
        """Read the game of a key.

        Args:
            key: One of :attr:`keys`.

        Returns:
            The game.

        Raises:
            GameError: If there is no such game, or its files are broken.
        """
        folder = self._root / key
        if ".." in Path(key).parts or not folder.is_dir():
            raise GameError(f"Expected one of the {len(self.keys)} games below {self._root}, got {key!r}.")
        data, trajectory = read_json(folder / GAME_FILE), read_json(folder / TRAJECTORY_FILE)
        found = _SENTENCE.search(str(data.get("grammar", "")))
        scene = trajectory.get("scene", {}).get("scene_num")
        return Game(
            key, self.name, self.split, _task_of(trajectory, folder), found[1] if found else "", scene, data, trajectory
        )

    def _find(self) -> Iterator[tuple[str, str]]:
        """Task types and folders of games that upstream would play too."""
        for path in self._root.rglob(TRAJECTORY_FILE):
            folder = path.parent
            key = folder.relative_to(self._root).as_posix()
            # Movable receptacles and sliced things are not supported by the engine's text.
            if "movable" in key or "Sliced" in key or not (folder / GAME_FILE).is_file():
                continue
            if read_json(folder / GAME_FILE).get("solvable"):
                yield str(read_json(path).get("task_type")), key


def _spread(keys: list[str], most: int | None) -> list[str]:
    """At most so many of some keys, from all over their order."""
    kept = len(keys) if most is None else min(most, len(keys))
    return [sorted(keys)[i * len(keys) // kept] for i in range(kept)]


def find_source(
    data: str | os.PathLike[str] | None, split: str, task_types: Sequence[str], games: int | None = None
) -> GameSource:
    """Choose where games come from.

    Args:
        data: A folder with ALFRED's data; ``"embedded"``; or None for the folder that ``$ALFWORLD_DATA`` names if it
            truly holds games, else embedded ones.
        split: One of ``households.SPLITS``.
        task_types: Which of ``wheel.TASK_TYPES`` are played.
        games: How many different games are played, equally many of each type; None for all there are.

    Returns:
        The source.

    Raises:
        OptionError: If there are fewer games than task types.
        UnknownNameError: If the split or a task type is unknown.
        GameError: If a folder was named that holds no games.
    """
    require_known("split", split, SPLITS)
    for task_type in task_types:
        require_known("task type", task_type, TASK_TYPES)
    if games is not None:
        checked_int("games", games, least=len(task_types))
    if data == EMBEDDED:
        return EmbeddedSource(split, task_types, games)
    if data is not None:
        return AlfredSource(data, split, task_types, games)
    named = os.environ.get(DATA_VARIABLE)
    if named and any((Path(named) / version / split).is_dir() for version in VERSIONS):
        return AlfredSource(named, split, task_types, games)
    return EmbeddedSource(split, task_types, games)


def write_games(folder: str | os.PathLike[str], split: str, n_games: int, first: int = 0) -> list[Path]:
    """Write embedded games in ALFRED's folder layout, for upstream's own environments.

    Args:
        folder: Where to; the games go to ``json_2.1.1/<split>``.
        split: One of ``households.SPLITS``.
        n_games: How many, of the six task types in turn.
        first: Number of the first game of each type.

    Returns:
        The game files.
    """
    world = load_world()
    written = []
    for i in range(n_games):
        household = make_household(world, split, TASK_TYPES[i % len(TASK_TYPES)], first + i // len(TASK_TYPES))
        trajectory = trajectory_data(household)
        place = Path(folder) / VERSIONS[0] / split / household.folder / trajectory["task_id"]
        place.mkdir(parents=True, exist_ok=True)
        for name, content in ((TRAJECTORY_FILE, trajectory), (GAME_FILE, game_data(world, household))):
            part = place / f"{name}.part"
            part.write_text(json.dumps(content), encoding="utf-8")
            part.replace(place / name)
        written.append(place / GAME_FILE)
    return written


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a game.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        GameError: If it is missing or broken; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GameError(f"Cannot read the game file {path}: {error}. Delete it or download the data again.") from error
    if not isinstance(content, dict):
        raise GameError(f"Expected a JSON object in the game file {path}, found {type(content).__name__}.")
    return content


_DOWNLOAD = "Run `alfworld-download`, set ALFWORLD_DATA, or use data='embedded', which needs no files."


def _split_folder(folder: Path, split: str) -> Path:
    """The folder of a split below that of the data."""
    for root in (*(folder / version for version in VERSIONS), folder):
        if (root / split).is_dir():
            return root / split
    raise GameError(f"Expected a folder {VERSIONS[0]}/{split} below {folder}, found none. {_DOWNLOAD}")


def _task_of(trajectory: Mapping[str, Any], folder: Path) -> Task:
    """The task that ALFRED's file describes."""
    try:
        parameters = trajectory["pddl_params"]
        named = [parameters[f"{name}_target"] or "" for name in ("object", "parent", "toggle")]
        task_type = trajectory["task_type"]
    except (KeyError, TypeError) as error:
        raise GameError(
            f"Expected pddl_params and task_type in {folder / TRAJECTORY_FILE}; {error} is missing."
        ) from error
    target, parent, lamp = (str(name).lower() for name in named)
    # ALFRED names the lamp as the place of a look task too.
    return Task(task_type, target, "" if task_type == "look_at_obj_in_light" else parent, lamp)
