"""Train a tiny vision-language model from Python: supervised start, then PPO with a merged-checkpoint teacher.

Run it with `python examples/train_with_free_teacher.py`; about a minute on two cores with the small numbers below.
They show the parts at work and are far too few to learn much; `gtr train tiny-ezpoints` has numbers that do.
"""

from __future__ import annotations

import argparse

import numpy as np

from gtr_agents import PPO, PPOSettings, ReverseKL, RolloutSettings, TeacherManager, VLMPolicy, build_tiny_vlm, evaluate
from gtr_agents.algorithms.base import text_env_maker
from gtr_agents.demonstrations import demonstrations
from gtr_agents.sft import SFTSettings, train_sft

ENV = "EZPoints-v0"
OPTIONS = {"image_size": 96, "deal": "balanced"}


def main() -> None:
    """Build, imitate, improve, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sft-steps", type=int, default=60, help="steps of the supervised start (default: 60)")
    parser.add_argument("--updates", type=int, default=2, help="updates of PPO (default: 2)")
    parser.add_argument("--episodes", type=int, default=50, help="episodes of each evaluation (default: 50)")
    arguments = parser.parse_args()

    model, processor = build_tiny_vlm(template="compact", seed=0)
    policy = VLMPolicy(model, processor, template="compact", temperature=0.7, max_new_tokens=32)

    make_env = text_env_maker(ENV, OPTIONS)
    data = demonstrations(make_env, policy.template, np.random.default_rng(0), mistake_rate=0.3)
    train_sft(policy, data, SFTSettings(steps=arguments.sft_steps, optimizer="muon"))
    print(
        "start:",
        evaluate(policy, ENV, env_kwargs=OPTIONS, episodes=arguments.episodes).metrics["valid_rate"],
        "valid answers",
    )

    algorithm = PPO(
        policy,
        make_env,
        settings=PPOSettings(baseline="tree", gamma=1.0, epochs=1, learning_rate=1e-4, minibatch_size=512),
        rollout=RolloutSettings(n_envs=64, hands=16, attempts=4, format_valid=0.0, format_invalid=-1.0),
        guidance=ReverseKL(beta=1.0),
        teacher=TeacherManager(method="ties", weights="ema", alpha=0.5),
    )
    algorithm.learn(updates=arguments.updates)
    with algorithm.as_teacher() as teacher:
        print("teacher:", evaluate(teacher, ENV, env_kwargs=OPTIONS, episodes=arguments.episodes).success_rate)
    print("student:", evaluate(policy, ENV, env_kwargs=OPTIONS, episodes=arguments.episodes).success_rate)


if __name__ == "__main__":
    main()
