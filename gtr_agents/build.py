"""From a configuration to objects; the one place that knows every name."""

from __future__ import annotations

from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gtr_agents.algorithms import algorithm_class
from gtr_agents.algorithms.base import MakeEnv, check_guidance, text_env_maker
from gtr_agents.config import RunConfig
from gtr_agents.errors import ConfigError
from gtr_agents.evaluation import Evaluator, episode_seeds
from gtr_agents.guidance import guidance_class
from gtr_agents.policies.loading import check_quantization, set_image_options
from gtr_agents.policies.tiny import build_tiny_vlm
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.seeding import child_seed
from gtr_agents.teachers import TEACHERS, THINKERS, teacher_class

if TYPE_CHECKING:
    from gtr_agents.algorithms.policy_gradient import PolicyGradient
    from gtr_agents.guidance.base import Guidance
    from gtr_agents.ranks import Ranks
    from gtr_agents.teachers.base import Teacher, Thinker
    from gtr_agents.watchdog import Watchdog


def build_policy(config: RunConfig, seed: int, model: str | Path | None = None) -> VLMPolicy:
    """Build the policy of a run.

    Args:
        config: the run's configuration.
        seed: the run's seed; decides the random weights of a tiny model and of a new value head.
        model: a folder or hub id that replaces ``policy.model``, e.g. a start made by ``gtr sft``.

    Returns:
        The policy.
    """
    p = config.policy
    options: dict[str, Any] = {
        "template": p.template,
        "temperature": p.temperature,
        "max_new_tokens": p.max_new_tokens,
        "value_widths": p.value_widths,
        "value_stop_gradient": p.value_stop_gradient,
        "cache_inputs": p.cache_inputs,
        "reuse_image_features": p.reuse_image_features,
        "gradient_checkpointing": p.gradient_checkpointing,
        "seed": child_seed(seed, "value head"),
    }
    source = str(model or p.model)
    if source == "tiny":
        env = text_env_maker(config.env.id, config.env.kwargs)()
        vocabulary = getattr(env.unwrapped, "vocabulary", ())
        env.close()
        tiny, processor = build_tiny_vlm(p.template, vocabulary=vocabulary, seed=child_seed(seed, "model"), **p.tiny)
        set_image_options(processor, p.image_processor)
        return VLMPolicy(tiny, processor, **options)
    options |= {"quantization": p.quantization, "image_processor": p.image_processor}
    policy = VLMPolicy.from_pretrained(source, lora=p.lora, dtype=p.dtype, **options)
    if p.engine == "vllm":
        from gtr_agents.integrations.vllm import VLLMEngine

        policy.engine = VLLMEngine(p.model, rank=int((p.lora or {}).get("r", 8)), memory=p.engine_memory)
    return policy


def build_guidance(config: RunConfig) -> Guidance | None:
    """Build the guidance, None for plain PPO."""
    name = config.guidance.name
    if name == "none":
        return None
    kind = guidance_class(name)
    return kind(**_options_of(kind, config.guidance))


def build_teacher(config: RunConfig, folder: Path | None = None) -> Teacher:
    """Build the teacher whose weights are kept.

    A run whose guidance does not ask it has one too: its merged checkpoints are evaluated beside the student, so that
    methods can be compared, but it influences nothing.

    Args:
        config: the run's configuration; options that its teacher does not know are left aside.
        folder: where accumulators on disk live; without one, a saved teacher can be loaded, but not added to.

    Returns:
        The teacher.
    """
    name = config.teacher.name
    kind = teacher_class(name if name in TEACHERS else "merged")
    return cast("Teacher", kind(**_options_of(kind, config.teacher, folder=folder)))


def build_thinker(config: RunConfig) -> Thinker | None:
    """Build the teacher that writes thoughts without weights of ours; None if the configuration names another kind."""
    if config.teacher.name not in THINKERS or config.guidance.name == "none":
        return None
    kind = teacher_class(config.teacher.name)
    options = {"settings": config.teacher.external} if config.teacher.name == "external" else {}
    return cast("Thinker", kind(**options))


def _options_of(kind: type[Any], section: Any, **further: Any) -> dict[str, Any]:
    """The options of a section that a class takes; the others belong to its alternatives."""
    options = asdict(section) | further
    return {name: value for name, value in options.items() if name in signature(kind).parameters}


def training_env(config: RunConfig) -> MakeEnv:
    """Return the maker of training environments; the hands of the evaluation are never dealt in them."""
    kwargs = config.env.kwargs | config.env.train
    hands = held_out_hands(config) if config.evaluation.hold_out else []
    if hands:
        kwargs = kwargs | {"holdout": hands}
    return text_env_maker(config.env.id, kwargs)


def held_out_hands(config: RunConfig) -> list[tuple[int, ...]]:
    """The hands of the evaluation episodes, as ranks in table order.

    Returns:
        Distinct hands in ascending order; empty for an environment without cards.
    """
    from gtr_envs.cards.deck import parse_card

    env = text_env_maker(config.env.id, config.env.kwargs | config.env.evaluation)()
    hands: set[tuple[int, ...]] = set()
    for seed in episode_seeds(config.evaluation.split, config.evaluation.episodes):
        _, info = env.reset(seed=seed)
        if "cards" not in info:
            break
        hands.add(tuple(parse_card(card).rank for card in info["cards"]))
    env.close()
    return sorted(hands)


def build_evaluator(config: RunConfig, env_id: str | None = None, watchdog: Watchdog | None = None) -> Evaluator:
    """Build the evaluation on the configuration's fixed episodes; ``env_id`` replaces its environment."""
    return Evaluator(
        env_id or config.env.id,
        episodes=config.evaluation.episodes,
        env_kwargs=config.env.kwargs | config.env.evaluation,
        split=config.evaluation.split,
        n_envs=config.evaluation.n_envs,
        watchdog=watchdog,
    )


def check_memory(config: RunConfig) -> None:
    """Raise if the form of the base model's weights does not fit the machine, the model or the teacher.

    Raises:
        ConfigError: for 4 bits with the tiny model, without an adapter, without CUDA, or with a teacher that is no
            adapter.
        DependencyError: for 4 bits without bitsandbytes.
    """
    p, t = config.policy, config.teacher
    check_quantization(p.quantization, adapted=p.lora is not None)
    if p.quantization == "none":
        return
    if p.model == "tiny":
        raise ConfigError("policy.quantization: 4bit is for models that are loaded, and policy.model is tiny.")
    if t.name in TEACHERS and (t.name, t.form) != ("merged", "adapter"):
        raise ConfigError(
            f"policy.quantization: 4bit has no dense weights that a teacher could be written into, but teacher.name is "
            f"{t.name} and teacher.form {t.form}. Set teacher.name to merged and teacher.form to adapter."
        )


def check_parts(config: RunConfig) -> str | None:
    """Raise or tell now what would otherwise be found after a long supervised start.

    Returns:
        A warning, or None.

    Raises:
        GtrError: if a part of the configuration cannot be built, or guidance and teacher do not fit.
    """
    if config.policy.engine == "vllm":
        if config.policy.lora is None:
            raise ConfigError("policy.engine: vllm swaps LoRA adapters, but all weights are trained. Set policy.lora.")
        if config.policy.model == "tiny":
            raise ConfigError("policy.engine: vllm cannot serve the tiny model. Set policy.engine to transformers.")
    check_memory(config)
    guidance, thinker = build_guidance(config), build_thinker(config)
    check_guidance(guidance, build_teacher(config), thinker)
    algorithm_class(config.algorithm).check(getattr(config, config.algorithm), config.rollout, guidance)
    return None if thinker is None else thinker.check()


def build_algorithm(
    config: RunConfig,
    policy: VLMPolicy,
    seed: int,
    folder: Path | None = None,
    watchdog: Watchdog | None = None,
    ranks: Ranks | None = None,
) -> PolicyGradient:
    """Build the algorithm with guidance, teacher (its accumulators in ``folder``) and training environment."""
    return algorithm_class(config.algorithm)(
        policy,
        training_env(config),
        settings=getattr(config, config.algorithm),
        rollout=config.rollout,
        guidance=build_guidance(config),
        teacher=build_teacher(config, folder),
        thinker=build_thinker(config),
        seed=seed,
        watchdog=watchdog,
        ranks=ranks,
    )
