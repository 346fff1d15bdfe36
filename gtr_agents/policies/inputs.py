"""Model inputs: prompts through the processor, one prompt at a time or many, with answers appended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gtr_agents.types import Prompt

Inputs = dict[str, torch.Tensor]


def chat_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """Write a prompt as chat messages: an optional system turn, then one user turn of image and text."""
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.text}]}
    if not prompt.system:
        return [user]
    return [{"role": "system", "content": [{"type": "text", "text": prompt.system}]}, user]


def encode(processor: Any, prompts: Sequence[Prompt]) -> list[Inputs]:
    """Run prompts through the processor in one call and take the batch apart again.

    Args:
        processor: tokenizer and image processor.
        prompts: one image each.

    Returns:
        For each prompt the model's inputs, unpadded, with a first axis of 1 (images in patches: its own patches).
    """
    texts = [
        processor.apply_chat_template(chat_messages(prompt), tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    batch = processor(text=texts, images=[[prompt.image] for prompt in prompts], padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).tolist()
    width = batch["input_ids"].shape[1]
    rows: list[Inputs] = [{} for _ in prompts]
    for key, tensor in batch.items():
        if tensor.shape[:2] == (len(prompts), width):
            parts = [tensor[i : i + 1, width - lengths[i] :] for i in range(len(prompts))]
        elif tensor.shape[0] == len(prompts):
            parts = list(tensor.split(1))
        else:  # patches of all images in one row (the Qwen-VL layout)
            parts = list(tensor.split(batch["image_grid_thw"].prod(1).tolist()))
        for row, part in zip(rows, parts, strict=True):
            row[key] = part.clone()
    return rows


def collate(rows: Sequence[Inputs], pad_id: int, device: torch.device) -> Inputs:
    """Put encoded prompts together, padded on the left.

    Args:
        rows: what :func:`encode` returned.
        pad_id: token id for padding (marked by the mask; its value never matters).
        device: where the batch goes.

    Returns:
        Model inputs, token-shaped ones [B, P].
    """
    width = max(row["input_ids"].shape[1] for row in rows)
    batch: Inputs = {}
    for key, first in rows[0].items():
        parts = [row[key] for row in rows]
        if first.shape == rows[0]["input_ids"].shape:
            fill = pad_id if key == "input_ids" else 0
            parts = [torch.nn.functional.pad(part, (width - part.shape[1], 0), value=fill) for part in parts]
        batch[key] = torch.cat(parts).to(device)
    return batch


def append_answers(inputs: Mapping[str, torch.Tensor], targets: torch.Tensor, mask: torch.Tensor) -> Inputs:
    """Append answers [B, T] to prompts [B, P]; every token-shaped input grows with them.

    Args:
        inputs: a collated batch.
        targets: answer token ids, int64 [B, T].
        mask: True marks a token of the answer, False padding; bool [B, T].

    Returns:
        Model inputs, token-shaped ones [B, P + T].
    """
    shape = inputs["input_ids"].shape
    extended = dict(inputs)
    for key, tensor in inputs.items():
        if key == "input_ids":
            extended[key] = torch.cat([tensor, targets], 1)
        elif key == "attention_mask":
            extended[key] = torch.cat([tensor, mask.to(tensor.dtype)], 1)
        elif tensor.shape == shape:  # token types: answers are text, type 0
            extended[key] = torch.cat([tensor, torch.zeros_like(targets, dtype=tensor.dtype)], 1)
    return extended
