"""Decides how much of a task is done, by ALFRED's own goal conditions."""

from __future__ import annotations

from gtr_envs.alfworld.situation import Situation, Task

TREATMENTS = {
    "pick_clean_then_place_in_recep": ("clean", "clean", "sinkbasin"),
    "pick_heat_then_place_in_recep": ("heat", "hot", "microwave"),
    "pick_cool_then_place_in_recep": ("cool", "cold", "fridge"),
}
"""Task type -> verb, the mark it leaves and the class of receptacle that does it."""


def conditions(situation: Situation, task: Task) -> list[bool]:
    """Judge every goal condition.

    Args:
        situation: What holds.
        task: What is to be done.

    Returns:
        One entry for each condition. Pick and place has one; pick two has two (things of the class in one receptacle of
        the class); look has two (the thing is carried; a lamp of the class is on and before the agent); clean, heat
        and cool have three (a thing is in place; a thing is so treated; one thing is both).
    """
    parents = set(situation.of_kind(task.parent)) if task.parent else set()
    targets = situation.of_kind(task.target)
    if task.task_type == "look_at_obj_in_light":
        lamps = [lamp for lamp in situation.of_kind(task.lamp) if lamp in situation.places]
        lit = any("on" in situation.marks_of(lamp) and situation.is_near(situation.places[lamp]) for lamp in lamps)
        return [situation.held in targets, lit]
    placed = [thing for thing in targets if situation.places.get(thing) in parents]
    if task.task_type == "pick_two_obj_and_place":
        most = max((sum(situation.places[thing] == parent for thing in placed) for parent in parents), default=0)
        return [most >= 1, most >= 2]
    if task.task_type in TREATMENTS:
        mark = TREATMENTS[task.task_type][1]
        treated = [thing for thing in targets if mark in situation.marks_of(thing)]
        return [bool(placed), bool(treated), bool(set(placed) & set(treated))]
    return [bool(placed)]


def goal_rate(situation: Situation, task: Task) -> float:
    """Share of the goal conditions that hold.

    Args:
        situation: What holds.
        task: What is to be done.

    Returns:
        From 0 to 1; 1 if and only if the task is done.
    """
    held = conditions(situation, task)
    return sum(held) / len(held)
