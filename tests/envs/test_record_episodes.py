"""Episodes on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv

from gtr_envs.cards.points24 import Points24Env
from gtr_envs.core import IllegalText
from gtr_envs.errors import OptionError, UnknownNameError
from gtr_envs.wrappers import ImageOnly, RecordEpisodes, TextAction

HAND = {"cards": ["H6", "D6", "SK", "C4"]}


def lines(path: Path) -> list[dict[str, Any]]:
    """What a file of lines says."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def record(folder: Path, **kwargs: Any) -> RecordEpisodes:
    """A recorded small Points24 with text actions."""
    return RecordEpisodes(TextAction(Points24Env(image_size=64)), folder, **kwargs)


def names(folder: Path) -> list[str]:
    """Names of a folder's files and folders."""
    return sorted(path.name for path in folder.iterdir())


def test_an_episode_becomes_lines_and_pictures(tmp_path: Path) -> None:
    env = record(tmp_path / "new" / "folder")
    env.reset(seed=7, options=HAND)
    for token in ("6", "seven", "="):
        env.step(token)
    folder = tmp_path / "new" / "folder" / "episode-000000"
    assert names(folder) == ["0000.png", "0001.png", "0002.png", "0003.png", "steps.jsonl"]
    start, six, seven, end = lines(folder / "steps.jsonl")
    assert start.pop("info")["cards"] == HAND["cards"]
    assert start == {
        "t": 0,
        "episode": 0,
        "seed": 7,
        "text": "",
        "action": None,
        "action_name": None,
        "reward": None,
        "terminated": None,
        "truncated": None,
        "legal": None,
        "picture": "0000.png",
    }
    info = six.pop("info")
    assert (info["numbers"], info["formula"], info["solvable"]) == ([6, 6, 10, 4], ["6"], True)
    assert info["action_mask"] == [0] * 10 + [1, 1, 1, 1, 0, 0, 1]
    assert six == {
        "t": 1,
        "text": "6",
        "action": "6",
        "action_name": "6",
        "reward": 0.0,
        "terminated": False,
        "truncated": False,
        "legal": True,
        "picture": "0001.png",
    }
    assert [seven[key] for key in ("t", "action", "action_name", "reward", "legal")] == [2, "seven", None, -1, False]
    assert [end[key] for key in ("action_name", "reward", "terminated", "legal")] == ["=", -1, True, True]
    assert end["info"]["success"] is False


def test_indices_and_illegal_texts_are_written_down(tmp_path: Path) -> None:
    env = RecordEpisodes(gym.make("Points24-v0", image_size=64), tmp_path)
    env.reset(seed=0, options=HAND)
    for action in (5, np.int64(10), IllegalText("six"), 16):
        env.step(action)
    written = [(line["action"], line["action_name"]) for line in lines(tmp_path / "episode-000000" / "steps.jsonl")]
    assert written == [(None, None), (5, "6"), (10, "+"), ("six", None), (16, "=")]


@pytest.mark.parametrize(("render_mode", "side"), [(None, 64), ("rgb_array", 300)])
@pytest.mark.parametrize("wrapper", [ImageOnly, lambda env: env])
def test_the_picture_is_the_rendered_frame_or_the_observed_picture(
    wrapper: Any, render_mode: str | None, side: int, tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image")
    env = RecordEpisodes(wrapper(Points24Env(render_mode, image_size=64)), tmp_path)
    observation, _ = env.reset(seed=1)
    expected = env.render() if render_mode else observation["image"] if isinstance(observation, dict) else observation
    with image.open(tmp_path / "episode-000000" / "0000.png") as read:
        assert read.size == (side, side)
        assert np.array_equal(np.asarray(read), expected)


def test_an_environment_without_pictures_gives_lines_only(tmp_path: Path) -> None:
    env = RecordEpisodes(gym.make("CartPole-v1"), tmp_path)
    env.reset(seed=0)
    for _ in range(500):
        if env.step(1)[2]:
            break
    assert names(tmp_path / "episode-000000") == ["steps.jsonl"]
    line = lines(tmp_path / "episode-000000" / "steps.jsonl")[1]
    assert [line[key] for key in ("text", "action", "action_name", "reward", "legal", "picture")] == [
        None,
        1,
        None,
        1.0,
        None,
        None,
    ]


def test_a_broken_off_episode_stays_readable_under_another_name(tmp_path: Path) -> None:
    env = record(tmp_path, video=None)
    env.reset(seed=0, options=HAND)
    env.step("6")
    assert [line["text"] for line in lines(tmp_path / "episode-000000" / "steps.part.jsonl")] == ["", "6"]
    env.reset(seed=1)
    env.step("=")
    env.close()
    assert names(tmp_path / "episode-000000") == ["0000.png", "0001.png", "steps.part.jsonl"]
    assert names(tmp_path / "episode-000001") == ["0000.png", "0001.png", "steps.jsonl"]


def test_nothing_is_overwritten_by_a_second_run_or_by_one_beside(tmp_path: Path) -> None:
    first, beside = record(tmp_path), record(tmp_path)
    for env in (first, beside):
        env.reset(seed=0)
        env.step("=")
    (tmp_path / "episode-notes").mkdir()
    (tmp_path / "episode-000007").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    second = record(tmp_path)
    second.reset(seed=1)
    second.step("=")
    assert names(tmp_path) == ["episode-000000", "episode-000001", "episode-000007", "episode-000008", "episode-notes"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_every_so_many_episodes_are_recorded(tmp_path: Path) -> None:
    env = record(tmp_path, every=3)
    for _ in range(7):
        env.reset()
        env.step("=")
    recorded = [lines(tmp_path / name / "steps.jsonl")[0]["episode"] for name in names(tmp_path)]
    assert recorded == [0, 3, 6]


def test_a_gif_shows_the_whole_episode(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    env = record(tmp_path, video="gif")
    env.reset(seed=0, options=HAND)
    for token in ("6", "+", "="):
        env.step(token)
    assert "episode.gif" in names(tmp_path / "episode-000000")
    with image.open(tmp_path / "episode-000000" / "episode.gif") as read:
        shown_ms = 0
        for number in range(read.n_frames):
            read.seek(number)
            shown_ms += read.info["duration"]
    # The picture does not change with "=", so two steps share a frame.
    assert (read.n_frames, read.size, shown_ms) == (3, (64, 64), 4 * 250)


def test_an_mp4_shows_the_whole_episode(tmp_path: Path) -> None:
    pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    env = record(tmp_path, video="mp4")
    env.reset(seed=0)
    env.step("=")
    assert (tmp_path / "episode-000000" / "episode.mp4").stat().st_size > 100


def test_only_what_json_can_hold_is_kept_of_the_info(tmp_path: Path) -> None:
    class TalkativeEnv(Points24Env):
        __doc__ = Points24Env.__doc__

        def _facts(self) -> dict[str, Any]:
            odd = {"picture": np.zeros((2, 2)), "thing": object(), "nan": float("nan"), 3: 4}
            return super()._facts() | {"score": np.float32(0.5), "pair": (1, np.int8(2))} | odd  # type: ignore[dict-item]

    env = RecordEpisodes(TalkativeEnv(image_size=64), tmp_path)
    env.reset(seed=0)
    info = lines(tmp_path / "episode-000000" / "steps.part.jsonl")[0]["info"]
    assert (info["score"], info["pair"]) == (0.5, [1, 2])
    assert info.keys() >= {"numbers", "cards", "legal_actions", "action_mask"}
    assert info.keys().isdisjoint({"picture", "thing", "nan", "3"})


def test_an_action_that_json_cannot_hold_is_described(tmp_path: Path) -> None:
    env = RecordEpisodes(gym.wrappers.TransformAction(gym.make("CartPole-v1"), lambda _: 1, None), tmp_path)
    env.reset(seed=0)
    env.step(1 + 2j)
    assert lines(tmp_path / "episode-000000" / "steps.part.jsonl")[1]["action"] == "(1+2j)"


def test_several_processes_record_into_one_folder(tmp_path: Path) -> None:
    makers = [lambda: record(tmp_path)] * 3
    vector = AsyncVectorEnv(makers, shared_memory=False)
    vector.reset(seed=[1, 2, 3])
    vector.step(("=", "=", "="))
    vector.close()
    assert names(tmp_path) == ["episode-000000", "episode-000001", "episode-000002"]
    assert sorted(lines(path / "steps.jsonl")[0]["seed"] for path in tmp_path.iterdir()) == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # that the checked environment is wrapped, which is the point
def test_gymnasium_accepts_the_wrapper(tmp_path: Path) -> None:
    check_env(RecordEpisodes(Points24Env(image_size=64), tmp_path), skip_render_check=True)


def test_unusable_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="every as a whole number of at least 1, got 0"):
        record(tmp_path, every=0)
    with pytest.raises(UnknownNameError, match="video"):
        record(tmp_path, video="avi")
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="name another path"):
        record(tmp_path / "file")
    pytest.importorskip("PIL.Image")
    with pytest.raises(OptionError, match="make it with render_mode='rgb_array'"):
        RecordEpisodes(gym.make("CartPole-v1"), tmp_path, video="gif")
