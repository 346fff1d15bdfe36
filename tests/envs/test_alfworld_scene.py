"""Pictures of households: every kind and size can be drawn, and what is hidden leaves no trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from colors import contrast

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

from gtr_envs.alfworld.games import EmbeddedSource
from gtr_envs.alfworld.icons import MARK_COLORS, draw_icon
from gtr_envs.alfworld.scene import Decor, decor_of, draw_view
from gtr_envs.alfworld.situation import SeenReceptacle, SeenThing, Situation, View, coordinates, look
from gtr_envs.alfworld.wheel import Pose, load_scene, load_world
from gtr_envs.styles import STYLES, Wardrobe

pytestmark = pytest.mark.alfworld

WORLD = load_world()
SCENES = [load_scene(number) for number in (*WORLD.train_scenes, *WORLD.unseen_scenes)]
RECEPTACLES = sorted(
    {r.kind.lower() for scene in SCENES for r in scene.receptacles} | {k.lower() for k in WORLD.may_hold}
)
THINGS = sorted(
    {kind.lower() for scene in SCENES for kind in scene.object_kinds}
    | {kind.lower() for kinds in WORLD.may_hold.values() for kind in kinds}
)
GAMES = [
    "embedded/train/pick_cool_then_place_in_recep/1",
    "embedded/valid_seen/pick_and_place_simple/2",
    "embedded/valid_unseen/pick_two_obj_and_place/3",
    "embedded/train/look_at_obj_in_light/4",
]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that was kept before these tests helps them, and nothing stays behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def view_of(near: tuple[SeenReceptacle, ...], held: SeenThing | None = None, **parts: Any) -> View:
    return View(Pose(0.0, 0.0, 90, 30), near, held, **{"map_marks": (), "grid": (), "sentence": "do it", **parts})


# --- everything can be drawn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 65, 84, 150, 300, 511])
@pytest.mark.parametrize("labels", [True, False])
def test_every_receptacle_and_thing_is_drawn_at_every_size(size: int, labels: bool) -> None:
    pictures = set()
    for i, kind in enumerate(RECEPTACLES):
        door = ("", "open")[i % 2]
        things = tuple(
            SeenThing(f"{THINGS[j % len(THINGS)]} {j}", THINGS[j % len(THINGS)], tuple(sorted(MARK_COLORS))[: j % 4])
            for j in range(4 * i, 4 * i + i % 9 + 1)
        )
        place = SeenReceptacle(f"{kind} 12", kind, door, things)
        frame = draw_view(view_of((place,), things[0]), size, labels=labels)
        assert frame.shape == (size, size, 3)
        assert frame.dtype == np.uint8
        assert frame.flags.writeable
        pictures.add(frame.tobytes())
    assert len(pictures) == len(RECEPTACLES)


def test_the_largest_picture_is_drawn() -> None:
    things = tuple(SeenThing(f"{kind} 1", kind) for kind in THINGS[:8])
    assert draw_view(view_of((SeenReceptacle("desk 1", "desk", "", things),)), 1024).shape == (1024, 1024, 3)


@pytest.mark.parametrize("side", [6, 20, 60])
def test_every_thing_has_a_drawing_of_its_own_and_no_mark_hides_it(side: int) -> None:
    drawn = {kind: draw_icon(kind, (), side, Decor().wall) for kind in THINGS}
    for kind, frame in drawn.items():
        assert frame.shape == (side, side, 3)
        assert (frame != np.array(Decor().wall, dtype=np.uint8)).any(), kind
        for mark in MARK_COLORS:
            assert (draw_icon(kind, (mark,), side, Decor().wall) != frame).any(), (kind, mark)


def test_everything_that_is_reached_from_one_point_of_any_room_is_drawn() -> None:
    most = 0
    for scene in SCENES:
        groups: dict[Pose, list[Any]] = {}
        for receptacle in scene.receptacles:
            groups.setdefault(receptacle.pose, []).append(receptacle)
        group = max(groups.values(), key=len)
        most = max(most, len(group))
        near = tuple(
            SeenReceptacle(f"{r.kind.lower()} {i}", r.kind.lower(), "", (SeenThing("cup 1", "cup"),) * (i % 3))
            for i, r in enumerate(group)
        )
        for size in (64, 300):
            frame = draw_view(view_of(near, grid=scene.grid), size)
            assert frame.shape == (size, size, 3)
    assert most >= 3


def test_a_long_task_and_a_full_place_stay_inside_of_the_picture() -> None:
    sentence = "put " + "two hot and very heavy watering cans " * 6 + "on the coffeetable"
    things = tuple(SeenThing(f"winebottle {i}", "winebottle", ("clean", "cold")) for i in range(24))
    near = tuple(SeenReceptacle(f"countertop {i}", "countertop", "", things) for i in range(6))
    for size in (64, 100, 300):
        frame = draw_view(view_of(near, things[0], sentence=sentence), size)
        assert frame.shape == (size, size, 3)


def test_labels_are_left_out_if_not_wanted() -> None:
    near = (SeenReceptacle("shelf 3", "shelf", "", (SeenThing("cup 1", "cup"),)),)
    other = (SeenReceptacle("shelf 7", "shelf", "", (SeenThing("cup 9", "cup"),)),)
    assert np.array_equal(draw_view(view_of(near), 300, labels=False), draw_view(view_of(other), 300, labels=False))
    assert not np.array_equal(draw_view(view_of(near), 300), draw_view(view_of(other), 300))


def test_a_picture_may_be_written_over_without_harm_to_the_next() -> None:
    view = view_of((SeenReceptacle("shelf 3", "shelf", "", (SeenThing("cup 1", "cup"),)),))
    first = draw_view(view, 128)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(draw_view(view, 128), kept)


# --- styles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [96, 300])
def test_every_style_shows_a_room_in_its_own_way(size: int) -> None:
    things = (SeenThing("cup 1", "cup"), SeenThing("pen 2", "pen"))
    view = view_of((SeenReceptacle("shelf 3", "shelf", "", things),))
    looks = [Wardrobe(style).next_look(np.random.default_rng(0)) for style in STYLES]
    assert len({draw_view(view, size, look=look).tobytes() for look in looks}) == len(STYLES)


def test_jitter_moves_things_and_no_furniture() -> None:
    windy = Wardrobe("windy")
    rng = np.random.default_rng(0)
    looks = [windy.next_look(rng) for _ in range(2)]
    shelf = (SeenReceptacle("shelf 3", "shelf", "", (SeenThing("cup 1", "cup"), SeenThing("pen 2", "pen"))),)
    bare = (shelf[0]._replace(things=()),)
    for near, same in ((shelf, False), (bare, True)):
        first, second = (draw_view(view_of(near), 300, look=look) for look in looks)
        assert np.array_equal(first, second) == same


@pytest.mark.parametrize("name", STYLES)
def test_what_is_written_in_a_room_stands_out_from_its_ground(name: str) -> None:
    decor = decor_of(STYLES[name])
    for ink, ground in ((decor.ink, decor.wall), (decor.ink, decor.panel), (decor.strip_ink, decor.strip)):
        assert contrast(ink, ground) >= 4.5
    assert contrast(decor.agent, decor.reachable) >= 3


def test_a_style_changes_pictures_and_nothing_else() -> None:
    classic, night, dealt = (
        gym.make("ALFWorld-v0", data="embedded", image_size=64, style=style) for style in ("classic", "night", "train")
    )
    styles = set()
    for seed in range(6):
        told = []
        for env in (classic, night, dealt):
            observation, info = env.reset(seed=seed if seed < 2 else None)
            for number in (0, 5, 3):
                observation, *_, info = env.step(number)
            styles.add(info.pop("style"))
            told.append((observation["text"], info["game"], info["legal_actions"], observation["image"].tobytes()))
        assert told[0][:3] == told[1][:3] == told[2][:3]
        assert told[0][3] != told[1][3]
    assert len(styles) > 2
    for env in (classic, night, dealt):
        env.close()


# --- what is hidden stays hidden --------------------------------------------------------------------------------------


def play(env: Any, command: str) -> Any:
    return env.step(env.unwrapped.action_from_text(command))


def pretend(env: Any, situation: Situation) -> None:
    """Let something else be the case, for texts and for pictures."""
    env._moment = env._moment._replace(situation=situation)
    env._backend._situation = situation


@pytest.mark.parametrize(("observe", "style"), [("both", "classic"), ("both", "windy"), ("text", "classic")])
@pytest.mark.parametrize("key", GAMES)
def test_a_closed_place_looks_the_same_whatever_is_in_it(key: str, observe: str, style: str) -> None:
    env: Any = gym.make("ALFWorld-v0", data="embedded", image_size=128, max_steps=500, observe=observe, style=style)
    env.reset(seed=0, options={"game": key})
    inner, n_closed, n_full = env.unwrapped, 0, 0
    for receptacle in sorted(inner._known.room.openable):
        command = f"go to {inner._known.room.names[receptacle]}"
        if command in inner.legal_actions:
            play(env, command)
        situation = inner._known
        if not (situation.is_near(receptacle) and situation.is_shut(receptacle)):
            continue
        shown = inner._observe()
        contents = situation.contents(receptacle)
        others = [thing for thing in situation.places if thing not in contents][:3]
        for inside in ((), contents[:1], others):
            places = {thing: place for thing, place in situation.places.items() if place != receptacle}
            # Only what is hidden elsewhere may come from there, or its absence would be seen.
            hidden = [t for t in inside if t in contents or situation.is_shut(situation.places[t])]
            pretend(inner, replace(situation, places=places | dict.fromkeys(hidden, receptacle)))
            now = inner._observe()
            assert all(np.array_equal(shown[part], now[part]) for part in shown)
        pretend(inner, situation)
        n_closed, n_full = n_closed + 1, n_full + bool(contents)
        play(env, f"open {inner._known.room.names[receptacle]}")
        opened = inner._observe()
        assert not np.array_equal(opened["text"], shown["text"])
        play(env, f"close {inner._known.room.names[receptacle]}")
    assert n_closed >= 1
    env.close()


class Shuffled(EmbeddedSource):
    """The same games with the contents of closed places dealt anew."""

    def load(self, key: str) -> Any:
        game = super().load(key)
        problem = game.data["pddl_problem"]
        shut = re.findall(r"\(openable (\S+)\)", problem)
        at = dict(re.findall(r"\(receptacleAtLocation (\S+) (\S+)\)", problem))
        moved = 0
        for thing, place in re.findall(r"\(inReceptacle (\S+) (\S+)\)", problem):
            if place in shut and not thing.lower().startswith(game.task.target):
                other = shut[(shut.index(place) + 1) % len(shut)]
                problem = problem.replace(f"(inReceptacle {thing} {place})", f"(inReceptacle {thing} {other})")
                problem = problem.replace(
                    f"(objectAtLocation {thing} {at[place]})", f"(objectAtLocation {thing} {at[other]})"
                )
                moved += other != place
        assert moved
        return replace(game, data={**game.data, "pddl_problem": problem})


@pytest.mark.parametrize("key", GAMES[:3])
def test_a_walk_past_closed_places_is_the_same_in_a_game_that_hides_other_things(key: str) -> None:
    ours, theirs = (gym.make("ALFWorld-v0", data="embedded", image_size=128, max_steps=500) for _ in range(2))
    theirs.unwrapped.source = Shuffled("train")  # type: ignore[attr-defined]
    first, info = ours.reset(seed=0, options={"game": key})
    second = theirs.reset(seed=0, options={"game": key})[0]
    n_seen, differ = 0, False
    for command in ("look", "inventory", *info["legal_actions"]):
        assert first["text"] == second["text"]
        assert np.array_equal(first["image"], second["image"])
        if command in ours.unwrapped.legal_actions:  # type: ignore[attr-defined]
            first, second = play(ours, command)[0], play(theirs, command)[0]
            n_seen += "is closed" in first["text"]
            if "is closed" in first["text"]:
                place = command.removeprefix("go to ")
                opened = [play(env, f"open {place}")[0] for env in (ours, theirs)]
                differ |= opened[0]["text"] != opened[1]["text"]
                first, second = (play(env, f"close {place}")[0] for env in (ours, theirs))
    assert n_seen
    assert differ
    ours.close()
    theirs.close()


def test_the_map_shows_every_place_and_nothing_that_lies_there() -> None:
    env: Any = gym.make("ALFWorld-v0", data="embedded", image_size=64)
    env.reset(seed=0, options={"game": GAMES[0]})
    inner = env.unwrapped
    view = look(inner._known, "")
    assert {mark.name for mark in view.map_marks} == {inner._known.room.names[r] for r in inner._known.room.locations}
    assert all(coordinates(receptacle) is not None for receptacle in inner._known.room.locations)
    emptied = replace(inner._known, places={})
    assert look(emptied, "").map_marks == view.map_marks
    env.close()
