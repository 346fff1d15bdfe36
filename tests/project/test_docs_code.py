"""The Python of the documentation runs, page by page, from its first block to its last."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.no_cover  # whole runs: what they pass through is measured elsewhere

DOCS = Path(__file__).parents[2] / "docs"
SESSION = ">>> "
"""Blocks with this are read as sessions by test_readme.py."""


def blocks(page: Path) -> list[str]:
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [block for block in found if SESSION not in block]


PAGES = {str(page.relative_to(DOCS)): page for page in sorted(DOCS.rglob("*.md")) if blocks(page)}


# --- what stands on a page as given -----------------------------------------------------------------------------------


def points24(**options: Any) -> dict[str, Any]:
    import gymnasium

    import gtr_envs

    env = gymnasium.make("Points24-v0", render_mode="rgb_array", **options)
    env.reset(seed=0)
    return {"gymnasium": gymnasium, "gtr_envs": gtr_envs, "env": env}


def clock() -> dict[str, Any]:
    """Register the environment of the example, by importing it."""
    import_module("custom_environment")
    return {}


def tiny_policy() -> dict[str, Any]:
    from gtr_agents import VLMPolicy, build_tiny_vlm

    return {"policy": VLMPolicy(*build_tiny_vlm("compact", hidden_size=32, layers=1, heads=2, ff_size=32))}


def algorithm() -> dict[str, Any]:
    from gtr_agents import PPO, RolloutSettings
    from gtr_agents.policies.tiny import build_tiny_vlm, with_tools

    model, processor = build_tiny_vlm(hidden_size=32, layers=1, heads=2, ff_size=32)
    given = {"model": model, "processor": with_tools(processor)}
    ours = PPO(tiny_policy()["policy"], "EZPoints-v0", rollout=RolloutSettings(hands=1, attempts=2))
    return given | {"algorithm": ours}


def model_folder() -> dict[str, Any]:
    tiny_policy()["policy"].save("path/to/folder")
    return {}


def checkpoints() -> dict[str, Any]:
    """A base and a checkpoint on disk, and a trainer of a tiny language model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    from gtr_agents.merging import write_shards

    for name, value in (("start", 0.0), ("update-7", 1.0)):
        write_shards(f"runs/{name}", [("w", torch.full((2, 2), value))])
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    model.generate = lambda *_: None  # what the page leaves open
    ids = torch.arange(8)
    arguments = TrainingArguments("trained", max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True)
    data = [{"input_ids": ids, "labels": ids}] * 8
    return {"trainer": Trainer(model, arguments, train_dataset=data)}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "embedding.md": algorithm,
    "environments/index.md": points24,
    "environments/wrappers.md": points24,
    "examples.md": clock,
    "external_teacher.md": tiny_policy,
    "merging.md": checkpoints,
    "quickstart.md": model_folder,
}
"""What a page takes for granted."""
TINY = (
    "updates=1",
    "policy.tiny={hidden_size: 32, layers: 1, heads: 2, ff_size: 32, vision_layers: 1}",
    "sft.steps=3",
    "rollout={hands: 2, attempts: 2}",
    "evaluation={episodes: 2, recorded: 1}",
)
SHORTER = {
    "learn(20_000)": "learn(64)",
    "verbose=1": "n_steps=64",
    '["updates=16"]': repr(TINY),
    "episodes=100": "episodes=2",
    "updates=10": "updates=1",
    "max_steps=20": "max_steps=1",
    "max_completion_length=320": "max_completion_length=8",
    '["csv"]': "[]",
}
"""What would take minutes, and what it becomes."""
NEEDS = {
    "embedding.md": "stable_baselines3",
    "environments/alfworld.md": "textworld",
    "environments/sb3.md": "stable_baselines3",
}
ELSEWHERE = {"environments/alfworld.md": ('backend="thor"',)}
"""Blocks that need what no test machine has."""
OPTIONAL = {"from trl import": "trl"}
"""Blocks that need what the extra `dev` brings, but an older installation may not have."""


@pytest.mark.filterwarnings(
    "ignore:You are using 'environment_factory':UserWarning", "ignore:`(is_)?gradient_checkpointing:FutureWarning"
)
@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_python_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(DOCS.parent / "examples")
    names: dict[str, Any] = {"__name__": "docs"}
    names |= GIVEN[name]() if name in GIVEN else {}
    for number, block in enumerate(blocks(PAGES[name])):
        if any(mark in block for mark in ELSEWHERE.get(name, ())):
            continue
        if any(mark in block and find_spec(package) is None for mark, package in OPTIONAL.items()):
            continue
        for long, short in SHORTER.items():
            block = block.replace(long, short)
        exec(compile(block, f"{name}, block {number}", "exec"), names)  # noqa: S102 - our own documentation


def test_what_is_given_or_left_out_is_there() -> None:
    assert GIVEN.keys() | NEEDS.keys() <= PAGES.keys()
    assert all(any(mark in block for page in PAGES.values() for block in blocks(page)) for mark in OPTIONAL)
    for name, marks in ELSEWHERE.items():
        assert all(any(mark in block for block in blocks(PAGES[name])) for mark in marks)
