"""What a model's configuration says of its size: counted on a model without memory, so that nothing is downloaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.image_processing_utils import select_best_resolution
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from gtr_agents.errors import ModelError
from gtr_agents.policies.families import family_of

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a weight by type."""


class Picture(NamedTuple):
    """What a picture becomes."""

    tokens: int
    """Tokens in the prompt, with their marks."""
    patches: int
    """Positions that the vision part computes."""
    numbers: int
    """Numbers of the processed picture, in float32."""
    marks: int = 0
    """Bytes that say which of its pixels are padding."""

    @property
    def bytes(self) -> int:
        """Bytes of the processed picture."""
        return 4 * self.numbers + self.marks


@dataclass(frozen=True, slots=True)
class Blocks:
    """A stack of equal transformer layers."""

    layers: int
    """How many."""
    hidden: int
    """Width of the residual stream."""
    inner: int
    """Width inside the MLP."""
    queries: int
    """Width of all query heads together."""
    keys: int
    """Width of all key heads together; the values' is the same."""
    head: int
    """Width of one head."""
    gated: bool
    """True if the MLP has a gate beside the way up."""
    adapted: int
    """Linear modules that a LoRA adapter changes, over all layers."""
    fused: bool = False
    """True if one module makes queries, keys and values, and turns their positions in float32 (Qwen's eye)."""
    listed: bool = False
    """True if the outputs of all layers are collected, because an inner layer's are used (LLaVA's eye)."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a vision-language model."""

    source: str
    """Where its configuration comes from."""
    parameters: int
    """Weights of the whole model."""
    linear: int
    """Those in linear modules other than the output layer: what is kept in 4 bits if asked for."""
    language: int
    """Weights that every token of the language model is multiplied with."""
    vision: int
    """Weights of the vision part."""
    dtype: str
    """Type of the weights as published."""
    vocabulary: int
    """Entries of the output layer."""
    text: Blocks
    """The language model."""
    eye: Blocks
    """The vision part."""
    adapted: tuple[tuple[int, int], ...]
    """Inputs and outputs of every module that a LoRA adapter changes."""
    config: Any
    """The configuration."""

    def adapter(self, rank: int) -> int:
        """Weights of an adapter of a rank."""
        return rank * sum(a + b for a, b in self.adapted)

    @property
    def dense(self) -> int:
        """Weights of the modules that an adapter changes: entries of a dense task vector."""
        return sum(a * b for a, b in self.adapted)


def known_models() -> list[str]:
    """Hub ids of the models whose configurations come with the package, sorted."""
    folder = resources.files("gtr_agents") / "presets" / "models"
    return sorted(file.name.removesuffix(".json").replace("--", "/") for file in folder.iterdir())


def find_config(source: str) -> tuple[Any, str]:
    """Find the configuration of a model without asking the hub.

    Args:
        source: a folder or hub id.

    Returns:
        The configuration, and where it is from: a folder, the cache, or the sizes that come with the package.

    Raises:
        ModelError: if it is neither in a folder, nor in the cache, nor one of :func:`known_models`.
    """
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
        return config, "folder" if Path(source).is_dir() else "cache"
    except (OSError, ValueError):
        pass
    if source not in known_models():
        raise ModelError(
            f"The sizes of {source!r} are not known here. Expected a model folder, a model whose config.json is in "
            f"the hub's cache, or one of: {', '.join(known_models())}."
        )
    file = resources.files("gtr_agents") / "presets" / "models" / f"{source.replace('/', '--')}.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    return AutoConfig.for_model(values.pop("model_type"), **values), "sizes that come with the package"


def shape_of(config: Any, source: str = "", targets: str | None = None) -> ModelShape:
    """Count a model's weights, exactly, on a copy of it that holds none.

    Args:
        config: its configuration.
        source: where that is from, for the record.
        targets: regular expression of the modules that a LoRA adapter changes; default the family's.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    output = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not output}
    pattern = re.compile(targets or family_of(config.model_type).lora_targets)
    adapted = {name: m for name, m in linear.items() if pattern.fullmatch(name)}
    eye = {name for name, _ in model.named_modules() if re.search(r"(^|\.)(visual|vision_tower|vision_model)$", name)}
    inside = tuple(f"{name}." for name in eye)
    vision = sum(p.numel() for name, p in model.named_parameters() if name.startswith(inside))
    parameters = sum(p.numel() for p in model.parameters())
    table = model.get_input_embeddings().weight.numel()
    tied = model.get_input_embeddings().weight is output.weight
    in_eye = sum(name.startswith(inside) for name in adapted)
    return ModelShape(
        source=source,
        parameters=parameters,
        linear=sum(m.weight.numel() for m in linear.values()),
        language=parameters - vision - (0 if tied else table),
        vision=vision,
        dtype=str(config.dtype or "float32").removeprefix("torch."),
        vocabulary=output.weight.shape[0],
        text=_text_blocks(config.text_config, len(adapted) - in_eye),
        eye=_vision_blocks(config, in_eye),
        adapted=tuple((m.in_features, m.out_features) for m in adapted.values()),
        config=config,
    )


def _text_blocks(config: Any, adapted: int) -> Blocks:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = (getattr(config, "num_key_value_heads", None) or heads) * width
    return Blocks(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        queries=heads * width,
        keys=keys,
        head=width,
        gated=True,
        adapted=adapted,
    )


def _vision_blocks(config: Any, adapted: int) -> Blocks:
    eye = config.vision_config
    heads = getattr(eye, "num_heads", None) or eye.num_attention_heads
    hidden = getattr(eye, "embed_dim", None) or eye.hidden_size  # of Qwen2-VL, hidden_size is the language model's
    return Blocks(
        layers=getattr(eye, "depth", None) or eye.num_hidden_layers,
        hidden=hidden,
        inner=getattr(eye, "intermediate_size", None) or int(hidden * eye.mlp_ratio),
        queries=hidden,
        keys=hidden,
        head=hidden // heads,
        gated="qwen2_5" in eye.model_type,
        adapted=adapted,
        fused="qwen" in eye.model_type,
        listed=hasattr(config, "vision_feature_layer"),
    )


def picture_of(config: Any, height: int, width: int, options: Mapping[str, Any]) -> Picture:
    """What a picture becomes, by the arithmetic of the family's processor.

    Args:
        config: the model's configuration.
        height: pixels.
        width: pixels.
        options: changed settings of the image processor, as ``policy.image_processor``.
    """
    return _PICTURES.get(config.model_type, _one_tile)(config, height, width, options)


def _qwen(config: Any, height: int, width: int, options: Mapping[str, Any]) -> Picture:
    vision = config.vision_config
    side = vision.patch_size * vision.spatial_merge_size
    limits = {"shortest_edge": 4 * side**2, "longest_edge": 16384 * side**2} | dict(options.get("size", {}))
    height, width = smart_resize(height, width, side, limits["shortest_edge"], limits["longest_edge"])
    patches = height * width // vision.patch_size**2
    numbers = patches * 3 * vision.temporal_patch_size * vision.patch_size**2
    return Picture(patches // vision.spatial_merge_size**2 + 2, patches, numbers)


def _idefics(config: Any, height: int, width: int, options: Mapping[str, Any]) -> Picture:
    vision = config.vision_config
    tile, patches = vision.image_size, (vision.image_size // vision.patch_size) ** 2
    longest = options.get("size", {}).get("longest_edge", 4 * tile)
    scale = longest / max(height, width)
    rows, columns = (max(1, -(-round(side * scale) // tile)) for side in (height, width))
    split = options.get("do_image_splitting", True) and rows * columns > 1
    tiles = rows * columns + 1 if split else 1
    tokens = tiles * (patches // config.scale_factor**2 + 2) + 1
    return Picture(tokens, tiles * patches, tiles * 3 * tile**2, marks=8 * tiles * tile**2)


def _llava_next(config: Any, height: int, width: int, options: Mapping[str, Any]) -> Picture:  # noqa: ARG001
    vision = config.vision_config
    tile, side = vision.image_size, vision.image_size // vision.patch_size
    best_height, best_width = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, columns = best_height // tile, best_width // tile
    grid_height, grid_width = rows * side, columns * side
    if width / height > grid_width / grid_height:
        grid_height -= 2 * ((grid_height - round(height * grid_width / width)) // 2)
    else:
        grid_width -= 2 * ((grid_width - round(width * grid_height / height)) // 2)
    tiles = rows * columns + 1
    return Picture(side**2 + grid_height * (grid_width + 1), tiles * (side**2 + 1), tiles * 3 * tile**2)


def _one_tile(config: Any, height: int, width: int, options: Mapping[str, Any]) -> Picture:  # noqa: ARG001
    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    summary = "clip" in vision.model_type  # CLIP's eye has one position more, which the language model does not see
    return Picture(patches, patches + summary, 3 * vision.image_size**2)


_PICTURES: dict[str, Callable[[Any, int, int, Mapping[str, Any]], Picture]] = {
    "idefics3": _idefics,
    "llava_next": _llava_next,
    "qwen2_5_vl": _qwen,
    "qwen2_vl": _qwen,
}
