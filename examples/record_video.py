"""Record an episode of the expert: a picture and a line for every step, and a video of the whole.

Needs `pip install "gtr-suite[video]"` for the video; pictures and lines need nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym

from gtr_envs.registration import ENVS
from gtr_envs.wrappers import RecordEpisodes, TextAction


def play_expert(env: gym.Env[Any, Any], seed: int) -> None:
    """Play one episode as the expert.

    Args:
        env: Takes actions as text.
        seed: Picks the episode.
    """
    game: Any = env.unwrapped
    env.reset(seed=seed)
    over = False
    while not over:
        # Where nothing wins any more, as in a race that is lost, any legal action goes on to the end.
        action = game.expert_action() or game.legal_actions[0]
        _, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated


def main() -> None:
    """Record, and tell what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=ENVS, default="Points24-v0", help="what to play (default: Points24-v0)")
    parser.add_argument("--seed", type=int, default=7, help="picks the episode (default: 7)")
    parser.add_argument("--video", choices=("gif", "mp4"), default="gif", help="kind of video (default: gif)")
    parser.add_argument("--folder", type=Path, default=Path("recordings"), help="where to (default: recordings)")
    arguments = parser.parse_args()

    # In Points24 there are hands that cannot be won; they make dull videos.
    options: dict[str, Any] = {"deal": "solvable"} if arguments.env == "Points24-v0" else {}
    # In render mode "rgb_array" the recorder keeps rendered frames, which may be larger than what the player observes.
    env = gym.make(arguments.env, image_size=96, render_size=300, render_mode="rgb_array", **options)
    recorder = RecordEpisodes(TextAction(env), arguments.folder, video=arguments.video)
    play_expert(recorder, arguments.seed)
    recorder.close()

    # Nothing is ever overwritten: a second run goes on behind the last number, so the newest folder is ours.
    episode = max(arguments.folder.glob("episode-*"))
    for line in (episode / "steps.jsonl").read_text().splitlines():
        step = json.loads(line)
        played = "" if step["action"] is None else f"{step['action']:>5}   reward {step['reward']:+.0f}"
        print(f"{step['picture']}   {step['text']!r:24}{played}")
    print(f"wrote {episode / f'episode.{arguments.video}'}")


if __name__ == "__main__":
    main()
