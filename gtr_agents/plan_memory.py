"""Estimates the memory of a run: every term is a tensor, or a file, that can be named.

What counts is what is there at the same moment. :data:`MOMENTS` lists the moments in which a run can be at its peak;
``benchmarks/plan_check.py`` compares them with the tensors of small models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from gtr_agents.model_shape import BYTES, Blocks, ModelShape, Picture
from gtr_agents.policies.vlm import SCORED_ENTRIES
from gtr_agents.teachers import TEACHERS

if TYPE_CHECKING:
    from gtr_agents.algorithms.policy_gradient import UpdateSettings
    from gtr_agents.config import RunConfig

GB = 1e9
"""Bytes of the gigabytes that are printed."""
STEPS_PER_EPISODE = {"Points24-v0": 9, "EZPoints-v0": 4}
"""Steps of an episode that is played well; 20 for other environments."""
FOUR_BITS = 0.5 + 0.127 / 8
"""Bytes of a weight in 4 bits with its share of scales, themselves quantized (arXiv 2305.14314)."""
FLOAT = 4
"""Bytes of a number in float32."""
IDS = 8 * 8
"""Bytes of a token's id, type, position on three axes and marks, and copies of them: eight integers of 64 bits."""
MOMENTS = {
    "a supervised pass": ("start",),
    "reading prompts": ("teacher", "read"),
    "writing answers": ("teacher", "write"),
    "scoring by the teacher": ("teacher", "score"),
    "the end of a training pass": ("train", "pass", "logits"),
    "the way back through the last layer": ("train", "pass", "backward"),
    "the optimizer's step": ("train", "step"),
}
"""Moments in which the peak may be, and the phases whose parts are there then; parts without a phase always are."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that takes memory; bytes each."""

    name: str
    """What it is."""
    gpu: float = 0.0
    """On the device."""
    ram: float = 0.0
    """In the machine's memory."""
    disk: float = 0.0
    """In files."""
    phase: str = ""
    """When it is there, one of those in :data:`MOMENTS`; empty for always."""


@dataclass(frozen=True, slots=True)
class Load:
    """What passes through the model."""

    prompt: int
    """Tokens of a prompt, its picture included."""
    answer: int
    """Tokens of the longest answer."""
    picture: Picture
    """What its picture becomes."""
    pixels: int
    """Bytes of the picture as it is observed."""
    known: bool
    """True if the prompt was put through the model's own processor."""

    @property
    def tokens(self) -> int:
        """Tokens of a prompt with the longest answer."""
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True)
class Numbers:
    """How the model's numbers are kept."""

    size: int
    """Bytes of one in the forward pass."""
    adapted: bool
    """True if a LoRA adapter is trained, whose own numbers are in float32."""
    rank: int = 0
    """Its rank."""


# --- what the options say ---------------------------------------------------------------------------------------------


def update_settings(config: RunConfig) -> UpdateSettings:
    """The options of the algorithm that is used."""
    settings: UpdateSettings = getattr(config, config.algorithm)
    return settings


def micro_batch(config: RunConfig, load: Load) -> int:
    """Steps of the largest training pass."""
    s = update_settings(config)
    n = min(s.micro_batch_size, s.minibatch_size)
    return n if s.micro_batch_tokens is None else min(n, max(1, s.micro_batch_tokens // load.tokens))


def dtype_bytes(config: RunConfig, shape: ModelShape) -> int:
    """Bytes of one of the model's weights."""
    return BYTES[shape.dtype if config.policy.dtype == "auto" else config.policy.dtype]


def n_playing(config: RunConfig) -> int:
    """How many answers are written at once in a rollout."""
    r = config.rollout
    return min(r.n_envs, r.hands * r.attempts) if r.hands else r.n_envs


def episode_steps(config: RunConfig) -> int:
    """Steps of an episode."""
    return STEPS_PER_EPISODE.get(config.env.id, 20)


def _numbers(config: RunConfig, shape: ModelShape) -> Numbers:
    lora = config.policy.lora
    rank = 0 if lora is None else int(lora.get("r", 16))
    return Numbers(dtype_bytes(config, shape), lora is not None, rank)


def _trained(config: RunConfig, shape: ModelShape) -> tuple[int, int]:
    """Number of trained weights of the model, and bytes of one."""
    if config.policy.lora is None:
        return shape.parameters, dtype_bytes(config, shape)
    return shape.adapter(int(config.policy.lora.get("r", 16))), FLOAT  # peft keeps factors in float32


# --- a token in a layer -----------------------------------------------------------------------------------------------


def kept_per_token(blocks: Blocks, numbers: Numbers, masked: int = 0) -> float:
    """Bytes that one layer keeps of one token for the backward pass.

    Linear modules keep their input if their weight is trained. Below an adapter it is frozen, but each factor A keeps
    its own input, in float32: a copy where the base computes in 16 bits. Norms compute in float32 and keep that.

    Args:
        blocks: the stack of layers.
        numbers: how numbers are kept.
        masked: columns of the attention's mask; 0 for none. torch turns it from bits into numbers in every layer.
    """
    size, h, inner, q = numbers.size, blocks.hidden, blocks.inner, blocks.queries
    ways_up = 2 if blocks.gated else 1
    norms = 2 * FLOAT * h + (0 if numbers.adapted else 2 * size * h)
    # Keys and values are repeated for every query head, unless there is one key head only. Where one module makes
    # all three, the values hold on to its whole output, and the windows' outputs are joined.
    repeated = q if blocks.keys > blocks.head else blocks.keys
    attention = size * (7 * q if blocks.fused else 2 * q + 2 * repeated)
    mlp = size * inner * (3 if blocks.gated else 2)
    if not numbers.adapted or size == FLOAT:
        inputs = size * (2 * h + inner)
    else:
        inputs = FLOAT * ((1 if blocks.fused else 3) * h + q + ways_up * h + inner)
    between = FLOAT * numbers.rank * blocks.adapted / blocks.layers  # what factor B gets from factor A
    return float(norms + attention + mlp + inputs + between + size * masked)


def working_per_token(blocks: Blocks, numbers: Numbers, masked: int = 0) -> float:
    """Bytes of one token that one layer takes while it computes without gradient.

    The larger one of attention and MLP, with the stream before it, between them, and normalised.

    Args:
        blocks: the stack of layers.
        numbers: how numbers are kept.
        masked: as for :func:`kept_per_token`.
    """
    size, h, q = numbers.size, blocks.hidden, blocks.queries
    adapted = numbers.adapted and blocks.adapted > 0
    # While positions are put in: the three, products with cosines and sines, and turned halves; Qwen's eye does it in
    # float32, for queries and keys at once. Then: the mask in numbers, queries, repeated keys and values, the output.
    turning = (3 * size + 6 * FLOAT) * q if blocks.fused else size * (5 * q + 2 * blocks.keys)
    attention = max(turning, size * (masked + 4 * q))
    # The gate, the way up and their product; with an adapter the factors' output, and that times its scale.
    mlp = blocks.inner * (2 * size + (2 * FLOAT if adapted else size))
    copies = FLOAT * h if adapted and size < FLOAT else 0
    return float(max(attention, mlp) + 4 * size * h + copies)


def backward_per_token(blocks: Blocks, numbers: Numbers) -> float:
    """Bytes of one token that the way back through one layer takes beyond what the layer keeps.

    The peak is in the MLP: gradients of its product and of both factors, less the product, which is no longer needed;
    with an adapter the gradient of the product comes in two parts. Below are the gradients of the stream.
    """
    inner = blocks.inner * (numbers.size + (FLOAT if numbers.adapted else numbers.size))
    return float(inner + 2 * numbers.size * blocks.hidden)


def _around_the_layers(blocks: Blocks, numbers: Numbers) -> float:
    """Bytes of one token beside the layers: sines and cosines, the input, and the last norm's input and output."""
    return 2 * numbers.size * blocks.head + blocks.hidden * (FLOAT + 3 * numbers.size)


# --- passes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pass:
    """What a pass with gradient takes."""

    kept: float
    """For the way back."""
    logits: float
    """At its end: logits, log-probabilities, and what the entropy is computed from."""
    backward: float
    """On the way back, beyond what is kept."""


def _training_pass(
    config: RunConfig, shape: ModelShape, load: Load, n: int, *, prompts: bool, entropy_gradient: bool
) -> _Pass:
    """What a pass over n steps with gradient takes; ``prompts`` says that their text is scored, too."""
    numbers = _numbers(config, shape)
    tokens, patches = n * load.tokens, n * load.picture.patches
    stacks = [(shape.text, tokens, load.tokens)]
    if not numbers.adapted or shape.eye.adapted:  # else nothing in the vision part has a gradient
        stacks.append((shape.eye, patches, 0))
    around = sum(count * _around_the_layers(blocks, numbers) for blocks, count, _ in stacks)
    layers = [count * kept_per_token(blocks, numbers, masked) for blocks, count, masked in stacks]
    back = max(count * backward_per_token(blocks, numbers) for blocks, count, _ in stacks)
    if config.policy.gradient_checkpointing:
        kept = around + sum(blocks.layers * count * numbers.size * blocks.hidden for blocks, count, _ in stacks)
        back += max(layers)
    else:
        kept = around + sum(blocks.layers * layer for (blocks, _, _), layer in zip(stacks, layers, strict=True))
    kept += n * (load.tokens**2 + load.picture.bytes)  # the mask in bits, and the pixels
    scored = load.tokens if prompts else load.answer + 1
    # An entropy with a gradient keeps log-probabilities, probabilities and the finite ones, which get gradients later.
    entry = 5 * FLOAT if entropy_gradient else numbers.size + 4 * FLOAT
    return _Pass(kept, n * scored * shape.vocabulary * entry, back)


def _training_parts(config: RunConfig, shape: ModelShape, load: Load, n: int) -> list[Part]:
    s = update_settings(config)
    made = _training_pass(config, shape, load, n, prompts=False, entropy_gradient=s.entropy_coef > 0)
    name = "inputs of the layers (checkpointing)" if config.policy.gradient_checkpointing else "activations"
    parts = [
        Part(f"{name}, {n} steps of {load.tokens} tokens", gpu=made.kept, phase="pass"),
        Part("one layer in the backward pass", gpu=made.backward, phase="backward"),
        Part("logits of the answers, and copies in float32", gpu=made.logits, phase="logits"),
    ]
    if config.sft is not None:
        m = min(config.sft.micro_batch_size or config.sft.batch_size, config.sft.batch_size)
        prompts = config.sft.prompt_weight > 0
        made = _training_pass(config, shape, load, m, prompts=prompts, entropy_gradient=False)
        taken = made.kept + max(made.logits, made.backward)
        parts.append(Part(f"supervised start, {m} answers at once", gpu=taken, phase="start"))
    return parts


def _reading(shape: ModelShape, load: Load, numbers: Numbers, n: int, tokens: int) -> float:
    """What a pass over n inputs of so many tokens takes without gradient, the cache not counted."""
    eye = shape.eye
    seeing = working_per_token(eye, numbers) + (numbers.size * eye.hidden * eye.layers if eye.listed else 0)
    seen = n * load.picture.patches * seeing
    if numbers.size < FLOAT:  # the pixels come in float32
        seen += n * load.picture.numbers * numbers.size
    own = working_per_token(shape.text, numbers, tokens) + 2 * numbers.size * shape.text.head + IDS
    read = n * (tokens * own + tokens**2 + load.picture.patches * numbers.size * eye.hidden)  # and what the eye saw
    return max(seen, read) + n * load.picture.bytes


def _playing_parts(config: RunConfig, shape: ModelShape, load: Load) -> list[Part]:
    """What writing answers takes: first the prompts are read, then tokens are written."""
    numbers = _numbers(config, shape)
    n = max(n_playing(config), min(config.evaluation.n_envs, config.evaluation.episodes))
    entry = n * 2 * shape.text.keys * numbers.size  # keys and values of one token in one layer
    reading = load.prompt * shape.text.layers * entry + _reading(shape, load, numbers, n, load.prompt)
    # A layer's keys are copied to a place with room for one token more. Of the next token there are logits, these in
    # float32, log-probabilities at two temperatures, noise and what it makes of them, and three of the entropy's.
    writing = load.tokens * (shape.text.layers + 0.5) * entry
    writing += n * (shape.vocabulary * (numbers.size + 8 * FLOAT) + load.picture.bytes)
    return [
        Part(f"reading {n} prompts: cache, one layer", gpu=reading, phase="read"),
        Part(f"writing {n} answers: cache, scores", gpu=writing, phase="write"),
    ]


def _scoring_parts(config: RunConfig, shape: ModelShape, load: Load) -> list[Part]:
    """What it takes to score answers without gradient, by the teacher or the model that training began with."""
    if config.guidance.name != "reverse_kl" and not update_settings(config).kl_coef:
        return []
    numbers = _numbers(config, shape)
    rows = min(64, max(1, SCORED_ENTRIES // ((load.answer + 1) * shape.vocabulary)))
    logits = rows * (load.answer + 1) * shape.vocabulary * (numbers.size + 4 * FLOAT)
    taken = max(logits, _reading(shape, load, numbers, rows, load.tokens))
    return [Part(f"scores of {rows} answers at once", gpu=taken, phase="score")]


def _teacher_parts(config: RunConfig, shape: ModelShape) -> list[Part]:
    """The teacher and the sums it is merged from."""
    t, adapted = config.teacher, config.policy.lora is not None
    if t.name not in TEACHERS:
        t = replace(t, name="merged")  # it is kept and evaluated all the same
    size, entries = (4, shape.dense) if adapted else (dtype_bytes(config, shape), shape.parameters)
    per_entry = {"merged": 16 if t.method == "ties" else 4, "ema": 4, "static": 0}[t.name]
    parts: list[Part] = []
    if t.name == "merged" and t.form == "adapter" and adapted:
        factors = 4 * shape.adapter(t.rank)
        parts.append(Part(f"teacher as a second adapter of rank {t.rank}", gpu=factors, ram=factors))
        published = 0
    else:
        parts.append(
            Part(
                "weights that a dense teacher replaces, kept", gpu=entries * dtype_bytes(config, shape), phase="teacher"
            )
        )
        published = entries * size
    on_disk = t.name == "merged" and t.accumulators == "disk"
    sums, base = entries * per_entry, entries * size
    kept = config.keep_checkpoints
    if on_disk:
        parts.append(Part("base and sums of the merge, old and new", disk=base + 2 * sums + published))
        parts.append(Part(f"their copies in {kept} checkpoints", disk=kept * (sums + published)))
    else:
        held = float(base + sums + published)
        name = "base and sums of the merge" + (", and a dense teacher" if published else "")
        # Dense task vectors of an adapter are made on the CPU, copies of whole weights where the weights are.
        parts.append(Part(name, ram=held) if adapted else Part(name, gpu=held))
        parts.append(Part(f"their copies in {kept} checkpoints", disk=kept * (base + sums + published)))
    return parts


def memory_parts(config: RunConfig, shape: ModelShape, load: Load, n: int) -> tuple[Part, ...]:
    """List what takes memory.

    Args:
        config: the run's configuration.
        shape: the model's sizes.
        load: what passes through it.
        n: steps of the largest training pass.
    """
    p = config.policy
    size, adapted = dtype_bytes(config, shape), p.lora is not None
    if p.quantization == "4bit":
        weights = shape.linear * FOUR_BITS + (shape.parameters - shape.linear) * size
    else:
        weights = float(shape.parameters * size)
    count, own = _trained(config, shape)
    widths = (shape.text.hidden, *p.value_widths, 1)
    head = FLOAT * sum(a * b + b for a, b in pairwise(widths))
    trained = count * own + head
    steps = config.rollout.n_steps
    if config.rollout.hands:
        steps = config.rollout.hands * config.rollout.attempts * episode_steps(config)
    cached = load.picture.bytes * steps if p.cache_inputs and not p.reuse_image_features else 0
    features = load.picture.tokens * shape.text.hidden * size * steps if p.reuse_image_features else 0
    kept = config.keep_checkpoints + 1
    first = shape.parameters * size if update_settings(config).kl_coef and not adapted else 0
    return (
        Part(f"weights, {shape.parameters / 1e6:,.1f} M", gpu=weights),
        Part("adapter" if adapted else "trained weights (counted above)", gpu=count * own if adapted else 0.0),
        Part("value head", gpu=head),
        Part("weights that training began with (kl_coef)", gpu=first),
        Part("gradients", gpu=trained),
        Part("Adam's two moments", gpu=2 * trained),
        Part("copy to take back a failed update", gpu=3 * trained, phase="train"),
        *_training_parts(config, shape, load, n),
        Part("roots of Adam's second moments", gpu=trained, phase="step"),
        *_playing_parts(config, shape, load),
        *_scoring_parts(config, shape, load),
        *_teacher_parts(config, shape),
        Part(f"pictures of {steps} steps", ram=load.pixels * steps),
        Part("the same, processed (policy.cache_inputs)", ram=cached),
        Part("their features (policy.reuse_image_features)", ram=features),
        Part(f"weights and moments in {kept} checkpoints", disk=3 * trained * kept),
    )
