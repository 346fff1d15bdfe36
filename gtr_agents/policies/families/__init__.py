"""What differs between model families: one small record each, found by ``config.model_type``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gtr_agents.policies.families import qwen_vl

_LANGUAGE_LINEAR = r".*(language_model|text_model)\..*(q|k|v|o|gate|up|down)_proj"


@dataclass(frozen=True, slots=True)
class Family:
    """The facts about a model family that cannot be read from its config."""

    lora_targets: str = _LANGUAGE_LINEAR
    """Regular expression of module names that LoRA adapts unless the settings say otherwise."""
    image_only_processor: Callable[[str], Any] | None = None
    """Loads the processor without its video part, which needs torchvision; None if there is no such part."""


FAMILIES: dict[str, Family] = {
    "idefics3": Family(),
    "llava": Family(),
    "llava_next": Family(),
    "qwen2_vl": Family(qwen_vl.LORA_TARGETS, qwen_vl.load_image_only_processor),
    "qwen2_5_vl": Family(qwen_vl.LORA_TARGETS, qwen_vl.load_image_only_processor),
}
"""Families by ``model_type``; others work with the defaults of :class:`Family`."""


def family_of(model_type: str) -> Family:
    """Return the family's record, the defaults for an unknown one."""
    return FAMILIES.get(model_type, Family())
