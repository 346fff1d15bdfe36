"""Several processes train as one: the same batch, the same losses, one teacher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_models import largest_difference, same_weights, text_env, tiny_policy
from two_ranks import updated

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO
from gtr_agents.errors import ConfigError
from gtr_agents.guidance.thought_sft import ThoughtSFT
from gtr_agents.ranks import Ranks, this_process
from gtr_agents.teachers.merged import TeacherManager

TESTS = Path(__file__).parent


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Start two processes, as a user would. With --cpu, accelerate would start one only, without MPI."""
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *arguments]
    paths = os.pathsep.join([str(TESTS.parents[1]), str(TESTS)])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_make_the_update_of_one(tmp_path: Path) -> None:
    launch(str(TESTS / "two_ranks.py"), str(tmp_path))
    alone, expected = updated(Ranks())
    weights = [load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]
    assert same_weights(weights[0], weights[1])
    assert largest_difference(weights[0], alone) < 1e-5
    metrics = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert metrics[0] == metrics[1]
    assert metrics[0] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert metrics[0]["train/samples"] == 16


SMALL = [
    "policy.tiny={hidden_size: 32, layers: 1, heads: 2, ff_size: 32, vision_layers: 1}",
    "policy.max_new_tokens=12",
    "env.kwargs={max_tokens: 4, image_size: 96}",
    "threads=1",
    "sft.steps=6",
    "sft.batch_size=8",
    "rollout.hands=6",
    "rollout.attempts=2",
    "rollout.n_envs=6",
    "evaluation.episodes=4",
    "evaluation.interim_episodes=2",
    "evaluation.every=1",
    "evaluation.recorded=1",
]


def test_a_run_of_two_processes_is_led_by_one_and_can_be_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sets = [part for option in (*SMALL, "updates=2") for part in ("--set", option)]
    launch("--module", "gtr_agents.cli", "train", "tiny-ezpoints", "--out", str(folder), "--quiet", *sets)
    record = json.loads((folder / "config.json").read_text())
    record["config"]["updates"] = 3
    (folder / "config.json").write_text(json.dumps(record))
    launch("--module", "gtr_agents.cli", "train", "--resume", str(folder), "--quiet")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "train/samples" in line]
    assert [line["update"] for line in updates] == [1, 2, 3]
    assert all(line["rollout/episodes"] == 12 for line in updates)  # of both
    assert all(line["rollout/processes"] == 2 for line in updates)
    assert all(line["train/ratio_error_first_epoch"] < 1e-4 for line in updates)
    assert updates[-1]["env_steps"] == sum(line["rollout/steps"] for line in updates)
    assert updates[-1]["teacher/checkpoints"] == 3
    assert json.loads((folder / "summary.json").read_text())["updates"] == 3


def test_a_lone_process_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = this_process()
    assert (ranks.index, ranks.size, ranks.leads, ranks.name) == (0, 1, True, ())
    assert (ranks.gather("x"), ranks.share([1, 2, 3])) == (["x"], [1, 2, 3])
    assert (Ranks(1, 2).share([1, 2, 3]), Ranks(1, 2).name) == ([2], (1,))


def test_what_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.hands must be at least 2, got 0"):
        PPO(tiny_policy(), text_env, ranks=Ranks(0, 2))
    options = {"rollout": RolloutSettings(hands=2), "teacher": TeacherManager(), "ranks": Ranks(1, 2)}
    with pytest.raises(ConfigError, match="ThoughtSFT keeps a dataset"):
        PPO(tiny_policy(), text_env, guidance=ThoughtSFT(), **options)


@pytest.mark.parametrize(("engine", "variable"), [("FSDP", "USE_FSDP"), ("DeepSpeed", "USE_DEEPSPEED")])
def test_a_split_model_is_refused(monkeypatch: pytest.MonkeyPatch, engine: str, variable: str) -> None:
    monkeypatch.setenv(f"ACCELERATE_{variable}", "true")
    with pytest.raises(ConfigError, match=f"split the model over processes \\({engine}\\).*multi_gpu"):
        this_process()
