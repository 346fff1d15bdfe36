"""Measures the environments side by side with a plain copy of the same pictures, and writes docs/benchmarks.md.

    python benchmarks/environments.py          # some minutes on one core: measures, then writes the tables
    python benchmarks/environments.py table    # writes the tables from the data folder again

Everything is measured in rounds, in which every case plays for a moment: block by block, each followed by some copies
of pictures of the same size, so that a busy machine slows both. A round gives medians over blocks, the page medians
over rounds; the data folder holds every round.
What happens once (drawing every card in its size, solving every hand) comes before the first round and is not counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from gtr_envs.registration import COMPAT_ENVS, ENVS

SIZES = (64, 84, 128, 224, 300, 512, 1024)
VECTOR_SIZES = (300, 84)
VECTOR_LENGTHS = (16, 64)
VECTOR_KWARGS: dict[str, dict[str, Any]] = {
    "sync": {},
    "async": {"vector_kwargs": {"shared_memory": False}},  # without which texts are replaced by filler
    "vector_entry_point": {},
}
WARM_UP = 8
"""How many times longer a case plays before the first round than in a round."""
N_STEPS = 100
"""Steps of a block of a single environment; enough that every block has resets."""
N_CALLS = 8
"""Calls of a block of a vector, and copies after every block."""
N_COPIES = 40
"""Environments over which the memory of one is measured."""
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

Data = dict[str, Any]
Player = Callable[[], tuple[int, float]]
"""Plays one block; returns how many steps of one game it has and the seconds they took."""


class Case(NamedTuple):
    """One line of a table."""

    table: str
    name: str
    pictures: tuple[int, ...]
    """Shape of the pictures of one step; empty if there are none."""
    play: Player


# --- who plays -------------------------------------------------------------------------------------------------------


def single(env_id: str, **kwargs: Any) -> Player:
    """Plays uniformly random actions in one environment; resets are counted."""
    env = gym.make(env_id, **kwargs)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=1 << 16).tolist()  # type: ignore[attr-defined]
    place = 0

    def play() -> tuple[int, float]:
        nonlocal place
        begin = time.perf_counter()
        for _ in range(N_STEPS):
            place = (place + 1) % len(actions)
            _, _, terminated, truncated, _ = env.step(actions[place])
            if terminated or truncated:
                env.reset()
        return N_STEPS, time.perf_counter() - begin

    return play


def batch(mode: str, n: int, size: int, *, legal: bool, **kwargs: Any) -> Player:
    """Plays random actions in a vector of Points24; resets are counted, choosing the actions is not."""
    envs = gym.make_vec("Points24-v0", n, mode, image_size=size, **VECTOR_KWARGS[mode], **kwargs)
    _, infos = envs.reset(seed=0)
    mask = infos["action_mask"]
    rng = np.random.default_rng(0)

    def play() -> tuple[int, float]:
        nonlocal mask
        spent = 0.0
        for _ in range(N_CALLS):
            actions = (rng.random(mask.shape) * (mask if legal else 1)).argmax(axis=1)
            begin = time.perf_counter()
            observation, _, _, _, infos = envs.step(actions)
            spent += time.perf_counter() - begin
            mask = infos["action_mask"]
        del observation
        return N_CALLS * n, spent

    return play


def seconds_of_copy(pictures: np.ndarray[Any, Any]) -> float:
    """Seconds that handing out a copy of pictures takes, the least that independent observations can cost."""
    begin = time.perf_counter()
    for _ in range(N_CALLS):
        copied = pictures.copy()
    del copied
    return (time.perf_counter() - begin) / N_CALLS


def cases(modes: list[str]) -> list[Case]:
    """Everything that is measured in rounds, in the order of the tables."""
    made = [Case("ids", env_id, (300, 300, 3), single(env_id)) for env_id in [*ENVS, *COMPAT_ENVS]]
    made += [Case("sizes", f"{size} px", (size, size, 3), single("Points24-v0", image_size=size)) for size in SIZES]
    for observe in ("both", "image", "text"):
        shape = () if observe == "text" else (300, 300, 3)
        made.append(Case("observe", observe, shape, single("Points24-v0", observe=observe)))
    for size in VECTOR_SIZES:
        for n in VECTOR_LENGTHS:
            shape = (n, size, size, 3)
            for mode in modes:
                for legal in (False, True):
                    name = f"{size} px, N = {n}, {'legal' if legal else 'any'} actions, {mode}"
                    made.append(Case("vectors", name, shape, batch(mode, n, size, legal=legal)))
            name = f"{size} px, N = {n}, legal actions, vector_entry_point, copy=False"
            made.append(Case("vectors", name, shape, batch("vector_entry_point", n, size, legal=True, copy=False)))
    return made


# --- measuring -------------------------------------------------------------------------------------------------------


def measure_speed(n_rounds: int, seconds: float, modes: list[str]) -> list[Data]:
    """Let every case play and copy in turn, round by round."""
    rows: list[Data] = []
    playing = cases(modes)
    for case in playing:
        tell(f"warming up: {case.table}, {case.name}")
        measure_case(case, WARM_UP * seconds)
        rows.append({"table": case.table, "name": case.name, "pictures": case.pictures, "rounds": []})
    # The garbage collector need not look at what all cases together have made, as it would not with one case a process.
    gc.freeze()
    for number in range(n_rounds):
        tell(f"round {number + 1} of {n_rounds}")
        for case, row in zip(playing, rows, strict=True):
            row["rounds"].append(measure_case(case, seconds))
    return rows


def measure_case(case: Case, seconds: float) -> dict[str, float]:
    """Play and copy in turn for a while; medians over the blocks."""
    pictures = np.ones(case.pictures, dtype=np.uint8)
    n_games = case.pictures[0] if len(case.pictures) == 4 else 1
    steps, copies = [], []
    begin = time.perf_counter()
    while not steps or time.perf_counter() - begin < seconds:
        n_steps, spent = case.play()
        steps.append(spent / n_steps)
        copies.append(seconds_of_copy(pictures))
    measured = {"blocks": len(steps), "steps_per_second": 1 / median(steps)}
    if case.pictures:
        ratios = [n_games * step / copy for step, copy in zip(steps, copies, strict=True)]
        measured |= {"copy_seconds": median(copies), "ratio": median(ratios)}
    return measured


MEMORY_PROBE = """
import gymnasium as gym, gtr_envs, resource, sys
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
def make(number):
    env = gym.make(sys.argv[1])
    for seed in range(8):
        env.reset(seed=8 * number + seed)
        env.step(0)
    return env
for number in range(40):  # draws every card, and solves most hands
    make(number)
kept = []
before = resident()
for number in range(int(sys.argv[2])):
    kept.append(make(number))
print((resident() - before) / len(kept))
"""
BATCH_PROBE = (
    MEMORY_PROBE.split("kept = []")[0]
    + """
del make
before = resident()
envs = gym.make_vec(sys.argv[1], int(sys.argv[2]), "vector_entry_point")
observation = envs.reset(seed=0)
for _ in range(8):
    observation = envs.step([0] * envs.num_envs)
print((resident() - before) / envs.num_envs)
"""
)
IMPORT_PROBE = """
import sys, time
begin = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - begin, *(name for name in sys.argv[2:] if name in sys.modules))
"""


def ask(code: str, *arguments: object) -> list[str]:
    """Run a probe in a fresh Python; returns the words it printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603 - our own code


def measure_memory() -> list[Data]:
    """Resident bytes that one more environment takes, its last observation left out."""
    rows: list[Data] = []
    for env_id in [*ENVS, *COMPAT_ENVS]:
        tell(f"memory of {env_id}")
        rows.append({"name": env_id, "bytes": float(ask(MEMORY_PROBE, env_id, N_COPIES)[0])})
    tell("memory of the batch")
    n_games = max(VECTOR_LENGTHS)
    name = f"one game of a batch of {n_games} Points24, with its last picture"
    rows.append({"name": name, "bytes": float(ask(BATCH_PROBE, "Points24-v0", n_games)[0])})
    return rows


def measure_imports(n_rounds: int) -> Data:
    """Seconds of two imports in fresh Pythons, in turn, and which heavy modules ours has loaded."""
    heavy = ("torch", "pygame", "pettingzoo", "stable_baselines3", "matplotlib")
    rounds, loaded = [], set()
    for number in range(n_rounds):
        tell(f"imports, round {number + 1} of {n_rounds}")
        ours = ask(IMPORT_PROBE, "gtr_envs", *heavy)
        theirs = ask(IMPORT_PROBE, "gymnasium")
        loaded |= set(ours[1:])
        rounds.append({"gtr_envs": float(ours[0]), "gymnasium": float(theirs[0])})
    return {"rounds": rounds, "looked_for": heavy, "loaded": sorted(loaded)}


def machine() -> Data:
    """What it was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    packages = ("gtr-suite", "gymnasium", "numpy", "pygame-ce")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def tell(line: str) -> None:
    """Show progress."""
    sys.stderr.write(f"{line}\n")


# --- writing ---------------------------------------------------------------------------------------------------------


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; all columns but the first are set to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def speed_table(rows: list[Data], table: str, what: str) -> str:
    """Medians over rounds of one table."""
    told = []
    for row in (row for row in rows if row["table"] == table):
        rates = [each["steps_per_second"] for each in row["rounds"]]
        ratios = [each["ratio"] for each in row["rounds"] if "ratio" in each]
        copies = [each["copy_seconds"] for each in row["rounds"] if "ratio" in each]
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}" if ratios else "-"
        n_games = row["pictures"][0] if len(row["pictures"]) == 4 else 1
        told.append(
            [
                row["name"],
                f"{median(rates):,.0f}",
                f"{n_games / median(rates) * 1e6:,.0f}",
                f"{median(copies) * 1e6:,.1f}" if copies else "-",
                f"{median(ratios):.2f}" if ratios else "-",
                spread,
            ]
        )
    return markdown([what, "steps/s", "µs a call", "µs a copy", "ratio", "ratios of the rounds"], told)


def report(data: Path) -> str:
    """All tables, from the raw data."""
    speed, memory, imports, host = (
        json.loads((data / f"{name}.json").read_text()) for name in ("speed", "memory", "imports", "machine")
    )
    ours, theirs = ([each[name] for each in imports["rounds"]] for name in ("gtr_envs", "gymnasium"))
    ratio = median(each["gtr_envs"] / each["gymnasium"] for each in imports["rounds"])
    n_rounds = len(speed[0]["rounds"])
    parts = [
        f"{host['processor']}, {host['cores']} cores, {host['system']}; Python {host['python']}, gtr-suite "
        f"{host['gtr-suite']}, Gymnasium {host['gymnasium']}, NumPy {host['numpy']}, pygame-ce {host['pygame-ce']}. "
        f"Medians of {n_rounds} rounds.",
        "## Every id, 300 px",
        speed_table(speed, "ids", "id"),
        "## Points24 by size of the picture",
        speed_table(speed, "sizes", "`image_size`"),
        "## Points24 by kind of observation, 300 px",
        speed_table(speed, "observe", "`observe`"),
        "## Vectors of Points24",
        "A call steps all N games; steps/s counts the steps of the games, and the copy is one of all N pictures.",
        speed_table(speed, "vectors", "vector"),
        "## Memory",
        f"Resident memory that one more environment takes at 300 px, over {N_COPIES} of them; what all share (kept "
        "drawings, solved hands) is there before.",
        markdown(["environment", "kB"], [[row["name"], f"{row['bytes'] / 1000:,.0f}"] for row in memory]),
        "## Import",
        f"`import gtr_envs` takes {median(ours) * 1000:.0f} ms, `import gymnasium` alone {median(theirs) * 1000:.0f} "
        f"ms; ratio {ratio:.2f}. Of {', '.join(imports['looked_for'])} it loads "
        f"{', '.join(imports['loaded']) or 'none'}.",
    ]
    return "\n\n".join(parts)


def write_page(page: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace what stands between the markers of a page."""
    begin, end = marks
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of all cases")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long a case plays in a round")
    parser.add_argument(
        "--modes", nargs="+", choices=VECTOR_KWARGS, default=list(VECTOR_KWARGS), help="kinds of vector"
    )
    parser.add_argument("--data", type=Path, default=Path("docs/results_data/environments"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    arguments = parser.parse_args()
    if arguments.command == "run":
        measured = {
            "machine": machine(),
            "imports": measure_imports(arguments.rounds),
            "memory": measure_memory(),
            "speed": measure_speed(arguments.rounds, arguments.seconds, arguments.modes),
        }
        arguments.data.mkdir(parents=True, exist_ok=True)
        for name, content in measured.items():
            (arguments.data / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    write_page(arguments.page, report(arguments.data))


if __name__ == "__main__":
    main()
