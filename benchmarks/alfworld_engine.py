"""Measures ALFWorld's fast engine side by side with stock TextWorld, and writes its part of docs/benchmarks.md.

    python benchmarks/alfworld_engine.py          # some ten minutes on one core: measures, then writes the tables
    python benchmarks/alfworld_engine.py table    # writes the tables from the data folder again

Both engines get the same games and the same commands, game by game in turn, so that a busy machine slows both; what
they say is compared too. Memory is measured in processes of their own. The data folder holds every game.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import gymnasium as gym
import numpy as np
from environments import Data, ask, machine, markdown, tell, write_page

import gtr_envs  # noqa: F401 - makes the id known
from gtr_envs import rendering
from gtr_envs.alfworld import icons, scene
from gtr_envs.alfworld.games import EmbeddedSource
from gtr_envs.alfworld.households import SPLITS
from gtr_envs.alfworld.situation import View, look
from gtr_envs.alfworld.textworld_backend import Engine, FastEngine, StockEngine
from gtr_envs.alfworld.wheel import TASK_TYPES, load_scene

BEGIN, END = "<!-- alfworld: begin -->", "<!-- alfworld: end -->"
N_COMMANDS = 24
"""Random admissible commands that are played in every game."""
N_RESETS = 20
"""Resets of the same game of which the mean is taken; the stock engine makes one."""
N_FRAMES = 12
"""Pictures of every game, each of a view that was not drawn before."""
TARGETS = {
    "engine": 15.0,
    "environment": 15.0,
    "new game": 5.0,
    "new game, kept translation": 15.0,
}
"""How many times faster than stock each should be."""
LEAST_WARM = 100
"""Games after which memory should not grow any more."""


def game_keys(n: int) -> list[str]:
    """Keys of embedded games, all task types and splits in turn."""
    return [f"embedded/{SPLITS[i // len(TASK_TYPES) % 3]}/{TASK_TYPES[i % len(TASK_TYPES)]}/{i}" for i in range(n)]


def seconds(call: Callable[[], Any]) -> float:
    """Seconds of computing that a call takes; both engines have one thread."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


# --- engines and environments ----------------------------------------------------------------------------------------


def begin(engine: Engine, game: Any) -> None:
    """Load a game and go to its beginning."""
    engine.load(game.data)
    engine.reset()


def commands_of(engine: Engine, rng: np.random.Generator) -> list[str]:
    """Random admissible commands from the beginning of the game."""
    state, commands = engine.reset(), []
    for _ in range(N_COMMANDS):
        commands.append(str(rng.choice(state.admissible)))
        state = engine.step(commands[-1])
    return commands


def play(step: Callable[[str], Any], commands: list[str]) -> tuple[float, list[Any]]:
    """Seconds that one command takes, and everything that was said."""
    begin = time.process_time()
    said = [step(command) for command in commands]
    return (time.process_time() - begin) / len(commands), said


def make_env(engine: Engine | None) -> Any:
    """An environment that shows the default picture; with an engine of one's own if one is given."""
    env: Any = gym.make("ALFWorld-v0", data="embedded", max_steps=10 * N_COMMANDS)
    env.unwrapped._engine = engine
    return env


def measure_engines(n_games: int, cache: Path) -> list[Data]:
    """Let both engines play every game in turn."""
    source, rng, rows = EmbeddedSource("train"), np.random.default_rng(0), []
    probe, fast, kept, stock = FastEngine(), FastEngine(), FastEngine(cache), StockEngine()
    ours, theirs = make_env(None), make_env(StockEngine())
    # What happens once in a process, as reading the grammar, comes before the first game.
    for engine in (probe, fast, kept, stock):
        begin(engine, source.load(f"embedded/train/{TASK_TYPES[0]}/{10**6}"))
    for number, key in enumerate(game_keys(n_games)):
        tell(f"engines: game {number + 1} of {n_games}, {key}")
        game = source.load(key)
        for engine in (probe, kept):
            engine.load(game.data)
        commands = commands_of(probe, rng)
        row = {"game": key, "ours": {}, "stock": {}}
        row["ours"]["new game"] = seconds(partial(begin, fast, game))
        row["ours"]["new game, kept translation"] = seconds(partial(begin, kept, game))
        row["stock"]["new game"] = seconds(partial(begin, stock, game))
        row["ours"]["engine"], our_states = play(fast.step, commands)
        row["stock"]["engine"], stock_states = play(stock.step, commands)
        row["equal states"] = sum(mine == other for mine, other in zip(our_states, stock_states, strict=True))
        row["ours"]["same game"] = seconds(lambda: [fast.reset() for _ in range(N_RESETS)]) / N_RESETS
        row["stock"]["same game"] = seconds(stock.reset)
        for env, who in ((ours, "ours"), (theirs, "stock")):
            env.reset(seed=number, options={"game": key})
            row[who]["environment"] = play(partial(step_env, env), commands)[0]
        rows.append(row)
    for closing in (probe, fast, kept, stock, ours, theirs):
        closing.close()
    return rows


def step_env(env: Any, text: str) -> None:
    """Play a command with everything that Gymnasium puts around it."""
    env.step(env.unwrapped.action_from_text(text))


# --- pictures --------------------------------------------------------------------------------------------------------


def forget_drawings() -> None:
    """Empty everything that the drawing code keeps."""
    for module in (scene, icons, rendering):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def view_of(inner: Any) -> View:
    """What the agent sees now."""
    return look(inner._situation, inner._playing.sentence, load_scene(inner._playing.scene).grid)


def measure_frames(n_games: int) -> list[Data]:
    """Draw views of random play, each for the first time."""
    env, rng, rows = gym.make("ALFWorld-v0", data="embedded"), np.random.default_rng(0), []
    inner: Any = env.unwrapped
    forget_drawings()
    for key in game_keys(n_games):
        tell(f"pictures: {key}")
        env.reset(seed=0, options={"game": key})
        views: dict[Any, None] = {}
        for _ in range(N_COMMANDS):
            views[view_of(inner)] = None
            inner._enter(inner._running_engine().step(str(rng.choice(inner._state.admissible))))
        chosen = list(views)[:N_FRAMES]
        first = [seconds(partial(scene.draw_view, view, 300)) for view in chosen]
        again = [seconds(partial(scene.draw_view, view, 300)) for view in chosen]
        rows.append({"game": key, "first": first, "again": again})
    for row, key in zip(rows, game_keys(n_games), strict=True):
        env.reset(seed=0, options={"game": key})
        view = view_of(inner)
        row["nothing kept"] = []
        for _ in range(2):
            forget_drawings()
            row["nothing kept"].append(seconds(partial(scene.draw_view, view, 300)))
            inner._enter(inner._running_engine().step(inner.expert_action()))
            view = view_of(inner)
    env.close()
    return rows


# --- memory ----------------------------------------------------------------------------------------------------------

MEMORY_PROBE = """
import gc, json, os, resource, sys
sys.path.insert(0, sys.argv[4])
from alfworld_engine import game_keys, make_env
from gtr_envs.alfworld.textworld_backend import StockEngine
who, n_games, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def look():
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * resource.getpagesize()
    with open("/proc/self/maps") as file:
        mapped = {line.split()[4] for line in file if line.rstrip().endswith("(deleted)")}
    opened = []
    for name in os.listdir("/proc/self/fd"):
        try:
            opened.append(os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass  # the folder itself, which is closed by now
    deleted = sum(name.endswith("(deleted)") for name in opened)
    return {"resident": resident, "open": len(opened), "deleted_open": deleted, "deleted_mapped": len(mapped)}
rows, env = [], None
for number, key in enumerate(game_keys(n_games)):
    if number % every == 0:
        if env is not None:
            env.close()
        env = make_env(StockEngine() if who == "stock" else None)
    env.reset(seed=number, options={"game": key})
    for _ in range(3):
        if env.unwrapped.is_running:
            env.step(env.unwrapped.action_from_text(env.unwrapped.expert_action()))
    if (number + 1) % every == 0:
        rows.append({"games": number + 1, **look()})
        print(rows[-1], file=sys.stderr, flush=True)
print(json.dumps(rows, separators=(",", ":")))
"""


def measure_memory(n_games: int, n_stock_games: int) -> Data:
    """What a process holds while it plays one game after the other, with a new environment now and then."""
    measured = {}
    for who, n, every in (("ours", n_games, 25), ("stock", n_stock_games, 10)):
        tell(f"memory: {who}, {n} games")
        measured[who] = json.loads("".join(ask(MEMORY_PROBE, who, n, every, Path(__file__).parent)))
    return measured


# --- writing ---------------------------------------------------------------------------------------------------------


def times(rows: list[Data], ours: str, stock: str) -> tuple[float, float, float]:
    """Mean seconds of both, and how many times longer stock takes for the same games and commands."""
    our_mean, stock_mean = (mean(row[who][name] for row in rows) for who, name in (("ours", ours), ("stock", stock)))
    return our_mean, stock_mean, stock_mean / our_mean


def engine_table(rows: list[Data]) -> str:
    """Everything that both do."""
    told = []
    for name, ours, stock in (
        ("command: engine, with facts and admissible commands", "engine", "engine"),
        ("command: whole environment, picture of 300 px", "environment", "environment"),
        ("new game", "new game", "new game"),
        ("new game, its translation kept on disk", "new game, kept translation", "new game"),
        ("same game again", "same game", "same game"),
    ):
        our_mean, stock_mean, ratio = times(rows, ours, stock)
        ratios = [row["stock"][stock] / row["ours"][ours] for row in rows]
        target = f"{TARGETS[ours]:.0f}" if ours in TARGETS else "10 ms"
        told.append(
            [
                name,
                f"{our_mean * 1000:,.1f}",
                f"{stock_mean * 1000:,.1f}",
                f"{ratio:,.1f}",
                f"{min(ratios):,.1f} to {max(ratios):,.1f}",
                target,
            ]
        )
    return markdown(["", "ours, ms", "stock, ms", "ratio", "ratios of the games", "wanted"], told)


def frame_table(rows: list[Data]) -> str:
    """Milliseconds of a picture."""
    told = []
    for name, key in (
        ("a view that was never drawn", "first"),
        ("a view that was drawn", "again"),
        ("nothing kept at all, as in a new process", "nothing kept"),
    ):
        all_times = sorted(1000 * each for row in rows for each in row[key])
        told.append(
            [name, str(len(all_times)), f"{mean(all_times):.2f}", f"{median(all_times):.2f}", f"{all_times[-1]:.1f}"]
        )
    return markdown(["picture of 300 px", "pictures", "mean, ms", "median, ms", "largest, ms"], told)


def memory_table(measured: Data) -> str:
    """What a process holds after some games."""
    told = []
    for who, rows in measured.items():
        marks = [row for row in rows if row["games"] % 100 == 0] if rows[-1]["games"] > LEAST_WARM else rows
        told += [
            [f"{who}, {row['games']} games", f"{row['resident'] / 1e6:,.0f}"]
            + [str(row[name]) for name in ("open", "deleted_open", "deleted_mapped")]
            for row in marks
        ]
    return markdown(["after", "memory, MB", "open files", "of these deleted", "deleted files mapped"], told)


def report(data: Path) -> str:
    """All tables, from the raw data."""
    engines, frames, host = (
        json.loads((data / f"{name}.json").read_text()) for name in ("engines", "frames", "machine")
    )
    n_commands = sum(N_COMMANDS for _ in engines)
    steps = {who: 1 / mean(row[who]["engine"] for row in engines) for who in ("ours", "stock")}
    parts = [
        f"{host['processor']}, {host['cores']} cores, {host['system']}; Python {host['python']}, alfworld "
        f"{host['alfworld']}, TextWorld {host['textworld']}, Fast Downward {host['fast-downward-textworld']}. "
        f"{len(engines)} games of six task types and three splits; means, and ratios of means. Of {n_commands} states, "
        f"{sum(row['equal states'] for row in engines)} were equal in both: text, admissible commands, facts, won. The "
        f"engine makes {steps['ours']:,.0f} steps/s, stock TextWorld {steps['stock']:,.0f}.",
        engine_table(engines),
        frame_table(frames),
    ]
    watched = data / "memory.json"
    if watched.is_file():
        parts += [
            "Games one after the other in one process, with a new environment (300 px) for every 25 of ours and every "
            "10 of stock:",
            memory_table(json.loads(watched.read_text())),
        ]
    return "\n\n".join(parts)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--games", type=int, default=18, help="games that both engines play")
    parser.add_argument("--frame-games", type=int, default=18, help="games of which pictures are drawn")
    parser.add_argument("--memory-games", type=int, default=500, help="games over which memory is watched")
    parser.add_argument("--stock-memory-games", type=int, default=30, help="the same for stock TextWorld")
    parser.add_argument("--data", type=Path, default=Path("docs/results_data/alfworld"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    arguments = parser.parse_args()
    if arguments.command == "run":
        packages = ("alfworld", "textworld", "fast-downward-textworld")
        arguments.data.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            # Nothing that was kept before may help, and nothing is left behind.
            os.environ["XDG_CACHE_HOME"] = folder
            for name, measure in {
                "machine": lambda: {**machine(), **{package: version(package) for package in packages}},
                "engines": lambda: measure_engines(arguments.games, Path(folder) / "engines"),
                "frames": lambda: measure_frames(arguments.frame_games),
                "memory": lambda: measure_memory(arguments.memory_games, arguments.stock_memory_games),
            }.items():
                (arguments.data / f"{name}.json").write_text(json.dumps(measure(), indent=1) + "\n")
    write_page(arguments.page, report(arguments.data), (BEGIN, END))


if __name__ == "__main__":
    main()
