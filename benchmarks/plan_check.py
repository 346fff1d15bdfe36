"""Compares the estimates of `gtr plan` with the memory that a rollout and an update really take, on the CPU.

    python benchmarks/plan_check.py            # measures; writes docs/results_data/plan and the table of the page
    python benchmarks/plan_check.py --only 1M  # measures the cases whose name begins so, and keeps the others
    python benchmarks/plan_check.py --tables   # writes the tables again from what was measured

Models with random weights are built from configurations. Each case runs in a process of its own: it loads the model,
plays some steps and makes two updates of one optimizer step each, so that the moments of Adam are there in the second.
Two things are measured above what was there after loading. The bytes of torch's tensors are what a GPU would be asked
for too; processed pictures that wait in the machine's memory are not among them, and the optimizer works on all weights
at once, as it does on a GPU. The resident memory of the process as the kernel reports it (Linux only) is what this run
took of this machine; the peak is set back before each phase and freed memory is returned.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "agents")]

from environments import write_page  # noqa: E402 - the paths come first
from small_families import save_idefics3, save_llava_next, save_qwen2_5_vl  # noqa: E402
from tensor_memory import TensorMemory  # noqa: E402

from gtr_agents.build import build_algorithm, build_policy  # noqa: E402
from gtr_agents.config import RunConfig, load_config  # noqa: E402
from gtr_agents.plan import Plan, make_plan  # noqa: E402

DATA = ROOT / "docs" / "results_data" / "plan"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- plan: begin -->", "<!-- plan: end -->")
SIZES: dict[str, tuple[Callable[..., Path], dict[str, Any], dict[str, Any]]] = {
    "20M": (
        save_qwen2_5_vl,
        {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "vocab_size": 32000},
        {"depth": 4, "hidden_size": 128, "intermediate_size": 512, "out_hidden_size": 256},
    ),
    "100M": (
        save_qwen2_5_vl,
        {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 10, "vocab_size": 32000},
        {"depth": 6, "hidden_size": 256, "intermediate_size": 1024, "out_hidden_size": 640},
    ),
    "1M": (
        save_qwen2_5_vl,
        {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "vocab_size": 4000},
        {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 64},
    ),
    "deep": (
        save_qwen2_5_vl,
        {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 24, "vocab_size": 8000},
        {"depth": 12, "hidden_size": 128, "intermediate_size": 384, "out_hidden_size": 256},
    ),
    "150k words": (
        save_qwen2_5_vl,
        {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "vocab_size": 150_000},
        {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 64},
    ),
    "Idefics3": (
        save_idefics3,
        {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "vocab_size": 16000},
        {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3},
    ),
    "LLaVA-NeXT": (
        save_llava_next,
        {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "vocab_size": 16000},
        {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3},
    ),
}
"""What writes a model, and the sizes of its language and its vision part; of the kind of Qwen2.5-VL by default."""
MODES = {
    "all weights": [],
    "adapter": ["policy.lora={r: 16}"],
    "adapter, checkpointing": ["policy.lora={r: 16}", "policy.gradient_checkpointing=true"],
}
"""What is trained, and how."""
DERIVED = [(size, mode, "") for size in ("1M", "20M", "100M") for mode in MODES]
"""Cases that were looked at while the estimate was written."""
HALF, LONG, WIDE, ENTROPY = "16 bits", "answers of 160", "32 steps at once", "entropy bonus"
RETURNED = "freed blocks returned"
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Lets the C library ask the kernel for every larger block by itself, and give it back when it is freed."""
CHANGES = {
    "": [],
    HALF: ["policy.dtype=bfloat16"],
    LONG: ["policy.max_new_tokens=160"],
    WIDE: [
        "rollout.n_envs=32",
        "rollout.n_steps=32",
        "ppo.minibatch_size=32",
        "ppo.micro_batch_size=32",
        "evaluation.n_envs=32",
        "evaluation.episodes=32",
    ],
    ENTROPY: ["ppo.entropy_coef=0.01"],
    RETURNED: [],
}
"""What differs from the common options."""
HELD_OUT = [
    ("20M", "adapter, checkpointing", HALF),
    ("20M", "adapter", HALF),
    ("20M", "adapter", LONG),
    ("20M", "adapter, checkpointing", LONG),
    ("20M", "adapter, checkpointing", ENTROPY),
    ("1M", "all weights", WIDE),
    ("1M", "adapter, checkpointing", WIDE),
    ("deep", "all weights", ""),
    ("deep", "adapter", ""),
    ("deep", "adapter, checkpointing", ""),
    ("150k words", "all weights", ""),
    ("150k words", "adapter", ""),
    ("Idefics3", "all weights", ""),
    ("Idefics3", "adapter", ""),
    ("Idefics3", "adapter, checkpointing", ""),
    ("LLaVA-NeXT", "all weights", ""),
    ("LLaVA-NeXT", "adapter", ""),
    ("LLaVA-NeXT", "adapter, checkpointing", ""),
]
"""Cases that were not."""
ALLOCATOR = [("20M", mode, RETURNED) for mode in MODES]
"""Cases that tell tensors from what the C library keeps."""
TABLES = {
    "looked at while the estimate was written": DERIVED,
    "not looked at": HELD_OUT,
    "with freed blocks returned to the kernel": ALLOCATOR,
}
CASES = [case for cases in TABLES.values() for case in cases]
COMMON = [
    "policy.lora=null",
    "policy.reuse_image_features=false",
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
    "ppo.epochs=1",
    "ppo.minibatch_size=8",
    "ppo.micro_batch_size=8",
    "ppo.micro_batch_tokens=null",
    "evaluation.n_envs=8",
    "evaluation.episodes=8",
]
MB = 1e6


def configuration(folder: Path, mode: str, change: str) -> RunConfig:
    """The run of a case."""
    options = [*COMMON, f"policy.model={folder}", *MODES[mode], *CHANGES[change]]
    return load_config("qwen2.5-vl-3b-24gb", options)


def save_model(size: str, folder: Path) -> Path:
    """Write the random model of a size."""
    save, text, vision = SIZES[size]
    text = text | {
        "num_attention_heads": text["hidden_size"] // 64,
        "num_key_value_heads": max(1, text["hidden_size"] // 256),
    }
    if save is save_qwen2_5_vl:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}
        text, vision = text | {"rope_parameters": rope}, vision | {"num_heads": 4}
    return save(folder, text, vision)


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
    passes = max(plan.phase("pass") + max(plan.phase("logits"), plan.phase("backward")), plan.phase("step"))
    return {"play": max(plan.phase("read"), plan.phase("write")), "train": trained + plan.phase("train") + passes}


def measured(config: RunConfig, memory: TensorMemory) -> Iterator[tuple[str, Any]]:
    """Play and update; the name of each phase after it, with the rollout."""
    algorithm = build_algorithm(config, policy := build_policy(config, 0), 0)
    for group in algorithm.adam.optimizer.param_groups:
        group["foreach"] = True  # the default on a GPU
    encode = policy._encode

    def aside(prompts: Any) -> Any:
        with memory.elsewhere():
            return encode(prompts)

    policy._encode = aside  # type: ignore[method-assign]
    yield "loaded", None
    with memory:
        rollout = algorithm.collect()
    yield "play", rollout
    with memory:
        for _ in range(2):
            with algorithm._undone_on_failure():  # as in a run
                algorithm.update(rollout, 0.0)
    yield "train", rollout


def case(folder: Path, mode: str, change: str) -> dict[str, Any]:
    """Measure one case in this process."""
    torch.set_num_threads(1)
    config = configuration(folder, mode, change)
    plan = make_plan(config)
    memory, before, started = TensorMemory(), 0.0, 0.0
    tensors: dict[str, float] = {}
    process: dict[str, float] = {}
    seconds: dict[str, float] = {}
    steps: list[Any] = []
    for phase, rollout in measured(config, memory):
        if phase == "loaded":
            before = settle()
        else:
            tensors[phase], process[phase] = memory.peak, resident("VmHWM") - before
            seconds[phase] = time.perf_counter() - started
            steps = rollout.steps
            settle()
        memory.restart()
        started = time.perf_counter()
    return {
        "mode": mode,
        "change": change,
        "parameters": plan.shape.parameters,
        "prompt_tokens": plan.load.prompt,
        "longest_prompt": max(len(step.response.prompt_ids) for step in steps),
        "answer_tokens": [len(step.response.token_ids) for step in steps],
        "estimated": estimated(plan),
        "tensors": tensors,
        "process": process,
        "seconds": seconds,
    }


def measure(only: str) -> None:
    """Run every case in a process of its own; what is done is written after each."""
    file = DATA / "memory.json"
    old = json.loads(file.read_text(encoding="utf-8"))["rows"] if only else []
    rows = {(row["size"], row["mode"], row["change"]): row for row in old}
    with tempfile.TemporaryDirectory() as scratch:
        for size, mode, change in CASES:
            if not f"{size} {mode} {change}".startswith(only):
                continue
            folder = Path(scratch) / size
            if not folder.exists():
                save_model(size, folder)
            command = [sys.executable, __file__, "--case", str(folder), mode, change]
            env = os.environ | (RETURNING if change == RETURNED else {})
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)  # noqa: S603 - our own
            row = {"size": size} | json.loads(done.stdout.splitlines()[-1])
            rows[size, mode, change] = row
            sys.stderr.write(f"{size} {mode} {change}: {line(row)}\n")
            ordered = [rows[key] for key in CASES if key in rows]
            data = {"machine": f"{platform.machine()}, {platform.system()}", "torch": torch.__version__}
            DATA.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(data | {"rows": ordered}, indent=1) + "\n", encoding="utf-8")


def line(row: dict[str, Any]) -> str:
    """Estimate, measurement and ratio of both phases, and the resident memory, as cells."""
    cells = []
    for phase in ("play", "train"):
        guess, found, all_of_it = (row[name][phase] / MB for name in ("estimated", "tensors", "process"))
        cells += [f"{guess:,.0f}", f"{found:,.0f}", f"{guess / found:.2f}", f"{all_of_it:,.0f}"]
    return " | ".join(cells)


def report(folder: Path) -> str:
    """The tables."""
    data = json.loads((folder / "memory.json").read_text(encoding="utf-8"))
    rows = {(row["size"], row["mode"], row["change"]): row for row in data["rows"]}
    text = [f"{data['machine']}; torch {data['torch']}, one thread, one run of each case. MB."]
    for title, cases in TABLES.items():
        text += [
            "",
            f"| {title} | parameters | playing: estimate | tensors | ratio | process | update: estimate | tensors "
            "| ratio | process |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for key in cases:
            if key in rows:
                name = ", ".join(part for part in key if part)
                text.append(f"| {name} | {rows[key]['parameters'] / 1e6:.1f} M | {line(rows[key])} |")
    return "\n".join(text)


def main() -> None:
    """Measure, or write the tables again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, metavar=("FOLDER", "MODE", "CHANGE"), help=argparse.SUPPRESS)
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    parser.add_argument("--only", default="", metavar="NAME", help="measure the cases whose name begins so")
    arguments = parser.parse_args()
    if arguments.case:
        sys.stdout.write(json.dumps(case(Path(arguments.case[0]), *arguments.case[1:])) + "\n")
        return
    if not arguments.tables:
        measure(arguments.only)
    write_page(PAGE, report(DATA), MARKS)


if __name__ == "__main__":
    main()
