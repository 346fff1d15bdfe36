"""Half an hour of training on end: whether memory, open files and the time of a step stay flat.

    python benchmarks/soak.py run --folder runs/soak            # 30 minutes on one thread
    python benchmarks/soak.py run --folder runs/soak --minutes 3 --set rollout.hands=2
    python benchmarks/soak.py table --folder runs/soak          # from the samples: table and figure of the page

Updates are small, so that there are many, with a tenth of the preset's learning rate: with all of it and eight hands an
update the policy forgot within 70 updates what a legal move is, and its episodes ended at once. Each update plays,
scores, trains, merges and writes a metrics line; every second one saves a checkpoint to resume from, every tenth
evaluates student and teacher and records episodes. After every update the script notes the resident memory, the open
files and threads of the process, and the processor time (of all its threads, so that what else the machine does counts
little) and wall time of the update without evaluations and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from environments import markdown, write_page
from scipy import stats

from gtr_agents import train
from gtr_agents.types import Rollout

if TYPE_CHECKING:
    from gtr_agents.algorithms.base import Learner

DATA = Path("docs/results_data/soak.json")
PAGE = Path("docs/benchmarks.md")
IMAGE = Path("docs/images/soak.png")
MARKS = ("<!-- soak: begin -->", "<!-- soak: end -->")
SMALL_UPDATES = (
    "updates=100000", "threads=1", "rollout.hands=8", "rollout.n_envs=64", "ppo.minibatch_size=128",
    "ppo.micro_batch_size=128", "ppo.learning_rate=2e-5", "checkpoint_every=2", "evaluation.every=10",
    "evaluation.episodes=100", "evaluation.interim_episodes=50", "evaluation.n_envs=100",
)  # fmt: skip
WARM_UP = 0.2
"""Share of the updates that the trends leave out: caches and the allocator fill first."""
MEASURES = {
    "resident_mb": "resident memory, MB",
    "open_files": "open files",
    "threads": "threads",
    "cpu_ms_per_step": "processor time a step, ms",
    "wall_ms_per_step": "wall time a step, ms",
}


class Sampler:
    """A callback that notes what the process holds after every update."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.process = psutil.Process(os.getpid())
        self.began: float | None = None
        self.phase: str | None = None
        self.spent = [0.0, 0.0]
        self.clock = (time.process_time(), time.perf_counter())

    def on_phase(self, name: str, total: int | None) -> None:  # noqa: ARG002 - as a callback is called
        """Count the phases of an update."""
        now = (time.process_time(), time.perf_counter())
        if self.phase is not None:
            self.spent = [s + after - before for s, after, before in zip(self.spent, now, self.clock, strict=True)]
        self.phase, self.clock = name, now

    def on_progress(self, n: int) -> None:
        """Nothing to note."""

    def on_update(self, learner: Learner, rollout: Rollout, metrics: dict[str, float]) -> None:  # noqa: ARG002
        """Write one sample."""
        self.began = self.began or time.perf_counter()
        self.on_phase("after the update", None)
        steps = len(rollout.steps)
        sample = {
            "minutes": (time.perf_counter() - self.began) / 60,
            "steps": steps,
            "resident_mb": self.process.memory_info().rss / 1e6,
            "open_files": self.process.num_fds(),
            "threads": self.process.num_threads(),
            "cpu_ms_per_step": 1000 * self.spent[0] / steps,
            "wall_ms_per_step": 1000 * self.spent[1] / steps,
        }
        self.spent, self.phase = [0.0, 0.0], None  # what comes until the next phase is evaluations and checkpoints
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")


def run(folder: Path, minutes: float, start: Path | None, overrides: list[str]) -> None:
    """Train for so long, and keep the samples."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / "samples.jsonl"
    samples.unlink(missing_ok=True)
    changes = [*SMALL_UPDATES, f"max_minutes={minutes}", *overrides]
    sampler = Sampler(samples)
    train("tiny-points24", out=folder / "run", overrides=changes, start=start, overwrite=True, callbacks=[sampler])


def summarise(folder: Path) -> dict[str, Any]:
    """Trends over the updates after the warm-up, with the intervals of Theil and Sen."""
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    disk = sum(file.stat().st_size for file in (folder / "run").rglob("*") if file.is_file())
    steady = rows[int(len(rows) * WARM_UP) :]
    at = np.array([row["minutes"] for row in steady])
    trends = {}
    for key in MEASURES:
        values = np.array([row[key] for row in steady], np.float64)
        slope, _, low, high = stats.theilslopes(values, at)
        third = len(values) // 3
        trends[key] = {
            "first_third": float(np.median(values[:third])),
            "last_third": float(np.median(values[-third:])),
            "per_10_minutes": [float(10 * slope), float(10 * low), float(10 * high)],
            "lowest": float(values.min()),
            "highest": float(values.max()),
        }
    return {
        "minutes": rows[-1]["minutes"],
        "updates": len(rows),
        "steps": sum(row["steps"] for row in rows),
        "run_folder_mb": disk / 1e6,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "trends": trends,
        "samples": [{key: round(value, 2) for key, value in row.items()} for row in rows],
    }


def table(data: dict[str, Any]) -> str:
    """The trends as a Markdown table."""
    rows = []
    for key, words in MEASURES.items():
        trend = data["trends"][key]
        slope, low, high = trend["per_10_minutes"]
        ends = [f"{trend[name]:.1f}" for name in ("first_third", "last_third", "lowest", "highest")]
        rows.append([words, *ends, f"{slope:+.2f} ({low:+.2f} to {high:+.2f})"])
    head = ["after the warm-up", "first third", "last third", "lowest", "highest", "trend in 10 minutes (95 %)"]
    done = f"{data['minutes']:.1f} minutes, {data['updates']} updates, {data['steps']} steps"
    kept = f"the run folder holds {data['run_folder_mb']:.0f} MB at the end"
    return f"{done}; {kept}. torch {data['torch']}, {data['machine']}.\n\n{markdown(head, rows)}"


def figure(data: dict[str, Any]) -> None:
    """Draw memory, files and time of a step over the half hour."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = ["resident_mb", "open_files", "cpu_ms_per_step"]
    figure, axes = plt.subplots(len(shown), 1, figsize=(8, 5.5), sharex=True, constrained_layout=True)
    minutes = [row["minutes"] for row in data["samples"]]
    for axis, key in zip(axes, shown, strict=True):
        axis.plot(minutes, [row[key] for row in data["samples"]], linewidth=1.0, color="#2563eb")
        axis.set_ylim(bottom=0)
        axis.set_ylabel(MEASURES[key], fontsize=9)
        axis.axvline(minutes[int(len(minutes) * WARM_UP)], color="#777777", linewidth=0.8, linestyle=":")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes; trends begin at the dotted line")
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=130)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"), help="where run and samples go")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to train")
    parser.add_argument("--start", type=Path, help="a run or model folder to start from, to save the supervised start")
    parser.add_argument("--set", action="append", default=[], help="further overrides, e.g. rollout.hands=2")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.folder, arguments.minutes, arguments.start, arguments.set)
        return
    data = summarise(arguments.folder)
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    write_page(PAGE, f"{table(data)}\n\n![Memory, open files and time of a step](images/soak.png)", MARKS)
    figure(data)
    sys.stdout.write(f"{table(data)}\n")


if __name__ == "__main__":
    main()
