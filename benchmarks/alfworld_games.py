"""Makes games of ALFWorld, has the engine take each and the expert win it, and writes down what happened.

    python benchmarks/alfworld_games.py             # 1,000 games, some ten minutes on one core
    python benchmarks/alfworld_games.py table       # the table from the data again
    python benchmarks/alfworld_games.py --games 36  # a sample

Six task types and three splits take turns. The expert knows where everything is; its commands go through the
environment's own door, so that every one of them must be admissible.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from environments import Data, machine, markdown, tell

from gtr_envs.alfworld.expert import plan
from gtr_envs.alfworld.games import EmbeddedSource, Game
from gtr_envs.alfworld.goals import goal_rate
from gtr_envs.alfworld.households import SPLITS
from gtr_envs.alfworld.situation import read_room, read_situation
from gtr_envs.alfworld.textworld_backend import Engine, FastEngine
from gtr_envs.alfworld.wheel import TASK_TYPES
from gtr_envs.errors import GameError

FIRST = 500_000
"""Number of the first game of each kind."""


def game_key(number: int) -> str:
    """The key of one of many games: task types and splits in turn."""
    task_type, turn = TASK_TYPES[number % len(TASK_TYPES)], number // len(TASK_TYPES)
    return f"embedded/{SPLITS[turn % len(SPLITS)]}/{task_type}/{FIRST + turn // len(SPLITS)}"


def play(engine: Engine, game: Game) -> Data:
    """Let the engine take a game, and the expert play it."""
    row: Data = {"game": game.key, "scene": game.scene, "accepted": False, "won": False, "error": None}
    try:
        engine.load(game.data)
        state = engine.reset()
    except GameError as error:
        return row | {"error": str(error)}
    room = read_room(state.facts, engine.names)
    longest, longest_text = len(state.admissible), len(state.feedback)
    row |= {"accepted": True, "receptacles": len(room.locations), "done_at_once": state.won, "steps": 0}
    for action in plan(read_situation(state.facts, room), game.task):
        command = action.command(engine.names)
        if command not in state.admissible:
            return row | {"error": f"{command!r} was not admissible"}
        state = engine.step(command)
        row["steps"] += 1
        longest, longest_text = max(longest, len(state.admissible)), max(longest_text, len(state.feedback))
    rate = goal_rate(read_situation(state.facts, room), game.task)
    return row | {"won": state.won, "goal_rate": rate, "most_admissible": longest, "longest_text": longest_text}


def play_all(n_games: int) -> Data:
    """Play every game; the engine's own seconds are taken together."""
    engine, source, rows = FastEngine(), EmbeddedSource("train"), []
    begin = time.process_time()
    for number in range(n_games):
        rows.append(play(engine, source.load(game_key(number))))
        if not rows[-1]["won"]:
            tell(f"not won: {rows[-1]}")
        if (number + 1) % 50 == 0:
            tell(f"{number + 1} of {n_games} games, {sum(row['won'] for row in rows)} won")
    engine.close()
    packages = ("alfworld", "textworld", "fast-downward-textworld")
    host = {**machine(), **{package: version(package) for package in packages}}
    return {"machine": host, "computing_seconds": time.process_time() - begin, "games": rows}


def table(rows: list[Data]) -> str:
    """Counts by task type and split, and of all."""
    told = []
    for task_type in (*TASK_TYPES, "all"):
        for split in SPLITS if task_type != "all" else ("all",):
            kind = [row for row in rows if task_type == "all" or f"/{split}/{task_type}/" in row["game"]]
            if kind:
                told.append([task_type, split, *_counts(kind)])
    return markdown(
        ["task type", "split", "games", "rooms", "accepted", "won", "steps, mean", "most commands at once"], told
    )


def _counts(rows: list[Any]) -> list[str]:
    won = [row for row in rows if row["won"]]
    numbers = [len(rows), len({row["scene"] for row in rows}), sum(row["accepted"] for row in rows), len(won)]
    steps = f"{mean(row['steps'] for row in won):.1f}" if won else "-"
    return [*map(str, numbers), steps, str(max((row["most_admissible"] for row in won), default=0))]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--games", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=Path("docs/results_data/alfworld/games.json"))
    arguments = parser.parse_args()
    if arguments.command == "run":
        played = play_all(arguments.games)
        arguments.data.parent.mkdir(parents=True, exist_ok=True)
        rows = ",\n".join(json.dumps(row) for row in played.pop("games"))
        arguments.data.write_text(json.dumps(played, indent=1)[:-2] + f',\n "games": [\n{rows}\n ]\n}}\n')
    print(table(json.loads(arguments.data.read_text())["games"]))  # noqa: T201 - what was asked for


if __name__ == "__main__":
    main()
