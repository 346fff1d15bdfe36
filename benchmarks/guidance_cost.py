"""What guidance adds to the time of plain PPO, on the same rollouts of the same model in one process.

    python benchmarks/guidance_cost.py --start RUN/checkpoints/start --out docs/results_data/guidance_cost.json

Every round collects a rollout with the preset's own settings and then measures, from the same weights each time: the
update of plain PPO; the teacher's scores (GTR-Turbo (KL)); its thoughts, and an update that imitates them (GTR-Turbo
(SFT)). The teacher is a merge of the weights after the rounds before. Evaluations are no part of it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from gtr_agents.build import build_algorithm, build_policy
from gtr_agents.config import load_config
from gtr_agents.guidance.thought_sft import ThoughtSFT
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.training import prepare

PARTS = ("collect", "update", "score", "think", "update_imitating", "merge")


def measure(preset: str, start: Path | None, rounds: int, overrides: list[str]) -> list[dict[str, float]]:
    """Play the rounds; seconds of every part."""
    config = load_config(preset, overrides)
    prepare(config.threads)
    policy = build_policy(config, 0, start)
    plain = build_algorithm(config, policy, 0)
    teacher = plain.teacher
    assert isinstance(teacher, TeacherManager)
    teacher.start(policy.merge_state())
    guidance = ThoughtSFT()
    found = []
    for number in range(rounds):
        row: dict[str, float] = {}
        clock = time.perf_counter()

        def lap(name: str, row: dict[str, float] = row) -> None:
            nonlocal clock
            row[name] = time.perf_counter() - clock
            clock = time.perf_counter()

        rollout = plain.collect()
        lap("collect")
        plain.teacher_view().score(rollout.steps)
        lap("score")
        metrics = guidance.annotate(rollout, plain.teacher_view())
        lap("think")
        before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
        plain.guidance = guidance
        clock = time.perf_counter()
        plain.update(rollout, number / rounds)
        lap("update_imitating")
        guidance.commit()
        plain.guidance = None
        with torch.no_grad():
            for name, p in policy.model.named_parameters():
                p.copy_(before[name])
        clock = time.perf_counter()
        plain.update(rollout, number / rounds)
        lap("update")
        plain.n_updates += 1
        teacher.add(policy.merge_state())
        lap("merge")
        found.append(row | {"steps": float(len(rollout.steps)), "samples": metrics["guidance/samples"]})
        sys.stderr.write(f"round {number + 1}/{rounds}: {json.dumps({k: round(v, 2) for k, v in found[-1].items()})}\n")
    return found


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of the parts, and what each guidance adds to plain PPO."""
    means = {part: mean(row[part] for row in rows) for part in PARTS}
    plain = means["collect"] + means["update"]
    imitation = means["think"] + means["update_imitating"] - means["update"]
    return means | {
        "plain": plain,
        "kl_adds": (means["score"] + means["merge"]) / plain,
        "sft_adds": (imitation + means["merge"]) / plain,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny-points24")
    parser.add_argument("--start", type=Path, help="model folder to start from; default an untrained model")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], help="overrides of the preset")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows = measure(arguments.preset, arguments.start, arguments.rounds, arguments.set)
    result: dict[str, Any] = {
        "preset": arguments.preset,
        "overrides": arguments.set,
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
        "rounds": rows,
    }
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result["summary"], indent=1) + "\n")


if __name__ == "__main__":
    main()
