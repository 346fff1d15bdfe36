"""Estimates what a run needs before it is started: memory of the GPU and of the machine, disk, and time.

Arithmetic on the sizes of the model and on the run's options; nothing is downloaded and no large memory is taken.
``benchmarks/plan_check.py`` compares it with measurements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from gtr_agents.algorithms.base import text_env_maker
from gtr_agents.config import RunConfig, apply_overrides, as_dict, resolve
from gtr_agents.errors import unknown_name
from gtr_agents.model_shape import BYTES, Blocks, ModelShape, Picture, find_config, picture_of, shape_of
from gtr_agents.policies.tiny import build_tiny_vlm
from gtr_agents.policies.vlm import SCORED_ENTRIES
from gtr_agents.prompts import get_template
from gtr_agents.seeding import child_seed
from gtr_agents.teachers import TEACHERS
from gtr_envs.registration import HOUSEHOLD_ENVS

if TYPE_CHECKING:
    from rich.console import Console

    from gtr_agents.algorithms.policy_gradient import UpdateSettings
    from gtr_agents.types import Prompt

GB = 1e9
"""Bytes of the gigabytes that are printed."""
HOUSEHOLD_CHARACTERS = 2500
"""Assumed length of a prompt of ALFWorld, whose engine would take seconds to ask."""
CHARACTERS_PER_TOKEN = 3.3
"""Assumed where the tokenizer is not at hand; instructions with numbers and JSON."""
CHAT_TOKENS = 25
"""Assumed marks of the chat around a prompt."""
STEPS_PER_EPISODE = {"Points24-v0": 9, "EZPoints-v0": 4}
"""Steps of an episode that is played well; 20 for other environments."""
FOUR_BITS = 0.5 + 0.127 / 8
"""Bytes of a weight in 4 bits with its share of scales, themselves quantized (arXiv 2305.14314)."""
RESERVE = 0.8e9
"""Bytes of the CUDA context and its libraries."""
FRAGMENTS = 0.05
"""Share of a GPU's memory that is lost between blocks."""


class Device(NamedTuple):
    """A device as its maker describes it."""

    memory: float | None
    """Bytes; None for the machine's own."""
    flops: float
    """Multiplications and additions a second, dense bfloat16 (float32 on a CPU)."""
    bandwidth: float
    """Bytes a second from its memory."""


DEVICES = {
    "cpu": Device(None, 1.5e11, 2e10),
    "rtx-4060-8gb": Device(8e9, 3.0e13, 2.72e11),
    "rtx-4090-24gb": Device(24e9, 1.65e14, 1.01e12),
    "a100-80gb": Device(80e9, 3.12e14, 2.04e12),
    "h100-80gb": Device(80e9, 9.89e14, 3.35e12),
    "h200-141gb": Device(141e9, 9.89e14, 4.8e12),
}
"""Devices by name, from public data sheets; ``cpu`` is two x86 cores."""


def smallest_device(gigabytes: float | None) -> str:
    """Name the smallest GPU with at least this memory, the largest if there is none; the CPU for None."""
    if gigabytes is None:
        return "cpu"
    sizes = {name: device.memory for name, device in DEVICES.items() if device.memory is not None}
    enough = [name for name, memory in sizes.items() if memory >= gigabytes * GB]
    return min(enough, key=sizes.__getitem__) if enough else max(sizes, key=sizes.__getitem__)


class Speed(NamedTuple):
    """What is reached of a device."""

    arithmetic: float
    """Share of its arithmetic."""
    memory: float
    """Share of its bandwidth."""
    layer_seconds: float
    """Time to start the kernels of one layer for one token, which no batch makes shorter."""
    answer: float
    """Share of the longest answer that is written."""
    disk: float
    """Bytes a second of the disk."""
    number: float
    """Seconds of processing one number of a picture."""


FAST = Speed(0.5, 0.7, 3e-4, 0.3, 2e9, 1e-8)
"""The fast end of the range."""
SLOW = Speed(0.2, 0.4, 1.2e-3, 1.0, 3e8, 4e-8)
"""The slow end."""


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
    """When it is there: ``play``, ``score``, ``train``, or empty for always."""


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


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate."""

    shape: ModelShape
    """The model."""
    load: Load
    """What passes through it."""
    parts: tuple[Part, ...]
    """What takes memory."""
    device: str
    """Name of the device, in :data:`DEVICES`."""
    micro_batch: int
    """Steps of one training pass."""
    hours: tuple[float, float] = (0.0, 0.0)
    """Of the whole run, the fast and the slow end."""
    steps_per_second: tuple[float, float] = (0.0, 0.0)
    """Environment steps, updates and merges included; the fast and the slow end."""
    assumptions: tuple[str, ...] = field(default=())
    """What was assumed."""

    def phase(self, name: str) -> float:
        """Bytes on the device that are there in this phase only."""
        return sum(part.gpu for part in self.parts if part.phase == name)

    @property
    def gpu(self) -> float:
        """Peak of the device in bytes; of a GPU with its context and fragments."""
        return self.tensors if self.device == "cpu" else self.tensors * (1 + FRAGMENTS) + RESERVE

    @property
    def tensors(self) -> float:
        """Peak of the tensors on the device in bytes, without context and fragments."""
        return self.phase("") + max(self.phase(name) for name in ("play", "score", "train"))

    @property
    def ram(self) -> float:
        """Bytes in the machine's memory, without Python and its libraries."""
        return sum(part.ram for part in self.parts)

    @property
    def disk(self) -> float:
        """Bytes in files."""
        return sum(part.disk for part in self.parts)


# --- the model and what passes through it -----------------------------------------------------------------------------


def make_plan(config: RunConfig, device: str = "cpu", *, prompt_tokens: int | None = None) -> Plan:
    """Estimate a run.

    Args:
        config: its configuration.
        device: a name of :data:`DEVICES`, for the time.
        prompt_tokens: length of a prompt, its picture included, if the estimate of it is known to be wrong.

    Raises:
        UnknownNameError: if there is no such device.
        ModelError: if the model's sizes cannot be found.
        ConfigError: if the options contradict each other.
    """
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    shape, processor = _model(config)
    load = _load(config, shape, processor)
    if prompt_tokens is not None:
        load = replace(load, prompt=prompt_tokens)
    return _estimate(config, shape, load, device)


def _model(config: RunConfig) -> tuple[ModelShape, Any]:
    """The model's sizes, and its processor if it is at hand."""
    p = config.policy
    targets = (p.lora or {}).get("target_modules")
    if p.model == "tiny":
        env = text_env_maker(config.env.id, config.env.kwargs)()
        vocabulary = getattr(env.unwrapped, "vocabulary", ())
        env.close()
        model, small = build_tiny_vlm(p.template, vocabulary=vocabulary, seed=child_seed(0, "model"), **p.tiny)
        return shape_of(model.config, "built from its sizes", targets), small
    found, source = find_config(p.model)
    processor = None
    if source == "folder":
        from gtr_agents.policies.loading import load_processor, set_image_options

        processor = load_processor(p.model)
        set_image_options(processor, p.image_processor)
    return shape_of(found, source, targets), processor


def _load(config: RunConfig, shape: ModelShape, processor: Any) -> Load:
    prompt = None if config.env.id in HOUSEHOLD_ENVS and processor is None else _a_prompt(config)
    height, width = (300, 300) if prompt is None else prompt.image.shape[:2]
    picture = picture_of(shape.config, height, width, config.policy.image_processor)
    pixels = height * width * 3
    if prompt is not None and processor is not None:
        from gtr_agents.policies.inputs import encode

        row = encode(processor, [prompt])[0]
        numbers = sum(tensor.numel() for name, tensor in row.items() if "pixel" in name)
        picture = picture._replace(numbers=numbers)
        return Load(row["input_ids"].shape[1], config.policy.max_new_tokens, picture, pixels, True)
    characters = HOUSEHOLD_CHARACTERS if prompt is None else len(prompt.text) + len(prompt.system)
    tokens = round(characters / CHARACTERS_PER_TOKEN) + CHAT_TOKENS + picture.tokens
    return Load(tokens, config.policy.max_new_tokens, picture, pixels, False)


def _a_prompt(config: RunConfig) -> Prompt:
    """The prompt of a first step."""
    env = text_env_maker(config.env.id, config.env.kwargs | config.env.train)()
    observation, info = env.reset(seed=0)
    prompt = get_template(config.policy.template).render(
        observation, info["legal_actions"], getattr(env.unwrapped, "instructions", "")
    )
    env.close()
    return prompt


# --- memory -----------------------------------------------------------------------------------------------------------


def _update_settings(config: RunConfig) -> UpdateSettings:
    settings: UpdateSettings = getattr(config, config.algorithm)
    return settings


def _micro_batch(config: RunConfig, load: Load) -> int:
    """Steps of the largest training pass."""
    s = _update_settings(config)
    n = min(s.micro_batch_size, s.minibatch_size)
    return n if s.micro_batch_tokens is None else min(n, max(1, s.micro_batch_tokens // (load.prompt + load.answer)))


def _dtype(config: RunConfig, shape: ModelShape) -> int:
    return BYTES[shape.dtype if config.policy.dtype == "auto" else config.policy.dtype]


def _trained(config: RunConfig, shape: ModelShape) -> tuple[int, int]:
    """Number of trained weights of the model, and bytes of one."""
    if config.policy.lora is None:
        return shape.parameters, _dtype(config, shape)
    return shape.adapter(int(config.policy.lora.get("r", 16))), 4  # peft keeps factors in float32


def kept_per_token(blocks: Blocks, size: int, *, adapted: bool, trains: bool) -> float:
    """Bytes that one layer keeps of one token for the backward pass.

    Linear modules keep their input if their weight is trained. Below an adapter it is frozen, but the adapter keeps its
    own input, in float32: a copy where the base computes in 16 bits. Norms compute in float32 and keep that.

    Args:
        blocks: the stack of layers.
        size: bytes of a number.
        adapted: True if a LoRA adapter is trained.
        trains: False if nothing in or below the layers is trained, so that nothing is kept.
    """
    if not trains:
        return 0.0
    h, inner, q, k = blocks.hidden, blocks.inner, blocks.queries, blocks.keys
    ways_up = 2 if blocks.gated else 1
    norms = 2 * 4 * h + (2 * size * h if not adapted else 0)
    attention = size * (2 * q + 2 * max(k, q))  # keys and values are repeated for every query head
    mlp = size * inner * (3 if blocks.gated else 2)
    if not adapted:
        inputs = size * (2 * h + q + inner)
    elif size == 4:
        inputs = 4 * (2 * h + q + inner)
    else:
        inputs = 4 * (3 * h + q + ways_up * h + inner)
    return float(norms + attention + mlp + inputs)


def _training_parts(config: RunConfig, shape: ModelShape, load: Load, n: int) -> list[Part]:
    """What a training pass keeps, by its largest piece."""
    size, adapted = _dtype(config, shape), config.policy.lora is not None
    tokens, patches = n * (load.prompt + load.answer), n * load.picture.patches
    sees = not adapted or shape.eye.adapted > 0  # else nothing in the vision part has a gradient
    stacks = [
        (shape.text, tokens, kept_per_token(shape.text, size, adapted=adapted, trains=True)),
        (shape.eye, patches, kept_per_token(shape.eye, size, adapted=adapted, trains=sees)),
    ]
    layer = max(count * kept for _, count, kept in stacks)
    gradients = max(count * 4 * (3 * blocks.inner + 2 * blocks.hidden) for blocks, count, kept in stacks if kept)
    activations: float
    if config.policy.gradient_checkpointing:
        activations = sum(blocks.layers * count * size * blocks.hidden for blocks, count, kept in stacks if kept)
        working, name = layer + gradients, "inputs of the layers (checkpointing)"
    else:
        activations = sum(blocks.layers * count * kept for blocks, count, kept in stacks)
        working, name = gradients, "activations"
    logits = n * (load.answer + 1) * shape.vocabulary * (16 + size)
    return [
        Part(f"{name}, {n} steps of {load.prompt + load.answer} tokens", gpu=activations, phase="train"),
        Part("one layer at work in the backward pass", gpu=working, phase="train"),
        Part("logits of the answers, and copies in float32", gpu=logits, phase="train"),
    ]


def _playing_parts(config: RunConfig, shape: ModelShape, load: Load) -> list[Part]:
    """What writing answers takes: the cache, and the pass over the prompts."""
    size = _dtype(config, shape)
    n = max(_n_playing(config), min(config.evaluation.n_envs, config.evaluation.episodes))
    cache = n * (load.prompt + load.answer) * shape.text.layers * 2 * shape.text.keys * size
    text = n * load.prompt * (size * (6 * shape.text.hidden + 3 * shape.text.inner) + 4 * shape.text.hidden)
    eye = n * load.picture.patches * (size * (6 * shape.eye.hidden + 3 * shape.eye.inner) + 4 * shape.eye.hidden)
    sampling = 6 * 4 * n * shape.vocabulary
    rows = min(64, max(1, SCORED_ENTRIES // ((load.answer + 1) * shape.vocabulary)))
    scoring = rows * (load.answer + 1) * shape.vocabulary * (16 + size)
    return [
        Part(f"cache of keys and values, {n} answers at once", gpu=cache, phase="play"),
        Part("pass over their prompts, and sampling", gpu=max(text, eye, sampling), phase="play"),
        Part(f"teacher's scores, {rows} answers at once", gpu=scoring, phase="score"),
    ]


def _n_playing(config: RunConfig) -> int:
    r = config.rollout
    return min(r.n_envs, r.hands * r.attempts) if r.hands else r.n_envs


def _teacher_parts(config: RunConfig, shape: ModelShape) -> list[Part]:
    """The teacher and the sums it is merged from."""
    t, adapted = config.teacher, config.policy.lora is not None
    if t.name not in TEACHERS:
        t = replace(t, name="merged")  # it is kept and evaluated all the same
    size, entries = (4, shape.dense) if adapted else (_dtype(config, shape), shape.parameters)
    per_entry = {"merged": 16 if t.method == "ties" else 4, "ema": 4, "static": 0}[t.name]
    parts: list[Part] = []
    if t.name == "merged" and t.form == "adapter" and adapted:
        factors = 4 * shape.adapter(t.rank)
        parts.append(Part(f"teacher as a second adapter of rank {t.rank}", gpu=factors, ram=factors))
        published = 0
    else:
        parts.append(
            Part("weights that a dense teacher replaces, kept", gpu=entries * _dtype(config, shape), phase="score")
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


def _memory(config: RunConfig, shape: ModelShape, load: Load, n: int) -> tuple[Part, ...]:
    p = config.policy
    size, adapted = _dtype(config, shape), p.lora is not None
    if p.quantization == "4bit":
        weights = shape.linear * FOUR_BITS + (shape.parameters - shape.linear) * size
    else:
        weights = float(shape.parameters * size)
    count, own = _trained(config, shape)
    widths = (shape.text.hidden, *p.value_widths, 1)
    head = 4 * sum(a * b + b for a, b in pairwise(widths))
    trained = count * own + head
    steps = config.rollout.n_steps
    if config.rollout.hands:
        steps = config.rollout.hands * config.rollout.attempts * _episode(config)
    cached = 4 * load.picture.numbers * steps if p.cache_inputs else 0
    kept = config.keep_checkpoints + 1
    return (
        Part(f"weights, {shape.parameters / 1e6:,.1f} M", gpu=weights),
        Part("adapter" if adapted else "trained weights (counted above)", gpu=count * own if adapted else 0.0),
        Part("value head", gpu=head),
        Part("gradients", gpu=trained),
        Part("Adam's two moments", gpu=2 * trained),
        Part("copy to take back a failed update", gpu=3 * trained, phase="train"),
        *_training_parts(config, shape, load, n),
        *_playing_parts(config, shape, load),
        *_teacher_parts(config, shape),
        Part(f"pictures of {steps} steps", ram=load.pixels * steps),
        Part("the same, processed (policy.cache_inputs)", ram=cached),
        Part(f"weights and moments in {kept} checkpoints", disk=3 * trained * kept),
    )


# --- time -------------------------------------------------------------------------------------------------------------


def _episode(config: RunConfig) -> int:
    return STEPS_PER_EPISODE.get(config.env.id, 20)


def _seconds(
    config: RunConfig, shape: ModelShape, load: Load, n: int, device: Device, speed: Speed
) -> tuple[float, float]:
    """Seconds of the run, and of one update without evaluations."""
    s = _update_settings(config)
    answer = max(1.0, load.answer * speed.answer)
    flops = device.flops * speed.arithmetic
    size, adapted = _dtype(config, shape), config.policy.lora is not None
    seeing = 2 * shape.vision * load.picture.patches
    reading = (2 * shape.language * load.prompt + seeing) / flops
    forward = (2 * shape.language * (load.prompt + answer) + seeing) / flops
    processing = speed.number * load.picture.numbers
    playing = _n_playing(config)

    def play(count: int) -> float:
        """Seconds of one step of one of so many environments."""
        held = shape.language * size + count * load.prompt * shape.text.layers * 2 * shape.text.keys * size
        token = max(held / (device.bandwidth * speed.memory), 2 * shape.language * count / flops)
        return reading + answer * (token + shape.text.layers * speed.layer_seconds) / count + processing

    # A frozen base gets no gradient of its weights: forward and the inputs' gradient, instead of forward and both.
    passes = (2 if adapted else 3) + config.policy.gradient_checkpointing
    starting = shape.text.layers * speed.layer_seconds * passes / n
    train = s.epochs * (passes * forward + starting + (0.0 if config.policy.cache_inputs else processing))
    asked = config.guidance.name != "none"
    score = forward + shape.text.layers * speed.layer_seconds / 4 + processing if asked else 0.0
    if config.guidance.name == "thought_sft":
        score, train = play(playing), 2 * train
    r = config.rollout
    steps = r.hands * r.attempts * _episode(config) if r.hands else r.n_steps
    entries = shape.dense if adapted else shape.parameters
    merge = 36 * entries / (speed.disk if config.teacher.accumulators == "disk" else 5 * speed.disk)
    update = steps * (play(playing) + score + train) + merge
    measured = config.evaluation
    count = 5 * measured.episodes  # start and end, sampled and greedy, and the teacher
    if measured.every:
        count += 2 * (config.updates // measured.every) * measured.interim_episodes
    evaluations = count * _episode(config) * play(min(measured.n_envs, measured.episodes))
    start = 0.0 if config.sft is None else config.sft.steps * config.sft.batch_size * (passes * forward + processing)
    return config.updates * update + evaluations + start, update / steps


def _estimate(config: RunConfig, shape: ModelShape, load: Load, device: str) -> Plan:
    n = _micro_batch(config, load)
    (fast, fast_step), (slow, slow_step) = (
        _seconds(config, shape, load, n, DEVICES[device], speed) for speed in (FAST, SLOW)
    )
    if config.max_minutes:
        fast, slow = (min(value, 60 * config.max_minutes) for value in (fast, slow))
    where = DEVICES[device]
    return Plan(
        shape,
        load,
        _memory(config, shape, load, n),
        device,
        n,
        (fast / 3600, slow / 3600),
        (1 / fast_step, 1 / slow_step),
        (
            f"{device}: {where.flops / 1e12:g} TFLOP/s, {where.bandwidth / 1e9:g} GB/s, of which "
            f"{FAST.arithmetic:.0%} to {SLOW.arithmetic:.0%} and {FAST.memory:.0%} to {SLOW.memory:.0%} are reached",
            f"answers of {round(load.answer * FAST.answer)} to {load.answer} tokens; memory is for the longest",
            f"prompts of {load.prompt} tokens, {'counted' if load.known else 'estimated'}, "
            f"{load.picture.tokens} of them the picture's",
            f"{FAST.layer_seconds * 1e3:g} to {SLOW.layer_seconds * 1e3:g} ms to start a layer for a token",
        ),
    )


# --- what would make it fit -------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """Options that need less memory."""

    options: tuple[str, ...]
    """As for ``--set``."""
    gpu: float
    """Bytes that they save on the device."""
    ram: float
    """Bytes that they save in the machine's memory."""


def _candidates(config: RunConfig) -> list[tuple[str, ...]]:
    """Options to try: first those that cost time alone, last those that change what is learned."""
    s, p, t = _update_settings(config), config.policy, config.teacher
    rank = None if p.lora is None else int(p.lora.get("r", 16))
    merged = t.name == "merged"
    tokens = [n for n in (8192, 4096, 2048, 1024) if s.micro_batch_tokens is None or n < s.micro_batch_tokens]
    few = min(8, config.rollout.n_envs)
    table = [
        (not p.gradient_checkpointing, ("policy.gradient_checkpointing=true",)),
        *((True, (f"{config.algorithm}.micro_batch_tokens={n}",)) for n in tokens),
        (p.cache_inputs, ("policy.cache_inputs=false",)),
        (config.evaluation.n_envs > 8, ("evaluation.n_envs=8", f"rollout.n_envs={few}")),
        (merged and t.accumulators == "memory", ("teacher.accumulators=disk",)),
        (merged and rank is not None and t.form == "dense", ("teacher.form=adapter",)),
        (p.dtype != "bfloat16", ("policy.dtype=bfloat16",)),
        (
            merged and rank is not None and p.quantization == "none" and p.model != "tiny",
            ("policy.quantization=4bit", "teacher.form=adapter"),
        ),
        (merged and t.form == "adapter" and t.rank > 64, ("teacher.rank=64",)),
        (rank is None, ("policy.lora={r: 32}",)),
        (rank is not None and rank > 32, ("policy.lora.r=32", "policy.lora.alpha=64")),
    ]
    return [options for applies, options in table if applies]


def changed(config: RunConfig, options: Iterable[str]) -> RunConfig:
    """The configuration with options as for ``--set``."""
    return resolve(apply_overrides(as_dict(config), options))


def changes(config: RunConfig, plan: Plan) -> list[Change]:
    """What single options would save, the largest first; options that save less than one percent are left out.

    Args:
        config: the run's configuration.
        plan: its estimate.
    """
    found = []
    for options in _candidates(config):
        less = _estimate(changed(config, options), plan.shape, plan.load, plan.device)
        change = Change(options, plan.gpu - less.gpu, plan.ram - less.ram)
        if change.gpu > 0.01 * plan.gpu or change.ram > 0.01 * max(plan.ram, GB):
            found.append(change)
    return sorted(found, key=lambda change: (change.gpu, change.ram), reverse=True)


def fitting(config: RunConfig, plan: Plan, limit: float) -> tuple[tuple[str, ...], Plan] | None:
    """Find options with which a run fits, beginning with those that cost nothing but time.

    Args:
        config: the run's configuration.
        plan: its estimate.
        limit: bytes of the device.

    Returns:
        The options and the estimate with them; none if these do not suffice.
    """

    def with_all(choice: Iterable[tuple[str, ...]]) -> Plan:
        return _estimate(changed(config, sum(choice, ())), plan.shape, plan.load, plan.device)

    chosen: list[tuple[str, ...]] = []
    present = plan
    for options in _candidates(config):
        less = with_all([*chosen, options])
        if less.gpu < present.gpu - 0.001 * plan.gpu:
            chosen.append(options)
            present = less
        if present.gpu <= limit:
            break
    else:
        return None
    for options in chosen[::-1]:  # what is no longer needed, the hardest first
        others = [other for other in chosen if other is not options]
        if with_all(others).gpu <= limit:
            chosen = others
    return sum(chosen, ()), with_all(chosen)


# --- what is printed --------------------------------------------------------------------------------------------------


def as_json(config: RunConfig, plan: Plan, limit: float | None) -> dict[str, Any]:
    """The estimate as JSON holds it; sizes in bytes."""
    within = None if limit is None else plan.gpu <= limit
    answer = fitting(config, plan, limit) if limit is not None and not within else None
    return {
        "estimate": True,
        "model": config.policy.model,
        "parameters": plan.shape.parameters,
        "sizes_from": plan.shape.source,
        "parts": [
            {"name": x.name, "phase": x.phase or "always", "gpu": x.gpu, "ram": x.ram, "disk": x.disk}
            for x in plan.parts
        ],
        "gpu": plan.gpu,
        "ram": plan.ram,
        "disk": plan.disk,
        "gpu_limit": limit,
        "fits": within,
        "fits_with": None if answer is None else list(answer[0]),
        "changes": [{"options": list(c.options), "gpu": c.gpu, "ram": c.ram} for c in changes(config, plan)],
        "device": plan.device,
        "steps_per_second": list(plan.steps_per_second),
        "hours": list(plan.hours),
        "assumptions": list(plan.assumptions),
    }


def report(config: RunConfig, plan: Plan, limit: float | None, console: Console) -> None:
    """Print the estimate: what takes memory, whether it fits and what would help, and the time."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("GB")
    for heading in ("model" if plan.device == "cpu" else "GPU", "RAM", "disk"):
        table.add_column(heading, justify="right")
    table.add_column("when")
    for part in plan.parts:
        if max(part.gpu, part.ram, part.disk) > 0:
            table.add_row(part.name, *map(_gigabytes, (part.gpu, part.ram, part.disk)), part.phase)
    if plan.device != "cpu":
        table.add_row("CUDA context, space lost between blocks", _gigabytes(plan.gpu - plan.tensors), "", "", "")
    table.add_row(
        "[bold]peak[/]", *(f"[bold]{_gigabytes(x) or '0.00'}[/]" for x in (plan.gpu, plan.ram, plan.disk)), ""
    )
    console.print(table)
    if limit is not None:
        console.print(_verdict(config, plan, limit), soft_wrap=True)
    for change in changes(config, plan):
        saved = [f"{_gigabytes(change.gpu)} GB on the GPU"] if change.gpu > 0.01 * plan.gpu else []
        saved += [f"{_gigabytes(change.ram)} GB of RAM"] if change.ram > 0.01 * max(plan.ram, GB) else []
        console.print(f"  {' '.join(change.options)} saves {' and '.join(saved)}", soft_wrap=True, markup=False)
    (fast, slow), (most, least) = plan.hours, plan.steps_per_second
    console.print(f"Time: {least:.2g} to {most:.2g} environment steps/s, {fast:.2g} to {slow:.2g} hours for the run.")
    console.print("An estimate, not a measurement. It assumes:", *(f"  {line}" for line in plan.assumptions), sep="\n")


def _gigabytes(value: float) -> str:
    return f"{value / GB:.2f}" if value >= 0.005 * GB else ("" if value <= 0 else "0.00")


def _verdict(config: RunConfig, plan: Plan, limit: float) -> str:
    if plan.gpu <= limit:
        return f"It fits in {limit / GB:g} GB, with {_gigabytes(limit - plan.gpu) or '0'} GB to spare."
    answer = fitting(config, plan, limit)
    if answer is None:
        return f"It does not fit in {limit / GB:g} GB, and no options known here would make it: take a smaller model."
    options, less = answer
    chosen = " ".join(f"--set '{option}'" if " " in option else f"--set {option}" for option in options)
    return f"It does not fit in {limit / GB:g} GB. With {chosen} it needs {_gigabytes(less.gpu)} GB."
