"""Several processes train as one: the same batch, the same losses, one teacher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_models import largest_difference, random_rollout, same_weights, text_env, tiny_policy, weights_of
from two_ranks import DEEPSPEED, KINDS, TRIED, UPDATES, adapted_policy, learner

from gtr_agents import ranks as ranks_module
from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.diagnostics import trajectory_metrics
from gtr_agents.errors import CheckpointError, ConfigError, DependencyError
from gtr_agents.ranks import Ranks, this_process
from gtr_agents.requirements import Unmet

TESTS = Path(__file__).parent
COPIES = ("--multi_gpu",)
ZERO = ("--use_deepspeed", "--zero_stage", "2")
PIECES = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_reshard_after_forward", "true")


def launch(*arguments: str, how: tuple[str, ...] = COPIES) -> subprocess.CompletedProcess[str]:
    """Start two processes, as a user would. With --cpu, accelerate would start one only, without MPI."""
    options = [*how, "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *arguments]
    paths = os.pathsep.join([str(TESTS.parents[1]), str(TESTS), str(DEEPSPEED)])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to, with copies of the model and in pieces."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(str(TESTS / "two_ranks.py"), str(folder))
    return folder


def found(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights and metrics of one of the results, which both processes must have alike."""
    weights = [load_file(folder / f"{name}.{rank}") for rank in (0, 1)]
    metrics = [json.loads((folder / f"{rank}.json").read_text())[name] for rank in (0, 1)]
    assert same_weights(*weights)
    assert metrics[0] == metrics[1]
    return weights[0], metrics[0]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in TRIED.items() for name in names if name != "adapter"]
)
def test_two_processes_make_the_update_of_one(together: Path, kind: str, name: str) -> None:
    alone, expected = UPDATES[name](Ranks())
    weights, metrics = found(together, f"{kind}: {name}")
    assert largest_difference(weights, alone) < 1e-4
    assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert metrics["train/samples"] == 16
    assert metrics["train/skipped_samples"] == (2 if "without a finite loss" in name else 0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS[1:] if "adapter" in TRIED[kind]])
def test_an_adapter_is_trained_as_in_copies(together: Path, kind: str) -> None:
    """Whole and in parts of another size, a base in bfloat16 rounds in its own way: copies are the comparison."""
    start = weights_of(adapted_policy())
    (pieces, metrics), (copies, expected) = (found(together, f"{way}: adapter") for way in (kind, "copies"))
    assert largest_difference(pieces, copies) < 1e-6
    assert metrics == pytest.approx(expected, rel=1e-5)
    moved = {name for name in start if not torch.equal(start[name], pieces[name])}
    assert any("lora_" in name for name in moved)
    assert all("lora_" in name or name.startswith("head.") for name in moved)


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_that_go_on_and_imitation_are_resumed_as_if_nothing_had_happened(together: Path, kind: str) -> None:
    (once, state), (resumed, again) = (found(together, f"{kind}: {name}") for name in ("in one go", "resumed"))
    assert same_weights(once, resumed)
    assert state == again == {"size": 8, "steps": 36, "held": 0.5 if kind == "pieces" else 1.0}


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_checkpoint_does_not_tell_how_processes_trained(together: Path, kind: str) -> None:
    copies, pieces = (together / way / "checkpoint" for way in ("copies", kind))
    assert sorted(p.name for p in copies.rglob("*")) == sorted(p.name for p in pieces.rglob("*"))
    assert json.loads((copies / "config.json").read_text()) == json.loads((pieces / "config.json").read_text())
    for name in ("model.safetensors", "algorithm.safetensors"):
        mine, theirs = load_file(copies / name), load_file(pieces / name)
        assert {key: t.dtype for key, t in mine.items()} == {key: t.dtype for key, t in theirs.items()}
        assert largest_difference(mine, theirs) < 1e-4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pieces"])
def test_an_update_that_was_interrupted_is_taken_back(together: Path, kind: str) -> None:
    before, after = (together / kind / name for name in ("before", "after"))
    for name in ("model.safetensors", "value_head.safetensors", "algorithm.safetensors"):
        assert same_weights(load_file(before / name), load_file(after / name))


def test_running_episodes_fit_only_as_many_processes_as_played_them(together: Path) -> None:
    place = together / "copies" / "checkpoint"
    with pytest.raises(CheckpointError, match="running episodes of 2 processes, and there are 1: go on with 2"):
        learner(Ranks(), tiny_policy()).restore(place)


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


def test_a_run_of_two_processes_is_led_by_one_and_can_be_resumed_in_any_way(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sets = [part for option in (*SMALL, "updates=2") for part in ("--set", option)]
    launch("--module", "gtr_agents.cli", "train", "tiny-ezpoints", "--out", str(folder), "--quiet", *sets)
    ways = [PIECES, ZERO] if "ZeRO-2" in KINDS else [PIECES]
    for n, how in enumerate(ways, 3):
        record = json.loads((folder / "config.json").read_text())
        record["config"]["updates"] = n
        (folder / "config.json").write_text(json.dumps(record))
        launch("--module", "gtr_agents.cli", "train", "--resume", str(folder), "--quiet", how=how)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "train/samples" in line]
    assert [line["update"] for line in updates] == [*range(1, 3 + len(ways))]
    assert all(line["rollout/episodes"] == 12 for line in updates)  # of both
    assert all(line["rollout/processes"] == 2 for line in updates)
    assert all(line["train/ratio_error_first_epoch"] < 1e-4 for line in updates)
    assert updates[-1]["env_steps"] == sum(line["rollout/steps"] for line in updates)
    assert updates[-1]["teacher/checkpoints"] == len(updates)
    assert json.loads((folder / "summary.json").read_text())["updates"] == len(updates)


def test_a_lone_process_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = this_process()
    assert (ranks.index, ranks.size, ranks.leads, ranks.name) == (0, 1, True, ())
    assert (ranks.gather("x"), ranks.share([1, 2, 3])) == (["x"], [1, 2, 3])
    assert (Ranks(1, 2).share([1, 2, 3]), Ranks(1, 2).name) == ([2], (1,))


def test_what_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.hands must be at least 2, or 0 for rollout\.n_steps, got 1"):
        PPO(tiny_policy(), text_env, rollout=RolloutSettings(hands=1), ranks=Ranks(0, 2))


class Two(Ranks):
    """The first of two processes, the second of which tells what it is given."""

    def __init__(self, other: dict[str, float]) -> None:
        super().__init__(0, 2)
        self.other = other

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]


def test_metrics_of_two_processes_are_those_of_all_their_episodes_and_steps() -> None:
    """Also when no episode of one of them has ended yet, and its steps are all it has."""
    rollout = random_rollout(tiny_policy(), n=6)
    own = trajectory_metrics(rollout.trajectories)
    other = {"episodes": 0.0, "steps": 18.0, "valid_rate": 1.0}
    found = PPO(tiny_policy(), text_env, ranks=Two(other))._rollout_metrics(rollout)
    assert (found["rollout/episodes"], found["rollout/steps"], found["rollout/processes"]) == (3, 24, 2)
    assert found["rollout/valid_rate"] == pytest.approx((6 * own["valid_rate"] + 18) / 24)
    assert found["rollout/return"] == own["return"]
    other = {"episodes": 9.0, "steps": 9.0, "return": 2.0, "valid_rate": 0.5}
    found = PPO(tiny_policy(), text_env, ranks=Two(other))._rollout_metrics(rollout)
    assert found["rollout/return"] == pytest.approx((3 * own["return"] + 9 * 2.0) / 12)
    assert found["rollout/valid_rate"] == pytest.approx((6 * own["valid_rate"] + 9 * 0.5) / 15)


@pytest.mark.parametrize("budget", [None, 100])
def test_a_process_may_have_nothing_to_imitate(budget: int | None) -> None:
    settings = PPOSettings(micro_batch_tokens=budget)
    assert list(PPO(tiny_policy(), text_env, settings=settings)._imitated_pieces([])) == []


@pytest.mark.parametrize(("stage", "zero"), [(0, None), (1, 1), (2, 2)])
def test_deepspeed_shares_out_what_the_launcher_says(
    monkeypatch: pytest.MonkeyPatch, stage: int, zero: int | None
) -> None:
    monkeypatch.setattr(ranks_module, "unmet", lambda _: [])
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", str(stage))
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu")
    found = ranks_module._zero()
    assert (found and found["stage"]) == zero
    assert found is None or found["offload_optimizer"]["device"] == "cpu"


def test_deepspeed_is_refused_where_fsdp_splits_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "unmet", lambda _: [])
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(ConfigError, match=r"DeepSpeed \(ZeRO-3\).*accelerate launch --use_fsdp"):
        ranks_module._zero()


@pytest.mark.parametrize("installed", [None, "0.18.0"])
def test_deepspeed_that_is_missing_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    for name, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}.items():
        monkeypatch.setenv(name, value)
    found = Unmet("deepspeed", ">=0.19.8", installed, too_old=installed is not None)
    monkeypatch.setattr(ranks_module, "unmet", lambda _: [found])
    with pytest.raises(DependencyError, match=r'but deepspeed>=0\.19\.8 is.*pip install "deepspeed>=0\.19\.8"'):
        this_process()


def test_deepspeed_trains_nothing_that_checkpoints_do_not_hold() -> None:
    policy = tiny_policy()
    policy.model.to(torch.bfloat16)
    with pytest.raises(ConfigError, match=r"only float32 is trained, got torch.bfloat16 and .*policy\.lora"):
        PPO(policy, text_env, ranks=Ranks(0, 2, zero={"stage": 1}))


def test_pieces_in_the_machines_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"fsdp_offload_params.*gtr plan"):
        this_process()


def test_a_lone_process_has_nothing_to_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert not this_process().split


def test_a_model_beside_an_engine_is_not_split() -> None:
    policy = tiny_policy()
    policy.engine = object()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="cannot be split over processes"):
        policy.split()


@pytest.mark.parametrize("gathered", [False, True])
def test_an_update_in_pieces_that_was_interrupted_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gathered: bool
) -> None:
    """Not in the middle of it, and not when the weights are whole again but the update is not counted yet."""

    class Pieces:
        is_whole = True

    def interrupted(*_: object) -> None:
        Pieces.is_whole = gathered
        raise KeyboardInterrupt

    algorithm = PPO(tiny_policy(), text_env, rollout=RolloutSettings(hands=1, attempts=1))
    algorithm.policy._split = Pieces()  # type: ignore[assignment]
    assert algorithm.can_be_saved
    monkeypatch.setattr(algorithm, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        algorithm.learn(updates=1)
    assert not algorithm.can_be_saved
    with pytest.raises(CheckpointError, match="model in pieces"):
        algorithm.save(tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())
