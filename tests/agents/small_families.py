# ruff: noqa: S106 - a "token" is a piece of language here, never a password
"""Tokenizers trained on the spot, and randomly initialised models of real families, saved as folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    '{"cards": [7, 10, 7, 1], "formula": "10+7", "thoughts": "10+7+7*1=", "action": "*"}',
    'Answer with exactly one JSON object and nothing else, in this form: "action" : "one of the legal actions"',
    "You are playing a card game. The picture shows four playing cards. Write a formula that uses each card once.",
]


def byte_level_bpe(specials: list[str], vocab_size: int = 330) -> Tokenizer:
    """Train a byte-level BPE with merges (the kind of GPT-2 and Qwen)."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    return core


def metaspace_bpe(vocab_size: int = 120) -> Tokenizer:
    """Train a BPE that writes blanks as "▁" and unknown characters as bytes (the kind of SentencePiece and Llama)."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False))
    core_state = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *core_state["vocab"]]
    merges = [tuple(pair) for pair in core_state["merges"]]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return core


def llama_like_tokenizer(**extra: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=metaspace_bpe(), unk_token="<unk>", bos_token="<s>", eos_token="</s>", **extra
    )


def qwen_like_tokenizer() -> PreTrainedTokenizerFast:
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *vision]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(specials),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>", *vision],
    )


def idefics_like_tokenizer() -> PreTrainedTokenizerFast:
    image = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(["<|begin_of_text|>", "<|end_of_text|>", *image]),
        bos_token="<|begin_of_text|>",
        pad_token="<|end_of_text|>",
        eos_token="<end_of_utterance>",
        extra_special_tokens=image[:3],
    )


QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_CHAT = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IDEFICS_CHAT = (
    "<|begin_of_text|>{% for message in messages %}{{ message['role'].capitalize() }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def _save(model: Any, folder: Path) -> Path:
    """Save with a generation config as published models have it: sampling tricks that must not be used."""
    model.generation_config.update(do_sample=True, temperature=0.1, top_k=1, repetition_penalty=1.05)
    model.save_pretrained(folder)
    return folder


def _seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def save_qwen2_5_vl(folder: Path, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Path:
    """Write a Qwen2.5-VL folder as it is published: image processor, tokenizer and chat template in their own files.

    ``text`` and ``vision`` replace sizes of the two parts.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = qwen_like_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 40,  # published models have more embeddings than tokens
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
            "initializer_range": 0.2,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        | (text or {}),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "out_hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.2,
        }
        | (vision or {}),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=False,
    )
    Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}).save_pretrained(folder)
    settings = folder / "preprocessor_config.json"
    written = json.loads(settings.read_text())
    written |= {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    settings.write_text(json.dumps(written))
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_CHAT}))
    return _save(_seeded(lambda: Qwen2_5_VLForConditionalGeneration(config)), folder)


def save_llava(folder: Path) -> Path:
    """Write a LLaVA folder with CLIP as its eye and a Llama-like tokenizer without padding token."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = llama_like_tokenizer(extra_special_tokens=["<image>"])
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            patch_size=32,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.2,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
        tokenizer=tokenizer,
        patch_size=32,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT,
    )
    processor.save_pretrained(folder)
    return _save(_seeded(lambda: LlavaForConditionalGeneration(config)), folder)


def save_llava_next(folder: Path, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Path:
    """Write a LLaVA-NeXT folder (LLaVA-1.6): the picture whole and in tiles, Mistral as its language model.

    ``text`` and ``vision`` replace sizes of the two parts.
    """
    from transformers import (
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextProcessor,
        MistralConfig,
    )
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = llama_like_tokenizer(extra_special_tokens=["<image>"])
    tiles = [[64, 128], [128, 64], [128, 128]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            **{
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 32,
                "projection_dim": 32,
            }
            | (vision or {})
        ),
        text_config=MistralConfig(
            **{
                "vocab_size": len(tokenizer),
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "initializer_range": 0.2,
            }
            | (text or {})
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=tiles,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_grid_pinpoints=tiles
        ),
        tokenizer=tokenizer,
        patch_size=32,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT,
    )
    processor.save_pretrained(folder)
    return _save(_seeded(lambda: LlavaNextForConditionalGeneration(config)), folder)


def save_idefics3(folder: Path, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> Path:
    """Write an Idefics3 folder that splits its pictures into tiles.

    ``text`` and ``vision`` replace sizes of the two parts.
    """
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = idefics_like_tokenizer()
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        }
        | (vision or {}),
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "initializer_range": 0.2,
            "pad_token_id": tokenizer.pad_token_id,
        }
        | (text or {}),
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64}),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS_CHAT,
    )
    processor.save_pretrained(folder)
    return _save(_seeded(lambda: Idefics3ForConditionalGeneration(config)), folder)


FAMILIES = {
    "qwen2_5_vl": save_qwen2_5_vl,
    "llava": save_llava,
    "llava_next": save_llava_next,
    "idefics3": save_idefics3,
}
"""Model type -> what writes a small random model of it to a folder."""
