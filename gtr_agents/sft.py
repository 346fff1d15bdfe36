"""Supervised initialisation: imitate demonstrations, loss on the answer tokens only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gtr_agents.errors import TrainingError
from gtr_agents.muon import muon
from gtr_agents.types import Share

if TYPE_CHECKING:
    from gtr_agents.demonstrations import Demonstration
    from gtr_agents.policies.vlm import VLMPolicy


@dataclass(frozen=True, slots=True)
class SFTSettings:
    """How the model is initialised."""

    recall_steps: NonNegativeInt = 0
    """At most so many steps before the others, in which a model trained from scratch learns to look words up."""
    steps: NonNegativeInt = 1000
    """Optimizer steps."""
    batch_size: PositiveInt = 64
    """Demonstrations per step."""
    micro_batch_size: PositiveInt | None = None
    """Demonstrations per forward pass, of similar length: less padding where prompts differ much. None for all."""
    learning_rate: NonNegativeFloat = 1e-3
    """Peak learning rate; cosine decay to 0 after the warm-up. Full fine-tuning of large models wants about 2e-5."""
    warmup_steps: NonNegativeInt = 50
    """Linear warm-up."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the weight matrices, AdamW for the rest; a model trained from scratch learns in fewer steps."""
    muon_learning_rate: NonNegativeFloat = 0.01
    """Peak learning rate of Muon, on the same schedule."""
    prompt_weight: NonNegativeFloat = 0.0
    """Weight of the loss on the prompts' own text: a model trained from scratch learns to read by foretelling it."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient norm is clipped to this."""
    mistake_rate: Share = 0.0
    """Share of demonstrated episodes whose demonstrator is mistaken, in [0, 1]."""
    later_states: NonNegativeInt = 3
    """States after the first one that are taken from a demonstrated episode."""
    slip_rate: Share = 0.0
    """Share of demonstrated steps at which something else is played, so that going on from there is shown too."""


def schedule(step: int, settings: SFTSettings) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine to 0 over exactly ``settings.steps``."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def build_optimizers(model: Any, settings: SFTSettings) -> list[torch.optim.Optimizer]:
    """Make the optimizers of the trainable weights; each group remembers its peak rate as ``peak_lr``.

    Muon (arXiv 2502.16982) orthogonalises the update of a matrix; embeddings, whose rows are learned one by one, and
    anything that is no matrix stay with AdamW.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name for name, p in trainable.items() if p.ndim == 2 and "embed" not in name and "lm_head" not in name}
    if settings.optimizer != "muon":
        matrices = set()
    rest = [p for name, p in trainable.items() if name not in matrices]
    lr, decay = settings.learning_rate, settings.weight_decay
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=decay)]
    if matrices:
        weights = [trainable[name] for name in sorted(matrices)]
        optimizers.append(muon(weights, settings.muon_learning_rate))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def train_sft(
    policy: VLMPolicy,
    data: Iterator[Demonstration],
    settings: SFTSettings,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train a policy to write the demonstrated answers.

    Args:
        policy: trained in place; its value head is left alone.
        data: an endless stream of demonstrations.
        settings: how.
        on_step: called after every optimizer step with its number (from 1) and metrics.

    Returns:
        Metrics of the last step: ``sft/loss`` (nats per answer token), ``sft/seconds``.

    Raises:
        TrainingError: if the loss is not finite.
    """
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    optimizers = build_optimizers(policy.model, settings)
    started = time.perf_counter()
    metrics: dict[str, float] = {}
    for step in range(settings.steps):
        batch = [next(data) for _ in range(settings.batch_size)]
        share = schedule(step, settings)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak_lr"]
        loss = _backward(policy, batch, settings.micro_batch_size or len(batch), settings.prompt_weight)
        if not math.isfinite(loss):
            raise TrainingError(f"The supervised loss became {loss} at step {step}; lower the learning rate.")
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        metrics = {"sft/loss": loss, "sft/seconds": time.perf_counter() - started}
        if on_step is not None:
            on_step(step + 1, metrics)
    return metrics


def _backward(
    policy: VLMPolicy, batch: list[Demonstration], micro_batch_size: int, prompt_weight: float = 0.0
) -> float:
    """Add the gradient of the mean cross-entropy of the answers' tokens, the end token included; returns that mean."""
    texts = policy.tokenizer([d.answer for d in batch], add_special_tokens=False)["input_ids"]
    token_ids = [np.array([*ids, policy.eos_id], dtype=np.int64) for ids in texts]
    n_tokens = sum(len(ids) for ids in token_ids)
    order = np.arange(len(batch))
    if micro_batch_size < len(batch):
        order = np.argsort([d.prompt.length_class for d in batch], kind="stable")
    total = 0.0
    for piece in np.array_split(order, -(-len(batch) // micro_batch_size)):
        output = policy.evaluate(
            [batch[i].prompt for i in piece],
            [token_ids[i] for i in piece],
            temperature=1.0,
            with_prompts=prompt_weight > 0,
        )
        loss = -output.log_probs.sum() / n_tokens
        if torch.isfinite(loss):
            (loss + prompt_weight * len(piece) / len(batch) * output.prompt_loss).backward()
        total += float(loss.detach())
    return total
