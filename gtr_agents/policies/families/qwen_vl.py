"""Qwen2-VL and Qwen2.5-VL: LoRA on language model, vision blocks and merger; an image-only processor."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer
from transformers import Qwen2_5_VLProcessor as StockProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

LORA_TARGETS = (
    r".*language_model\..*(q|k|v|o|gate|up|down)_proj"
    r"|.*visual\.blocks\..*(qkv|attn\.proj|fc1|fc2|gate_proj|up_proj|down_proj)"
    r"|.*visual\.merger\.mlp\.(0|2)"
)
"""Every linear module of language model, vision blocks and merger: the paper's choice (arXiv 2512.13043)."""


class Qwen2_5_VLProcessor(StockProcessor):  # noqa: N801 - its name is saved, and must load where we are not
    """Qwen-VL's processor for text and images.

    The stock class builds a video processor, which needs torchvision even when no video is ever seen.

    Args:
        image_processor: a Qwen2-VL image processor.
        tokenizer: the model's tokenizer.
        chat_template: Jinja template; default the tokenizer's.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        self.image_token = getattr(tokenizer, "image_token", "<|image_pad|>")
        self.video_token = getattr(tokenizer, "video_token", "<|video_pad|>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        template = chat_template or tokenizer.chat_template
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=template)


def load_image_only_processor(path: str) -> Any:
    """Load a Qwen-VL processor without its video part, with the same pictures whether torchvision is there or not.

    Args:
        path: model folder or hub id.

    Returns:
        A processor with tokenizer and image processor that takes text and images.
    """
    settings, _ = ProcessorMixin.get_processor_dict(path)  # the chat template has a file of its own
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil.from_pretrained(path),
        tokenizer=AutoTokenizer.from_pretrained(path),
        chat_template=settings.get("chat_template"),
    )
