"""Decides what an expert does: one that knows everything, and one that has to look for things and remembers.

Both choose the next action anew in every situation, so they go on from wherever a player has got to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gtr_envs.alfworld.goals import TREATMENTS, goal_rate
from gtr_envs.alfworld.situation import Action, Situation, Task, after, pose_of

MAX_PLAN = 100
"""A plan is given up after this many actions; the longest task takes about twenty."""


def next_action(situation: Situation, task: Task) -> Action | None:
    """Choose what brings the task forward, knowing where everything is.

    Args:
        situation: What holds.
        task: What is to be done.

    Returns:
        The action; None if the task is done, or if nothing known helps.
    """
    if goal_rate(situation, task) == 1:
        return None
    if situation.held is not None and situation.room.kinds[situation.held] != task.target:
        return _put_away(situation)
    if task.task_type == "look_at_obj_in_light":
        return _fetch(situation, situation.of_kind(task.target)) if situation.held is None else _light(situation, task)
    goal = _goal_receptacle(situation, task)
    if goal is None:
        return None
    if situation.held is None:
        return _fetch(situation, _worth_fetching(situation, task, goal))
    verb, mark, kind = TREATMENTS.get(task.task_type, ("", "", ""))
    if verb and mark not in situation.marks_of(situation.held):
        place = _nearest(situation, situation.of_kind(kind))
        return None if place is None else _at(situation, place, Action(verb, situation.held, place), inside=False)
    return _at(situation, goal, Action("move", situation.held, goal), inside=True)


def plan(situation: Situation, task: Task) -> list[Action]:
    """Follow :func:`next_action` in thought to the end of the task.

    Args:
        situation: What holds.
        task: What is to be done.

    Returns:
        Actions to the goal; empty if it is reached, or not found.
    """
    actions: list[Action] = []
    while (action := next_action(situation, task)) is not None and len(actions) < MAX_PLAN:
        actions.append(action)
        situation = after(situation, action)
    return actions if goal_rate(situation, task) == 1 else []


class Explorer:
    """An expert that knows only what it has seen: it looks into one receptacle after another until it can go on.

    It begins with receptacles that may hold what it looks for, the nearest first.
    """

    def __init__(self, task: Task) -> None:
        """Know nothing yet.

        Args:
            task: What is to be done.
        """
        self.task = task
        self._seen: set[str] = set()

    def observe(self, situation: Situation) -> None:
        """Remember the receptacles whose contents are in view.

        Args:
            situation: What holds; only what is before the agent is taken from it.
        """
        self._seen |= {
            item for item in situation.room.locations if situation.is_near(item) and not situation.is_shut(item)
        }

    def next_action(self, situation: Situation) -> Action | None:
        """Choose what to do with what is known.

        Args:
            situation: What holds; what lies in unseen receptacles is not looked at.

        Returns:
            The action; None if the task is done, or everything was seen and nothing helps.
        """
        known = replace(situation, places={t: place for t, place in situation.places.items() if place in self._seen})
        action = next_action(known, self.task)
        return action if action is not None or goal_rate(situation, self.task) == 1 else self._explore(situation)

    def _explore(self, situation: Situation) -> Action | None:
        """Go to the next unseen receptacle, or open it."""
        sought = self.task.lamp if situation.held is not None else self.task.target
        unseen = [item for item in situation.room.locations if item not in self._seen]
        likely = [i for i in unseen if sought in situation.room.may_hold.get(situation.room.kinds[i], ())]
        place = _nearest(situation, likely or unseen)
        if place is None:
            return None
        return Action("open", receptacle=place) if situation.is_near(place) else Action("go", receptacle=place)


def _at(situation: Situation, receptacle: str, action: Action, *, inside: bool) -> Action:
    """Do something at a receptacle, or what must come before."""
    if not situation.is_near(receptacle):
        return Action("go", receptacle=receptacle)
    return Action("open", receptacle=receptacle) if inside and situation.is_shut(receptacle) else action


def _fetch(situation: Situation, things: Sequence[str]) -> Action | None:
    """Take the nearest of some things."""
    places = {situation.places[thing]: thing for thing in reversed(things) if thing in situation.places}
    place = _nearest(situation, list(places))
    return None if place is None else _at(situation, place, Action("take", places[place], place), inside=True)


def _light(situation: Situation, task: Task) -> Action | None:
    """Switch the nearest lamp on, or go to one that is on."""
    lamps = {situation.places[lamp]: lamp for lamp in situation.of_kind(task.lamp) if lamp in situation.places}
    place = _nearest(situation, list(lamps))
    return None if place is None else _at(situation, place, Action("use", lamps[place]), inside=False)


def _put_away(situation: Situation) -> Action | None:
    """Get rid of something that is in the way, where it is allowed to lie."""
    assert situation.held is not None
    kind = situation.room.kinds[situation.held]
    allowed = [i for i in situation.room.locations if kind in situation.room.may_hold.get(situation.room.kinds[i], ())]
    place = _nearest(situation, [item for item in allowed if not situation.is_shut(item)] or allowed)
    return None if place is None else _at(situation, place, Action("move", situation.held, place), inside=True)


def _goal_receptacle(situation: Situation, task: Task) -> str | None:
    """Where things are brought: the receptacle that holds most of them already, else the nearest."""
    parents = situation.of_kind(task.parent)
    if task.task_type == "pick_two_obj_and_place":
        targets = set(situation.of_kind(task.target))
        filled = {parent: len(targets & set(situation.contents(parent))) for parent in parents}
        most = max(filled.values(), default=0)
        parents = [parent for parent in parents if filled[parent] == most]
        # The same one must be chosen wherever the agent is while it carries the first thing.
        return parents[0] if parents else None
    return _nearest(situation, parents)


def _worth_fetching(situation: Situation, task: Task, goal: str) -> list[str]:
    """Things of the class that are not where they should be, treated ones first."""
    mark = TREATMENTS.get(task.task_type, ("", "", ""))[1]
    parents = {goal} if task.task_type == "pick_two_obj_and_place" else set(situation.of_kind(task.parent))
    targets = situation.of_kind(task.target)
    treated = [thing for thing in targets if mark and mark in situation.marks_of(thing)]
    waiting = [thing for thing in targets if situation.places.get(thing) not in parents]
    # A thing in place that was not treated has to come out again if there is no other.
    return [thing for thing in treated if thing in waiting] or waiting or targets


def _nearest(situation: Situation, receptacles: Sequence[str]) -> str | None:
    """The receptacle with the shortest way; of equal ones the first."""
    here = pose_of(situation.location)

    def way(receptacle: str) -> float:
        there = pose_of(situation.room.locations[receptacle])
        return abs(here.x - there.x) + abs(here.z - there.z) + (here.rotation != there.rotation) / 100

    return min(receptacles, key=way, default=None)


def explore(situations: Iterator[Situation], task: Task) -> Iterator[Action]:
    """Play as an :class:`Explorer` through a stream of situations.

    Args:
        situations: One after the other, each the consequence of the last action.
        task: What is to be done.

    Yields:
        Actions until the task is done or given up.
    """
    explorer = Explorer(task)
    for situation in situations:
        explorer.observe(situation)
        action = explorer.next_action(situation)
        if action is None:
            return
        yield action
