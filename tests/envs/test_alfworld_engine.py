"""ALFWorld's games and engine: what is made is played and won, and the fast engine does what TextWorld does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("textworld")
pytestmark = [pytest.mark.alfworld, pytest.mark.no_cover]

from gtr_envs.alfworld import expert, textworld_backend  # noqa: E402 - after it is known that the engine is there
from gtr_envs.alfworld.games import (  # noqa: E402
    AlfredSource,
    EmbeddedSource,
    find_source,
    write_games,
)
from gtr_envs.alfworld.goals import goal_rate  # noqa: E402
from gtr_envs.alfworld.households import SPLITS, game_data, make_household  # noqa: E402
from gtr_envs.alfworld.situation import Task, after, look, read_room, read_situation  # noqa: E402
from gtr_envs.alfworld.textworld_backend import (  # noqa: E402
    NOTHING,
    FastEngine,
    StockEngine,
    display_names,
    make_engine,
)
from gtr_envs.alfworld.wheel import TASK_TYPES, load_scene, load_world  # noqa: E402
from gtr_envs.errors import GameError, UnknownNameError  # noqa: E402

WORLD = load_world()
with_stock = pytest.mark.skipif(sys.version_info >= (3, 13), reason="TextWorld's own environment fails on Python 3.13")


def game_of(task_type: str, number: int = 0, split: str = "train") -> Any:
    return EmbeddedSource(split).load(f"embedded/{split}/{task_type}/{number}")


# --- households -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_every_household_is_possible_and_not_done(split: str, task_type: str) -> None:
    scenes = set(WORLD.unseen_scenes if split == "valid_unseen" else WORLD.train_scenes)
    for number in range(40):
        household = make_household(WORLD, split, task_type, number)
        assert household.scene.number in scenes
        assert household.scene.room in WORLD.rooms[task_type]
        lying = [thing.place for thing in household.things if thing.kind == household.target]
        assert len(lying) >= (2 if task_type == "pick_two_obj_and_place" else 1)
        kinds = {receptacle.name: receptacle.kind for receptacle in household.scene.receptacles}
        allowed = {thing.kind: kinds[thing.place] for thing in household.things}
        assert all(kind == "DeskLamp" or kind in WORLD.may_hold[place] for kind, place in allowed.items())
        assert len({thing.name for thing in household.things}) == len(household.things)
        assert household.target.lower() in household.sentence


def test_equal_arguments_make_equal_households_in_every_process() -> None:
    code = (
        "import json; from gtr_envs.alfworld.households import *; from gtr_envs.alfworld.wheel import *;"
        "w = load_world();"
        "print(json.dumps([game_data(w, make_household(w, 'train', t, 7)) for t in TASK_TYPES]))"
    )
    ours = [game_data(WORLD, make_household(WORLD, "train", task_type, 7)) for task_type in TASK_TYPES]
    for seed in ("0", "1"):
        theirs = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        assert json.loads(theirs.stdout) == ours


def test_numbers_types_and_splits_make_different_households() -> None:
    folders = {
        (split, task_type, number): make_household(WORLD, split, task_type, number).things
        for split in SPLITS
        for task_type in TASK_TYPES
        for number in range(5)
    }
    assert len(set(folders.values())) == len(folders)


def test_seen_and_unseen_rooms_do_not_overlap() -> None:
    assert set(WORLD.train_scenes).isdisjoint(WORLD.unseen_scenes)
    assert len(WORLD.train_scenes) + len(WORLD.unseen_scenes) == 120
    assert load_scene(14).room == "Kitchen"


# --- the engine -------------------------------------------------------------------------------------------------------


@with_stock
@pytest.mark.parametrize(("task_type", "split"), [*zip(TASK_TYPES, SPLITS * 2, strict=True)])
def test_the_fast_engine_says_what_textworld_says(task_type: str, split: str) -> None:
    rng = np.random.default_rng(TASK_TYPES.index(task_type))
    game = game_of(task_type, 3, split)
    fast, stock = FastEngine(), StockEngine()
    for engine in (fast, stock):
        engine.load(game.data)
    # The stock engine names what occurs in a fact only.
    assert {name: said.strip() for name, said in stock.names.items()}.items() <= dict(fast.names).items()
    for _ in range(2):
        ours, theirs = fast.reset(), stock.reset()
        assert ours == theirs
        for _ in range(12):
            command = str(rng.choice(ours.admissible))
            said = str(rng.choice([command, command, command, f" {command} ", f"{command} 1", "fly", command.upper()]))
            ours, theirs = fast.step(said), stock.step(said)
            assert ours == theirs, said
    fast.close()
    stock.close()


def test_names_are_those_of_alfworld() -> None:
    from alfworld.agents.utils.misc import Demangler

    engine = FastEngine()
    engine.load(game_of("pick_heat_then_place_in_recep").data)

    class Info:
        def __init__(self, identity: str) -> None:
            self.id = identity

    theirs = Demangler(game_infos={name: Info(name) for name in engine.names})
    assert display_names(list(engine.names)) == {
        name: theirs.demangle_alfred_name(name).strip() for name in engine.names
    }
    engine.close()


def test_a_game_is_rewound_to_its_very_beginning() -> None:
    engine = FastEngine()
    engine.load(game_of("pick_two_obj_and_place").data)
    first = engine.reset()
    for command in first.admissible[:8]:
        engine.step(command)
    assert engine.reset() == first
    assert engine.step("fly").feedback == NOTHING
    engine.close()


def test_a_kept_translation_plays_the_same(tmp_path: Path) -> None:
    game = game_of("pick_cool_then_place_in_recep")
    said = []
    for _ in range(3):
        engine = FastEngine(tmp_path)
        engine.load(game.data)
        state = engine.reset()
        said.append([state, *(engine.step(command) for command in state.admissible[:5])])
        engine.close()
        [kept] = tmp_path.iterdir()
        if len(said) == 2:
            kept.write_text("{ broken")
    assert said[0] == said[1] == said[2]


def test_translations_that_were_not_used_for_longest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textworld_backend, "CACHED_GAMES", 3)
    for age in range(6):
        (tmp_path / f"{age}.json.z").touch()
        os.utime(tmp_path / f"{age}.json.z", (1e9 - age, 1e9 - age))
    textworld_backend._tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json.z", "1.json.z", "2.json.z"]


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = FastEngine(tmp_path / "file")
    with pytest.warns(UserWarning, match="cannot be kept in .*file"):
        engine.load(game_of("pick_and_place_simple").data)
    assert engine.reset().admissible
    engine.close()


def test_a_kept_translation_counts_as_used_when_it_is_read(tmp_path: Path) -> None:
    game = game_of("pick_and_place_simple")
    for _ in range(2):
        engine = FastEngine(tmp_path)
        engine.load(game.data)
        engine.close()
        (kept,) = tmp_path.iterdir()
        assert kept.stat().st_mtime > 1e9
        os.utime(kept, (1e9, 1e9))


def test_the_engine_leaves_arguments_and_output_alone() -> None:
    arguments, output = list(sys.argv), sys.stdout
    engine = FastEngine()
    engine.load(game_of("pick_and_place_simple").data)
    engine.reset()
    engine.close()
    engine.close()
    assert (sys.argv, sys.stdout) == (arguments, output)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("grammar"),
        lambda data: data.update(pddl_problem="(define (problem x"),
        lambda data: data.update(
            pddl_problem=data["pddl_problem"].replace("(:init", "(:init (atLocation agent1 nowhere)")
        ),
        lambda data: data.update(grammar="no grammar"),
        lambda data: data.update(pddl_problem=3),
    ],
)
def test_a_broken_game_is_an_error_and_the_engine_goes_on(spoil: Any) -> None:
    engine = FastEngine()
    data = dict(game_of("pick_and_place_simple").data)
    spoil(data)
    with pytest.raises(GameError):
        engine.load(data)
    engine.load(game_of("pick_and_place_simple").data)
    assert engine.reset().admissible
    engine.close()


def test_an_engine_without_a_game_says_so() -> None:
    for engine in (FastEngine(), StockEngine()):
        with pytest.raises(GameError, match="call load"):
            engine.reset()
        engine.close()


@with_stock
def test_an_untested_version_plays_with_the_stock_engine_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtr_envs.alfworld.textworld_backend.TESTED_TEXTWORLD", ("0.0.0",))
    with pytest.warns(UserWarning, match="was not tested with the fast engine"):
        engine = make_engine()
    assert isinstance(engine, StockEngine)
    engine.load(game_of("look_at_obj_in_light").data)
    assert engine.reset().admissible
    engine.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="open libraries are listed on Linux only")
def test_engines_that_were_closed_leave_nothing_behind() -> None:
    def n_libraries() -> int:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return len({line.split()[4] for line in lines if "libdownward" in line})

    FastEngine().close()
    before = n_libraries()
    for _ in range(5):
        engine = FastEngine()
        engine.load(game_of("pick_and_place_simple").data)
        engine.close()
    assert n_libraries() == before


# --- the experts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_both_experts_win_and_foresee_what_the_engine_does(task_type: str) -> None:
    engine = FastEngine()
    for number, split in enumerate(SPLITS):
        game = game_of(task_type, number + 50, split)
        engine.load(game.data)
        state = engine.reset()
        room = read_room(state.facts, engine.names)
        situation = read_situation(state.facts, room)
        assert goal_rate(situation, game.task) < 1
        for action in expert.plan(situation, game.task):
            assert action.command(engine.names) in state.admissible
            state, situation = engine.step(action.command(engine.names)), after(situation, action)
            assert read_situation(state.facts, room) == situation
            assert (goal_rate(situation, game.task) == 1) is state.won
        assert state.won
        state, explorer = engine.reset(), expert.Explorer(game.task)
        for _ in range(120):
            situation = read_situation(state.facts, room)
            if (intention := explorer.intend(situation)) is None:
                break
            state = engine.step(intention.action.command(engine.names))
        assert state.won
    engine.close()


def test_the_expert_goes_on_from_wherever_a_random_player_has_got_to() -> None:
    engine, rng = FastEngine(), np.random.default_rng(1)
    for number, task_type in enumerate(TASK_TYPES):
        game = game_of(task_type, number)
        engine.load(game.data)
        state = engine.reset()
        room = read_room(state.facts, engine.names)
        for _ in range(30):
            state = engine.step(str(rng.choice(state.admissible)))
        for _ in range(40):
            intention = expert.intend(read_situation(state.facts, room), game.task)
            if intention is None:
                break
            state = engine.step(intention.action.command(engine.names))
        assert state.won, task_type
    engine.close()


def test_an_explorer_is_not_told_what_it_has_not_seen() -> None:
    engine = FastEngine()
    game = game_of("pick_and_place_simple", 4)
    engine.load(game.data)
    state = engine.reset()
    room = read_room(state.facts, engine.names)
    situation = read_situation(state.facts, room)
    targets = set(situation.of_kind(game.task.target))
    # The same room with the sought things somewhere else looks the same to who has seen nothing.
    other = {thing: place for thing, place in situation.places.items() if thing not in targets}
    moved = situation.__class__(**{f: getattr(situation, f) for f in situation.__slots__} | {"places": other})
    first, second = expert.Explorer(game.task), expert.Explorer(game.task)
    assert first.intend(situation) == second.intend(moved)
    engine.close()


def test_what_is_closed_is_not_in_view() -> None:
    engine = FastEngine()
    game = game_of("pick_cool_then_place_in_recep")
    engine.load(game.data)
    state = engine.reset()
    room = read_room(state.facts, engine.names)
    state = engine.step("go to fridge 1")
    [fridge] = [place for place in look(read_situation(state.facts, room), "").near if place.kind == "fridge"]
    assert (fridge.door, fridge.things) == ("closed", ())
    state = engine.step("open fridge 1")
    [fridge] = [place for place in look(read_situation(state.facts, room), "").near if place.kind == "fridge"]
    assert fridge.door == "open"
    engine.close()


# --- where games come from --------------------------------------------------------------------------------------------


def test_games_on_disk_are_found_and_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_games(tmp_path, "valid_unseen", 6)
    assert len(files) == 6
    source = AlfredSource(tmp_path, "valid_unseen")
    assert len(source.keys) == 6
    game = source.load(source.draw(np.random.default_rng(0)))
    assert game.source == "alfred"
    engine = FastEngine()
    engine.load(game.data)
    state = engine.reset()
    assert game.sentence in state.feedback
    situation = read_situation(state.facts, read_room(state.facts, engine.names))
    for action in expert.plan(situation, game.task):
        state = engine.step(action.command(engine.names))
    assert state.won
    engine.close()
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert isinstance(find_source(None, "valid_unseen", TASK_TYPES), AlfredSource)
    assert isinstance(find_source(None, "train", TASK_TYPES), EmbeddedSource)
    assert isinstance(find_source("embedded", "valid_unseen", TASK_TYPES), EmbeddedSource)


def test_the_filters_of_upstream_hold(tmp_path: Path) -> None:
    files = write_games(tmp_path, "train", 6)
    (files[0].parent).rename(files[0].parent.with_name("trial_movable"))
    (files[1].parent).rename(files[1].parent.with_name("trial_Sliced"))
    files[2].unlink()
    unsolvable = json.loads(files[3].read_text()) | {"solvable": False}
    files[3].write_text(json.dumps(unsolvable))
    source = AlfredSource(tmp_path, "train")
    assert len(source.keys) == 2
    assert len(AlfredSource(tmp_path, "train", [TASK_TYPES[4]]).keys) == 1


def test_an_empty_folder_and_a_broken_file_are_errors_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(GameError, match=r"Expected a folder json_2\.1\.1/train"):
        AlfredSource(tmp_path, "train")
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    with pytest.raises(GameError, match=r"found none that can be played.*alfworld-download"):
        AlfredSource(tmp_path, "train")
    [file] = write_games(tmp_path, "train", 1)
    file.write_text('{"grammar": ')
    with pytest.raises(GameError, match=r"Cannot read the game file .*game\.tw-pddl"):
        AlfredSource(tmp_path, "train")


def test_unknown_splits_types_and_keys_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'valid_seen'"):
        find_source(None, "valid_sen", TASK_TYPES)
    with pytest.raises(UnknownNameError, match="task type"):
        find_source(None, "train", ["pick"])
    for key in ("", "embedded/train/pick_and_place_simple", "embedded/train/pick_and_place_simple/x", "alfred/a/b/1"):
        with pytest.raises(GameError, match="Expected a game such as"):
            EmbeddedSource("train").load(key)


def test_upstream_loads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("alfworld.agents.environment")
    from alfworld.agents.environment import get_environment

    write_games(tmp_path, "train", 6)
    folder = str(tmp_path / "json_2.1.1" / "train")
    config = {
        "env": {
            "goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6], "domain_randomization": False,
            "expert_type": "handcoded",
        },
        "dataset": {"data_path": folder, "num_train_games": -1, "num_eval_games": -1},
        "general": {"training_method": "dqn"},
        "rl": {"training": {"max_nb_steps_per_episode": 50}},
    }  # fmt: skip
    loaded = get_environment("AlfredTWEnv")(config, train_eval="train")
    assert loaded.num_games == 6


def test_the_environment_variable_of_upstream_is_left_as_it_was() -> None:
    code = (
        "import os; from gtr_envs.alfworld.wheel import load_world; load_world();print(os.environ.get('ALFWORLD_DATA'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ALFWORLD_DATA"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "None"
    assert Task("a", "b", "c", "d")._fields == ("task_type", "target", "parent", "lamp")
