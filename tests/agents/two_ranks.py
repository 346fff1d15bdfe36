"""What the processes that `accelerate launch` starts do together, each with its part of the same rollout.

accelerate launch --multi_gpu --num_processes 2 tests/agents/two_ranks.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from small_models import fit_critic_badly, random_rollout, text_env, tiny_policy, weights_of

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.guidance.imitation import Imitation
from gtr_agents.guidance.thought_sft import ThoughtSFT
from gtr_agents.policies import lora
from gtr_agents.policies.split import is_piece
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.ranks import Ranks, this_process
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.types import Rollout

WAYS: dict[str, dict[str, Any]] = {
    "copies": {},
    "pieces": {"split": True},
    "ZeRO-1": {"zero": {"stage": 1}},
    "ZeRO-2": {"zero": {"stage": 2}},
}
"""How processes may train together: options of :class:`Ranks`."""
DEEPSPEED = Path(sys.prefix) / "deepspeed"
"""Where `make test` puts it."""
KINDS = [kind for kind in WAYS if "ZeRO" not in kind or DEEPSPEED.is_dir() or find_spec("deepspeed")]
"""Those that can be tried here."""
SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "minibatch_size": 6,
    "micro_batch_size": 4,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.5,
    "max_skipped": 0.2,
}
Found = tuple[dict[str, torch.Tensor], dict[str, float]]
"""Weights and metrics after an update."""


def adapted_policy(**options: Any) -> VLMPolicy:
    """A policy that trains a LoRA adapter in float32 on a base in bfloat16."""
    plain = tiny_policy()
    model = lora.attach(plain.model.to(torch.bfloat16), {"r": 4, "target_modules": ["q_proj", "v_proj"]})
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return VLMPolicy(
        model, plain.processor, template="compact", temperature=0.7, max_new_tokens=12, value_widths=(32, 16), **options
    )


def imitating(policy: VLMPolicy) -> ThoughtSFT:
    """Guidance with answers to imitate."""
    guidance = ThoughtSFT(weight=0.5, retries=1)
    steps = random_rollout(policy, n=8, seed=1).steps
    guidance.data.extend(Imitation(s.prompt, s.response.token_ids, s.response.thought_mask) for s in steps)
    guidance.commit()
    return guidance


def updated(
    ranks: Ranks,
    policy: VLMPolicy | None = None,
    *,
    spoilt: int | None = None,
    imitates: bool = False,
    stops_first: bool = False,
    **settings: Any,
) -> Found:
    """Update on 16 steps, of which the first process has ten and the second six; after one that stops early, or not."""
    policy = policy or tiny_policy()
    fit_critic_badly(policy)
    whole = random_rollout(policy, n=16)
    if spoilt is not None:
        whole.steps[spoilt].response.log_probs[:] = np.nan
    guidance = None
    if imitates:
        guidance = imitating(policy)
    cuts = [0, 5, 8] if ranks.size == 2 else [0, 8]
    part = whole.trajectories[cuts[ranks.index] : cuts[ranks.index + 1]]
    algorithm = PPO(
        policy,
        text_env,
        settings=PPOSettings(**(SETTINGS | settings)),
        rollout=RolloutSettings(hands=8, attempts=1, n_envs=4),
        guidance=guidance,
        teacher=TeacherManager() if imitates else None,
        ranks=ranks,
    )
    if stops_first:
        algorithm.settings = replace(algorithm.settings, target_kl=1e-6)
        assert algorithm.update(Rollout(part, 1.0), 0.0)["train/stopped_early"]
        algorithm.settings = replace(algorithm.settings, target_kl=None)
    metrics = algorithm.update(Rollout(part, 1.0), 0.0)
    return weights_of(policy), metrics


UPDATES: dict[str, Callable[[Ranks], Found]] = {
    "plain": updated,
    "imitation": lambda ranks: updated(ranks, imitates=True),
    "a sample without a finite loss": lambda ranks: updated(ranks, spoilt=13),
    "by tokens": lambda ranks: updated(ranks, micro_batch_tokens=160),
    "after one that stopped early": lambda ranks: updated(ranks, stops_first=True),
    "adapter": lambda ranks: updated(ranks, adapted_policy(gradient_checkpointing=True)),
}
"""Updates that must not depend on how many processes make them, and in what way."""
TRIED = {kind: ["plain"] if kind == "ZeRO-1" else list(UPDATES) for kind in KINDS}
"""Which updates are tried in which way; the two stages differ in when gradients are sent, and in nothing of ours."""


def learner(ranks: Ranks, policy: VLMPolicy) -> PPO:
    """One that plays on from update to update and imitates its teacher."""
    return PPO(
        policy,
        text_env,
        settings=PPOSettings(**(SETTINGS | {"epochs": 1})),
        rollout=RolloutSettings(n_steps=10, n_envs=2),
        guidance=imitating(policy),
        teacher=TeacherManager(),
        ranks=ranks,
    )


def gone_on(ranks: Ranks, folder: Path) -> tuple[Found, Found]:
    """Three updates in one go, and with a checkpoint after the second that new learners go on from."""
    if ranks.leads:
        tiny_policy().save(folder / "start")
    ranks.gather(None)
    first = learner(ranks, VLMPolicy.from_pretrained(folder / "start"))
    first.learn(updates=2)
    if ranks.leads:
        first.save(folder / "checkpoint")
    ranks.gather(None)
    first.learn(updates=3)
    second = learner(ranks, VLMPolicy.from_pretrained(folder / "checkpoint"))
    second.restore(folder / "checkpoint")
    second.learn(updates=3)
    return (weights_of(first.policy), state_of(first)), (weights_of(second.policy), state_of(second))


def interrupted(ranks: Ranks, folder: Path) -> None:
    """Checkpoints before an update that is interrupted at its second step, and after it has been taken back."""
    algorithm = learner(ranks, tiny_policy())
    algorithm.learn(updates=1)
    if ranks.leads:
        algorithm.save(folder / "before")
    steps, step = count(1), algorithm.adam.step

    def step_or_not() -> float:
        if next(steps) == 2:
            raise KeyboardInterrupt
        return step()

    algorithm.adam.step = step_or_not  # type: ignore[method-assign]
    with suppress(KeyboardInterrupt):
        algorithm.learn(updates=2)
    assert next(steps) == 3
    if ranks.leads:
        algorithm.save(folder / "after")


def state_of(learner: PPO) -> dict[str, float]:
    """Samples to imitate, steps, and the share of the model that a process holds while it trains."""
    return {"size": len(learner.guidance.data), "steps": learner.num_timesteps, "held": held(learner.policy)}


def held(policy: VLMPolicy) -> float:
    """Share of the weights of the model that a process has while it trains, in tenths."""
    with policy.in_pieces():
        weights = list(policy.model.parameters())
        own = sum(w.to_local().numel() if is_piece(w) else w.numel() for w in weights)
    return round(own / sum(w.numel() for w in weights), 1)


def main(folder: Path) -> None:
    """Make every update in every way, and write what came out."""
    index, size = (ranks := this_process()).index, ranks.size
    results: dict[str, Found] = {}
    for kind in KINDS:
        ranks = Ranks(index, size, **WAYS[kind])
        for name in TRIED[kind]:
            results[f"{kind}: {name}"] = UPDATES[name](ranks)
        place = folder / kind
        place.mkdir(exist_ok=True)
        once, twice = gone_on(ranks, place)
        if not ranks.split:
            interrupted(ranks, place)
        results |= {f"{kind}: in one go": once, f"{kind}: resumed": twice}
    for name, (weights, _) in results.items():
        save_file({key: value.contiguous().clone() for key, value in weights.items()}, folder / f"{name}.{index}")
    (folder / f"{index}.json").write_text(json.dumps({name: metrics for name, (_, metrics) in results.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
