"""The report's viewer gets a fair choice of episodes, each picture and text once, and also what older runs recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recorded_run import an_episode, finished_run, record

from gtr_agents.recorder import RunFolder
from gtr_agents.viewer import select_episodes, spread, viewer_data


def test_episodes_are_chosen_from_each_player_update_and_outcome() -> None:
    episodes = [
        {"role": role, "update": update, "success": success, "seed": n}
        for role, updates in (("teacher", range(1, 20)), ("student", range(1, 20)), ("start", [0]))
        for update in updates
        for success in (False, True)
        for n in range(8)
    ]
    chosen = select_episodes(episodes)
    groups = list(dict.fromkeys((e["role"], e["update"]) for e in chosen))
    updates = [1, 4, 6, 9, 11, 14, 16, 19]
    assert groups == [("start", 0), *(("student", u) for u in updates), *(("teacher", u) for u in updates)]
    assert [(e["success"], e["seed"]) for e in chosen[:12]] == [(s, n) for s in (True, False) for n in range(6)]


def test_tasks_that_can_be_followed_are_shown_before_others() -> None:
    once = [{"role": "student", "update": 2, "success": True, "seed": seed} for seed in range(9)]
    followed = [{"role": "start", "update": 0, "success": True, "seed": seed} for seed in (7, 8)]
    chosen = [e["seed"] for e in select_episodes([*followed, *once]) if e["role"] == "student"]
    assert chosen == [7, 8, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("n", "kept"), [(2, [1, 9]), (3, [1, 5, 9]), (9, list(range(1, 10))), (20, list(range(1, 10)))]
)
def test_updates_are_thinned_out_evenly(n: int, kept: list[int]) -> None:
    assert spread(range(1, 10), n) == kept


def test_many_episodes_do_not_make_the_page_large(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    for _ in range(20):
        record(run, an_episode(success=True), update=2, role="student")
    assert len(select_episodes(run.episodes())) == 1 + 7 + 1


def test_what_is_the_same_is_held_once(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    data = viewer_data(run, list(run.episodes()))
    frames = {step["frame"] for episode in data["episodes"] for step in episode["steps"]}
    assert len(frames) == 3  # of twelve steps
    assert len(data["shared"]) == len({json.dumps(value) for value in data["shared"]})
    step = data["episodes"][1]["steps"][0]
    assert data["shared"][step["system"]] == "You play cards."
    assert data["shared"][step["prompt"]] == "What next?"
    assert list(data["shared"][step["legal_actions"]]) == ["(", "1", "="]


def test_what_an_older_run_did_not_record_is_told_from_what_was_empty(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    forget_new_fields(run)
    for episode in viewer_data(run, list(run.episodes()))["episodes"]:
        for step in episode["steps"]:
            assert (step["system"], step["legal_actions"]) == (None, None)
            assert step["frame"] is not None


def forget_new_fields(run: RunFolder) -> None:
    """Make the episodes those of a run that was recorded before there were these fields."""
    for file in (run.path / "episodes").glob("*.jsonl"):
        episodes = [json.loads(line) for line in file.read_text().splitlines()]
        for episode in episodes:
            del episode["task"]
            for step in episode["steps"]:
                for name in ("system", "legal_actions", "kl", "student_log_probs"):
                    del step[name]
                step["teacher_log_probs"] = None
        file.write_text("".join(f"{json.dumps(episode)}\n" for episode in episodes))
