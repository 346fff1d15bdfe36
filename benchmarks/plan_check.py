"""Compares the estimates of `gtr plan` with the memory that a rollout and an update really take, on the CPU.

    python benchmarks/plan_check.py            # measures; writes docs/results_data/plan and the table of the page
    python benchmarks/plan_check.py --tables   # writes the table again from what was measured

Models of the kind of Qwen2.5-VL with random weights are built from configurations. Each case runs in a process of its
own: it loads the model, plays some steps and makes one update of two epochs with one optimizer step each, so that the
moments of Adam are there in the second. What is measured is the peak of the resident memory above what it was after
loading, as the kernel reports it (Linux only); the peak is set back before each phase and freed memory is returned.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "agents"))

from small_families import save_qwen2_5_vl  # noqa: E402 - the path comes first

from gtr_agents.build import build_algorithm, build_policy  # noqa: E402
from gtr_agents.config import RunConfig, load_config  # noqa: E402
from gtr_agents.plan import Plan, make_plan  # noqa: E402

DATA = ROOT / "docs" / "results_data" / "plan"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- plan: begin -->", "<!-- plan: end -->"
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "20M": (
        {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "vocab_size": 32000},
        {"depth": 4, "hidden_size": 128, "intermediate_size": 512, "out_hidden_size": 256},
    ),
    "100M": (
        {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 10, "vocab_size": 32000},
        {"depth": 6, "hidden_size": 256, "intermediate_size": 1024, "out_hidden_size": 640},
    ),
    "1M": (
        {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "vocab_size": 4000},
        {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 64},
    ),
}
"""Sizes of the language and the vision part."""
MODES = {
    "all weights": [],
    "adapter": ["policy.lora={r: 16}"],
    "adapter, checkpointing": ["policy.lora={r: 16}", "policy.gradient_checkpointing=true"],
}
"""What is trained, and how."""
COMMON = [
    "policy.lora=null",
    "policy.dtype=float32",
    "policy.gradient_checkpointing=false",
    "policy.max_new_tokens=32",
    "policy.temperature=1.0",
    "sft=null",
    "guidance.name=none",
    "teacher.form=dense",
    "teacher.accumulators=memory",
    "rollout.n_envs=8",
    "rollout.n_steps=8",
    "ppo.epochs=2",
    "ppo.minibatch_size=8",
    "ppo.micro_batch_size=8",
    "ppo.micro_batch_tokens=null",
    "evaluation.n_envs=8",
    "evaluation.episodes=8",
]
MB = 1e6


def configuration(folder: Path, mode: str) -> RunConfig:
    """The run of a case."""
    return load_config("qwen2.5-vl-3b-24gb", [*COMMON, f"policy.model={folder}", *MODES[mode]])


def save_model(size: str, folder: Path) -> Path:
    """Write the random model of a size."""
    text, vision = SIZES[size]
    heads = {
        "num_attention_heads": text["hidden_size"] // 64,
        "num_key_value_heads": max(1, text["hidden_size"] // 256),
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}
    return save_qwen2_5_vl(folder, text | heads | {"rope_parameters": rope}, vision | {"num_heads": 4})


def resident(field: str) -> float:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def settle() -> float:
    """Return freed memory, set the peak back, and tell what is resident."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return resident("VmRSS")


def estimated(plan: Plan) -> dict[str, float]:
    """What the plan says of the phases that are measured, in bytes; the teacher is no part of it."""
    lasting = {part.name: part.gpu for part in plan.parts if not part.phase}
    trained = sum(lasting[name] for name in ("gradients", "Adam's two moments"))
    # Of the copy to take back a failed update only the weights are made here: it precedes the first moments.
    return {"play": plan.phase("play"), "train": trained + plan.phase("train")}


def case(folder: Path, mode: str) -> dict[str, Any]:
    """Measure one case in this process."""
    torch.set_num_threads(1)
    config = configuration(folder, mode)
    plan = make_plan(config)
    algorithm = build_algorithm(config, build_policy(config, 0), 0)
    before = settle()
    started = time.perf_counter()
    rollout = algorithm.collect()
    play = resident("VmHWM") - before
    played = time.perf_counter() - started
    settle()
    algorithm.update(rollout, 0.0)
    seconds = time.perf_counter() - started
    return {
        "mode": mode,
        "parameters": plan.shape.parameters,
        "prompt_tokens": plan.load.prompt,
        "answer_tokens": [len(step.response.token_ids) for step in rollout.steps],
        "estimated": estimated(plan),
        "measured": {"play": play, "train": resident("VmHWM") - before},
        "seconds": {"play": played, "update": seconds - played},
    }


def measure() -> None:
    """Run every case in a process of its own; what is done is written after each."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            folder = save_model(size, Path(scratch) / size)
            for mode in MODES:
                command = [sys.executable, __file__, "--case", str(folder), mode]
                done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own
                row = {"size": size} | json.loads(done.stdout.splitlines()[-1])
                rows.append(row)
                sys.stderr.write(f"{size} {mode}: {line(row)}\n")
                machine = f"{platform.machine()}, {platform.system()}"
                data = {"machine": machine, "torch": torch.__version__, "rows": rows}
                DATA.mkdir(parents=True, exist_ok=True)
                (DATA / "memory.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def line(row: dict[str, Any]) -> str:
    """Estimate, measurement and ratio of both phases, as cells."""
    cells = []
    for phase in ("play", "train"):
        guess, found = row["estimated"][phase] / MB, row["measured"][phase] / MB
        cells += [f"{guess:,.0f}", f"{found:,.0f}", f"{guess / found:.2f}"]
    return " | ".join(cells)


def report(folder: Path) -> str:
    """The table."""
    data = json.loads((folder / "memory.json").read_text(encoding="utf-8"))
    text = [
        f"{data['machine']}; torch {data['torch']}, one thread, one run of each case.",
        "",
        "| parameters | trained | playing: estimate, MB | measured | ratio | update: estimate, MB | measured | ratio |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    text += [f"| {row['parameters'] / 1e6:.1f} M | {row['mode']} | {line(row)} |" for row in data["rows"]]
    return "\n".join(text)


def write_page(page: Path, text: str) -> None:
    """Put the table between its markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure, or write the table again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=2, metavar=("FOLDER", "MODE"), help=argparse.SUPPRESS)
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if arguments.case:
        sys.stdout.write(json.dumps(case(Path(arguments.case[0]), arguments.case[1])) + "\n")
        return
    if not arguments.tables:
        measure()
    write_page(PAGE, report(DATA))


if __name__ == "__main__":
    main()
