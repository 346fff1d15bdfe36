"""Decides how a household is made: a scene, things at their places, and a task; as ALFRED files, from a seed.

Scenes, places, affordances, goals and sentences are ALFWorld's. Which thing lies where is drawn here, so scores on
these games are not comparable with published ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gtr_envs.alfworld.wheel import TASK_TYPES, Pose, Scene, World, load_scene

SPLITS = ("train", "valid_seen", "valid_unseen")
"""ALFRED's splits: ``valid_seen`` has the rooms of ``train``, ``valid_unseen`` other rooms."""
MAX_COPIES = 3
"""ALFRED's own limit of equal things in a room."""
ROOMY = frozenset(
    {"CounterTop", "DiningTable", "CoffeeTable", "SideTable", "Desk", "Dresser", "Bed", "Sofa", "TVStand"}
)
"""Receptacles with room for many things."""
ROOM_IN_ROOMY, ROOM_ELSEWHERE = 8, 3
LAMP_PLACES = frozenset({"Desk", "Dresser", "SideTable", "CoffeeTable", "TVStand", "Shelf"})
"""Where a desk lamp stands; ALFRED's table of places leaves lamps out, since they are never carried."""
MAX_TRIES = 200
"""Rooms that are furnished before a task is given up; the first or second try nearly always succeeds."""
GRID_STEP = 0.25
"""Metres between two points of ALFRED's grid."""

_TREATMENT = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
}
"""Task type -> what the thing must be, and where it is treated."""
_STATES = {
    "Heatable": "heatable",
    "Coolable": "coolable",
    "Cleanable": "cleanable",
    "Toggleable": "toggleable",
    "Sliceable": "sliceable",
}
_PDDL_SIGNS = (("|", "_bar_"), ("-", "_minus_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_"))


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that lies somewhere."""

    name: str
    """ALFRED's form of an id, e.g. ``"Apple|+01.00|+00.90|-01.52"``."""
    kind: str
    """Its class."""
    place: str
    """Name of the receptacle it lies in or on."""


@dataclass(frozen=True, slots=True)
class Household:
    """A furnished room with a task."""

    split: str
    """One of :data:`SPLITS`."""
    task_type: str
    """One of ``TASK_TYPES``."""
    number: int
    """Number of the household; split, task type and number decide everything."""
    scene: Scene
    """The room."""
    things: tuple[Thing, ...]
    """What lies in it."""
    start: Pose
    """Where the agent begins."""
    target: str
    """Class of the thing that the task is about."""
    parent: str
    """Class of the receptacle it is to be brought to; empty if there is none."""
    lamp: str
    """Class of the lamp to switch on; empty if there is none."""
    sentence: str
    """The task in words."""

    @property
    def folder(self) -> str:
        """ALFRED's folder name of the task, e.g. ``"pick_and_place_simple-Cup-None-Shelf-7"``."""
        return f"{self.task_type}-{self.target}-None-{self.parent or self.lamp}-{self.scene.number}"


def make_household(world: World, split: str, task_type: str, number: int) -> Household:
    """Furnish a room and find a task in it.

    Args:
        world: ALFWorld's tables.
        split: One of :data:`SPLITS`.
        task_type: One of ``TASK_TYPES``.
        number: Number of the household, at least 0; equal arguments make equal households.

    Returns:
        A household whose task is possible and not done yet.

    Raises:
        RuntimeError: If no room was found in :data:`MAX_TRIES` tries; does not happen with the shipped scenes.
    """
    rng = np.random.default_rng([SPLITS.index(split), TASK_TYPES.index(task_type), number])
    scenes = world.unseen_scenes if split == "valid_unseen" else world.train_scenes
    for _ in range(MAX_TRIES):
        scene = load_scene(int(rng.choice(scenes)))
        if scene.room not in world.rooms[task_type]:
            continue
        things = tuple(_furnish(world, scene, rng))
        choices = list(_tasks(world, scene, things, task_type))
        if choices:
            target, parent, lamp = choices[int(rng.integers(len(choices)))]
            sentences = world.goals[task_type][1]
            told = sentences[int(rng.integers(len(sentences)))]
            words = {"obj": target.lower(), "recep": parent.lower(), "toggle": lamp.lower()}
            return Household(
                split,
                task_type,
                number,
                scene,
                things,
                start=_start(scene, rng),
                target=target,
                parent=parent,
                lamp=lamp,
                sentence=told.format(**words),
            )
    raise RuntimeError(f"no room for {task_type} in {split} after {MAX_TRIES} tries")


def _furnish(world: World, scene: Scene, rng: np.random.Generator) -> Iterator[Thing]:
    """Put some of every class of the scene where ALFRED allows it, as long as there is room."""
    room = {r.name: ROOM_IN_ROOMY if r.kind in ROOMY else ROOM_ELSEWHERE for r in scene.receptacles}
    for kind in scene.object_kinds:
        if kind == "DeskLamp":
            places, n_copies = [r for r in scene.receptacles if r.kind in LAMP_PLACES], 1
        else:
            places = [r for r in scene.receptacles if kind in world.may_hold.get(r.kind, ())]
            n_copies = int(rng.integers(1, MAX_COPIES + 1))
        for copy in range(n_copies):
            free = [r for r in places if room[r.name]]
            if free:
                place = free[int(rng.integers(len(free)))]
                room[place.name] -= 1
                x, y, z = (float(number) for number in place.name.split("|")[1:4])
                # A little beside the middle of the receptacle, so that no two ids are equal.
                x, z = x + rng.integers(-20, 21) / 100, z + rng.integers(-20, 21) / 100 + copy / 100
                yield Thing(f"{kind}|{x:+06.2f}|{y + 0.05:+06.2f}|{z:+06.2f}|{copy}", kind, place.name)


def _tasks(world: World, scene: Scene, things: Sequence[Thing], task_type: str) -> Iterator[tuple[str, str, str]]:
    """Yield every possible (target, parent, lamp) that is not done already, sorted."""
    kinds = {receptacle.name: receptacle.kind for receptacle in scene.receptacles}
    lamps = sorted({thing.kind for thing in things} & world.treatable["Toggleable"])
    targets = sorted({thing.kind for thing in things} - world.treatable["Toggleable"])
    if task_type == "look_at_obj_in_light":
        yield from ((target, "", lamp) for target in targets for lamp in lamps)
        return
    treatment, place = _TREATMENT.get(task_type, ("", ""))
    if place and place not in kinds.values():
        return
    least = 2 if task_type == "pick_two_obj_and_place" else 1
    for target in targets:
        lying = [kinds[thing.place] for thing in things if thing.kind == target]
        if treatment and target not in world.treatable[treatment]:
            continue
        for parent in sorted(set(kinds.values())):
            in_place = lying.count(parent)
            # Something must be left to carry, and what was not treated may lie there already.
            to_do = len(lying) - in_place >= least and (in_place == 0 or treatment)
            if to_do and target in world.may_hold.get(parent, ()):
                yield target, parent, ""


def _start(scene: Scene, rng: np.random.Generator) -> Pose:
    """A point of the grid from which no receptacle is reached, if there is one."""
    taken = {(receptacle.pose.x, receptacle.pose.z) for receptacle in scene.receptacles}
    free = [point for point in scene.grid if point not in taken] or list(scene.grid)
    x, z = free[int(rng.integers(len(free)))]
    return Pose(x, z, int(rng.integers(4)) * 90, 30)


# --- ALFRED's files -------------------------------------------------------------------------------------------------


def game_data(world: World, household: Household) -> dict[str, Any]:
    """Write a household as a game of TextWorld.

    Args:
        world: ALFWorld's tables.
        household: What is played.

    Returns:
        The content of a ``game.tw-pddl`` file: the keys ``pddl_domain``, ``grammar``, ``pddl_problem``, ``solvable``
        and ``walkthrough``.
    """
    return {
        "pddl_domain": world.domain,
        "grammar": world.grammar.replace("UNKNOWN GOAL", household.sentence),
        "pddl_problem": problem_text(world, household),
        "solvable": True,
        "walkthrough": None,
    }


def trajectory_data(household: Household) -> dict[str, Any]:
    """Write what upstream's loader and experts read of ALFRED's ``traj_data.json``.

    Args:
        household: What is played.

    Returns:
        The content of the file. It has no ``object_poses`` and no plan, so it cannot be replayed in THOR.
    """
    return {
        "task_id": f"trial_{household.split}_{household.number:06d}",
        "task_type": household.task_type,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": household.target,
            "parent_target": household.parent,
            "toggle_target": household.lamp,
        },
        "scene": {"floor_plan": f"FloorPlan{household.scene.number}", "scene_num": household.scene.number},
        "turk_annotations": {"anns": [{"task_desc": household.sentence, "high_descs": [], "votes": []}]},
        "made_by": "gtr_envs",
    }


def problem_text(world: World, household: Household) -> str:
    """Write the initial state and the goal as a PDDL problem.

    Args:
        world: ALFWorld's tables.
        household: What is described.

    Returns:
        The problem.
    """
    objects, facts = _declared(world, household)
    goal = world.goals[household.task_type][0].replace("#", "-")
    goal = goal.format(obj=household.target, recep=household.parent, toggle=household.lamp)
    lines = [f"(define (problem plan_{household.split}_{household.number})", "(:domain alfred)", "(:objects"]
    lines += [f"    {name} - {sort}" for name, sort in objects.items()]
    lines += [")", "(:init", *(f"    ({' '.join(fact)})" for fact in facts), ")"]
    return "\n".join(lines) + goal


def _declared(world: World, household: Household) -> tuple[Mapping[str, str], list[tuple[str, ...]]]:
    """Names with their PDDL types, and the facts of the initial state."""
    scene, things = household.scene, household.things
    receptacle_kinds = sorted(
        {receptacle.kind for receptacle in scene.receptacles} | {"SinkBasin", "Microwave", "Fridge"}
    )
    thing_kinds = sorted({thing.kind for thing in things} | {"Knife", "ButterKnife"})
    objects = {"agent1": "agent"}
    objects |= {f"{kind}Type": "rtype" for kind in receptacle_kinds}
    # Some classes, such as Box, are both a receptacle and a thing; each name has one type only.
    objects |= {f"{kind}Type": "otype" for kind in thing_kinds if f"{kind}Type" not in objects}
    objects |= {pddl_name(thing.name): "object" for thing in things}
    objects |= {pddl_name(receptacle.name): "receptacle" for receptacle in scene.receptacles}
    places = {receptacle.name: location_name(receptacle.pose) for receptacle in scene.receptacles}
    objects |= dict.fromkeys([*places.values(), location_name(household.start)], "location")
    facts: list[tuple[str, ...]] = [("atLocation", "agent1", location_name(household.start))]
    for receptacle in scene.receptacles:
        name = pddl_name(receptacle.name)
        facts.append(("receptacleType", name, f"{receptacle.kind}Type"))
        facts.append(("receptacleAtLocation", name, places[receptacle.name]))
        if receptacle.kind in world.openable:
            facts.append(("openable", name))
    for thing in things:
        name = pddl_name(thing.name)
        facts.append(("objectType", name, f"{thing.kind}Type"))
        facts.append(("inReceptacle", name, pddl_name(thing.place)))
        facts.append(("objectAtLocation", name, places[thing.place]))
        facts += [(word, name) for group, word in _STATES.items() if thing.kind in world.treatable[group]]
        if thing.kind not in world.treatable["Toggleable"]:
            facts.append(("pickupable", name))
        if thing.kind in world.movable_receptacles:
            facts.append(("isReceptacleObject", name))
    facts += [
        ("canContain", f"{holder}Type", f"{kind}Type")
        for holder in receptacle_kinds
        for kind in thing_kinds
        if kind in world.may_hold.get(holder, ())
    ]
    return objects, facts


def pddl_name(name: str) -> str:
    """Write an ALFRED id as a PDDL name.

    Args:
        name: E.g. ``"Cup|-01.00|+00.90"``.

    Returns:
        E.g. ``"Cup_bar__minus_01_dot_00_bar__plus_00_dot_90"``.
    """
    for sign, word in _PDDL_SIGNS:
        name = name.replace(sign, word)
    return name


def location_name(pose: Pose) -> str:
    """Write a pose as ALFRED's PDDL name of a location.

    Args:
        pose: Where the agent stands and looks.

    Returns:
        E.g. ``"loc_bar_4_bar_1_bar_1_bar_0"``.
    """
    x, z = round(pose.x / GRID_STEP), round(pose.z / GRID_STEP)
    return pddl_name(f"loc|{x}|{z}|{pose.rotation // 90}|{pose.horizon}")
