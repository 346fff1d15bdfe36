"""Decides what is read from the alfworld package: scenes, affordances, goals, domain and grammar; the only door to it.

Nothing of the package is run. It is data: the floor plans of AI2-THOR with the pose from which each receptacle is
reached, and ALFRED's tables of what can be put where, heated, cooled, cleaned and switched on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from gtr_envs.alfworld.install import REMEDY
from gtr_envs.errors import DependencyError

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""ALFWorld's six task types, in its own numbering from 1."""
_DATA_VARIABLE = "ALFWORLD_DATA"


class Pose(NamedTuple):
    """Where the agent stands and looks."""

    x: float
    """Metres."""
    z: float
    """Metres."""
    rotation: int
    """Degrees, clockwise from +z: 0, 90, 180 or 270."""
    horizon: int
    """Degrees below the horizontal."""


class Receptacle(NamedTuple):
    """A fixed place that things lie in or on."""

    name: str
    """ALFRED's id, class and coordinates, e.g. ``"Cabinet|+01.66|+02.05|+00.67"``."""
    kind: str
    """Its class, e.g. ``"Cabinet"`` or ``"SinkBasin"``."""
    pose: Pose
    """From where it is reached; several receptacles may share a pose."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One floor plan."""

    number: int
    """ALFRED's number: 1-30 kitchens, 201-230 living rooms, 301-330 bedrooms, 401-430 bathrooms."""
    room: str
    """``"Kitchen"``, ``"LivingRoom"``, ``"Bedroom"`` or ``"Bathroom"``."""
    receptacles: tuple[Receptacle, ...]
    """Every receptacle that can be reached, by name."""
    object_kinds: tuple[str, ...]
    """Classes of the things that belong to the scene, sorted."""
    grid: tuple[tuple[float, float], ...]
    """Points (x, z) in metres where the agent can stand."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that households are made of."""

    domain: str
    """The PDDL domain."""
    grammar: str
    """The text grammar; ``UNKNOWN GOAL`` stands for the task."""
    train_scenes: tuple[int, ...]
    """Numbers of the scenes of ``train`` and ``valid_seen``."""
    unseen_scenes: tuple[int, ...]
    """Numbers of the scenes of ``valid_unseen``."""
    may_hold: Mapping[str, tuple[str, ...]]
    """Receptacle class -> classes of things that can be put there, sorted."""
    openable: frozenset[str]
    """Receptacle classes with a door or drawer."""
    treatable: Mapping[str, frozenset[str]]
    """``"Heatable"``, ``"Coolable"``, ``"Cleanable"``, ``"Toggleable"``, ``"Sliceable"`` -> classes of things."""
    movable_receptacles: frozenset[str]
    """Classes of things that can hold other things."""
    goals: Mapping[str, tuple[str, tuple[str, ...]]]
    """Task type -> the goal in PDDL and the sentences that tell it, with ``{obj}``, ``{recep}`` and ``{toggle}``."""
    rooms: Mapping[str, frozenset[str]]
    """Task type -> rooms in which it makes sense."""


@lru_cache(maxsize=1)
def load_world() -> World:
    """Read the package's tables.

    Returns:
        The world; remembered.

    Raises:
        DependencyError: If the package is not installed.
    """
    constants, goals, info = (_imported(f"alfworld.{name}") for name in ("gen.constants", "gen.goal_library", "info"))
    plain = {kind for kind in constants.OBJECTS if not kind.endswith("Sliced")}
    may_hold = {
        receptacle: tuple(sorted(kind for kind in kinds if kind in plain))
        for receptacle, kinds in constants.VAL_RECEPTACLE_OBJECTS.items()
    }
    treatable = {
        name: frozenset(kind for kind in kinds if kind in plain) for name, kinds in constants.VAL_ACTION_OBJECTS.items()
    }
    return World(
        domain=Path(info.ALFRED_PDDL_PATH).read_text(encoding="utf-8"),
        grammar=Path(info.ALFRED_TWL2_PATH).read_text(encoding="utf-8"),
        train_scenes=tuple(constants.TRAIN_SCENE_NUMBERS),
        unseen_scenes=tuple(constants.TEST_SCENE_NUMBERS),
        may_hold=MappingProxyType(may_hold),
        openable=frozenset(constants.OPENABLE_CLASS_LIST),
        treatable=MappingProxyType(treatable),
        movable_receptacles=frozenset(constants.MOVABLE_RECEPTACLES),
        goals=MappingProxyType(
            {task: (goals.gdict[task]["pddl"], tuple(goals.gdict[task]["templates"])) for task in TASK_TYPES}
        ),
        rooms=MappingProxyType({task: frozenset(constants.GOALS_VALID[task]) for task in TASK_TYPES}),
    )


@lru_cache(maxsize=128)
def load_scene(number: int) -> Scene:
    """Read one floor plan.

    Args:
        number: ALFRED's number of the scene.

    Returns:
        The scene; remembered.

    Raises:
        DependencyError: If the package is not installed.
    """
    constants, gen = _imported("alfworld.gen.constants"), _imported("alfworld.gen")
    stem = str(Path(gen.__file__).parent / "layouts" / f"FloorPlan{number}-")
    reached: dict[str, list[float]] = json.loads(Path(f"{stem}openable.json").read_text(encoding="utf-8"))
    kinds: list[str] = json.loads(Path(f"{stem}objects.json").read_text(encoding="utf-8"))
    return Scene(
        number=number,
        room=next(room for room, numbers in constants.SCENE_TYPE.items() if number in numbers),
        receptacles=tuple(
            Receptacle(name, _kind_of(name), Pose(x, z, int(rotation), int(horizon)))
            for name, (x, z, rotation, horizon) in sorted(reached.items())
        ),
        object_kinds=tuple(sorted(kinds)),
        grid=tuple((float(x), float(z)) for x, z in np.load(f"{stem}layout.npy")),
    )


def _kind_of(name: str) -> str:
    """The class of a receptacle; the basin of a sink is named last."""
    first, *_, last = name.split("|")
    return last if last.isalpha() else first


def _imported(name: str) -> Any:
    """Import a module of the package without leaving its marks."""
    try:
        with _untouched_environment():
            return import_module(name)
    except ImportError as missing:
        raise DependencyError(
            f"ALFWorld needs the package {(missing.name or 'alfworld').partition('.')[0]!r}, which is not installed. "
            f"{REMEDY}"
        ) from missing


@contextmanager
def _untouched_environment() -> Iterator[None]:
    """Importing alfworld makes a cache folder in the home directory and sets a variable; neither is wanted."""
    before = os.environ.get(_DATA_VARIABLE)
    # A folder that exists already keeps it from making one.
    os.environ[_DATA_VARIABLE] = before or os.getcwd()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_DATA_VARIABLE, None)
        else:
            os.environ[_DATA_VARIABLE] = before
