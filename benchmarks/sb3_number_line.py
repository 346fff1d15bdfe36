"""A stock PPO of Stable-Baselines3 learns NumberLine-v0 from pixels: training, held-out evaluation, curve.

    python benchmarks/sb3_number_line.py train            # three seeds, a few minutes each on one core
    python benchmarks/sb3_number_line.py train --split validation --seeds 0 --out runs/trial   # choosing settings
    python benchmarks/sb3_number_line.py table            # table and curve from the raw data

Stock means the classes PPO and CnnPolicy with arguments only: no frame stack, no normalisation, no reward shaping.

Reaching the target hardly needs reading: a player that goes one way, and turns round when it is punished, always
arrives. The share of episodes without any wrong move (return 1) needs both numbers, so both are measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule

import gtr_envs  # noqa: F401 - registers the environments
from gtr_agents.evaluation import Split, episode_seeds
from gtr_agents.metrics import wilson_interval
from gtr_envs.wrappers import ImageOnly

ENV_ID = "NumberLine-v0"
SEEDS = (4, 5, 6)
"""Seeds 0 to 3, 10 and 11 were used for choosing the settings; their runs are kept beside the data."""
EPISODES = 500
FIRST_EPISODE = 500
"""The first so many test episodes were looked at while choosing."""
N_ENVS = 8
SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "gamma": 0.9,
    "ent_coef": 0.01,
}
"""Arguments of PPO that differ from its defaults, beside the learning rate."""
LEARNING_RATE = 5e-4
"""Falls linearly to 0. Held constant for 40,000 steps, one trial of three ended at 52 %."""
UNIFORM = {"success": 0.598, "clean": 0.269}
"""Exact rates of uniformly random moves, from the environment's page."""
DATA = Path("docs/results_data/sb3-number-line")
FIGURE = Path("docs/images/sb3_number_line.png")

Player = Callable[[np.ndarray], np.ndarray]


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def make_env(image_size: int) -> gym.Env[Any, Any]:
    """The environment as Stable-Baselines3 takes it: pictures and nothing else."""
    return ImageOnly(gym.make(ENV_ID, image_size=image_size))


def evaluate(player: Player, image_size: int, seeds: Sequence[int]) -> dict[str, float]:
    """Play one episode per seed.

    Args:
        player: Pictures uint8 [B, H, W, 3] to actions [B].
        image_size: Side of the pictures in pixels.
        seeds: Reset seeds.

    Returns:
        Shares of episodes that reached the target (``success``) and that did so without a wrong move (``clean``), with
        95 % Wilson intervals, and the mean return.
    """
    envs = [make_env(image_size) for _ in seeds]
    pictures = {i: env.reset(seed=seed)[0] for i, (env, seed) in enumerate(zip(envs, seeds, strict=True))}
    returns, successes = np.zeros(len(envs)), np.zeros(len(envs), dtype=bool)
    while pictures:
        actions = player(np.stack(list(pictures.values())))
        for i, action in zip(list(pictures), actions, strict=True):
            pictures[i], reward, terminated, truncated, info = envs[i].step(int(action))
            returns[i] += float(reward)
            if terminated or truncated:
                successes[i] = info["success"]
                del pictures[i]
    result = {"return": float(returns.mean())}
    for name, n in (("success", int(successes.sum())), ("clean", int((returns == 1).sum()))):
        low, high = wilson_interval(n, len(envs))
        result |= {name: n / len(envs), f"{name}_low": low, f"{name}_high": high}
    return result


def player_of(model: Any, *, greedy: bool) -> Player:
    """A model of Stable-Baselines3 as a player."""
    return lambda pictures: model.predict(pictures, deterministic=greedy)[0]


class Curve(BaseCallback):
    """Evaluates every so many steps and writes a line each time."""

    def __init__(self, path: Path, every: int, image_size: int, seeds: Sequence[int]) -> None:
        super().__init__()
        self.path, self.every, self.image_size, self.seeds = path, every, image_size, seeds
        self.next = 0
        self.started = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.next:
            self.next += self.every
            self.measure()

    def _on_training_end(self) -> None:
        self.measure()

    def measure(self) -> None:
        """Play greedily and append the result."""
        result = evaluate(player_of(self.model, greedy=True), self.image_size, self.seeds)
        line = {"steps": self.num_timesteps, "seconds": round(time.perf_counter() - self.started, 1), **result}
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, line)
            if new:
                writer.writeheader()
            writer.writerow({key: round(value, 4) for key, value in line.items()})
        reached, clean = result["success"], result["clean"]
        say(f"{self.num_timesteps:>8} steps: target reached {reached:.1%}, no wrong move {clean:.1%}")


def cpu_name() -> str:
    """The processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def train(out: Path, seeds: Sequence[int], steps: int, image_size: int, split: Split) -> None:
    """Train and evaluate once per seed; what is complete is left alone."""
    import torch

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        summary = out / f"seed-{seed}.json"
        if summary.exists():
            say(f"{summary} is there")
            continue
        say(f"seed {seed}")
        lines = out / f"seed-{seed}.csv"
        lines.unlink(missing_ok=True)
        vector = make_vec_env(lambda: make_env(image_size), n_envs=N_ENVS, seed=seed)
        falling = LinearSchedule(LEARNING_RATE, 0.0, 1.0)
        model = PPO("CnnPolicy", vector, learning_rate=falling, seed=seed, device="cpu", **SETTINGS)
        started = time.perf_counter()
        # The curve is drawn on validation episodes; those that are reported are looked at once, at the end.
        model.learn(steps, callback=Curve(lines, steps // 20, image_size, episode_seeds("validation", 100)))
        trained_s = time.perf_counter() - started
        fixed = episode_seeds(split, FIRST_EPISODE + EPISODES)[FIRST_EPISODE:]
        results = {
            name: evaluate(player_of(model, greedy=greedy), image_size, fixed)
            for name, greedy in (("greedy", True), ("sampled", False))
        }
        record = {
            "env": ENV_ID,
            "seed": seed,
            "steps": model.num_timesteps,
            "image_size": image_size,
            "settings": SETTINGS | {"n_envs": N_ENVS, "policy": "CnnPolicy", "first_learning_rate": LEARNING_RATE},
            "split": split,
            "first_reset_seed": fixed[0],
            "episodes": EPISODES,
            "train_seconds": round(trained_s, 1),
            "hardware": f"{cpu_name()}, one thread of {os.cpu_count()} shared cores",
            "versions": {name: version(name) for name in ("stable-baselines3", "torch", "gymnasium", "numpy")},
            **results,
        }
        summary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def table(data: Path, figure: Path) -> None:
    """Print the table and draw the curve, from the raw data."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    records = [json.loads(path.read_text()) for path in sorted(data.glob("seed-*.json"))]
    if not records:
        raise SystemExit(f"Expected results in {data}, found none; run `train` first.")
    say("| seed | steps | minutes | greedy: target reached | no wrong move | sampled: target reached | no wrong move |")
    say("|---|---|---|---|---|---|---|")
    for record in records:
        minutes = record["train_seconds"] / 60
        cells = [f"{record['seed']}", f"{record['steps']:,}", f"{minutes:.1f}"]
        for play in ("greedy", "sampled"):
            rates = record[play]
            for name in ("success", "clean"):
                low, high = rates[f"{name}_low"], rates[f"{name}_high"]
                cells.append(f"{rates[name]:.1%} ({low:.1%} - {high:.1%})")
        say(f"| {' | '.join(cells)} |")
    fig, axes = plt.subplots(figsize=(7.2, 3.6), dpi=150, layout="constrained")
    # Greedily, both rates are the same in every evaluation: a player without memory that sets out wrongly goes on so.
    for record, colour in zip(records, ("#1f77b4", "#d97706", "#2a9d8f"), strict=False):
        with (data / f"seed-{record['seed']}.csv").open(encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        steps = [int(line["steps"]) for line in lines]
        axes.plot(steps, [float(line["clean"]) for line in lines], color=colour, label=f"seed {record['seed']}")
    axes.axhline(UNIFORM["clean"], color="#6b7280", linestyle=":", linewidth=1, label="uniformly random")
    axes.axhline(0.9, color="#6b7280", linewidth=0.8, label="90 %")
    axes.set(xlabel="environment steps", ylabel="episodes without a wrong move", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
    axes.set_title("SB3 PPO on NumberLine-v0 from pixels, greedy, 100 validation episodes", fontsize=10)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(figure)
    say(f"curve: {figure}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "table"))
    parser.add_argument("--out", type=Path, default=DATA, help=f"folder of the raw data (default: {DATA})")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="seeds to train with (default: 4 5 6)")
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of each run (default: 60000)")
    parser.add_argument("--image-size", type=int, default=84, help="side of the pictures in pixels (default: 84)")
    splits = get_args(Split)
    parser.add_argument("--split", choices=splits, default="test", help="final evaluation (default: test)")
    parser.add_argument("--figure", type=Path, default=FIGURE, help=f"where `table` draws (default: {FIGURE})")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train(arguments.out, arguments.seeds, arguments.steps, arguments.image_size, arguments.split)
    else:
        table(arguments.out, arguments.figure)


if __name__ == "__main__":
    main()
