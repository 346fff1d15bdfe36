"""Estimates what a run needs before it is started: memory of the GPU and of the machine, disk, and time.

Arithmetic on the sizes of the model and on the run's options; nothing is downloaded and no large memory is taken.
``benchmarks/plan_check.py`` compares it with measurements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from gtr_agents.algorithms.base import text_env_maker
from gtr_agents.config import RunConfig, apply_overrides, as_dict, resolve
from gtr_agents.errors import unknown_name
from gtr_agents.model_shape import ModelShape, Picture, find_config, picture_of, shape_of
from gtr_agents.plan_memory import GB, MOMENTS, Load, Part, memory_parts, micro_batch, update_settings
from gtr_agents.plan_time import DEVICES, FAST, SLOW, run_seconds
from gtr_agents.policies.tiny import build_tiny_vlm
from gtr_agents.prompts import get_template
from gtr_agents.seeding import child_seed
from gtr_envs.registration import HOUSEHOLD_ENVS

if TYPE_CHECKING:
    from rich.console import Console

    from gtr_agents.types import Prompt

HOUSEHOLD_CHARACTERS = 2500
"""Assumed length of a prompt of ALFWorld, whose engine would take seconds to ask."""
CHARACTERS_PER_TOKEN = 3.3
"""Assumed where the tokenizer is not at hand; instructions with numbers and JSON."""
CHAT_TOKENS = 25
"""Assumed marks of the chat around a prompt."""
RESERVE = 0.8e9
"""Bytes of the CUDA context and its libraries."""
FRAGMENTS = 0.05
"""Share of a GPU's memory that is lost between blocks."""


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

    def moment(self, name: str) -> float:
        """Bytes on the device in one of :data:`~gtr_agents.plan_memory.MOMENTS`, beyond what is always there."""
        return sum(self.phase(phase) for phase in MOMENTS[name])

    @property
    def gpu(self) -> float:
        """Peak of the device in bytes; of a GPU with its context and fragments."""
        return self.tensors if self.device == "cpu" else self.tensors * (1 + FRAGMENTS) + RESERVE

    @property
    def tensors(self) -> float:
        """Peak of the tensors on the device in bytes, without context and fragments."""
        return self.phase("") + max(self.moment(name) for name in MOMENTS)

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
        if processor.tokenizer.pad_token_id is None:  # as the policy does
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return shape_of(found, source, targets), processor


def _load(config: RunConfig, shape: ModelShape, processor: Any) -> Load:
    prompt = None if config.env.id in HOUSEHOLD_ENVS and processor is None else _a_prompt(config)
    height, width = (300, 300) if prompt is None else prompt.image.shape[:2]
    picture = picture_of(shape.config, height, width, config.policy.image_processor)
    pixels = height * width * 3
    if prompt is not None and processor is not None:
        from gtr_agents.policies.inputs import encode

        row = encode(processor, [prompt])[0]
        numbers = row["pixel_values"].numel()
        share = numbers / picture.numbers  # the processor's own settings decide how many patches there are
        marks = row["pixel_attention_mask"].nbytes if "pixel_attention_mask" in row else 0
        picture = Picture(round(picture.tokens * share), round(picture.patches * share), numbers, marks)
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


def _estimate(config: RunConfig, shape: ModelShape, load: Load, device: str) -> Plan:
    n = micro_batch(config, load)
    (fast, fast_step), (slow, slow_step) = (
        run_seconds(config, shape, load, n, DEVICES[device], speed) for speed in (FAST, SLOW)
    )
    if config.max_minutes:
        fast, slow = (min(value, 60 * config.max_minutes) for value in (fast, slow))
    where = DEVICES[device]
    return Plan(
        shape,
        load,
        memory_parts(config, shape, load, n),
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


def _candidates(config: RunConfig) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Options to try: those that cost time or files alone, and those that change what is learned."""
    s, p, t = update_settings(config), config.policy, config.teacher
    rank = None if p.lora is None else int(p.lora.get("r", 16))
    merged = t.name == "merged"
    tokens = [n for n in (8192, 4096, 2048, 1024) if s.micro_batch_tokens is None or n < s.micro_batch_tokens]
    few = min(8, config.rollout.n_envs)
    start = 0 if config.sft is None else config.sft.micro_batch_size or config.sft.batch_size
    easy = [
        (not p.gradient_checkpointing, ("policy.gradient_checkpointing=true",)),
        *((True, (f"{config.algorithm}.micro_batch_tokens={n}",)) for n in tokens),
        *((n < start, (f"sft.micro_batch_size={n}",)) for n in (8, 4, 2, 1)),
        (p.cache_inputs, ("policy.cache_inputs=false",)),
        (config.evaluation.n_envs > 8, ("evaluation.n_envs=8", f"rollout.n_envs={few}")),
        (merged and t.accumulators == "memory", ("teacher.accumulators=disk",)),
    ]
    hard = [
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
    applying = ([options for applies, options in table if applies] for table in (easy, hard))
    return next(applying), next(applying)


def changed(config: RunConfig, options: Iterable[str]) -> RunConfig:
    """The configuration with options as for ``--set``."""
    return resolve(apply_overrides(as_dict(config), options))


def changes(config: RunConfig, plan: Plan) -> list[Change]:
    """What single options would save, the largest first.

    Left out are options that save less than one percent, and those that save no more than a gentler value of the same.

    Args:
        config: the run's configuration.
        plan: its estimate.
    """
    found = []
    gentler: dict[str, float] = {}
    easy, hard = _candidates(config)
    for options in (*easy, *hard):
        less = _estimate(changed(config, options), plan.shape, plan.load, plan.device)
        change = Change(options, plan.gpu - less.gpu, plan.ram - less.ram)
        name, saved = options[0].partition("=")[0], change.gpu + change.ram
        if saved <= 1.01 * gentler.get(name, 0.0):
            continue
        gentler[name] = saved
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
    easy, hard = _candidates(config)
    # What lowers one moment alone saves nothing before another is lowered, so the easy ones have two turns.
    for options in (*easy, *easy, *hard):
        less = with_all([*chosen, options])
        if less.gpu < present.gpu - 0.001 * plan.gpu:
            chosen.append(options)
            present = less
        if present.gpu <= limit:
            break
    else:
        return None
    for options in sorted(chosen, key=[*easy, *hard].index, reverse=True):  # what is not needed, the hardest first
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
