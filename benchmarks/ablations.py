"""The ablations of GTR-Turbo on Points24 with the tiny model: same start, same steps, one option changed.

    python benchmarks/ablations.py run      # hours on two cores; skips runs that are complete
    python benchmarks/ablations.py table    # copies the small raw files to the data folder; writes table and figure

The start is made once, with seed 0. Every ablation runs with every seed, in the order of their table, the extras last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

from study import collect, is_complete, options, summaries

from gtr_agents.metrics import newcombe_interval, wilson_interval

PRESET = "ablation-points24"
SEEDS = (1, 2)
DATA = Path("docs/results_data/ablations")
IMAGE = Path("docs/images/ablations.png")

SFT = "guidance.name=thought_sft"
ABLATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ppo": ("no teacher (plain PPO)", ("guidance.name=none",)),
    "kl": ("GTR-Turbo (KL): merged by TIES, EMA 0.5, every update; clip; thought", ()),
    "linear": ("merged linearly", ("teacher.method=linear",)),
    "sma": ("weights SMA", ("teacher.weights=sma",)),
    "ema-0.1": ("weights EMA, alpha 0.1", ("teacher.alpha=0.1",)),
    "ema-0.9": ("weights EMA, alpha 0.9", ("teacher.alpha=0.9",)),
    "interval-5": ("merged every 5 updates", ("teacher.merge_interval=5",)),
    "interval-10": ("merged every 10 updates", ("teacher.merge_interval=10",)),
    "static": ("static teacher: the start model", ("teacher.name=static",)),
    "abs": ("estimator abs", ("guidance.estimator=abs",)),
    "k1": ("estimator k1", ("guidance.estimator=k1",)),
    "k3": ("estimator k3", ("guidance.estimator=k3",)),
    "forward": ("estimator forward", ("guidance.estimator=forward",)),
    "full": ("thought and action guided", ("guidance.scope=full",)),
    "sft": ("GTR-Turbo (SFT)", (SFT,)),
    "oracle": ("GTR with the solver as corrector", (SFT, "teacher.name=oracle")),
    "own": ("rejection sampling", (SFT, "guidance.source=own_success")),
}
"""Name: what it is in words, and what it changes."""
EXTRAS = ("sft", "oracle", "own")
"""Other members of the family, beside the ablations of the paper; run last."""
DEFECTS = {
    "stale": "defects of the released teacher: frozen after its first merge, without history, a quarter of the size",
    "noise": "defects of the released divergence: without the picture, one token beside",
    "hundred": "defect of the release: an unreadable answer's divergence is 100",
}
"""GTR-Turbo (KL) with defects of the public reference code, which only the tests know."""
WORDS = {name: words for name, (words, _) in ABLATIONS.items()} | DEFECTS


def gtr(*arguments: str, defect: str | None = None) -> None:
    """Run the gtr command of this Python, with a defect if one is named."""
    program = ["tests/agents/defects.py", defect] if defect else ["-m", "gtr_agents.cli"]
    subprocess.run([sys.executable, *program, *arguments], check=True)  # noqa: S603 - our own command


def run(folder: Path, jobs: int, overrides: list[str]) -> None:
    """Make the start, then every run that has no complete summary yet."""
    start = folder / "start"
    if not (start / "checkpoints" / "start").is_dir():
        gtr("sft", PRESET, "--out", str(start), *options([f"threads={jobs}", *overrides]))

    def one(name: str, seed: int) -> None:
        out = folder / f"{name}-s{seed}"
        if not is_complete(out):
            given = ["--start", str(start), "--seed", str(seed), "--out", str(out), "--overwrite"]
            changes = ABLATIONS[name][1] if name in ABLATIONS else ()
            gtr("train", PRESET, *given, *options([*changes, *overrides]), defect=name if name in DEFECTS else None)

    with ThreadPoolExecutor(jobs) as pool:
        wanted = [name for name in WORDS if name not in EXTRAS]
        for future in [pool.submit(one, name, seed) for names in (wanted, EXTRAS) for seed in SEEDS for name in names]:
            future.result()


def late_success(run: dict[str, Any], updates: int = 3) -> float:
    """Share of the training episodes of the last updates that were won: many episodes, dealt as in training."""
    lines = [json.loads(line) for line in (DATA / run["run"] / "metrics.jsonl").read_text().splitlines()]
    return mean([line["rollout/success_rate"] for line in lines if "rollout/success_rate" in line][-updates:])


def rows() -> list[dict[str, Any]]:
    """One row for every ablation that has a complete run: its runs together, and the spread over their seeds."""
    found = []
    for name, words in WORDS.items():
        runs = summaries(DATA, f"{name}-s[0-9]*")
        if not runs:
            continue
        row: dict[str, Any] = {"name": name, "words": words, "seeds": len(runs)}
        for label, key in (("student", "success_rate_after"), ("teacher", "success_rate_teacher")):
            rates, n = [float(s[key]) for s in runs], sum(int(s["episodes"]) for s in runs)
            row[label] = (mean(rates), *wilson_interval(round(mean(rates) * n), n), rates)
        row["greedy"] = mean(float(s["success_rate_after_greedy"]) for s in runs)
        row["late"] = mean(late_success(s) for s in runs)
        row["seconds"] = mean(float(s["train_seconds"]) for s in runs)
        found.append(row)
    return found


def table() -> str:
    """Write the rows as a Markdown table; the interval is Wilson's over the evaluation episodes of all seeds."""
    lines = ["| ablation | student (95 %), by seed | greedy | training, last 3 updates | teacher (95 %) | seconds |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in rows():
        rate, low, high, rates = row["student"]
        taught, below, above, _ = row["teacher"]
        each = ", ".join(f"{100 * r:.1f}" for r in rates)
        lines.append(
            f"| {row['words']} | {rate:.1%} ({low:.1%} - {high:.1%}); {each} | {row['greedy']:.1%} | {row['late']:.1%} "
            f"| {taught:.1%} ({below:.1%} - {above:.1%}) | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def differences() -> str:
    """Say how far the rows differ, over episodes: the sound ones among each other, the start, and the worst defect."""
    from scipy.stats import chi2_contingency

    found = {row["name"]: row for row in rows()}
    first = summaries(DATA, "*-s[0-9]*")[0]
    n = int(first["episodes"]) * len(SEEDS)
    won = [round(row["student"][0] * n) for name, row in found.items() if name in ABLATIONS]
    p_value = chi2_contingency([[k, n - k] for k in won])[1]
    start = (round(first["success_rate_before"] * n / len(SEEDS)), n // len(SEEDS))
    sound, kl, noise = (
        (sum(won), n * len(won)),
        *((round(found[name]["student"][0] * n), n) for name in ("kl", "noise")),
    )
    lines = [f"{len(won)} rows without defects: {sound[0]} of {sound[1]}, one common share: p = {p_value:.2f}"]
    for label, one, other in (("start to sound rows", start, sound), ("noise to kl", noise, kl)):
        low, high = newcombe_interval(*((k / m, m) for k, m in (one, other)))
        lines.append(f"{label}: {100 * low:.1f} to {100 * high:.1f} points")
    return "\n".join(lines)


def figure() -> None:
    """Draw student and teacher of every ablation with their intervals; a line marks the student of GTR-Turbo (KL)."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    found = rows()[::-1]
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(found) + 1.2), constrained_layout=True)
    for label, colour, shift in (("teacher", "#d97706", -0.16), ("student", "#2563eb", 0.16)):
        rates = [row[label][0] for row in found]
        errors = [[row[label][0] - row[label][1] for row in found], [row[label][2] - row[label][0] for row in found]]
        places = [place + shift for place in range(len(found))]
        axis.errorbar(rates, places, xerr=errors, fmt="o", color=colour, label=label, elinewidth=1.2, markersize=5)
        seeds = [(rate, place) for row, place in zip(found, places, strict=True) for rate in row[label][3]]
        axis.plot(*zip(*seeds, strict=True), "|", color=colour, markersize=7, alpha=0.6)
    reference = next((row["student"][0] for row in found if row["name"] == "kl"), None)
    if reference is not None:
        axis.axvline(reference, color="#2563eb", linewidth=0.8, linestyle=":")
    start = summaries(DATA, "*-s[0-9]*")[0]["success_rate_before"]
    axis.axvline(start, color="#777777", linewidth=0.8, linestyle="--", label="start")
    axis.set_yticks(range(len(found)), [textwrap.fill(row["words"], 44) for row in found], fontsize=8)
    axis.set(xlabel="success on 200 fixed test hands a seed")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=8)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=130)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--folder", type=Path, default=Path("runs/ablations"), help="where the runs go")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--set", action="append", default=[], help="overrides for every run, e.g. updates=2")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.folder, arguments.jobs, arguments.set)
    else:
        collect(arguments.folder, DATA)
        sys.stdout.write(f"{table()}\n\n{differences()}\n")
        figure()


if __name__ == "__main__":
    main()
