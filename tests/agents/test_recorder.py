"""The run folder keeps what is written, survives a killed run, and says clearly what is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recorded_run import an_episode, record, token_texts

from gtr_agents.recorder import RunFolder, RunFolderError


def test_metrics_are_read_back_as_they_were_logged(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.log({"update": 1, "rollout/success_rate": 0.25, "note": "a,b", "flag": True})
        run.log({"update": 2, "rollout/success_rate": np.float32(0.5)})
    assert run.metrics() == [
        {"update": 1, "rollout/success_rate": 0.25, "note": "a,b", "flag": True},
        {"update": 2, "rollout/success_rate": 0.5},
    ]


def test_a_logged_line_is_on_disk_before_the_folder_is_closed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log({"update": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"update": 1}\n'
    run.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf")])
def test_numbers_that_json_does_not_know_become_null(tmp_path: Path, value: float) -> None:
    with RunFolder(tmp_path) as run:
        run.log({"update": 1, "x": value})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"update": 1, "x": None}


def test_a_nested_metric_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'rollout' should be a number"):
        RunFolder(tmp_path).log({"rollout": {"success": 1.0}})


def test_the_csv_file_has_every_column_even_those_that_come_late(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.log({"update": 1, "a": 1.5})
        run.log({"update": 2, "a": 2.5, "b": 3.5})
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["update"], row["a"], row["b"]) for row in rows] == [("1", "1.5", ""), ("2", "2.5", "3.5")]


def test_a_continued_run_keeps_the_earlier_lines_in_both_files(tmp_path: Path) -> None:
    for update in (1, 2):
        with RunFolder(tmp_path) as run:
            run.log({"update": update, "x": 0.5 * update})
    with (tmp_path / "progress.csv").open() as file:
        assert [row["x"] for row in csv.DictReader(file)] == ["0.5", "1.0"]
    assert [line["update"] for line in run.metrics()] == [1, 2]


def test_tensorboard_events_carry_the_environment_steps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunFolder(tmp_path) as run:
        run.log({"update": 1, "env_steps": 64, "rollout/return": 2.5})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("rollout/return")] == [(64, 2.5)]


def test_without_tensorboard_the_csv_file_is_written_and_the_extra_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stable_baselines3.common.logger.SummaryWriter", None)
    with RunFolder(tmp_path) as run, pytest.warns(UserWarning, match=r"gtr-suite\[agents\]"):
        run.log({"update": 1})
    assert (tmp_path / "progress.csv").read_text() == "update\n1\n"


def test_a_half_written_last_line_is_skipped_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"update": 1}\n{"update": 2, "x": 0.')
    with RunFolder(tmp_path) as run:
        assert run.metrics() == [{"update": 1}]
        run.log({"update": 2})
        assert run.metrics() == [{"update": 1}, {"update": 2}]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"update": 1}\nnonsense\n{"update": 3}\n')
    with pytest.raises(RunFolderError, match="Line 2"):
        RunFolder(tmp_path).metrics()


def test_a_line_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("[1]\n")
    with pytest.raises(RunFolderError, match="should be an object"):
        RunFolder(tmp_path).metrics()


def test_the_summary_is_replaced_at_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_summary({"seed": 1})
    run.write_summary({"seed": np.int64(2), "path": Path("x")})
    assert run.summary() == {"seed": 2, "path": "x"}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_a_missing_summary_says_when_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="written when a run ends"):
        RunFolder(tmp_path).summary()


@pytest.mark.parametrize(("content", "told"), [("{", "cannot be read"), ("[]", "should be a JSON object")])
def test_an_unreadable_config_is_named(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunFolderError, match=rf"config\.json.*{told}"):
        RunFolder.open(tmp_path).config()


def test_opening_a_folder_that_does_not_exist_names_the_runs_beside_it(tmp_path: Path) -> None:
    RunFolder(tmp_path / "good").write_config({})
    with pytest.raises(RunFolderError, match="good"):
        RunFolder.open(tmp_path / "god")


def test_opening_a_folder_that_is_no_run_names_the_runs_in_it(tmp_path: Path) -> None:
    RunFolder(tmp_path / "good").write_config({})
    with pytest.raises(RunFolderError, match=r"no run folder.*good"):
        RunFolder.open(tmp_path)


def test_opening_a_path_without_any_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="Give the folder that training wrote"):
        RunFolder.open(tmp_path / "a" / "b")


def test_a_file_cannot_be_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "file")


def test_an_episode_is_read_back_with_its_steps_and_frames(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert record(run, an_episode(success=True), update=3, role="student") == "student-0003-00"
    (episode,) = run.episodes()
    assert (episode["update"], episode["role"], episode["seed"]) == (3, "student", 7)
    assert (episode["success"], episode["return"], episode["numbers"]) == (True, 9.0, [1, 2, 3, 4])
    second = episode["steps"][1]
    assert (second["action"], second["error"], second["legal"], second["reward"]) == (
        None,
        "no JSON object",
        False,
        -1.0,
    )
    assert second["tokens"] == ["<0>", "<1>", "<2>"]
    assert second["log_probs"] == [-0.5, -2.0, None]
    assert second["log_probs_t1"] == [-1.0, -4.0, None]
    assert second["thought_mask"] == [True, True, False]
    assert second["teacher_log_probs"] is None
    assert (second["observation"], second["expert_action"]) == ("(", "1")
    frame = run.frame(second["frame"])
    assert frame is not None
    assert np.asarray(Image.open(frame)).tolist() == np.full((30, 30, 3), 10).tolist()


def test_the_last_of_more_frames_than_steps_shows_the_end(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record(run, an_episode(success=True), update=0, role="start", extra_frame=True)
    record(run, an_episode(success=True), update=0, role="start", extra_frame=False)
    assert [e["final_frame"] for e in run.episodes()] == ["frames/start-0000-00_03.png", None]


def test_episodes_of_one_player_and_update_get_different_ids(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for role in ("student", "teacher", "student"):
        record(run, an_episode(success=True), update=1, role=role)
    assert [e["id"] for e in run.episodes()] == ["student-0001-00", "teacher-0001-00", "student-0001-01"]


def test_a_text_with_line_separators_stays_one_episode(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    thought = "a\u2028b\x85c\r\nd \udc80"
    record(run, an_episode(success=True, thought=thought), update=1, role="student")
    (episode,) = run.episodes()
    assert episode["steps"][0]["thought"] == thought


def test_teacher_log_probs_are_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    trajectory = an_episode(success=True)
    trajectory.steps[0].teacher_log_probs = np.array([-0.25, -1.0, -2.0], np.float32)
    record(run, trajectory, update=1, role="student")
    assert next(run.episodes())["steps"][0]["teacher_log_probs"] == [-0.25, -1.0, -2.0]


def test_an_unknown_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'referee'"):
        record(RunFolder(tmp_path), an_episode(success=True), update=1, role="referee")


def test_too_few_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected 3 frames"):
        RunFolder(tmp_path).record_episode(
            an_episode(success=True),
            update=0,
            role="start",
            env="x",
            frames=[],
            expert_actions=[None] * 3,
            token_texts=token_texts,
        )


def test_a_frame_outside_the_run_is_not_found(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    (tmp_path / "secret.png").write_bytes(b"")
    assert run.frame("../../secret.png") is None
    assert run.frame(str(tmp_path / "secret.png")) is None
    assert run.frame(None) is None


def test_lines_after_the_update_of_a_checkpoint_are_forgotten(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.log({"sft/step": 25})
        for update in range(5):
            run.log({"update": update})
        run.forget_after(2)
        run.log({"update": 3, "second": 1})
        assert [line.get("update") for line in run.metrics()] == [None, 0, 1, 2, 3]
        assert run.metrics()[-1]["second"] == 1


def test_what_student_and_teacher_say_about_the_tokens_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record(run, an_episode(success=True), update=1, role="teacher", compared=True)
    step = next(run.episodes())["steps"][0]
    assert step["student_log_probs"] == [-1.0, -4.0, -9.0]
    assert step["teacher_log_probs"] == [-1.0, -1.0, -9.0]
    assert step["kl"] == [0.0, 0.3, 2.0]


def test_the_whole_prompt_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record(run, an_episode(success=True), update=1, role="student")
    step = next(run.episodes())["steps"][0]
    assert (step["system"], step["prompt"], step["legal_actions"]) == ("You play cards.", "What next?", ["(", "1", "="])


def test_episodes_after_the_update_of_a_checkpoint_are_forgotten(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.log({"update": 1})
        for update in (0, 4, 8):
            record(run, an_episode(success=True), update=update, role="student")
        run.forget_after(4)
        record(run, an_episode(success=True), update=8, role="student")
    assert [episode["id"] for episode in run.episodes()] == ["student-0000-00", "student-0004-00", "student-0008-00"]
