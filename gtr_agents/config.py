"""Configurations: frozen dataclasses, complete presets in YAML, overrides with errors that name the nearest option."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.grpo import GRPOSettings
from gtr_agents.algorithms.ppo import PPOSettings
from gtr_agents.errors import ConfigError, unknown_name
from gtr_agents.evaluation import Split
from gtr_agents.sft import SFTSettings
from gtr_agents.teachers.chat import ExternalSettings
from gtr_agents.trackers import TrackerName
from gtr_agents.types import Share
from gtr_agents.watchdog import Limits


@dataclass(frozen=True, slots=True)
class EnvConfig:
    """The task."""

    id: str
    """Registered environment id, e.g. Points24-v0."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment everywhere."""
    train: dict[str, Any] = field(default_factory=dict)
    """Further arguments while training, e.g. {illegal: terminate, deal: solvable}."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """Further arguments in evaluation."""


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """The model."""

    model: str = "tiny"
    """"tiny" builds a small model from a config; anything else is a folder or hub id."""
    tiny: dict[str, Any] = field(default_factory=dict)
    """Sizes of the tiny model, as the arguments of build_tiny_vlm."""
    template: str = "paper"
    """Prompt template."""
    image_processor: dict[str, Any] = field(default_factory=dict)
    """Changed settings of the model's image processor, e.g. {size: {longest_edge: 512}}: fewer tokens, less memory."""
    temperature: PositiveFloat = 0.2
    """Sampling temperature, in training and in sampled evaluation; log-probs are scored at the same."""
    max_new_tokens: PositiveInt = 256
    """Longest answer."""
    lora: dict[str, Any] | None = None
    """LoRA settings, e.g. {r: 16}; null trains all weights."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the model's weights."""
    value_widths: tuple[int, int] = (1024, 512)
    """Widths of the value head."""
    value_stop_gradient: bool = False
    """True keeps the critic's gradient out of the model."""
    cache_inputs: bool = True
    """True keeps processed images of a rollout in memory."""
    reuse_image_features: bool = False
    """True runs the vision part once per observation, not in every pass; needs LoRA on the language part alone."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What writes the answers; vllm (untested, one large GPU, LoRA only) is faster, and the model scores them again."""
    engine_memory: Share = 0.4
    """Share of the GPU's memory that vllm may take."""
    gradient_checkpointing: bool = False
    """True computes the layers' activations again in the backward pass: less memory, about a third more time there."""
    quantization: Literal["none", "4bit"] = "none"
    """4bit keeps the base below the LoRA adapter in 4 bits (QLoRA): CUDA, bitsandbytes, and teacher.form: adapter."""


@dataclass(frozen=True, slots=True)
class GuidanceConfig:
    """How the teacher's opinion enters."""

    name: Literal["none", "reverse_kl", "thought_sft"] = "none"
    """none is plain PPO (RL4VLM); reverse_kl is GTR-Turbo (KL); thought_sft is GTR-Turbo (SFT) with the merged teacher,
    GTR with an oracle or external one."""
    beta: float = 1.0
    """reverse_kl: weight of the divergence."""
    estimator: str = "clip"
    """reverse_kl: KL estimator: clip, clip_cap, abs, k1, k2, k3, full, forward."""
    scope: Literal["thought", "thoughts_field", "full"] = "thought"
    """reverse_kl: guided tokens."""
    reduce: Literal["mean", "sum", "per_token"] = "mean"
    """reverse_kl: over the guided tokens of a step; per_token only with ppo.ratio=token."""
    final_beta: float | None = None
    """reverse_kl: weight that beta moves to linearly over the run; null keeps it constant."""
    weight: float = 1.0
    """thought_sft: weight of the cross-entropy."""
    source: Literal["teacher", "own_success"] = "teacher"
    """thought_sft: whose answers are imitated; own_success is rejection sampling, without a teacher."""
    temperature: float = 0.2
    """thought_sft: of a teacher with weights; a failed attempt raises it by a tenth."""
    max_temperature: float = 0.9
    """thought_sft: where that ends."""
    retries: PositiveInt = 5
    """thought_sft: attempts per step of a teacher with weights."""
    max_size: PositiveInt | None = None
    """thought_sft: samples that are kept at most, the newest; null keeps all."""
    max_age: PositiveInt | None = None
    """thought_sft: updates for which samples are kept; null keeps all."""
    half_life: PositiveFloat | None = None
    """thought_sft: a sample's chance to be drawn halves with every so many updates; null draws uniformly."""
    stop_unsolvable: bool = False
    """thought_sft: end an episode where the teacher says that it cannot be won any more."""
    stop_reward: float = -1.0
    """thought_sft: reward of such a step."""


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """Where the teacher comes from."""

    name: Literal["merged", "static", "ema", "oracle", "external"] = "merged"
    """merged: a merge of the run's checkpoints; for ablations static, the start model, and ema, a moving average. Only
    for thought_sft: oracle, the environment's expert, and external, a model behind a chat endpoint (GTR)."""
    method: Literal["ties", "linear"] = "ties"
    """How they are merged: by TIES, or as their weighted mean (ablation)."""
    weights: Literal["sma", "ema"] = "sma"
    """Weights of the checkpoints: simple or exponential average."""
    alpha: float = 0.5
    """Share of the newest checkpoint under ema."""
    density: float = 0.8
    """Share of each task vector that TIES keeps."""
    lam: float = 1.0
    """Scale of the merged task vector."""
    merge_interval: int = 1
    """A new teacher after every so many updates."""
    form: Literal["dense", "adapter"] = "dense"
    """dense: exact, with a copy of what it replaces; adapter (LoRA only): a second adapter beside the student's."""
    rank: PositiveInt = 128
    """Rank of a teacher in the form adapter; the metric teacher/retained_energy tells what it keeps."""
    accumulators: Literal["memory", "disk"] = "memory"
    """Where the sums of the past live; disk is for models whose four sums per weight do not fit in memory."""
    window: NonNegativeInt = 0
    """Only so many newest checkpoints are merged (needs accumulators: disk); 0 merges all."""
    external: ExternalSettings = field(default_factory=ExternalSettings)
    """external: where it is, how it is asked, what it may cost."""


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How progress is measured."""

    episodes: PositiveInt = 500
    """Fixed episodes of the evaluations before and after."""
    split: Split = "test"
    """Which fixed episodes: choose settings on validation, report on test."""
    hold_out: bool = True
    """False deals evaluation hands in training too: for games with a handful of hands, such as EZPoints."""
    every: NonNegativeInt = 0
    """Evaluate student and teacher after every so many updates; 0 only at the start and at the end."""
    interim_episodes: PositiveInt = 200
    """Episodes of an evaluation in between: the first of the fixed ones."""
    n_envs: PositiveInt = 250
    """Evaluation episodes played at once; fewer where an environment needs much memory."""
    recorded: NonNegativeInt = 6
    """Tasks chosen at the start whose episodes are recorded with frames at every evaluation."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that determines a run, with its seed."""

    env: EnvConfig
    """The task."""
    description: str = ""
    """What the preset is for."""
    updates: PositiveInt = 30
    """Updates of the run."""
    max_minutes: NonNegativeFloat = 0.0
    """Stop training after this many minutes, at the end of an update; 0 never. Makes results depend on the machine."""
    checkpoint_every: PositiveInt = 5
    """Save a checkpoint to resume from after every so many updates (and at the end, and when interrupted)."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest checkpoints stay; if the newest is damaged, the one before is used."""
    keep_checkpoint_every: NonNegativeInt = 0
    """Checkpoints of every so many updates stay as well, e.g. to merge them; 0 keeps none of them."""
    limits: Limits = field(default_factory=Limits)
    """How long environments and model may take before they count as hung."""
    trackers: tuple[TrackerName, ...] = ()
    """Where metrics, configuration and summary are sent as well: wandb, trackio. Keys come from the environment."""
    threads: NonNegativeInt = 0
    """CPU threads of torch; 0 leaves torch's choice."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """The model."""
    sft: SFTSettings | None = None
    """Supervised initialisation; null starts from the model as it is."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """How much is collected per update."""
    algorithm: Literal["ppo", "grpo"] = "ppo"
    """How an update is made; the section of that name holds its options."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """PPO, with a critic or with the attempts at a hand as baseline."""
    grpo: GRPOSettings = field(default_factory=GRPOSettings)
    """GRPO: the attempts at a hand are compared, whole episodes at a time."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    """How the teacher's opinion enters."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Where the teacher comes from."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How progress is measured."""


def preset_names() -> list[str]:
    """Names of the presets that come with the package, sorted."""
    folder = resources.files("gtr_agents") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """Read a preset, by name or as a path to a YAML file.

    Raises:
        UnknownNameError: if there is no such preset or file.
        ConfigError: if the file is not a YAML mapping.
    """
    if name in preset_names():
        text = (resources.files("gtr_agents") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")) and Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise unknown_name("preset", name, preset_names())
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"Preset {name!r} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"Preset {name!r} must be a YAML mapping, got {type(values).__name__}.")
    if "base" in values:
        base = load_preset(values.pop("base"))
        return _merged(base, values)
    return values


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay nested mappings; anything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=value`` overrides; values are read as YAML.

    Raises:
        ConfigError: for an override that is not of that form.
    """
    result = dict(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"An override has the form section.option=value, got {override!r}.")
        try:
            change: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"The value in {override!r} is not valid YAML: {error}") from error
        for key in reversed(path.strip().split(".")):
            change = {key: change}
        result = _merged(result, change)
    return result


def resolve(values: Mapping[str, Any]) -> RunConfig:
    """Validate plain values as a configuration.

    Raises:
        UnknownNameError: for an option that does not exist; the nearest one is named.
        ConfigError: for a value of the wrong type or outside its choices.
    """
    _check_names(RunConfig, values, "")
    try:
        return TypeAdapter(RunConfig).validate_python(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item.get('input')!r}" for item in error.errors()
        )
        raise ConfigError(f"Invalid configuration: {problems}") from error


def load_config(preset: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Load a preset, apply ``a.b=value`` overrides and validate; errors as in the three functions above."""
    return resolve(apply_overrides(load_preset(preset), overrides))


def as_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain nested values, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def _check_names(kind: type, values: Mapping[str, Any], path: str) -> None:
    """Raise for keys that are no field of the dataclass ``kind``, going into nested sections."""
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise unknown_name("option", f"{path}{key}", [path + name for name in hints])
        section = next(
            (t for t in (hints[key], *getattr(hints[key], "__args__", ())) if dataclasses.is_dataclass(t)), None
        )
        if isinstance(section, type) and isinstance(value, Mapping):
            _check_names(section, value, f"{path}{key}.")
