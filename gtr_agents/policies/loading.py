"""Loading models and processors with the Auto classes, with errors that say what a folder lacks."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
)

from gtr_agents.errors import ConfigError, DependencyError, ModelError
from gtr_agents.policies.families import family_of


def check_processor(processor: Any, source: str) -> None:
    """Raise unless the processor has a tokenizer, an image processor and a chat template.

    For an unregistered processor class the Auto class silently returns a bare tokenizer; without this check the
    policy would act blind.

    Raises:
        ModelError: if a part is missing.
    """
    missing = [part for part in ("tokenizer", "image_processor") if getattr(processor, part, None) is None]
    if missing:
        raise ModelError(
            f"Expected a processor with tokenizer and image processor, got {type(processor).__name__} without "
            f"{' and '.join(missing)} from {source}. Save the model's own processor (processor.save_pretrained) "
            "into the same folder."
        )
    if processor.chat_template is None:
        raise ModelError(
            f"Expected a processor with a chat template, got none from {source}. Take the model's instruction-tuned "
            "release, or put its chat_template.jinja into the folder."
        )


def load_processor(path: str, *, base: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load the processor of a model folder or hub id; image-only for families whose video part needs torchvision.

    Args:
        path: model folder, adapter folder or hub id.
        base: the model an adapter folder belongs to; its processor is used if the folder has none.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: if there is none, or a part of it is missing.
    """
    try:
        config = AutoConfig.from_pretrained(base or path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Expected a model folder or hub id, but no model configuration was found at {base or path!r}. "
            "Check the path; a folder needs config.json, weights in safetensors, tokenizer and processor."
        ) from error
    if base is not None and not (Path(path) / "tokenizer_config.json").is_file():
        path = base
    image_only = family_of(config.model_type).image_only_processor
    try:
        if image_only is not None:
            processor = image_only(path)
        else:
            processor = AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise ModelError(
            f"The folder {path!r} has a model but no usable processor ({error}). Save the model's own processor "
            "(processor.save_pretrained) into the same folder."
        ) from error
    check_processor(processor, repr(path))
    return processor


def set_image_options(processor: Any, options: Mapping[str, Any]) -> None:
    """Change settings of a processor's image processor, e.g. ``{"size": {"longest_edge": 512}}``.

    Raises:
        ConfigError: for a setting that this image processor does not have.
    """
    images = processor.image_processor
    for name, value in options.items():
        if not hasattr(images, name):
            raise ConfigError(f"{type(images).__name__} has no setting {name!r}; see its preprocessor_config.json.")
        setattr(images, name, value)


Quantization = Literal["none", "4bit"]
"""How the weights of a base model below a LoRA adapter are kept: as they are, or in 4 bits (QLoRA)."""


def check_quantization(quantization: Quantization, *, adapted: bool) -> None:
    """Raise unless this machine can train a model in this form.

    Args:
        quantization: how the base's weights are to be kept.
        adapted: True if a LoRA adapter is trained.

    Raises:
        ConfigError: for 4 bits without an adapter (weights in 4 bits cannot be trained), or without CUDA.
        DependencyError: for 4 bits without the package bitsandbytes.
    """
    if quantization == "none":
        return
    if not adapted:
        raise ConfigError(
            "policy.quantization: 4bit freezes the base model's weights, so an adapter must be trained, but "
            "policy.lora is null. Set policy.lora, e.g. {r: 16}, or policy.quantization to none."
        )
    if find_spec("bitsandbytes") is None:
        raise DependencyError(
            "policy.quantization: 4bit needs the package 'bitsandbytes', which is not installed. "
            'Run: pip install "gtr-suite[agents,quantization]", or set policy.quantization to none.'
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            "policy.quantization: 4bit needs a CUDA device, and torch sees none. Set policy.quantization to none, or "
            "see what `gtr doctor` says of the accelerator."
        )


def load_model(
    path: str,
    *,
    dtype: str = "auto",
    device: str | None = None,
    quantization: Quantization = "none",
    trust_remote_code: bool = False,
) -> Any:
    """Load an image-text-to-text model; safetensors only.

    Args:
        path: model folder or hub id.
        dtype: ``"auto"``, ``"float32"`` or ``"bfloat16"``; of 4-bit weights what they are multiplied in is bfloat16.
        device: where it goes; default the GPU if there is one.
        quantization: ``"4bit"`` is that of QLoRA (arXiv 2305.14314): normal floats, scales quantized too. Output layer
            and embeddings keep their type.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: if the folder holds no such model.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = {}
    if quantization == "4bit":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        options["device_map"] = {"": device}  # weights are quantized on their way there, and cannot be moved later
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code, **options
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"No image-text-to-text model with safetensors weights could be loaded from {path!r}: {error}"
        ) from error
    return model if options else model.to(device)


def plain_generation_config(tokenizer: Any) -> GenerationConfig:
    """A generation config without hidden processors.

    Published models carry top-k, top-p and repetition penalties in theirs; those would change what is sampled without
    changing what is scored.
    """
    return GenerationConfig(do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
