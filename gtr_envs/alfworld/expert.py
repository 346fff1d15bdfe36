"""Decides what an expert does: one that knows everything, and one that has to look for things and remembers.

Both choose the next action anew in every situation, so they go on from wherever a player has got to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gtr_envs.alfworld.goals import TREATMENTS, goal_rate
from gtr_envs.alfworld.situation import Action, Room, Situation, Task, after, in_view

MAX_PLAN = 100
"""A plan is given up after this many actions; the longest task takes about twenty."""


class Intention(NamedTuple):
    """What an expert wants, and what it does for it now."""

    goal: str
    """In words, the thing first: ``"want cup 1: take from shelf 2"``, or ``"want cup: find"`` where none is in sight.

    A model that has just written the class of a thing has only to look whether a number follows it in what it sees.
    """
    action: Action
    """The next action; the goal itself if nothing else must come before."""


def intend(situation: Situation, task: Task) -> Intention | None:
    """Choose what brings the task forward, knowing where everything is.

    Args:
        situation: What holds.
        task: What is to be done.

    Returns:
        The intention; None if the task is done, or if nothing known helps.
    """
    goal = None if goal_rate(situation, task) == 1 else _next_goal(situation, task)
    return None if goal is None else Intention(_in_words(goal, situation.room.names), _towards(situation, goal))


def plan(situation: Situation, task: Task) -> list[Action]:
    """Follow :func:`intend` in thought to the end of the task.

    Args:
        situation: What holds.
        task: What is to be done.

    Returns:
        Actions to the goal; empty if it is reached, or not found.
    """
    actions: list[Action] = []
    while (intention := intend(situation, task)) is not None and len(actions) < MAX_PLAN:
        actions.append(intention.action)
        situation = after(situation, intention.action)
    return actions if goal_rate(situation, task) == 1 else []


class Explorer:
    """An expert that knows only what it has seen: it looks into one receptacle after another until it can go on.

    It begins with receptacles that may hold what it looks for, in the order in which they are listed.
    """

    def __init__(self, task: Task) -> None:
        """Know nothing yet.

        Args:
            task: What is to be done.
        """
        self.task = task
        self._seen: set[str] = set()

    def intend(self, situation: Situation) -> Intention | None:
        """Look at what is before the agent, remember it, and choose what to do.

        Args:
            situation: What holds; what lies in receptacles that were not seen yet is not looked at.

        Returns:
            The intention; None if the task is done, or everything was seen and nothing helps.
        """
        self._seen |= in_view(situation)
        known = replace(situation, places={t: place for t, place in situation.places.items() if place in self._seen})
        intention = intend(known, self.task)
        done = goal_rate(known, self.task) == 1
        return intention if intention is not None or done else self._explore(situation)

    def _explore(self, situation: Situation) -> Intention | None:
        """Go to the next unseen receptacle, or open it."""
        sought = self.task.lamp if situation.held is not None else self.task.target
        unseen = [item for item in situation.room.locations if item not in self._seen]
        likely = [i for i in unseen if sought in situation.room.may_hold.get(situation.room.kinds[i], ())]
        place = _handiest(situation, likely or unseen)
        if place is None:
            return None
        verb = "open" if situation.is_near(place) else "go"
        return Intention(f"want {sought}: find", Action(verb, receptacle=place))


def mistake(task: Task, room: Room, rng: np.random.Generator) -> Task:
    """Get a task wrong, as somebody may who does not read it with care.

    Args:
        task: What is to be done.
        room: Where.
        rng: Chooses the mistake among those that are possible: another thing, another place, or a part left out.

    Returns:
        Another task that can be carried out in the room, if there is one.
    """
    present = set(room.kinds.values())
    places = sorted(kind for kind, held in room.may_hold.items() if kind in present and task.target in held)
    holders = [task.parent] if task.parent else sorted(room.may_hold)
    things = {thing for kind in holders for thing in room.may_hold.get(kind, ())}
    wrong = [task._replace(target=kind) for kind in sorted(things & present - {task.target})]
    wrong = [wrong[int(rng.integers(len(wrong)))]] if wrong else []
    elsewhere = [kind for kind in places if task.parent and kind != task.parent]
    if elsewhere:
        wrong.append(task._replace(parent=elsewhere[int(rng.integers(len(elsewhere)))]))
    if task.parent and task.task_type != "pick_and_place_simple":
        wrong.append(task._replace(task_type="pick_and_place_simple"))
    return wrong[int(rng.integers(len(wrong)))] if wrong else task


def _next_goal(situation: Situation, task: Task) -> Action | None:
    """The next action that changes a thing."""
    if situation.held is not None and situation.room.kinds[situation.held] != task.target:
        return _put_away(situation)
    if task.task_type == "look_at_obj_in_light":
        return _fetch(situation, situation.of_kind(task.target)) if situation.held is None else _light(situation, task)
    place = _goal_receptacle(situation, task)
    if place is None:
        return None
    if situation.held is None:
        return _fetch(situation, _worth_fetching(situation, task, place))
    verb, mark, kind = TREATMENTS.get(task.task_type, ("", "", ""))
    if verb and mark not in situation.marks_of(situation.held):
        there = _handiest(situation, situation.of_kind(kind))
        return None if there is None else Action(verb, situation.held, there)
    return Action("move", situation.held, place)


def _in_words(goal: Action, names: Mapping[str, str]) -> str:
    """A goal with its thing first."""
    thing = names[goal.thing]
    return f"want {thing}: {' '.join(goal.command(names).replace(f' {thing}', '', 1).split())}"


def _towards(situation: Situation, goal: Action) -> Action:
    """The goal, or what must come before: going there, opening a door."""
    place = situation.places[goal.thing] if goal.verb == "use" else goal.receptacle
    if not situation.is_near(place):
        return Action("go", receptacle=place)
    shut = goal.verb in ("take", "move") and situation.is_shut(place)
    return Action("open", receptacle=place) if shut else goal


def _fetch(situation: Situation, things: Sequence[str]) -> Action | None:
    """Take the handiest of some things."""
    places = {situation.places[thing]: thing for thing in reversed(things) if thing in situation.places}
    place = _handiest(situation, list(places))
    return None if place is None else Action("take", places[place], place)


def _light(situation: Situation, task: Task) -> Action | None:
    """Switch the handiest lamp on, or go to one that is on."""
    lamps = {situation.places[lamp]: lamp for lamp in situation.of_kind(task.lamp) if lamp in situation.places}
    place = _handiest(situation, list(lamps))
    return None if place is None else Action("use", lamps[place])


def _put_away(situation: Situation) -> Action | None:
    """Get rid of something that is in the way, where it is allowed to lie."""
    assert situation.held is not None
    kind = situation.room.kinds[situation.held]
    allowed = [i for i in situation.room.locations if kind in situation.room.may_hold.get(situation.room.kinds[i], ())]
    place = _handiest(situation, allowed)
    return None if place is None else Action("move", situation.held, place)


def _goal_receptacle(situation: Situation, task: Task) -> str | None:
    """Where things are brought: the receptacle that holds most of them already, else the handiest."""
    parents = situation.of_kind(task.parent)
    if task.task_type == "pick_two_obj_and_place":
        targets = set(situation.of_kind(task.target))
        filled = {parent: len(targets & set(situation.contents(parent))) for parent in parents}
        most = max(filled.values(), default=0)
        parents = [parent for parent in parents if filled[parent] == most]
        # The same one must be chosen wherever the agent is while it carries the first thing.
        return min(parents, key=lambda parent: _listed(situation.room, parent), default=None)
    return _handiest(situation, parents)


def _worth_fetching(situation: Situation, task: Task, goal: str) -> list[str]:
    """Things of the class that are not where they should be, treated ones first."""
    mark = TREATMENTS.get(task.task_type, ("", "", ""))[1]
    parents = {goal} if task.task_type == "pick_two_obj_and_place" else set(situation.of_kind(task.parent))
    targets = situation.of_kind(task.target)
    treated = [thing for thing in targets if mark and mark in situation.marks_of(thing)]
    waiting = [thing for thing in targets if situation.places.get(thing) not in parents]
    # A thing in place that was not treated has to come out again if there is no other.
    return [thing for thing in treated if thing in waiting] or waiting or targets


def _handiest(situation: Situation, receptacles: Sequence[str]) -> str | None:
    """The receptacle that takes the fewest actions; of equal ones the first by class and number.

    Every way is one action, however long.
    """

    def cost(receptacle: str) -> tuple[int, tuple[str, int]]:
        actions = (not situation.is_near(receptacle)) + situation.is_shut(receptacle)
        return actions, _listed(situation.room, receptacle)

    return min(receptacles, key=cost, default=None)


def _listed(room: Room, receptacle: str) -> tuple[str, int]:
    """Where a receptacle stands in a list by class and number."""
    kind, _, number = room.names[receptacle].rpartition(" ")
    return kind, int(number)
