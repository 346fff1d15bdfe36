"""Features of pictures, computed once and used in every pass, of a model whose vision part is not trained."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from gtr_agents.errors import ConfigError, ModelError
from gtr_agents.policies.inputs import Inputs

FEATURES = "image_features"
"""Name of the features among the inputs of a prompt, [picture tokens, H]."""
AT_ONCE = 32
"""Pictures that the vision part is shown at once; there may be a whole minibatch of them."""
PIXELS = ("pixel_values", "pixel_attention_mask")
"""Inputs that the features replace."""


def check_features(model: Any) -> None:
    """Check that the features of a picture stay what they are while the model trains.

    Args:
        model: the transformers model, adapters in its modules if it has any.

    Raises:
        ModelError: if it takes no features in the place of pixels.
        ConfigError: if anything is trained that features come from.
    """
    if (
        not hasattr(model, "get_image_features")
        or "mm_encoder_outputs" not in inspect.signature(model.forward).parameters
    ):
        raise ModelError(
            f"{type(model).__name__} takes no features in the place of pixels in this version of transformers. Set "
            "policy.reuse_image_features to false, or upgrade: pip install -U transformers"
        )
    language = (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings())
    known = {id(p) for p in chain.from_iterable(module.parameters() for module in language)}
    trained = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in known]
    if trained:
        raise ConfigError(
            f"policy.reuse_image_features needs a vision part that is not trained, but {len(trained)} of its tensors "
            f"are, {trained[0]} among them. Restrict policy.lora.target_modules to the language model, or set it to "
            "false."
        )


@torch.no_grad()
def replace_pixels(model: Any, rows: Sequence[Inputs], device: torch.device) -> list[Inputs]:
    """Replace the pixels in the inputs of prompts by the features of their pictures.

    Args:
        model: the transformers model.
        rows: what :func:`gtr_agents.policies.inputs.encode` returned, one picture each.
        device: where the model is.

    Returns:
        The inputs of each prompt, on the CPU as they came.
    """
    taken = [name for name in inspect.signature(model.get_image_features).parameters if name in rows[0]]
    features: list[torch.Tensor] = []
    for start in range(0, len(rows), AT_ONCE):
        piece = rows[start : start + AT_ONCE]
        batch = {name: torch.cat([row[name] for row in piece]).to(device) for name in taken}
        features += [own.cpu() for own in model.get_image_features(**batch, return_dict=True).pooler_output]
    return [
        {name: tensor for name, tensor in row.items() if name not in PIXELS} | {FEATURES: own}
        for row, own in zip(rows, features, strict=True)
    ]


def model_arguments(inputs: Inputs) -> dict[str, Any]:
    """Inputs of a batch as the model takes them: features by the name that transformers has for them."""
    if FEATURES not in inputs:
        return inputs
    others: dict[str, Any] = {name: tensor for name, tensor in inputs.items() if name != FEATURES}
    found = BaseModelOutputWithPooling(pooler_output=(inputs[FEATURES],))  # type: ignore[arg-type] # one per picture
    return others | {"mm_encoder_outputs": {"image": found}}
