"""Train a tiny vision-language model from Python: supervised start, then PPO with a merged-checkpoint teacher.

Run it with `python examples/train_with_free_teacher.py`; about a minute on two cores with the small numbers below.
They show the parts at work and are far too few to learn much; `gtr train tiny-ezpoints` has numbers that do.
"""

from __future__ import annotations

import numpy as np

from gtr_agents import PPO, PPOSettings, ReverseKL, RolloutSettings, TeacherManager, VLMPolicy, build_tiny_vlm, evaluate
from gtr_agents.algorithms.base import text_env_maker
from gtr_agents.demonstrations import demonstrations
from gtr_agents.sft import SFTSettings, train_sft

SFT_STEPS, UPDATES = 60, 2
ENV = "EZPoints-v0"
OPTIONS = {"image_size": 96, "deal": "balanced"}


def main() -> None:
    """Build, imitate, improve, compare."""
    model, processor = build_tiny_vlm(template="compact", seed=0)
    policy = VLMPolicy(model, processor, template="compact", temperature=0.7, max_new_tokens=32)

    make_env = text_env_maker(ENV, OPTIONS)
    data = demonstrations(make_env, policy.template, np.random.default_rng(0), mistake_rate=0.3)
    train_sft(policy, data, SFTSettings(steps=SFT_STEPS, optimizer="muon"))
    print("start:", evaluate(policy, ENV, env_kwargs=OPTIONS, episodes=50).metrics["valid_rate"], "valid answers")

    algorithm = PPO(
        policy,
        make_env,
        settings=PPOSettings(baseline="tree", gamma=1.0, epochs=1, learning_rate=1e-4, minibatch_size=512),
        rollout=RolloutSettings(n_envs=64, hands=16, attempts=4, format_valid=0.0, format_invalid=-1.0),
        guidance=ReverseKL(beta=1.0),
        teacher=TeacherManager(method="ties", weights="ema", alpha=0.5),
    )
    algorithm.learn(updates=UPDATES)
    with algorithm.as_teacher() as teacher:
        print("teacher:", evaluate(teacher, ENV, env_kwargs=OPTIONS, episodes=50).success_rate)
    print("student:", evaluate(policy, ENV, env_kwargs=OPTIONS, episodes=50).success_rate)


if __name__ == "__main__":
    main()
