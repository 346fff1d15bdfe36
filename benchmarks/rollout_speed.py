"""How fast episodes are played and trained on, against a loop in the manner of the public reference code.

    python benchmarks/rollout_speed.py --start RUN/checkpoints/start             # one thread, about five minutes
    python benchmarks/rollout_speed.py --start RUN/checkpoints/start --threads 2
    python benchmarks/rollout_speed.py --start RUN/checkpoints/start --profile   # where the time goes
    python benchmarks/rollout_speed.py --table                                   # only the tables, from the raw data

Both sides have the same weights, prompts, environment, losses and threads. They take turns: in every round the
reference plays and trains for a moment, then ours with every number of environments. A ratio is one of times of the
same round, so a busy machine disturbs it little; computing time (of all threads of the process) is measured besides,
for the same reason.
The weights are a trained start, whose answers are as long as they are in training: an untrained model never ends one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch
from environments import machine, markdown, write_page
from reference_loop import ReferenceLoop
from stopwatch import BareArithmetic, Place, Stopwatch

from gtr_agents import rollout as rollout_module
from gtr_agents.algorithms import policy_gradient as update_module
from gtr_agents.algorithms.ppo import PPO
from gtr_agents.build import build_algorithm, build_policy
from gtr_agents.config import load_config
from gtr_agents.policies import vlm as vlm_module
from gtr_agents.policies.sampling import SamplingRecorder
from gtr_agents.training import prepare
from gtr_envs.wrappers import TextAction

Data = dict[str, Any]
PRESET = "tiny-points24"
# What the reference does: a critic, all samples, an optimizer step for 128 of them.
SETTINGS = (
    "guidance.name=none", "ppo.baseline=critic", "ppo.skip_flat=false", "ppo.learning_rate=1e-5", "rollout.hands=0",
    "ppo.minibatch_size=128", "ppo.micro_batch_size=64", "rollout.format_valid=3.0", "rollout.format_invalid=-2.0",
)  # fmt: skip
N_ENVS = (1, 16, 64, 512)
EPOCHS = (1, 4)
"""Passes over a rollout for which collecting and updating are added up; 4 is the paper's."""
MARKS = ("<!-- rollouts: begin -->", "<!-- rollouts: end -->")


# --- both sides ------------------------------------------------------------------------------------------------------


def ours(start: Path | None, n_envs: int, n_steps: int, overrides: list[str]) -> PPO:
    """The package's own algorithm with some environments."""
    sizes = [f"rollout.n_envs={n_envs}", f"rollout.n_steps={n_steps}"]
    config = load_config(PRESET, [*SETTINGS, *sizes, *overrides])
    return build_algorithm(config, build_policy(config, 0, start), 0)


def reference(start: Path | None, overrides: list[str]) -> ReferenceLoop:
    """The other loop, with a copy of the same model."""
    algorithm = ours(start, 1, 1, overrides)
    return ReferenceLoop(algorithm.policy, algorithm.make_env(), algorithm.settings, count())


def n_steps_of(n_envs: int) -> int:
    """Steps that so many environments play in a round: eight each, for the states after the last are valued besides."""
    return max(16, 8 * n_envs)


# --- measuring -------------------------------------------------------------------------------------------------------


def timed(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Do something; wall and computing seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure(start: Path | None, rounds: int, n_reference: int, n_envs: tuple[int, ...], overrides: list[str]) -> Data:
    """Let both play and train in turn; seconds of every round."""
    players = {n: ours(start, n, n_steps_of(n), overrides) for n in n_envs}
    other = reference(start, overrides)
    for player in players.values():
        player.collect()
    other.update(other.collect(4))
    found: list[Data] = []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        parts, collect = timed(lambda: other.collect(n_reference))
        _, update = timed(lambda parts=parts: other.update(parts))
        row: Data = {"reference": {"steps": n_reference, "collect": collect, "update": update}}
        for n, player in players.items():
            rollout, collect = timed(player.collect)
            row[str(n)] = {"steps": len(rollout.steps), "collect": collect}
            if n == max(players):
                _, row[str(n)]["update"] = timed(lambda p=player, r=rollout: p.update(r, 0.0))
            player.n_updates += 1
        found.append(row)
    return {"n_envs": list(n_envs), "rounds": found}


def collect_places(player: PPO) -> list[Place]:
    """What is told apart while episodes are played."""
    policy = player.policy
    return [
        (policy.model.model.language_model, "forward", "text model"),
        (policy.model.model.vision_tower, "forward", "picture model"),
        (policy.model, "forward", "output layer, and what joins the models"),
        (policy.model, "generate", "loop of `generate`"),
        (SamplingRecorder, "__call__", "sampling and its log-probabilities"),
        (vlm_module, "encode", "processor: chat template, tokens, pictures"),
        (vlm_module, "collate", "padding"),
        (type(policy.template), "render", "prompts"),
        (TextAction, "step", "environment, with its drawing"),
        (TextAction, "reset", "environment, with its drawing"),
        (rollout_module, "_audited", "audit of the thoughts"),
        (vlm_module, "parse_answer", "reading the answers"),
        (policy, "thought_mask", "reading the answers"),
        (policy.tokenizer, "batch_decode", "reading the answers"),
        (policy, "act", "rest"),
        (rollout_module.RolloutCollector, "play_steps", "rest"),
    ]


def update_places(player: PPO) -> list[Place]:
    """What is told apart in an update."""
    policy = player.policy
    return [
        (policy.model, "forward", "model, forward"),
        (policy, "evaluate", "log-probabilities, entropy, values"),
        (torch.Tensor, "backward", "backward"),
        (vlm_module, "collate", "padding"),
        (update_module, "make_batch", "padding"),
        (player.adam, "step", "optimizer, and clipping the gradient"),
        (player, "update", "rest"),
    ]


def profile(start: Path | None, rounds: int, n_envs: int, overrides: list[str]) -> Data:
    """Computing time of the parts of playing and training, and of the arithmetic in them, in turn."""
    player = ours(start, n_envs, n_steps_of(n_envs), overrides)
    rollout = player.collect()
    player.update(rollout, 0.0)
    found: list[Data] = []
    for number in range(rounds):
        tell(f"profile, round {number + 1} of {rounds}")
        playing = Stopwatch()
        with playing.watching(collect_places(player)):
            rollout = player.collect()
        with BareArithmetic() as playing_floor:  # as much work again: the next steps of the same episodes
            player.collect()
        training = Stopwatch()
        with training.watching(update_places(player)):
            player.update(rollout, 0.0)
        with BareArithmetic() as training_floor:
            player.update(rollout, 0.0)
        collect: Data = {"parts": dict(playing.seconds), "floor": playing_floor.seconds}
        collect["tokens"] = sum(len(step.response.token_ids) for step in rollout.steps)
        collect["tokens_computed"] = playing.calls["sampling and its log-probabilities"] * n_envs
        update = {"parts": dict(training.seconds), "floor": training_floor.seconds}
        found.append({"steps": len(rollout.steps), "collect": collect, "update": update})
        player.n_updates += 1
    return {"n_envs": n_envs, "rounds": found}


def tell(line: str) -> None:
    """Show progress."""
    sys.stderr.write(f"{line}\n")


# --- tables ----------------------------------------------------------------------------------------------------------


def per_step(row: Data, side: str, clock: str, epochs: int, updating: str | None = None) -> float:
    """Seconds a step takes to be played, and trained on ``epochs`` times."""
    played = row[side]["collect"][clock] / row[side]["steps"]
    trained = row[updating or side]
    return float(played + (epochs * trained["update"][clock] / trained["steps"] if epochs else 0.0))


def ratios(data: Data, n_envs: int, clock: str, epochs: int) -> list[float]:
    """How many times faster ours is, round by round."""
    largest = str(max(data["n_envs"]))
    return [
        per_step(row, "reference", clock, epochs) / per_step(row, str(n_envs), clock, epochs, largest)
        for row in data["rounds"]
    ]


def spread(values: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def speed_table(data: dict[str, Data]) -> str:
    """Ratios of steps per second; one column for each number of threads and clock."""
    columns = [(threads, clock) for threads in data for clock in ("wall", "cpu")]
    n_envs = next(iter(data.values()))["n_envs"]
    rows = []
    for n in n_envs:
        name = f"playing, {n} environment{'s' if n > 1 else ''}"
        rows.append([name, *(spread(ratios(data[t], n, clock, 0)) for t, clock in columns)])
    for epochs in EPOCHS:
        name = f"playing ({max(n_envs)}) and training, {epochs} epoch{'s' if epochs > 1 else ''}"
        rows.append([name, *(spread(ratios(data[t], max(n_envs), clock, epochs)) for t, clock in columns)])
    names = {"wall": "time", "cpu": "computing time"}
    head = [f"{t} thread{'s' if t != '1' else ''}, {names[clock]}" for t, clock in columns]
    return markdown(["times faster than the reference loop", *head], rows)


def profile_table(data: Data, name: str, title: str) -> str:
    """Shares of the parts, largest first, and of the floor; medians over rounds."""
    rounds = [row[name] for row in data["rounds"]]
    totals = [sum(row["parts"].values()) for row in rounds]
    shares = {
        part: median(row["parts"].get(part, 0.0) / total for row, total in zip(rounds, totals, strict=True))
        for part in rounds[0]["parts"]
    }
    rows = [[part, f"{share:.1%}"] for part, share in sorted(shares.items(), key=lambda item: -item[1])]
    floor = median(row["floor"] / total for row, total in zip(rounds, totals, strict=True))
    rows.append(["*bare arithmetic of the model, a floor under all*", f"*{floor:.1%}*"])
    return markdown([title, "share of the computing time"], rows)


def wasted(data: Data) -> float:
    """Share of the computed tokens that come after the end of an answer."""
    return median(1 - row["collect"]["tokens"] / row["collect"]["tokens_computed"] for row in data["rounds"])


def report(folder: Path) -> str:
    """All tables, from the raw data."""
    host = json.loads((folder / "machine.json").read_text())
    speed = {t: json.loads(path.read_text()) for t in ("1", "2") if (path := folder / f"threads-{t}.json").is_file()}
    parts = json.loads((folder / "profile.json").read_text())
    n_rounds = " and ".join(str(len(data["rounds"])) for data in speed.values())
    return "\n\n".join(
        [
            f"{host['processor']}, {host['cores']} cores shared with other work; Python {host['python']}, torch "
            f"{host['torch']}, transformers {host['transformers']}. {n_rounds} rounds: median, smallest and largest.",
            speed_table(speed),
            f"Where the time goes with {parts['n_envs']} environments and one thread, medians of "
            f"{len(parts['rounds'])} rounds:",
            profile_table(parts, "collect", "playing"),
            profile_table(parts, "update", "training"),
            f"Of the tokens that are computed {wasted(parts):.0%} are of answers that ended while others went on.",
        ]
    )


# --- command line ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, help="model folder to start from; default an untrained model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    parser.add_argument("--reference-steps", type=int, default=32, help="steps of the reference loop in a round")
    parser.add_argument("--n-envs", type=int, nargs="+", default=list(N_ENVS), help="environments of ours")
    parser.add_argument(
        "--profile", action="store_true", help="measure where the time goes, with the most environments"
    )
    parser.add_argument("--table", action="store_true", help="write the page from the raw data, measure nothing")
    parser.add_argument("--set", action="append", default=[], help="overrides of the preset")
    parser.add_argument("--data", type=Path, default=Path("docs/results_data/rollouts"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    arguments = parser.parse_args()
    if not arguments.table:
        prepare(1 if arguments.profile else arguments.threads)
        if arguments.profile:
            name = "profile"
            data = profile(arguments.start, arguments.rounds, max(arguments.n_envs), arguments.set)
        else:
            name, n_envs = f"threads-{arguments.threads}", tuple(arguments.n_envs)
            data = measure(arguments.start, arguments.rounds, arguments.reference_steps, n_envs, arguments.set)
        data |= {"wait_policy": os.environ.get("OMP_WAIT_POLICY", ""), "settings": [*SETTINGS, *arguments.set]}
        host = {**machine(), **{package: version(package) for package in ("torch", "transformers")}}
        arguments.data.mkdir(parents=True, exist_ok=True)
        (arguments.data / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
        (arguments.data / "machine.json").write_text(json.dumps(host, indent=1) + "\n")
    if all((arguments.data / f"{name}.json").is_file() for name in ("machine", "threads-1", "profile")):
        write_page(arguments.page, report(arguments.data), MARKS)


if __name__ == "__main__":
    main()
