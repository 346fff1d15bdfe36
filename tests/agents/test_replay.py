"""Recorded episodes can be watched as a picture, in a window and in the terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from recorded_run import finished_run
from rich.console import Console

from gtr_agents import replay as module
from gtr_agents.errors import UnknownNameError
from gtr_agents.recorder import RunFolder, RunFolderError
from gtr_agents.replay import _font, make_gif, move, replay, showcase, slide, wrap
from gtr_envs.rendering import Event

EPISODES: list[dict[str, Any]] = [{"steps": [1, 2]}, {"steps": [1]}]


def test_the_animation_shows_each_step_and_the_end_of_each_episode(tmp_path: Path) -> None:
    finished_run(tmp_path)
    path = make_gif(tmp_path, n_episodes=2)
    assert path == tmp_path / "replay.gif"
    with Image.open(path) as picture:
        assert picture.size == (400, 490)
        durations = []
        for i in range(picture.n_frames):
            picture.seek(i)
            durations.append(picture.info["duration"])
    assert durations == [900, 900, 900, 1800] * 2


def test_the_animation_can_be_written_elsewhere(tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    assert make_gif(tmp_path / "run", tmp_path / "other.gif", 1) == tmp_path / "other.gif"
    assert (tmp_path / "other.gif").stat().st_size > 0


def test_an_animation_of_no_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make_gif(tmp_path, n_episodes=0)


def test_a_run_without_episodes_says_who_writes_them(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_config({})
    with pytest.raises(RunFolderError, match="gtr train"):
        make_gif(tmp_path)


def test_a_slide_holds_the_recorded_frame_and_the_outcome_has_its_colour(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    lost, won, *_ = run.episodes()
    step = np.asarray(slide(run, won, 2))
    assert (step[34:334, 50:350] == 20).all()
    assert colour_in(step[334:], module.GOOD)  # the reward of +10
    assert colour_in(np.asarray(slide(run, won, 3))[334:], module.GOOD)
    assert colour_in(np.asarray(slide(run, lost, 3))[334:], module.BAD)
    assert not colour_in(np.asarray(slide(run, lost, 3))[334:], module.GOOD)


def test_a_refused_action_is_marked(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    episode = next(run.episodes())
    assert not colour_in(np.asarray(slide(run, episode, 0)), module.BAD)
    refused = np.asarray(slide(run, episode, 1))
    assert colour_in(refused, module.BAD)
    assert not colour_in(refused, module.STUDENT)


def test_a_missing_frame_does_not_stop_the_replay(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    episode = next(run.episodes())
    (tmp_path / "episodes" / episode["steps"][0]["frame"]).unlink()
    assert slide(run, episode, 0).size == (400, 490)


def test_the_showcase_tells_the_story_from_a_loss_to_wins() -> None:
    played = [
        ("start", 0, True),
        ("start", 0, False),
        ("student", 5, True),
        ("student", 9, False),
        ("student", 9, True),
        ("teacher", 9, True),
    ]
    episodes = [{"role": role, "update": update, "success": success} for role, update, success in played]
    assert [tuple(e.values()) for e in showcase(episodes, 4)] == [played[i] for i in (1, 4, 3, 5)]
    assert [tuple(e.values()) for e in showcase(episodes, 1)] == [played[4]]
    assert [tuple(e.values()) for e in showcase(episodes[:2], 4)] == [played[1], played[0]]


def test_text_is_wrapped_to_the_width_and_cut_with_dots() -> None:
    lines = wrap("one two three four five six seven " + "x" * 60, 100, 15, 4)
    assert len(lines) == 4
    assert lines[-1].endswith("...")
    assert all(_font(15).getlength(text) <= 100 for text in lines)
    assert wrap("short", 100, 15, 1) == ["short"]
    assert wrap("", 100, 15, 2) == [""]


@pytest.mark.parametrize(
    ("action", "size", "n_lines"),
    [("+", 22, 1), ("take bowl 2 from countertop 1", 17, 1), ("move remotecontrol 12 to coffeetable 12", 15, 2)],
)
def test_an_action_is_shown_whole_and_as_large_as_it_can_be(action: str, size: int, n_lines: int) -> None:
    chosen, lines = module._largest(action, 260)
    assert (chosen, len(lines)) == (size, n_lines)
    assert " ".join(lines) == action


def test_the_terminal_shows_every_step_of_the_chosen_episode(tmp_path: Path) -> None:
    finished_run(tmp_path)
    console = Console(file=io.StringIO(), width=120)
    replay(tmp_path, "student-0002-00", window=False, console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Student, update 2: 1 2 3 4, solved, return 9" in text
    assert "</script><img src=x" in text
    assert "unreadable" in text
    assert "+10" in text
    assert "Start model" not in text


def test_an_episode_is_found_by_number_too(tmp_path: Path) -> None:
    finished_run(tmp_path)
    console = Console(file=io.StringIO(), width=120)
    replay(tmp_path, "0", window=False, console=console)
    assert "Start model" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("wanted", ["student-0002-09", 99, "99", -1])
def test_an_unknown_episode_is_an_error_with_the_known_ones(tmp_path: Path, wanted: str | int) -> None:
    finished_run(tmp_path)
    with pytest.raises(UnknownNameError, match="student-0002-00"):
        replay(tmp_path, wanted, window=False)


@pytest.mark.parametrize(
    ("place", "key", "expected"),
    [
        ((0, 0), "right", (0, 1)),
        ((0, 2), "right", (1, 0)),
        ((1, 1), "right", (1, 1)),
        ((0, 1), "left", (0, 0)),
        ((0, 0), "left", (0, 0)),
        ((0, 1), "down", (1, 0)),
        ((1, 0), "down", (1, 0)),
        ((1, 1), "up", (0, 0)),
        ((0, 1), "up", (0, 1)),
        ((0, 1), "x", (0, 1)),
        ((0, 1), "escape", None),
    ],
)
def test_keys_move_through_steps_and_episodes(
    place: tuple[int, int], key: str, expected: tuple[int, int] | None
) -> None:
    assert move(EPISODES, place, key) == expected


def test_the_window_follows_the_keys_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path)
    shown, closed = [], []
    events = iter([[Event("key", "return")], [Event("click"), Event("quit"), Event("key", "n")]])

    class FakeWindow:
        def __init__(self, _title: str, width: int, height: int) -> None:
            assert (width, height) == (400, 490)

        def show(self, frame: np.ndarray[Any, Any], _fps: int) -> None:
            shown.append(frame)

        def events(self) -> list[Event]:
            return next(events)

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr("gtr_envs.rendering.Window", FakeWindow)
    replay(tmp_path)
    first = next(run.episodes())
    assert [np.array_equal(frame, slide(run, first, i)) for i, frame in enumerate(shown)] == [True, True]
    assert closed == [True]


def test_without_a_display_the_terminal_is_recommended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path)

    def no_display(*_: object) -> None:
        raise RuntimeError("No available video device")

    monkeypatch.setattr("gtr_envs.rendering.Window", no_display)
    with pytest.raises(RunFolderError, match="replay in the terminal"):
        replay(tmp_path)


def colour_in(pixels: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels.astype(int) - colour).sum(axis=-1) < 6).any())
