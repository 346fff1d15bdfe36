"""A whole small run through the command line: what it leaves on disk, and how it goes on after a break."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gtr_agents
from gtr_agents import cli, training
from gtr_agents.algorithms.ppo import PPO
from gtr_agents.config import load_config
from gtr_agents.errors import ConfigError
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.recorder import RunFolder
from gtr_envs.wrappers import TextAction

pytestmark = pytest.mark.no_cover  # whole runs: what they pass through is measured elsewhere

SMALL = [
    "policy.tiny={hidden_size: 64, layers: 2, heads: 2, ff_size: 128, vision_layers: 1}",
    "policy.max_new_tokens=24",
    "policy.value_widths=[16, 8]",
    "threads=1",
    "env.evaluation={max_tokens: 8}",
    "sft.steps=40",
    "sft.batch_size=16",
    "sft.optimizer=adamw",
    "sft.learning_rate=1.0e-2",
    "sft.warmup_steps=5",
    "updates=2",
    "rollout.hands=4",
    "rollout.attempts=3",
    "rollout.n_envs=12",
    "ppo.minibatch_size=16",
    "evaluation.episodes=16",
    "evaluation.interim_episodes=6",
    "evaluation.every=1",
    "evaluation.recorded=2",
    "guidance.beta=5.0",
]
SHORT_EPISODES = "env.evaluation={max_tokens: 8, illegal: terminate}"
QUICK = [*SMALL, SHORT_EPISODES, "evaluation.episodes=2", "evaluation.every=0", "evaluation.recorded=0"]
"""Without what a test of the training itself does not look at."""
BRIEF = [
    *SMALL,
    SHORT_EPISODES,
    "ppo.minibatch_size=8",
    "evaluation.episodes=4",
    "evaluation.interim_episodes=2",
    "evaluation.recorded=1",
]
"""A run with all its parts, each as short as may be: what runs that were broken have to come to."""
LAST = "update-000002"
"""The checkpoint after all updates of these settings."""
SUMMARY = {
    "preset",
    "env",
    "method",
    "seed",
    "temperature",
    "episodes",
    "env_steps",
    "updates",
    "wall_seconds",
    "interrupted",
    "success_rate_before",
    "success_rate_before_interval",
    "success_rate_before_greedy",
    "success_rate_before_solvable",
    "success_rate_after",
    "success_rate_after_interval",
    "success_rate_after_greedy",
    "success_rate_after_solvable",
    "success_rate_teacher",
    "success_rate_teacher_interval",
}
METRICS = {
    "train/ratio_error_first_epoch",
    "rollout/success_rate",
    "rollout/success_rate_solvable",
    "rollout/return",
    "rollout/valid_rate",
    "rollout/legal_rate",
    "rollout/cards_accuracy",
    "rollout/thought_tokens",
    "rollout/entropy",
    "rollout/seconds",
    "train/policy_loss",
    "train/clip_fraction",
    "train/approx_kl",
    "train/grad_norm",
    "train/learning_rate",
    "guidance/kl",
    "guidance/reward",
    "teacher/checkpoints",
    "teacher/drift",
    "update",
    "env_steps",
    "wall_seconds",
}
EVALUATED = ("success_rate", "success_low", "success_high", "return", "valid_rate", "legal_rate", "cards_accuracy")


def gtr(*arguments: str) -> int:
    """Run the command in this process; its status."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        cli.main(list(arguments))
    except SystemExit as ending:
        return int(ending.code or 0)
    finally:
        signal.signal(signal.SIGTERM, handler)
    return 0


def train(out: Path, *arguments: str, overrides: list[str] = SMALL) -> int:
    changes = [part for override in overrides for part in ("--set", override)]
    return gtr("train", "tiny-points24", "--out", str(out), "--seed", "1", "--quiet", *changes, *arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert train(folder) == 0
    return folder


@pytest.fixture(scope="module")
def start(run: Path) -> Path:
    return run / "checkpoints" / "start"


@pytest.fixture(scope="module")
def whole(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brief run that nothing has broken; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(folder, "--start", str(start), overrides=BRIEF) == 0
    return folder


def read(folder: Path, name: str = "summary.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def metrics(folder: Path) -> list[dict[str, Any]]:
    return RunFolder.open(folder).metrics()


def updates(folder: Path) -> list[dict[str, Any]]:
    """The lines of the training updates, without what depends on the clock."""
    lines = [line for line in metrics(folder) if "train/policy_loss" in line]
    clocks = ("wall_seconds", "rollout/seconds", "rollout/steps_per_second", "guidance/seconds")
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_the_run_folder_is_complete(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    expected = {"config.json", "metrics.jsonl", "progress.csv", "summary.json", "report.html", "replay.gif"}
    assert expected <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    for model in ("start", LAST):
        assert {f"checkpoints/{model}/{name}" for name in ("model.safetensors", "policy.json")} <= files
    assert any(name.startswith(f"checkpoints/{LAST}/teacher/") for name in files)
    assert any(name.startswith("episodes/frames/") for name in files)
    assert not [name for name in files if name.endswith((".tmp", ".bin", ".pt", ".pkl"))]


def test_the_summary_says_everything_once(run: Path) -> None:
    summary = read(run)
    assert summary.keys() >= SUMMARY
    assert (summary["preset"], summary["env"], summary["seed"]) == ("tiny-points24", "Points24-v0", 1)
    assert (summary["episodes"], summary["updates"], summary["interrupted"]) == (16, 2, False)
    for label in ("before", "after", "teacher"):
        low, high = summary[f"success_rate_{label}_interval"]
        assert 0 <= low <= summary[f"success_rate_{label}"] <= high <= 1
    assert summary["env_steps"] == metrics(run)[-1]["env_steps"] > 0


def test_the_configuration_is_recorded_with_its_origin(run: Path) -> None:
    record = read(run, "config.json")
    assert record["config"]["updates"] == 2
    assert record["config"]["policy"]["tiny"]["hidden_size"] == 64
    assert (record["preset"], record["seed"], record["overrides"]) == ("tiny-points24", 1, SMALL)
    assert {"torch", "transformers", "python"} <= record["versions"].keys()
    assert {"command", "created", "git"} <= record.keys()


def test_the_metrics_of_every_update_are_there_and_the_ratio_is_one(run: Path) -> None:
    lines = metrics(run)
    trained = [line for line in lines if "train/policy_loss" in line]
    assert [line["update"] for line in trained] == [1, 2]
    for line in trained:
        assert line.keys() >= METRICS
        assert line["train/ratio_error_first_epoch"] <= 1e-4
    assert trained[0]["guidance/kl"] <= 1e-5 < trained[1]["guidance/kl"]


def test_start_middle_and_end_are_evaluated(run: Path) -> None:
    lines = [line for line in metrics(run) if "eval/student/success_rate" in line]
    assert [line["update"] for line in lines] == [0, 1, 2]
    for line in lines:
        for role in ("student", "teacher"):
            assert line.keys() >= {f"eval/{role}/{name}" for name in EVALUATED}
    assert lines[0]["eval/student/episodes"] == lines[2]["eval/teacher/episodes"] == 16
    assert lines[1]["eval/student/episodes"] == 6
    for line in lines[1:]:
        assert line["eval/teacher_lead"] == line["eval/teacher/success_rate"] - line["eval/student/success_rate"]
    assert "eval/student_greedy/success_rate" in lines[0].keys() & lines[2].keys()
    assert read(run)["success_rate_before"] == lines[0]["eval/student/success_rate"]
    assert read(run)["success_rate_teacher"] == lines[2]["eval/teacher/success_rate"]


def test_the_supervised_loss_is_logged(run: Path) -> None:
    losses = [line["sft/loss"] for line in metrics(run) if "sft/loss" in line]
    assert len(losses) == 2
    assert losses[-1] < 2.0


def test_the_csv_file_holds_the_same_lines(run: Path) -> None:
    with (run / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(metrics(run))
    assert float(rows[-1]["eval/student/success_rate"]) == metrics(run)[-1]["eval/student/success_rate"]


def test_episodes_of_every_player_are_recorded_with_frames(run: Path) -> None:
    episodes = list(RunFolder.open(run).episodes())
    assert {episode["role"] for episode in episodes} == {"start", "student", "teacher"}
    for episode in episodes:
        step = episode["steps"][0]
        assert (run / "episodes" / step["frame"]).is_file()
        assert len(step["tokens"]) == len(step["log_probs"]) == len(step["thought_mask"])
        assert "".join(step["tokens"]).startswith(step["answer"][:5])
    with Image.open(run / "replay.gif") as picture:
        assert picture.n_frames > 3
    assert "<html" in (run / "report.html").read_text()[:200]


def test_the_tasks_of_the_start_are_followed_to_the_end(run: Path) -> None:
    seeds: dict[tuple[str, int], list[int]] = {}
    for episode in RunFolder.open(run).episodes():
        seeds.setdefault((episode["role"], episode["update"]), []).append(episode["seed"])
    players = [("start", 0), ("student", 1), ("teacher", 1), ("student", 2), ("teacher", 2)]
    assert {player: sorted(found) for player, found in seeds.items()} == dict.fromkeys(
        players, sorted(seeds["start", 0])
    )


def test_student_and_teacher_are_asked_about_every_recorded_token(run: Path) -> None:
    own = {"student": "student_log_probs", "teacher": "teacher_log_probs"}
    divergences = []
    for episode in RunFolder.open(run).episodes():
        for step in episode["steps"]:
            if episode["role"] == "start":
                assert step["kl"] is step["student_log_probs"] is step["teacher_log_probs"] is None
                continue
            assert step[own[episode["role"]]] == step["log_probs_t1"]
            assert len(step["kl"]) == len(step["tokens"])
            divergences += step["kl"]
    assert min(divergences) > -1e-5
    assert max(divergences) > 1e-4


def test_the_start_model_can_be_loaded_and_is_not_the_student(run: Path) -> None:
    start, student = (VLMPolicy.from_pretrained(run / "checkpoints" / name) for name in ("start", LAST))
    assert start.template.name == student.template.name == "compact"
    states = start.merge_state(), student.merge_state()
    assert any(not np.array_equal(states[0][name].numpy(), states[1][name].numpy()) for name in states[0])


# --- the other commands on a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "role", "line"),
    [
        ((), "student", -1),
        (("--teacher",), "teacher", -1),
        (("--greedy",), "student_greedy", -1),
        (("--role", "start"), "student", 0),
    ],
)
def test_evaluating_a_run_again_finds_what_its_lines_say(
    run: Path, tmp_path: Path, flags: tuple[str, ...], role: str, line: int
) -> None:
    out = tmp_path / "result.json"
    assert gtr("eval", str(run), "--episodes", "16", "--out", str(out), *flags) == 0
    found = json.loads(out.read_text())
    evaluated = [values for values in metrics(run) if f"eval/{role}/success_rate" in values]
    expected = {name.removeprefix(f"eval/{role}/"): value for name, value in evaluated[line].items()}
    same = ("success_rate", "return", "valid_rate", "legal_rate", "entropy", "answer_tokens", "action_log_prob")
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}


def test_report_and_replay_are_written_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for name, command in (("report.html", ["report"]), ("replay.gif", ["replay", "--gif"])):
        (copy / name).unlink()
        assert gtr(*command, str(copy)) == 0
        assert (copy / name).is_file()
        assert name in capsys.readouterr().out
    assert gtr("replay", str(copy), "--terminal", "--episode", "0") == 0
    assert "start" in capsys.readouterr().out.lower()


def test_a_run_is_not_overwritten_unless_asked_for(run: Path, tmp_path: Path) -> None:
    assert train(run) == 2
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    assert train(other, "--overwrite") == 2
    assert (other / "thesis.tex").is_file()


# --- breaks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted_after_first_update(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Interrupt by a signal once the first update is complete."""
    original = training._Watcher.on_update

    def interrupt(self: Any, learner: Any, rollout: Any, found: dict[str, float]) -> None:
        original(self, learner, rollout, found)
        if learner.n_updates == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training._Watcher, "on_update", interrupt)
    return monkeypatch


@pytest.mark.parametrize(
    ("place", "saved", "told"),
    [
        ("supervised_start", False, "begins anew with: gtr train --resume"),
        ("_start_evaluation", True, "the model is saved. Go on with: gtr train --resume"),
    ],
)
def test_an_interruption_before_training_says_what_is_left(
    place: str,
    saved: bool,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, place, interrupted)
    changes = [part for override in SMALL for part in ("--set", override)]
    assert gtr("train", "tiny-points24", "--out", str(tmp_path / "run"), *changes) == 130
    assert (tmp_path / "run" / "checkpoints" / "start").is_dir() == saved
    output = capsys.readouterr()
    assert told in " ".join((output.out + output.err).split())


def test_an_interrupted_run_is_saved_and_goes_on_as_if_nothing_had_happened(
    start: Path, whole: Path, tmp_path: Path, interrupted_after_first_update: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"
    assert train(folder, "--start", str(start), overrides=BRIEF) == 130
    summary = read(folder)
    assert (summary["interrupted"], summary["updates"]) == (True, 1)
    assert "success_rate_before" in summary
    assert "success_rate_after" not in summary
    assert (folder / "report.html").is_file()
    interrupted_after_first_update.undo()
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    ended, expected = read(folder), read(whole)
    assert ended["interrupted"] is False
    same = ("updates", "env_steps", "success_rate_before", "success_rate_after", "success_rate_teacher", "episodes")
    assert {key: ended[key] for key in same} == {key: expected[key] for key in same}
    assert_same(folder, whole)


def test_lines_later_than_the_checkpoint_are_written_once(whole: Path, tmp_path: Path) -> None:
    """A crash can come after the metrics of an update and before its checkpoint."""
    folder = tmp_path / "crashed"
    shutil.copytree(whole, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": 3, "train/policy_loss": 0.0}) + "\n")
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    assert [line["update"] for line in updates(folder)] == [1, 2]
    before, after = (list(RunFolder.open(path).episodes()) for path in (whole, folder))
    assert [episode["id"] for episode in after] == [episode["id"] for episode in before]


def test_an_update_that_is_interrupted_in_the_middle_is_taken_back(
    start: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = tmp_path / "broken", [0]
    original = PPO.losses

    def interrupt(self: PPO, batch: Any) -> Any:
        calls[0] += 1
        if self.n_updates == 1 and calls[0] > 1:
            raise KeyboardInterrupt
        if self.n_updates == 0:
            calls[0] = 0
        return original(self, batch)

    monkeypatch.setattr(PPO, "losses", interrupt)
    assert train(folder, "--start", str(start), overrides=BRIEF) == 130
    assert read(folder)["updates"] == 1
    monkeypatch.undo()
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    assert_same(folder, whole)


@pytest.mark.parametrize("place", ["train_sft", "_start_evaluation", "_final_evaluation"])
def test_a_run_that_broke_outside_its_updates_goes_on_as_if_nothing_had_happened(
    place: str, start: Path, run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder, given = tmp_path / "broken", [] if place == "train_sft" else ["--start", str(start)]
    monkeypatch.setattr(training, place, interrupt)
    assert train(folder, *given, overrides=BRIEF) == 130
    monkeypatch.undo()
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    assert_same(folder, whole, imitated=[] if given else imitated(run))


def test_a_run_that_has_ended_ends_again_the_same(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(whole, folder)
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    assert_same(folder, whole)


def imitated(folder: Path) -> list[dict[str, Any]]:
    """The lines of the supervised start."""
    return [line for line in metrics(folder) if "sft/loss" in line]


def assert_same(folder: Path, expected: Path, imitated: list[dict[str, Any]] | None = None) -> None:
    """The same weights, metrics and recorded episodes, but for clocks; ``imitated`` are metrics that came before."""
    for part in ("model.safetensors", "algorithm.safetensors", "value_head.safetensors"):
        last = Path("checkpoints") / LAST / part
        assert (folder / last).read_bytes() == (expected / last).read_bytes()
    clocks = ("seconds", "steps_per_second")
    lines = [
        [{key: value for key, value in line.items() if not key.endswith(clocks)} for line in written]
        for written in (metrics(folder), [*(imitated or []), *metrics(expected)])
    ]
    assert lines[0] == lines[1]
    assert list(RunFolder.open(folder).episodes()) == list(RunFolder.open(expected).episodes())


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    start: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "damaged"
    assert train(folder, "--start", str(start), overrides=[*BRIEF, "checkpoint_every=1"]) == 0
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["start", "update-000001", LAST]
    with (folder / "checkpoints" / LAST / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    capsys.readouterr()
    assert gtr("train", "--resume", str(folder)) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"Passing over a damaged checkpoint: \S*{LAST}/model.safetensors is not the file", told)
    assert f"Resuming {folder} after update 1." in told
    assert_same(folder, whole)
    for path in (folder / "checkpoints").glob("update-*/model.safetensors"):
        path.unlink()
    assert gtr("train", "--resume", str(folder)) == 2
    assert "has no checkpoint that is whole" in " ".join(capsys.readouterr().err.split())


def test_after_a_full_disk_the_run_goes_on_from_the_checkpoint_before(
    start: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    save = PPO.save

    def save_on_full_disk(self: PPO, folder: str | Path) -> Path:
        if self.n_updates < 2:
            return save(self, folder)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # no file of this process may be larger
        try:
            return save(self, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(PPO, "save", save_on_full_disk)
    folder = tmp_path / "full"
    assert train(folder, "--start", str(start), overrides=[*BRIEF, "checkpoint_every=1"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(r"The checkpoint of update 2 could not be written .*make room, then go on with", told)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["start", "update-000001"]
    monkeypatch.undo()
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    assert_same(folder, whole)


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("phase", ["collecting", "evaluating"])
@pytest.mark.parametrize(("trouble", "told"), [("hangs", "has not come back"), ("breaks", "failed after reset")])
def test_a_run_whose_environment_is_in_trouble_is_saved_and_goes_on(
    trouble: str,
    told: str,
    phase: str,
    start: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, step, calls = tmp_path / "stuck", TextAction.step, [0]
    owner, name, n = {"collecting": (PPO, "collect", 5), "evaluating": (training._Watcher, "interim", 2)}[phase]
    work = getattr(owner, name)

    def in_trouble(self: Any, action: str) -> Any:
        calls[0] += 1
        if calls[0] == n and trouble == "hangs":
            time.sleep(100)
        if calls[0] == n:
            raise OSError("the simulator is gone")
        return step(self, action)

    def begun(*arguments: Any) -> Any:
        monkeypatch.setattr(TextAction, "step", in_trouble)
        return work(*arguments)

    monkeypatch.setattr(owner, name, begun)
    assert train(folder, "--start", str(start), overrides=[*BRIEF, "limits.step_s=1"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"Environment \d+, step\(.*{told}", error)
    saved = "update-000000" if phase == "collecting" else "update-000001"
    assert [path.name for path in (folder / "checkpoints").glob("update-*")] == [saved]
    assert (folder / "hang.txt").is_file() is (trouble == "hangs")
    monkeypatch.undo()
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    assert_same(folder, whole)


def test_a_loss_that_is_not_finite_leaves_its_samples_and_a_checkpoint(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = PPO.losses

    def not_finite(self: PPO, batch: Any) -> Any:
        loss, terms = losses(self, batch)
        return (loss * float("nan") if self.n_updates == 1 else loss), terms

    monkeypatch.setattr(PPO, "losses", not_finite)
    folder = tmp_path / "nan"
    assert train(folder, "--start", str(start), overrides=QUICK) == 2
    assert "max_skipped" in capsys.readouterr().err
    samples = json.loads((folder / "failure.json").read_text())["samples"]
    assert samples[0].keys() >= {"prompt", "answer", "token_ids", "log_probs", "advantage", "return"}
    assert (folder / "checkpoints" / "update-000001" / "algorithm.safetensors").is_file()


def test_the_policy_says_which_checkpoints_stay(start: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    overrides = [*QUICK, "updates=4", "checkpoint_every=1", "keep_checkpoints=1", "keep_checkpoint_every=2"]
    assert train(folder, "--start", str(start), overrides=overrides) == 0
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["start", LAST, "update-000004"]


def test_the_time_limit_ends_a_run_with_its_evaluation(start: Path, tmp_path: Path) -> None:
    folder = tmp_path / "short"
    assert train(folder, "--start", str(start), overrides=[*QUICK, "max_minutes=1e-6", "updates=9"]) == 0
    summary = read(folder)
    assert (summary["updates"], summary["interrupted"]) == (1, False)
    assert "success_rate_after" in summary


# --- from Python ------------------------------------------------------------------------------------------------------


def test_a_run_from_python_is_the_commands(start: Path, whole: Path, tmp_path: Path) -> None:
    heard: list[int] = []

    class Listener:
        def on_phase(self, name: str, total: int | None) -> None: ...

        def on_progress(self, n: int) -> None: ...

        def on_update(self, learner: Any, rollout: Any, metrics: dict[str, float]) -> None:
            del rollout, metrics
            heard.append(learner.n_updates)

    options: dict[str, Any] = {"seed": 1, "overrides": BRIEF, "start": start, "quiet": True}
    done = gtr_agents.train("tiny-points24", out=tmp_path / "python", callbacks=[Listener()], **options)
    assert done is not None
    assert (heard, done.summary["updates"], done.report.is_file()) == ([1, 2], 2, True)
    assert done.model == done.folder / "checkpoints" / LAST
    assert_same(done.folder, whole)
    again = gtr_agents.resume(done.folder, quiet=True)
    assert again is not None
    assert again.summary["success_rate_after"] == done.summary["success_rate_after"]
    with pytest.raises(ConfigError, match="already holds a run"):
        gtr_agents.train("tiny-points24", out=tmp_path / "python", **options)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "gtr-turbo (reverse_kl)"),
        (["guidance.name=none"], "ppo"),
        (["guidance.name=none", "algorithm=grpo"], "grpo"),
        (["algorithm=grpo"], "gtr-turbo (reverse_kl), grpo"),
        (["guidance.name=thought_sft", "teacher.name=oracle"], "gtr (oracle)"),
        (["guidance.name=thought_sft", "guidance.source=own_success"], "rejection sampling"),
    ],
)
def test_a_run_is_called_by_its_method(overrides: list[str], name: str) -> None:
    assert training.method_name(load_config("tiny-points24", overrides)) == name


# --- other ways to run ------------------------------------------------------------------------------------------------


def test_the_start_of_a_preset_can_be_made_alone_and_used(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    changes = [part for override in SMALL for part in ("--set", override)]
    assert gtr("sft", "tiny-points24", "--out", str(folder), "--seed", "1", "--quiet", *changes) == 0
    model = Path("checkpoints") / "start" / "model.safetensors"
    assert (folder / model).read_bytes() == (run / model).read_bytes()
    assert "sft/loss" in metrics(folder)[-1]


def test_plain_ppo_has_a_teacher_that_only_watches(start: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ppo"
    assert train(folder, "--start", str(start), overrides=[*QUICK, "guidance.name=none"]) == 0
    summary = read(folder)
    assert summary["method"] == "ppo"
    assert "success_rate_teacher" in summary
    assert not any("guidance/kl" in line for line in metrics(folder))
    assert not (folder / "replay.gif").exists()


@pytest.mark.parametrize("teacher", ["{}", "{form: adapter, rank: 64, accumulators: disk}"], ids=["dense", "beside it"])
def test_an_adapter_is_trained_evaluated_and_resumed(start: Path, tmp_path: Path, teacher: str) -> None:
    folder = tmp_path / "lora"
    overrides = [*QUICK, "policy.lora={r: 2}", f"teacher={teacher}", "updates=1"]
    assert train(folder, "--start", str(start), overrides=overrides) == 0
    assert (folder / "checkpoints" / "update-000001" / "adapter_model.safetensors").is_file()
    for flags in ([], ["--teacher"]):
        assert gtr("eval", str(folder), "--episodes", "4", *flags) == 0
    record = read(folder, "config.json")
    record["config"]["updates"] = 2
    (folder / "config.json").write_text(json.dumps(record))
    assert gtr("train", "--resume", str(folder), "--quiet") == 0
    assert read(folder)["updates"] == 2
