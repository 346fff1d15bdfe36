"""Runs of the ``gtr`` command in forked children that kill themselves, as ``kill -9`` would, at a chosen call.

    python tests/agents/crashes.py FOLDER VARIANT N SEED    # a report as JSON on stdout

One process imports everything and has loaded such a model once; every run is a fork of it, so that dozens of crashes
are affordable.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtr_agents import cli
from gtr_agents.algorithms.ppo import PPO
from gtr_agents.build import build_policy
from gtr_agents.config import load_config
from gtr_agents.merging.stores import FolderStore
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.recorder import RunFolder
from gtr_agents.requirements import check_versions
from gtr_agents.teachers.merged import TeacherManager
from gtr_envs.wrappers import TextAction

OPTIONS = [
    "policy.tiny={hidden_size: 32, layers: 1, heads: 2, ff_size: 32, vision_layers: 1}",
    "policy.max_new_tokens=6",
    "policy.value_widths=[4, 4]",
    "threads=1",
    "env.evaluation={max_tokens: 4, illegal: terminate}",
    "env.kwargs={max_tokens: 4, image_size: 64}",
    "sft.steps=3",
    "sft.batch_size=4",
    "sft.warmup_steps=1",
    "updates=3",
    "rollout.hands=2",
    "rollout.attempts=2",
    "rollout.n_envs=4",
    "ppo.minibatch_size=4",
    "evaluation.episodes=2",
    "evaluation.interim_episodes=2",
    "evaluation.every=2",
    "evaluation.recorded=1",
    "checkpoint_every=1",
]
VARIANTS = {
    "memory": [],
    "disk": [
        "teacher.accumulators=disk",
        "teacher.window=2",
        "rollout.hands=0",
        "rollout.n_steps=12",
        "ppo.baseline=critic",
    ],
    "sft": ["guidance.name=thought_sft", "checkpoint_every=2"],
}
"""Runs whose states lie in different places."""
POINTS: dict[str, tuple[Any, str]] = {
    "file made durable": (os, "fsync"),
    "path renamed": (Path, "rename"),
    "file replaced": (Path, "replace"),
    "folder deleted": (shutil, "rmtree"),
    "file linked": (os, "link"),
    "text written": (Path, "write_text"),
    "checkpoint": (PPO, "save"),
    "model saved": (VLMPolicy, "save"),
    "teacher saved": (TeacherManager, "save"),
    "checkpoint merged": (TeacherManager, "add"),
    "tensor added to the sums on disk": (FolderStore, "_write"),
    "sums on disk rewritten": (FolderStore, "rewrite"),
    "supervised step made": (torch.optim.AdamW, "step"),
    "optimizer stepped": (torch.optim.Adam, "step"),
    "batch answered": (VLMPolicy, "act"),
    "teacher scored": (VLMPolicy, "score"),
    "environment stepped": (TextAction, "step"),
    "metrics logged": (RunFolder, "log"),
    "episode recorded": (RunFolder, "record_episode"),
}
"""Calls at which a run can die: what has just been done, and the function that does it."""


def warm_up(folder: Path) -> None:
    """Have everything imported that a run imports on its way, so that no fork does it again; nothing is computed."""
    os.fsync = lambda _: None  # what the kernel has been given outlives the process that is killed
    for module in ("gtr_agents.replay", "gtr_agents.report", "matplotlib.pyplot", "stable_baselines3.common.logger"):
        importlib.import_module(module)
    policy = build_policy(load_config("tiny-ezpoints", OPTIONS), 0)
    VLMPolicy.from_pretrained(policy.save(folder / "model"))
    check_versions()


def forked(work: Callable[[], None]) -> int:
    """Run in a child; its exit status, negative for a signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
            work()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:  # noqa: BLE001 - the parent reads the status
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch(on_call: Callable[[str, bool], None]) -> None:
    """Have every point report its calls: before (False) and after (True)."""
    for name, (owner, attribute) in POINTS.items():
        original = getattr(owner, attribute)

        def reporting(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            on_call(_name, False)
            result = _original(*args, **kwargs)
            on_call(_name, True)
            return result

        setattr(owner, attribute, reporting)


def gtr(*arguments: str) -> None:
    sys.argv = ["gtr", *arguments, "--quiet"]
    cli.main()


def train(folder: Path, variant: str) -> None:
    sets = [part for option in (*OPTIONS, *VARIANTS[variant]) for part in ("--set", option)]
    gtr("train", "tiny-ezpoints", "--out", str(folder), "--seed", "5", *sets)


def go_on(folder: Path, variant: str) -> None:
    """Resume; what died before it had written its configuration has not begun."""
    if (folder / "config.json").is_file():
        gtr("train", "--resume", str(folder))
    else:
        train(folder, variant)


def count_calls(folder: Path, variant: str) -> Counter[str]:
    """Make the uninterrupted run; how often each point is passed."""
    record = folder.with_suffix(".json")

    def work() -> None:
        calls: Counter[str] = Counter()
        watch(lambda name, after: calls.update([name] if after else []))
        try:
            train(folder, variant)
        finally:
            with record.open("w") as file:
                json.dump(calls, file)

    if forked(work) != 0:
        raise RuntimeError(f"the uninterrupted run {variant} failed")
    return Counter(json.loads(record.read_text()))


def killed(work: Callable[[], None], point: str, number: int, after: bool) -> bool:
    """Run and die at a call; False if the run came to its end before."""

    def dying() -> None:
        calls = 0

        def on_call(name: str, is_after: bool) -> None:
            nonlocal calls
            if name == point and is_after == after:
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        watch(on_call)
        work()

    status = forked(dying)
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"expected a run that dies, got status {status}")
    return status != 0


CLOCKS = ("seconds", "steps_per_second")


def fingerprint(folder: Path) -> dict[str, str]:
    """Hashes of everything a run has come to, but for clocks."""
    found: dict[str, str] = {}
    last = folder / "checkpoints" / "update-000003"
    for path in [*sorted(last.rglob("*.safetensors")), last / "algorithm.json"]:
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    run = RunFolder.open(folder)
    records: dict[str, Any] = {
        "metrics": run.metrics(),
        "episodes": list(run.episodes()),
        "summary": [run.summary()],
        "evaluations": [path.read_text() for path in sorted((folder / "evaluations").glob("*.jsonl"))],
    }
    for name, lines in records.items():
        timeless = [
            {k: v for k, v in line.items() if not k.endswith(CLOCKS)} if isinstance(line, dict) else line
            for line in lines
        ]
        found[name] = hashlib.sha256(json.dumps(timeless, sort_keys=True).encode()).hexdigest()
    return found


def crashes(folder: Path, variant: str, n: int, seed: int) -> list[dict[str, Any]]:
    """Kill n runs at random points, every third one again while it resumes; compare what they come to at last."""
    rng = np.random.default_rng(seed)
    torch.set_num_threads(1)  # a fork has no other threads
    warm_up(folder)
    calls = count_calls(folder / variant, variant)
    expected = fingerprint(folder / variant)
    report = []
    for i in range(n):
        run = folder / f"{variant}-{i}"
        deaths = []
        again = 2 if i % 3 == 2 else 1
        for k in range(again):
            point = sorted(calls)[rng.integers(len(calls))]
            number, after = 1 + int(rng.integers(calls[point])), bool(rng.random() < 0.5)
            if killed(partial(go_on if k else train, run, variant), point, number, after):
                deaths.append(f"{'after' if after else 'before'} call {number}: {point}")
        if forked(partial(go_on, run, variant)) != 0:
            different = ["the resumed run failed"]
        else:
            reached = fingerprint(run)
            different = sorted(k for k in reached.keys() | expected.keys() if reached.get(k) != expected.get(k))
        report.append({"run": run.name, "deaths": deaths, "different": different})
        shutil.rmtree(run)
    return report


if __name__ == "__main__":
    out, chosen, number_of_runs, random_seed = sys.argv[1:]
    sys.stdout.write(json.dumps(crashes(Path(out), chosen, int(number_of_runs), int(random_seed)), indent=1) + "\n")
