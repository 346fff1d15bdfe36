"""Decides what the engine's facts mean: where things are, what is open, hot or on, and what the agent may see of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gtr_envs.alfworld.wheel import Pose

_SIGNS = (("_bar_", "|"), ("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ","))
GRID_STEP = 0.25
"""Metres between two points of ALFRED's grid."""
MARKS = {"ishot": "hot", "iscool": "cold", "isclean": "clean", "issliced": "sliced", "istoggled": "on"}
"""Predicate -> what is said of a thing for which it holds."""


class Task(NamedTuple):
    """What is to be done."""

    task_type: str
    """One of ``wheel.TASK_TYPES``."""
    target: str
    """Class of the thing, in lower case."""
    parent: str
    """Class of the receptacle it is to be brought to, in lower case; empty if there is none."""
    lamp: str
    """Class of the lamp to switch on, in lower case; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Room:
    """What never changes in a game; all by id."""

    names: Mapping[str, str]
    """Id -> name for the player."""
    kinds: Mapping[str, str]
    """Receptacle or thing -> class, in lower case."""
    locations: Mapping[str, str]
    """Receptacle -> location from which it is reached; in the order of the ids."""
    openable: frozenset[str]
    """Receptacles with a door or drawer."""
    may_hold: Mapping[str, frozenset[str]]
    """Receptacle class -> classes of things that can be put there."""
    lamps: frozenset[str]
    """Things that can be switched on."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that holds at one moment; all by id."""

    room: Room
    """What never changes."""
    location: str
    """Where the agent is."""
    held: str | None
    """What the agent carries."""
    places: Mapping[str, str]
    """Thing -> receptacle it lies in or on; a carried thing is in none."""
    opened: frozenset[str]
    """Receptacles that are open."""
    marks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Thing -> what is true of it: ``"hot"``, ``"cold"``, ``"clean"``, ``"sliced"``, ``"on"``."""

    def is_near(self, receptacle: str) -> bool:
        """Say whether a receptacle is reached from where the agent is."""
        return self.room.locations[receptacle] == self.location

    def is_shut(self, receptacle: str) -> bool:
        """Say whether nothing can be put into or taken out of a receptacle now."""
        return receptacle in self.room.openable and receptacle not in self.opened

    def contents(self, receptacle: str) -> list[str]:
        """List what lies in or on a receptacle, sorted by id."""
        return sorted(thing for thing, place in self.places.items() if place == receptacle)

    def of_kind(self, kind: str) -> list[str]:
        """List things and receptacles of a class, sorted by id."""
        return sorted(item for item, its_kind in self.room.kinds.items() if its_kind == kind)

    def marks_of(self, thing: str) -> frozenset[str]:
        """What is true of a thing."""
        return self.marks.get(thing, frozenset())


def read_room(facts: Iterable[tuple[str, tuple[str, ...]]], names: Mapping[str, str]) -> Room:
    """Read what never changes from the facts of a game's beginning.

    Args:
        facts: Predicates with their arguments.
        names: Id -> name for the player.

    Returns:
        The room.
    """
    found = _by_name(facts)
    kinds = {item: kind.removesuffix("type") for item, kind in found.get("objecttype", [])}
    kinds |= {item: kind.removesuffix("type") for item, kind in found.get("receptacletype", [])}
    may_hold: dict[str, set[str]] = {}
    for holder, kind in found.get("cancontain", []):
        may_hold.setdefault(holder.removesuffix("type"), set()).add(kind.removesuffix("type"))
    return Room(
        names=names,
        kinds=kinds,
        locations={item: place for item, place in sorted(found.get("receptacleatlocation", []))},
        openable=frozenset(item for (item,) in found.get("openable", [])),
        may_hold={holder: frozenset(held) for holder, held in may_hold.items()},
        lamps=frozenset(item for (item,) in found.get("toggleable", [])),
    )


def read_situation(facts: Iterable[tuple[str, tuple[str, ...]]], room: Room) -> Situation:
    """Read the present situation.

    Args:
        facts: Predicates with their arguments.
        room: What never changes.

    Returns:
        The situation.
    """
    found = _by_name(facts)
    marks: dict[str, set[str]] = {}
    for predicate, mark in MARKS.items():
        for (thing,) in found.get(predicate, []):
            marks.setdefault(thing, set()).add(mark)
    held = [thing for _, thing in found.get("holds", [])]
    return Situation(
        room=room,
        location=next(iter(found["atlocation"]))[1],
        held=held[0] if held else None,
        places={thing: place for thing, place in found.get("inreceptacle", [])},
        opened=frozenset(item for (item,) in found.get("opened", [])),
        marks={thing: frozenset(said) for thing, said in marks.items()},
    )


def _by_name(facts: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, list[tuple[str, ...]]]:
    """Arguments by predicate."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name, arguments in facts:
        found.setdefault(name, []).append(arguments)
    return found


# --- what the agent sees ----------------------------------------------------------------------------------------------


class SeenThing(NamedTuple):
    """A thing in view."""

    name: str
    """For the player, e.g. ``"cup 1"``."""
    kind: str
    """Its class, in lower case."""
    marks: tuple[str, ...] = ()
    """What is true of it, sorted: ``"clean"``, ``"cold"``, ``"hot"``, ``"on"``, ``"sliced"``."""

    def __str__(self) -> str:
        """In words, e.g. ``"clean hot cup 1"``."""
        return " ".join((*self.marks, self.name))


class SeenReceptacle(NamedTuple):
    """A receptacle before the agent."""

    name: str
    """For the player, e.g. ``"drawer 2"``."""
    kind: str
    """Its class, in lower case."""
    door: str
    """``"open"``, ``"closed"``, or ``""`` if it has none."""
    things: tuple[SeenThing, ...]
    """What lies in or on it; nothing if it is closed."""


class MapMark(NamedTuple):
    """A receptacle on the map."""

    name: str
    """For the player."""
    kind: str
    """Its class, in lower case."""
    x: float
    """Metres."""
    z: float
    """Metres."""


@dataclass(frozen=True, slots=True)
class View:
    """All that a picture may show; nothing hidden is in it."""

    pose: Pose
    """Where the agent stands and looks."""
    near: tuple[SeenReceptacle, ...]
    """Receptacles that are reached from here; several may share a place."""
    held: SeenThing | None
    """What the agent carries."""
    map_marks: tuple[MapMark, ...]
    """Every receptacle of the room, with the coordinates of its id."""
    grid: tuple[tuple[float, float], ...]
    """Points (x, z) in metres where one can stand; empty if the floor plan is unknown."""
    sentence: str
    """The task in words."""


def in_view(situation: Situation) -> frozenset[str]:
    """Ids of the receptacles before the agent whose contents can be seen."""
    room = situation.room
    return frozenset(item for item in room.locations if situation.is_near(item) and not situation.is_shut(item))


def look(situation: Situation, sentence: str, grid: tuple[tuple[float, float], ...] = ()) -> View:
    """Take from a situation what the agent may see.

    Args:
        situation: Everything.
        sentence: The task in words.
        grid: Points where one can stand.

    Returns:
        The view: receptacles before the agent, contents of those that are not closed, what is carried, and the map.
    """
    room = situation.room
    near = []
    for receptacle in room.locations:
        if situation.is_near(receptacle):
            shut = situation.is_shut(receptacle)
            things = [] if shut else [_seen(situation, thing) for thing in situation.contents(receptacle)]
            door = "" if receptacle not in room.openable else "closed" if shut else "open"
            near.append(SeenReceptacle(room.names[receptacle], room.kinds[receptacle], door, tuple(things)))
    marks = [
        MapMark(room.names[item], room.kinds[item], *position)
        for item in room.locations
        if (position := coordinates(item)) is not None
    ]
    return View(
        pose=pose_of(situation.location),
        near=tuple(near),
        held=None if situation.held is None else _seen(situation, situation.held),
        map_marks=tuple(marks),
        grid=grid,
        sentence=sentence,
    )


def _seen(situation: Situation, thing: str) -> SeenThing:
    room = situation.room
    return SeenThing(room.names[thing], room.kinds[thing], tuple(sorted(situation.marks_of(thing))))


def coordinates(identity: str) -> tuple[float, float] | None:
    """Read x and z in metres from an id; None if it has none."""
    parts = _alfred(identity).split("|")
    return (float(parts[1]), float(parts[3])) if len(parts) >= 4 else None


def pose_of(location: str) -> Pose:
    """Read a location's id, e.g. ``"loc_bar_4_bar_1_bar_1_bar_0"``."""
    _, x, z, rotation, horizon = _alfred(location).split("|")
    return Pose(int(x) * GRID_STEP, int(z) * GRID_STEP, int(rotation) * 90, int(horizon))


def _alfred(identity: str) -> str:
    """ALFRED's form of an id."""
    for word, sign in _SIGNS:
        identity = identity.replace(word, sign)
    return identity


# --- what an action changes -------------------------------------------------------------------------------------------


class Action(NamedTuple):
    """Something the agent can do."""

    verb: str
    """``"go"``, ``"open"``, ``"close"``, ``"take"``, ``"move"``, ``"heat"``, ``"cool"``, ``"clean"`` or ``"use"``."""
    thing: str = ""
    """Id of the thing; empty for ``"go"``, ``"open"`` and ``"close"``."""
    receptacle: str = ""
    """Id of the receptacle; empty for ``"use"``."""

    def command(self, names: Mapping[str, str]) -> str:
        """Write the action as the engine reads it.

        Args:
            names: Id -> name for the player.

        Returns:
            The command in today's grammar, e.g. ``"move cup 1 to shelf 2"``.
        """
        return _COMMANDS[self.verb].format(thing=names.get(self.thing, ""), receptacle=names.get(self.receptacle, ""))


_COMMANDS = {
    "go": "go to {receptacle}",
    "open": "open {receptacle}",
    "close": "close {receptacle}",
    "take": "take {thing} from {receptacle}",
    "move": "move {thing} to {receptacle}",
    "heat": "heat {thing} with {receptacle}",
    "cool": "cool {thing} with {receptacle}",
    "clean": "clean {thing} with {receptacle}",
    "use": "use {thing}",
}
_LEFT_BY = {"heat": ("hot", "cold"), "cool": ("cold", "hot"), "clean": ("clean", "")}
"""Verb -> what becomes true of the thing, and what ceases to be."""


def after(situation: Situation, action: Action) -> Situation:
    """Foresee an action that is possible; for plans, the engine decides what really happens.

    Args:
        situation: Before.
        action: What is done.

    Returns:
        The situation after it.
    """
    thing, receptacle = action.thing, action.receptacle
    if action.verb == "go":
        return replace(situation, location=situation.room.locations[receptacle])
    if action.verb in ("open", "close"):
        opened = situation.opened | {receptacle} if action.verb == "open" else situation.opened - {receptacle}
        return replace(situation, opened=opened)
    if action.verb == "take":
        places = {other: place for other, place in situation.places.items() if other != thing}
        return replace(situation, held=thing, places=places)
    if action.verb == "move":
        return replace(situation, held=None, places={**situation.places, thing: receptacle})
    gained, lost = _LEFT_BY.get(action.verb, ("on", ""))
    marks = (situation.marks_of(thing) | {gained}) - {lost}
    return replace(situation, marks={**situation.marks, thing: marks})
