"""THOR's engine: upstream's own environment is driven with a stand-in for the simulator; Unity itself is never run."""

from __future__ import annotations

import json
import random  # noqa: TID251 - to see that its state is left alone
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from gtr_envs.alfworld import thor_backend
from gtr_envs.alfworld.households import Household, Thing, game_data, make_household, trajectory_data
from gtr_envs.alfworld.thor_backend import BUILD, NOTHING, PACKAGES, ThorEngine, probe_thor
from gtr_envs.alfworld.wheel import load_world
from gtr_envs.errors import (
    DependencyError,
    EnvironmentClosedError,
    GameError,
    OptionError,
    ThorError,
    ThorTimeoutError,
)
from gtr_envs.wrappers import TextAction

HEAT = ("pick_heat_then_place_in_recep", "heat", "Microwave")
COOL = ("pick_cool_then_place_in_recep", "cool", "Fridge")
CLEAN = ("pick_clean_then_place_in_recep", "clean", "SinkBasin")
N_PIXELS = 30
"""Side of the stand-in's picture of instances; upstream takes any size, and counts it pixel by pixel."""


# --- a stand-in for the simulator -------------------------------------------------------------------------------------


class Event:
    """What the simulator answers to an action."""

    def __init__(self, world: StandIn, *, success: bool) -> None:
        self.metadata = {
            "lastActionSuccess": success,
            "errorMessage": "" if success else "impossible",
            "agent": {"position": {"x": 0.0, "y": 0.9, "z": 0.0}, "rotation": {"y": 0.0}, "cameraHorizon": 30.0},
            "objects": world.objects(),
            "inventoryObjects": [{"objectId": world.held, "objectType": world.held.split("|")[0]}]
            if world.held
            else [],
        }
        seen = [item["objectId"] for item in self.metadata["objects"] if item["visible"]]
        self.color_to_object_id = {(i // 200, i % 200, 7): identity for i, identity in enumerate(seen)}
        colours = [*self.color_to_object_id] or [(255, 255, 255)]
        self.instance_segmentation_frame = np.array(
            [colours[i % len(colours)] for i in range(N_PIXELS**2)], dtype=np.uint8
        ).reshape(N_PIXELS, N_PIXELS, 3)
        self.frame = np.zeros((world.size, world.size, 3), dtype=np.uint8)
        self.frame[:] = (200, 100, len(seen))


class StandIn:
    """Takes the place of ``ai2thor.controller.Controller``; knows the rules that the oracle controller relies on."""

    household: Household
    fail_at, hang_at, fail_start = "", "", False
    released: threading.Event
    n_stops = 0

    def __init__(self, quality: str) -> None:
        assert quality

    def start(self, *, x_display: str | None, player_screen_height: int, player_screen_width: int) -> None:
        assert x_display is None
        assert player_screen_height == player_screen_width
        if StandIn.fail_start:
            raise AssertionError("Invalid DISPLAY :0.0 - cannot find X server with xdpyinfo")
        self.size = player_screen_width

    def stop(self) -> None:
        StandIn.n_stops += 1
        if StandIn.hang_at == "stop":
            StandIn.released.wait()

    def reset(self, scene: str) -> Event:
        assert scene == f"FloorPlan{StandIn.household.scene.number}"
        self.places: dict[str, str] = {}
        self.open: set[str] = set()
        self.toggled: set[str] = set()
        self.held = ""
        self.pose: tuple[float, ...] = ()
        self.last_event = Event(self, success=True)
        return self.last_event

    def step(self, action: dict[str, Any]) -> Event:
        name = action["action"]
        if name == StandIn.hang_at:
            StandIn.released.wait()
        if name == StandIn.fail_at:
            raise RuntimeError("Unity is gone")
        act: Callable[[dict[str, Any]], bool] = getattr(self, f"do_{name}", lambda _: True)
        self.last_event = Event(self, success=act(action))
        return self.last_event

    def do_SetObjectPoses(self, action: dict[str, Any]) -> bool:  # noqa: N802 - the simulator's name
        posed = {pose["objectName"] for pose in action["objectPoses"]}
        self.places = {thing.name: thing.place for thing in StandIn.household.things if thing.name in posed}
        return True

    def do_TeleportFull(self, action: dict[str, Any]) -> bool:  # noqa: N802
        self.pose = tuple(action[key] for key in ("x", "z", "rotation", "horizon"))
        return True

    def do_PickupObject(self, action: dict[str, Any]) -> bool:  # noqa: N802
        if self.held:
            return False
        self.held = action["objectId"]
        self.places.pop(self.held)
        return True

    def do_PutObject(self, action: dict[str, Any]) -> bool:  # noqa: N802
        self.places[self.held], self.held = action["receptacleObjectId"], ""
        return True

    def do_OpenObject(self, action: dict[str, Any]) -> bool:  # noqa: N802
        self.open.add(action["objectId"])
        return True

    def do_CloseObject(self, action: dict[str, Any]) -> bool:  # noqa: N802
        self.open.discard(action["objectId"])
        return True

    def do_ToggleObjectOn(self, action: dict[str, Any]) -> bool:  # noqa: N802
        self.toggled.add(action["objectId"])
        return True

    def objects(self) -> list[dict[str, Any]]:
        world, listed = load_world(), []
        for item in StandIn.household.scene.receptacles:
            inside = [thing for thing, place in self.places.items() if place == item.name]
            near = bool(self.pose) and np.allclose(self.pose, item.pose, atol=1.0)
            near = near and np.allclose(self.pose[:2], item.pose[:2], atol=0.01)
            listed.append(described(item.name, item.kind, visible=near, contents=inside))
            if item.kind == "SinkBasin":
                listed.append(described(item.name.replace("Sink|", "Faucet|", 1), "Faucet", visible=near))
            shut = item.kind in world.openable and item.name not in self.open
            for thing in inside:
                lit = thing in self.toggled
                listed.append(
                    described(thing, thing.split("|")[0], visible=near and not shut, place=item.name, lit=lit)
                )
        return listed + ([described(self.held, self.held.split("|")[0], visible=True)] if self.held else [])


def described(
    name: str, kind: str, *, visible: bool, contents: list[str] | None = None, place: str = "", lit: bool = False
) -> dict[str, Any]:
    x, y, z = (float(number) for number in name.split("|")[1:4])
    return {
        "objectId": name,
        "objectType": kind,
        "visible": visible,
        "receptacle": contents is not None,
        "receptacleObjectIds": contents,
        "parentReceptacles": [place] if place else None,
        "pickupable": contents is None and "Lamp" not in kind and kind != "Faucet",
        "toggleable": "Lamp" in kind or kind in ("Faucet", "Microwave"),
        "isToggled": lit,
        "dirtyable": False,
        "position": {"x": x, "y": y, "z": z},
    }


def replayable(household: Household) -> dict[str, Any]:
    """A trajectory with what THOR needs to set the room up."""
    data = trajectory_data(household)
    data["scene"] |= {
        "object_poses": [{"objectName": thing.name, "position": {}, "rotation": {}} for thing in household.things],
        "object_toggles": [],
        "dirty_and_empty": False,
        "init_action": {"action": "Pass"},
    }
    return data | {"plan": {"high_pddl": [], "low_actions": []}}


@pytest.fixture(scope="module")
def simulator() -> Iterator[type[StandIn]]:
    """The stand-in, put in place before upstream takes its base class from ai2thor."""
    pytest.importorskip("cv2")
    pytest.importorskip("textworld")
    with pytest.MonkeyPatch.context() as patch:
        # All that upstream takes of ai2thor is this class; the package itself need not be installed.
        controller = ModuleType("ai2thor.controller")
        controller.Controller = StandIn  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "ai2thor", ModuleType("ai2thor"))
        patch.setitem(sys.modules, "ai2thor.controller", controller)
        yield StandIn
    for name in ("alfworld.env.thor_env", "alfworld.agents.environment.alfred_thor_env"):
        sys.modules.pop(name, None)


@pytest.fixture
def world(simulator: type[StandIn]) -> Iterator[type[StandIn]]:
    simulator.fail_at, simulator.hang_at, simulator.fail_start, simulator.n_stops = "", "", False, 0
    simulator.released = threading.Event()
    simulator.household = make_household(load_world(), "train", HEAT[0], 0)
    yield simulator
    simulator.released.set()


@pytest.fixture
def engine(world: type[StandIn]) -> Iterator[ThorEngine]:
    made = ThorEngine(probe=False)
    made.load(replayable(world.household))
    yield made
    world.released.set()
    made.close()


def fetch(engine: ThorEngine, thing: Thing) -> None:
    """Take something from where it lies."""
    place = engine.names[thing.place]
    state = engine.step(f"go to {place}")
    if "closed" in state.feedback:
        engine.step(f"open {place}")
    state = engine.step(f"take {engine.names[thing.name]} from {place}")
    assert state.feedback.startswith("You pick up")


def place_of(household: Household, kind: str) -> str:
    return next(item.name for item in household.scene.receptacles if item.kind == kind)


def targets_of(household: Household) -> list[Thing]:
    kinds = {item.name: item.kind for item in household.scene.receptacles}
    return [t for t in household.things if t.kind == household.target and kinds[t.place] != household.parent]


def households(split: str, task_type: str) -> Iterator[Household]:
    return (make_household(load_world(), split, task_type, number) for number in range(100))


def nothing_is_done(household: Household) -> bool:
    return len(targets_of(household)) == sum(thing.kind == household.target for thing in household.things)


# --- playing ----------------------------------------------------------------------------------------------------------


@pytest.mark.alfworld
@pytest.mark.parametrize(("task_type", "verb", "kind"), [HEAT, COOL, CLEAN])
def test_a_treated_thing_is_brought_to_its_place_and_the_goal_rate_rises(
    world: type[StandIn], task_type: str, verb: str, kind: str
) -> None:
    household = world.household = next(made for made in households("valid_unseen", task_type) if nothing_is_done(made))
    engine = ThorEngine(probe=False)
    engine.load(replayable(household))
    state = engine.reset()
    assert "Your task is to: " in state.feedback
    assert (engine.goal_rate(), state.won, state.facts) == (0.0, False, frozenset())
    thing = targets_of(household)[0]
    fetch(engine, thing)
    name, place = engine.names[thing.name], engine.names[place_of(household, kind)]
    engine.step(f"go to {place}")
    state = engine.step(f"{verb} {name} with {place}")
    assert state.feedback == f"You {verb} the {name} using the {place}."
    assert engine.goal_rate() == pytest.approx(1 / 3)
    goal = engine.names[place_of(household, household.parent)]
    engine.step(f"go to {goal}")
    if f"open {goal}" in engine.step("look").admissible:
        engine.step(f"open {goal}")
    state = engine.step(f"move {name} to {goal}")
    assert (engine.goal_rate(), state.won) == (1.0, True)
    # After the win upstream does nothing any more, and says its last words again; here it is told.
    assert engine.step(f"go to {place}").feedback == NOTHING
    engine.close()
    engine.close()
    assert world.n_stops == 1


@pytest.mark.alfworld
def test_two_things_and_a_lamp_are_done_too(world: type[StandIn]) -> None:
    household = world.household = make_household(load_world(), "train", "pick_two_obj_and_place", 3)
    engine = ThorEngine(probe=False)
    engine.load(replayable(household))
    engine.reset()
    goal = engine.names[place_of(household, household.parent)]
    for rate, thing in zip((0.5, 1.0), targets_of(household), strict=False):
        fetch(engine, thing)
        state = engine.step(f"go to {goal}")
        if f"open {goal}" in state.admissible:
            engine.step(f"open {goal}")
        engine.step(f"move {engine.names[thing.name]} to {goal}")
        assert engine.goal_rate() == rate
    engine.close()
    household = world.household = make_household(load_world(), "train", "look_at_obj_in_light", 3)
    engine = ThorEngine(probe=False)
    engine.load(replayable(household))
    engine.reset()
    fetch(engine, targets_of(household)[0])
    assert engine.goal_rate() == 0.5
    lamp = next(thing for thing in household.things if thing.kind == household.lamp)
    engine.step(f"go to {engine.names[lamp.place]}")
    assert engine.step(f"use {engine.names[lamp.name]}").won
    engine.close()


@pytest.mark.alfworld
def test_pictures_are_red_green_blue(engine: ThorEngine) -> None:
    engine.reset()
    frame = engine.frame()
    assert (frame.shape, frame.dtype, frame.flags["C_CONTIGUOUS"]) == ((300, 300, 3), np.uint8, True)
    assert frame[0, 0, :2].tolist() == [200, 100]


@pytest.mark.alfworld
def test_the_environment_plays_in_thor_with_its_frames_and_goal_rate(
    world: type[StandIn], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(thor_backend, "probe_thor", lambda *_: [])
    household, trajectory = world.household, replayable(world.household)
    folder = tmp_path / "json_2.1.1" / "train" / household.folder / trajectory["task_id"]
    folder.mkdir(parents=True)
    (folder / "traj_data.json").write_text(json.dumps(trajectory))
    (folder / "game.tw-pddl").write_text(json.dumps(game_data(load_world(), household)))
    env = TextAction(gym.make("ALFWorld-v0", backend="thor", data=str(tmp_path), image_size=100))
    observation, info = env.reset(seed=0)
    assert (info["source"], info["goal_rate"], info["expert_steps"]) == ("alfred", 0.0, None)
    assert observation["image"].shape == (100, 100, 3)
    assert observation["image"][0, 0, :2].tolist() == [200, 100]
    assert "Your task is to: " in observation["text"]
    assert env.unwrapped.expert_action() is None  # type: ignore[attr-defined]
    _, reward, terminated, truncated, info = env.step("dance")
    assert (reward, terminated, truncated, info["legal"]) == (-1.0, False, False, False)
    place = next(command for command in info["legal_actions"] if command.startswith("go to"))
    observation, reward, *_, info = env.step(place)
    assert (reward, info["legal"]) == (0.0, True)
    assert observation["text"].startswith("You arrive at")
    env.close()
    assert world.n_stops == 1


def test_what_thor_cannot_tell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thor_backend, "probe_thor", lambda *_: [])
    for arguments in ({"notes": True}, {"observe": "text"}):
        with pytest.raises(OptionError, match="nothing to note down"):
            gym.make("ALFWorld-v0", backend="thor", **arguments)


@pytest.mark.alfworld
def test_one_grammar_is_offered_and_understood(engine: ThorEngine, world: type[StandIn]) -> None:
    engine.reset()
    thing = targets_of(world.household)[0]
    fetch(engine, thing)
    name, place = engine.names[thing.name], engine.names[thing.place]
    offered = engine.step("inventory").admissible
    assert f"move {name} to {place}" in offered
    assert not any(command.startswith(("put ", "help")) for command in offered)
    state = engine.step(f"move {name} to {place}")
    assert state.feedback == f"You put the {name} in/on the {place}."


@pytest.mark.alfworld
def test_a_parser_that_knows_move_gets_move(engine: ThorEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.reset()
    controller = engine._env.envs[0].controller
    assert engine._mended("move cup 1 to shelf 2") == "put cup 1 in/on shelf 2"
    parse = controller.parse_command
    put = {"action": controller.Action.PUT}
    monkeypatch.setattr(controller, "parse_command", lambda said: put if said.startswith("move ") else parse(said))
    assert engine._mended("move cup 1 to shelf 2") == "move cup 1 to shelf 2"


@pytest.mark.alfworld
def test_a_command_that_is_not_admissible_changes_nothing(engine: ThorEngine) -> None:
    first = engine.reset()
    # Upstream's parser would find "go to" in it.
    for said in ("please go to fridge 1", "go to fridge 11", "", "fly"):
        state = engine.step(said)
        assert state == first._replace(feedback=NOTHING)


@pytest.mark.alfworld
def test_the_game_that_was_asked_for_is_played_and_worded_by_the_seed(world: type[StandIn], tmp_path: Path) -> None:
    def told(seed: int) -> list[str]:
        engine = ThorEngine(probe=False, seed=seed)
        said = []
        for number in range(4):
            world.household = make_household(load_world(), "train", "look_at_obj_in_light", number)
            (tmp_path / "traj_data.json").write_text(json.dumps(replayable(world.household)))
            engine.load(tmp_path)
            first = engine.reset()
            assert engine.reset() == first
            assert world.household.target.lower() in first.feedback
            said.append(first.feedback)
        engine.close()
        return said

    random.seed(5)
    before = random.getstate()
    first = told(0)
    assert random.getstate() == before
    random.seed(6)
    assert told(0) == first
    assert any(told(seed) != first for seed in (1, 2, 3))


@pytest.mark.alfworld
def test_nothing_is_printed_and_no_module_is_left_in_place_of_torchvision(
    engine: ThorEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.reset()
    engine.step("look")
    assert capsys.readouterr() == ("", "")
    assert getattr(sys.modules.get("torchvision"), "__file__", "real") is not None
    assert "alfworld.agents.detector.mrcnn" not in sys.modules


# --- when the simulator fails -----------------------------------------------------------------------------------------


@pytest.mark.alfworld
def test_a_dead_thread_is_an_error_and_not_a_hang(engine: ThorEngine, world: type[StandIn]) -> None:
    first = engine.reset()
    world.fail_at = "SetObjectPoses"
    with pytest.raises(ThorError, match=r"failed at reset: RuntimeError: Unity is gone.*make a new one") as caught:
        engine.reset()
    assert isinstance(caught.value.__cause__, RuntimeError)
    world.fail_at = ""
    for again in (engine.reset, lambda: engine.step(first.admissible[0]), engine.frame, engine.goal_rate):
        with pytest.raises(ThorError, match="same failure as before"):
            again()


@pytest.mark.alfworld
def test_the_first_reset_may_fail_too(engine: ThorEngine, world: type[StandIn]) -> None:
    world.fail_at = "SetObjectPoses"
    with pytest.raises(ThorError, match="Unity is gone"):
        engine.reset()


@pytest.mark.alfworld
def test_an_error_within_a_step_is_told(engine: ThorEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.reset()

    def broken() -> Any:
        raise KeyError("objects")

    monkeypatch.setattr(engine._env.envs[0].env, "get_goal_satisfied", broken)
    with pytest.raises(ThorError, match="failed at the command 'look': KeyError: 'objects'"):
        engine.step("look")


@pytest.mark.alfworld
def test_a_thread_that_is_gone_is_noticed_before_the_time_is_up(engine: ThorEngine) -> None:
    engine.reset()
    thread = engine._env.envs[0]
    with engine._watching(thread):
        thread.action_queue.put(None)
        thread.join(5)
    engine._cause = None
    with pytest.raises(ThorError, match="its thread ended without a word"):
        engine.step("look")


@pytest.mark.alfworld
def test_a_late_answer_is_an_error(world: type[StandIn]) -> None:
    engine = ThorEngine(probe=False, time_limit=0.3)
    engine.load(replayable(world.household))
    world.hang_at = "SetObjectPoses"
    with pytest.raises(ThorTimeoutError, match=r"did not answer to reset within 0\.3 s.*make a new one"):
        engine.reset()
    with pytest.raises(ThorError, match="same failure as before"):
        engine.reset()
    world.released.set()
    engine.close()


@pytest.mark.alfworld
def test_an_end_that_hangs_is_a_warning(
    engine: ThorEngine, world: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thor_backend, "CLOSE_LIMIT", 0.2)
    world.hang_at = "stop"
    with pytest.warns(UserWarning, match="could not be ended.*A Unity process may be left"):
        engine.close()
    with pytest.raises(EnvironmentClosedError, match="make a new one"):
        engine.reset()


@pytest.mark.alfworld
def test_no_thread_is_left_behind(world: type[StandIn]) -> None:
    before = threading.active_count()
    for _ in range(3):
        engine = ThorEngine(probe=False)
        engine.load(replayable(world.household))
        engine.reset()
        engine.close()
    # A busy machine lets a thread end a little later.
    end = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threading.active_count() <= before


@pytest.mark.alfworld
def test_a_simulator_that_does_not_start_is_an_error(world: type[StandIn]) -> None:
    world.fail_start = True
    with pytest.raises(ThorError, match="failed at the start: AssertionError: Invalid DISPLAY :0"):
        ThorEngine(probe=False)


# --- games ------------------------------------------------------------------------------------------------------------


@pytest.mark.alfworld
def test_games_that_cannot_be_replayed_are_refused(engine: ThorEngine, world: type[StandIn], tmp_path: Path) -> None:
    with pytest.raises(GameError, match=r"scene\.object_poses.*plan\.high_pddl is missing.*Embedded games"):
        engine.load(trajectory_data(world.household))
    data = replayable(world.household)
    for spoilt in (
        data | {"task_type": "pick_and_place_with_movable_recep"},
        data | {"pddl_params": data["pddl_params"] | {"object_sliced": True}},
    ):
        with pytest.raises(GameError, match="leave this game out"):
            engine.load(spoilt)
    with pytest.raises(GameError, match=r"Cannot read the game file .*traj_data\.json"):
        engine.load(tmp_path)


@pytest.mark.alfworld
def test_an_engine_without_a_game_says_so(world: type[StandIn]) -> None:
    engine = ThorEngine(probe=False)
    assert engine.names == {}
    with pytest.raises(GameError, match="call load"):
        engine.reset()
    engine.load(replayable(world.household))
    for early in (lambda: engine.step("look"), engine.frame, engine.goal_rate):
        with pytest.raises(GameError, match="none was begun"):
            early()
    engine.close()


# --- what is missing --------------------------------------------------------------------------------------------------


class XServer:
    """Answers as an X server does when somebody connects and asks for an extension."""

    def __init__(self, *, welcomes: bool = True, has_glx: bool = True, hangs_up: bool = False) -> None:
        self._answers = (welcomes, has_glx, hangs_up)
        self._socket = next(bound for number in range(400, 500) if (bound := bound_to(6000 + number)))
        self._socket.listen()
        self.display = f"127.0.0.1:{self._socket.getsockname()[1] - 6000}.0"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        welcomes, has_glx, hangs_up = self._answers
        with self._socket, self._socket.accept()[0] as client:
            greeting = client.recv(12)
            if not greeting or hangs_up:
                return
            assert greeting == struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0)
            client.sendall(struct.pack("<B5xH", int(welcomes), 2) + b"12345678")
            if welcomes:
                assert client.recv(12)[8:] == b"GLX\0"
                client.sendall(struct.pack("<B7xB23x", 1, int(has_glx)))

    def close(self) -> None:
        with socket.socket() as last:
            last.connect_ex(("127.0.0.1", 6000 + int(self.display.split(":")[1].removesuffix(".0"))))
        self._thread.join()


def bound_to(port: int) -> socket.socket | None:
    server = socket.socket()
    try:
        server.bind(("127.0.0.1", port))
    except OSError:
        server.close()
        return None
    return server


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A machine on which nothing is missing, as far as the probe can tell."""
    name = f"{BUILD}-Linux64"
    file = tmp_path / ".ai2thor" / "releases" / name / name
    file.parent.mkdir(parents=True)
    file.touch()
    game = tmp_path / "data" / "json_2.1.1" / "train" / "a" / "trial"
    game.mkdir(parents=True)
    (game / "traj_data.json").touch()
    server = XServer()
    monkeypatch.setattr(metadata, "version", dict(PACKAGES).__getitem__)
    monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISPLAY", server.display)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    yield monkeypatch
    server.close()


@pytest.mark.usefixtures("complete")
def test_where_everything_is_there_nothing_is_missing() -> None:
    assert probe_thor(split="train") == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_and_a_wrong_version_are_told_with_the_remedy(
    complete: pytest.MonkeyPatch, name: str
) -> None:
    def absent(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return PACKAGES[asked]

    complete.setattr(metadata, "version", absent)
    [missing] = probe_thor()
    assert missing.what == f"package {name}=={PACKAGES[name]}: not installed"
    assert 'pip install "gtr-suite[alfworld,thor]"' in missing.remedy
    complete.setenv("DISPLAY", "")
    complete.setattr(metadata, "version", (PACKAGES | {name: "9.0"}).__getitem__)
    missing = probe_thor()[0]
    assert missing == (f"package {name}=={PACKAGES[name]}: found 9.0", f"Run: pip install {name}=={PACKAGES[name]}")


def test_missing_opencv_is_told(complete: pytest.MonkeyPatch) -> None:
    complete.setitem(sys.modules, "cv2", None)
    [missing] = probe_thor()
    assert missing.what.startswith("package opencv (module cv2): ")
    assert missing.remedy == "Run: pip install opencv-python-headless"


def test_a_missing_display_is_told(complete: pytest.MonkeyPatch) -> None:
    complete.delenv("DISPLAY")
    [missing] = probe_thor()
    assert missing.what == "variable DISPLAY: not set"
    assert "Xvfb" in missing.remedy
    for display in (":99", "127.0.0.1:498", "nonsense", ":x"):
        complete.setenv("DISPLAY", display)
        [missing] = probe_thor()
        assert missing.what.startswith(f"X server with GLX: none answers at DISPLAY={display} (")


@pytest.mark.parametrize(
    ("answers", "told"),
    [({"has_glx": False}, "has no GLX"), ({"hangs_up": True}, "it hung up"), ({"welcomes": False}, None)],
)
def test_what_an_x_server_answers_is_told(
    complete: pytest.MonkeyPatch, answers: dict[str, bool], told: str | None
) -> None:
    server = XServer(**answers)
    complete.setenv("DISPLAY", server.display)
    named = [missing.what for missing in probe_thor()]
    server.close()
    # One that wants a password says nothing of GLX, and is taken for good.
    assert len(named) == (told is not None)
    assert told is None or (told in named[0] and server.display in named[0])


@pytest.mark.usefixtures("complete")
def test_a_missing_build_is_told_with_its_address_and_place(tmp_path: Path) -> None:
    (tmp_path / ".ai2thor" / "releases" / f"{BUILD}-Linux64" / f"{BUILD}-Linux64").unlink()
    [missing] = probe_thor()
    assert str(tmp_path / ".ai2thor" / "releases" / f"{BUILD}-Linux64") in missing.what
    assert f"{BUILD}-Linux64.zip (390 MB)" in missing.remedy


def test_missing_games_are_told(complete: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [missing] = probe_thor(split="valid_seen")
    assert "no json_2.1.1/valid_seen/**/traj_data.json" in missing.what
    assert "embedded games cannot be played" in missing.remedy
    complete.delenv("ALFWORLD_DATA")
    complete.delenv("DISPLAY")
    assert probe_thor(split="train")[-1].what.endswith("ALFWORLD_DATA is not set")
    assert probe_thor(tmp_path / "data", "train") == probe_thor()


def test_a_mac_needs_no_display_and_windows_has_no_build(complete: pytest.MonkeyPatch) -> None:
    complete.delenv("DISPLAY")
    complete.setattr("platform.system", lambda: "Darwin")
    [missing] = probe_thor()
    assert f"{BUILD}-OSXIntel64.app/Contents/MacOS/{BUILD}-OSXIntel64" in missing.what
    complete.setattr("platform.system", lambda: "Windows")
    [missing] = probe_thor()
    assert missing.what == "platform: x86-64 Linux or macOS, found Windows on x86_64"


def test_an_engine_names_all_that_is_missing_before_it_starts_anything(complete: pytest.MonkeyPatch) -> None:
    complete.delenv("DISPLAY")
    complete.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match=r"(?s)needs what was not found:\n- package opencv.*\n- variable DISPLAY"):
        ThorEngine()
    with pytest.raises(OptionError, match="Expected size as a whole number from 300 to 2000, got 84"):
        ThorEngine(size=84)


def test_the_module_is_imported_without_any_of_the_packages() -> None:
    code = (
        "import sys\n"
        "for name in ('ai2thor', 'alfworld', 'cv2', 'flask', 'textworld', 'torch', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        "from gtr_envs.alfworld.thor_backend import ThorEngine, probe_thor\n"
        "from gtr_envs.errors import DependencyError\n"
        "print([missing.what.split(':')[0] for missing in probe_thor() if 'cv2' in missing.what])\n"
        "try: ThorEngine(probe=False)\n"
        "except DependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['package opencv (module cv2)']\nALFWorld needs the package 'alfworld'")
