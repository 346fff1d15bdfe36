"""One update by the processes that `accelerate launch` starts, each with its part of the same rollout.

accelerate launch --multi_gpu --num_processes 2 tests/agents/two_ranks.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from small_models import random_rollout, text_env, tiny_policy, weights_of

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.ranks import Ranks, this_process
from gtr_agents.types import Rollout

SETTINGS = PPOSettings(epochs=2, minibatch_size=6, micro_batch_size=4, learning_rate=1e-3, max_grad_norm=0.5)


def updated(ranks: Ranks) -> tuple[dict[str, Any], dict[str, float]]:
    """Weights and metrics after an update on 16 steps: the first process has ten of them, the second six."""
    policy = tiny_policy()
    whole = random_rollout(policy, n=16)
    cuts = [0, 5, 8] if ranks.size == 2 else [0, 8]
    part = whole.trajectories[cuts[ranks.index] : cuts[ranks.index + 1]]
    rollout = RolloutSettings(hands=8, attempts=1, n_envs=4)
    algorithm = PPO(policy, text_env, settings=SETTINGS, rollout=rollout, ranks=ranks)
    metrics = algorithm.update(Rollout(part, 1.0), 0.0)
    return weights_of(policy), metrics


if __name__ == "__main__":
    ranks = this_process()
    weights, metrics = updated(ranks)
    folder = Path(sys.argv[1])
    save_file(weights, folder / f"{ranks.index}.safetensors")
    (folder / f"{ranks.index}.json").write_text(json.dumps(metrics))
