"""A tiny vision-language model built from configs: real classes, real tokenizer and processor, nothing to download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from gtr_agents.errors import unknown_name
from gtr_agents.prompts import get_template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

    from gtr_agents.prompts import PromptTemplate

PAD, END, USER, ASSISTANT, IMAGE = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<image>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|user|>' if message['role'] != 'assistant' else '<|assistant|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

TOOL_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|user|>' if message['role'] != 'assistant' else '<|assistant|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% elif message['content'] %}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endif %}{% for call in message['tool_calls'] or [] %}{{ '<tool_call>' }}"
    "{{ call['function'] | tojson }}{{ '</tool_call>' }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""As above, with calls of tools as models of Qwen's kind write them; what a tool returns is the user's."""
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": ASSISTANT,
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": END, "content": "text"},
    },
}
"""How transformers reads such an answer again."""


_OUTPUTS = ("o_proj.weight", "down_proj.weight", "out_proj.weight", "feed_forward.w2.weight")
"""Matrices of a text layer that write into the residual stream."""


def _llama_config(**options: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**options)


def _lfm2_config(*, num_hidden_layers: int, **options: Any) -> Any:
    from transformers import Lfm2Config

    return Lfm2Config(
        num_hidden_layers=num_hidden_layers,
        layer_types=["full_attention" if layer % 2 else "conv" for layer in range(num_hidden_layers)],
        block_auto_adjust_ff_dim=False,
        **options,
    )


_BACKBONES = {"llama": _llama_config, "lfm2": _lfm2_config}


def build_tokenizer(
    template: str | PromptTemplate = "compact", vocabulary: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer that writes an answer of ``template`` in as few tokens as possible.

    Any text can be encoded (256 bytes are the base vocabulary). Each constant piece of the answer, each number up to 13
    and each number with the list separator before it is one token of its own, so an action is always one token.

    Args:
        template: the prompt template, or its name.
        vocabulary: further pieces of text that become one token each, such as an environment's ``vocabulary``.

    Returns:
        A fast tokenizer that pads on the left.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    pieces = [
        *get_template(template).scaffold(),
        *map(str, range(10, 14)),
        *(f", {n}" for n in range(1, 14)),
        *vocabulary,
    ]
    core.add_tokens([AddedToken(piece, normalized=False) for piece in dict.fromkeys(pieces)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT, IMAGE],
        # Set here and not as an attribute later: only constructor arguments survive save and load.
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor(
    template: str | PromptTemplate = "compact",
    image_size: int = 96,
    patch_size: int = 48,
    vocabulary: Sequence[str] = (),
) -> Any:
    """Build the processor (tokenizer + PIL image processor) of the tiny model; needs no torchvision.

    Args:
        template: the prompt template, or its name.
        image_size: side of the model's input image in pixels; observations of another size are resized.
        patch_size: side of one image patch in pixels.
        vocabulary: further pieces of text that become one token each.

    Returns:
        A ``LlavaProcessor``.
    """
    from transformers import LlavaProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return LlavaProcessor(
        image_processor=SiglipImageProcessorPil(
            size={"height": image_size, "width": image_size}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=build_tokenizer(template, vocabulary),
        patch_size=patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE,
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )


def tool_vocabulary(tool: str, argument: str) -> tuple[str, str]:
    """Return the pieces before and after the value in a call of a tool with one text, for ``vocabulary``.

    Args:
        tool: name of the tool.
        argument: name of its only argument.

    Returns:
        What the tiny model should write as one token each, so that a call is three.
    """
    return f'<tool_call>{{"name": "{tool}", "arguments": {{"{argument}": "', '"}}</tool_call>'


def with_tools(processor: Any) -> Any:
    """Let the processor of the tiny model write and read calls of tools.

    Args:
        processor: what :func:`build_processor` made; it is changed.

    Returns:
        The same processor, with a chat template for calls and a ``response_template`` that reads them.
    """
    processor.chat_template = TOOL_CHAT_TEMPLATE
    processor.tokenizer.response_template = RESPONSE_TEMPLATE
    return processor


def build_tiny_vlm(
    template: str | PromptTemplate = "compact",
    *,
    vocabulary: Sequence[str] = (),
    seed: int = 0,
    backbone: Literal["llama", "lfm2"] = "llama",
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
    ff_size: int = 384,
    vision_layers: int = 2,
    image_size: int = 96,
    patch_size: int = 48,
    initializer_range: float = 0.08,
    output_scale: float = 1.0,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Build a LLaVA-class model of about 2 M parameters with random weights, and its processor.

    Args:
        template: the prompt template the tokenizer is made for, or its name.
        vocabulary: further pieces of text that become one token each, such as an environment's ``vocabulary``.
        seed: seed of the random weights; the global generator is restored afterwards.
        backbone: text model. ``"llama"``: attention in every layer. ``"lfm2"``: short convolutions and attention in
            turn; each token knows its neighbours at once, so looking a word up takes one layer and is learned sooner.
        hidden_size: width of text and vision model.
        layers: text layers.
        heads: attention heads, text and vision.
        ff_size: width of the text feed-forward layers.
        vision_layers: vision layers.
        image_size: side of the input image in pixels.
        patch_size: side of one image patch; the default makes one patch of each quarter of the table.
        initializer_range: standard deviation of the initial weights. It decides whether the model learns to read the
            cards at all: about 1/sqrt(hidden_size); with the usual 0.02 reading stays at chance.
        output_scale: factor on the initial weights of what a text layer adds to the residual stream. At 1 the layers'
            random output drowns the words themselves, which then cannot be compared.

    Returns:
        ``(model, processor)``, the model in fp32 on the CPU.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    if backbone not in _BACKBONES:
        raise unknown_name("backbone", backbone, _BACKBONES)
    processor = build_processor(template, image_size, patch_size, vocabulary)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=vision_layers,
            num_attention_heads=heads,
            image_size=image_size,
            patch_size=patch_size,
            vision_use_head=False,
        ),
        text_config=_BACKBONES[backbone](
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=ff_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=initializer_range,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    # Not a constructor argument, but what the projector's initialisation reads.
    config.initializer_range = initializer_range
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.model.language_model.named_parameters():
            if name.endswith(_OUTPUTS):
                weight.mul_(output_scale)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor
