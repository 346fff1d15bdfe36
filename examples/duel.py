"""Two players race to 24: a strong and a weak solver, first all at once, then in turn, then one of them against you.

Needs the core package only, no torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from gtr_envs.cards import duel
from gtr_envs.wrappers import TextAction
from gtr_envs.wrappers.pictures import png_bytes


def race(strengths: tuple[float, float], seed: int) -> tuple[Any, str]:
    """Play one game with PettingZoo's parallel interface: both players act at the same time.

    Args:
        strengths: Of the two players, 0 to 1.
        seed: Picks the hand and the players' choices.

    Returns:
        The last frame, and the first player's result.
    """
    env = duel.parallel_env(render_mode="rgb_array")
    rng = np.random.default_rng(seed)
    players = {name: duel.SolverOpponent(strength, rng) for name, strength in zip(duel.AGENTS, strengths, strict=True)}
    observations, infos = env.reset(seed=seed)
    print("cards:", *infos["player_0"]["cards"])
    while env.agents:
        actions = {agent: players[agent].act(env, agent) for agent in env.agents}
        observations, _rewards, _terminations, _truncations, infos = env.step(actions)
    print(observations["player_0"]["text"])
    return env.render(), infos["player_0"]["result"]


def take_turns(seed: int) -> dict[str, float]:
    """Play one game with PettingZoo's AEC interface: random legal actions, chosen by the mask.

    Args:
        seed: Picks the hand and the actions.

    Returns:
        The sum of the rewards of each player.
    """
    env = duel.env()
    env.reset(seed=seed)
    totals = dict.fromkeys(duel.AGENTS, 0.0)
    for i, agent in enumerate(duel.AGENTS):
        env.action_space(agent).seed(seed + i)
    for agent in env.agent_iter():
        _, reward, terminated, truncated, info = env.last()
        totals[agent] += reward
        over = terminated or truncated
        env.step(None if over else env.action_space(agent).sample(info["action_mask"]))
    return totals


def play_alone(seed: int) -> str:
    """Play one game as an ordinary Gymnasium environment, with the opponent inside.

    Args:
        seed: Picks the hand and the opponent's choices.

    Returns:
        The player's result.
    """
    game = duel.against(0.5)
    env = TextAction(game)
    _, info = env.reset(seed=seed)
    over = False
    while not over:
        # A policy would look at the observation here; this player asks the solver, and hands in nothing wrong.
        _, _, terminated, truncated, info = env.step(game.expert_action() or "(")
        over = terminated or truncated
    return str(info["result"])


def main() -> None:
    """Play one game of each kind, and save how the first one ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="picks the hand and all choices (default: 1)")
    seed = parser.parse_args().seed
    frame, result = race(strengths=(0.95, 0.3), seed=seed)
    print(f"at the same time: player_0 {'wins' if result == 'win' else result}")
    print("in turn, at random:", take_turns(seed))
    print("alone against a solver:", play_alone(seed))
    Path("duel.png").write_bytes(png_bytes(frame))
    print("saved duel.png")


if __name__ == "__main__":
    main()
