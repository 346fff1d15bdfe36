"""Which small model learns to look words up: backbone and initial weights of the outputs side by side (decision 10).

    python benchmarks/recall.py run    # some seven minutes on one core
    python benchmarks/recall.py table  # table and figure from the data again

Every model gets the preset's words, learning rates and at most 600 steps; nothing of ALFWorld's engine is used.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from environments import machine, markdown, tell

from gtr_agents.build import build_policy
from gtr_agents.config import load_config
from gtr_agents.recall import train_recall
from gtr_agents.seeding import numpy_generator

MODELS = [(backbone, scale) for backbone in ("llama", "lfm2") for scale in (1.0, 0.1)]
DATA = Path("docs/results_data/alfworld/recall.json")
IMAGE = Path("docs/images/alfworld/recall.png")


def learn(backbone: str, scale: float, seed: int) -> dict[str, Any]:
    """Let a model learn to look up; tells the accuracy at every tenth step."""
    config = load_config("tiny-alfworld", [f"policy.tiny.backbone={backbone}", f"policy.tiny.output_scale={scale}"])
    assert config.sft is not None
    policy = build_policy(config, seed)
    curve: list[tuple[int, float, int]] = []
    last = 0

    def on_step(step: int, metrics: dict[str, float]) -> None:
        nonlocal last
        last = step
        if step % 10 == 0:
            curve.append((step, round(metrics["recall/accuracy"], 4), int(metrics["recall/words"])))

    start = time.process_time()
    metrics = train_recall(policy, config.sft, numpy_generator(seed, "recall"), on_step)
    return {
        "backbone": backbone,
        "output_scale": scale,
        "seed": seed,
        "steps": last,
        "accuracy": round(metrics["recall/accuracy"], 4),
        "words": int(metrics["recall/words"]),
        "cpu_seconds": round(time.process_time() - start, 1),
        "parameters": sum(p.numel() for p in policy.model.parameters()),
        "curve": curve,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """One line a model."""
    rows = [
        [
            run["backbone"],
            str(run["output_scale"]),
            str(run["steps"]),
            f"{run['accuracy']:.3f} of {run['words']} words",
            f"{run['parameters'] / 1e6:.2f} M",
            f"{run['cpu_seconds']:.0f}",
        ]
        for run in runs
    ]
    return markdown(
        ["backbone", "output scale", "steps", "right answers at the end", "parameters", "CPU seconds"], rows
    )


def figure(runs: list[dict[str, Any]]) -> None:
    """Draw right answers over steps; a fall is where the words are doubled."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawing, axis = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for run in runs:
        colour = {"llama": "#777777", "lfm2": "#1f77b4"}[run["backbone"]]
        style = "-" if run["output_scale"] == 0.1 else ":"
        steps, accuracy, _ = zip(*run["curve"], strict=True)
        axis.plot(steps, accuracy, style, color=colour, label=f"{run['backbone']}, outputs x {run['output_scale']}")
    axis.set(xlabel="steps of 64 lists", ylabel="right answers, last ten steps", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    drawing.savefig(IMAGE, dpi=130)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.command == "run":
        torch.set_num_threads(1)
        runs = []
        for backbone, scale in MODELS:
            tell(f"{backbone}, outputs x {scale}")
            runs.append(learn(backbone, scale, arguments.seed))
        DATA.parent.mkdir(parents=True, exist_ok=True)
        told = ",\n".join(json.dumps(run) for run in runs)
        DATA.write_text(f'{{"machine": {json.dumps(machine())},\n "runs": [\n{told}\n ]\n}}\n')
    runs = json.loads(DATA.read_text())["runs"]
    print(table(runs))  # noqa: T201 - what was asked for
    figure(runs)


if __name__ == "__main__":
    main()
