"""LoRA adapters: attach, load, and see them as dense task vectors. The only door to peft."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from gtr_agents.errors import ConfigError, ModelError
from gtr_agents.policies.families import family_of

ADAPTER = "default"
SETTINGS = ("r", "alpha", "dropout", "target_modules", "use_rslora")


def attach(model: Any, settings: Mapping[str, Any], seed: int = 0) -> Any:
    """Put a fresh LoRA adapter on a model. Its B factors are zero, so the policy starts exactly at the base model.

    Args:
        model: an image-text-to-text model.
        settings: ``r`` (default 16), ``alpha`` (2 r), ``dropout`` (0), ``target_modules`` (the family's),
            ``use_rslora``.
        seed: seed of the A factors; the global generator is restored afterwards.

    Returns:
        The adapted model; only the adapter trains.

    Raises:
        ConfigError: for an unknown setting.
    """
    if unknown := set(settings) - set(SETTINGS):
        raise ConfigError(f"Unknown LoRA setting {sorted(unknown)}; known: {', '.join(SETTINGS)}.")
    rank = int(settings.get("r", 16))
    config = LoraConfig(
        r=rank,
        lora_alpha=settings.get("alpha", 2 * rank),
        lora_dropout=settings.get("dropout", 0.0),
        target_modules=settings.get("target_modules") or family_of(model.config.model_type).lora_targets,
        use_rslora=bool(settings.get("use_rslora", False)),
    )
    with _quiet_and_repeatable(seed):
        return get_peft_model(model, config)


def is_adapted(model: Any) -> bool:
    """True if the model carries a LoRA adapter."""
    return isinstance(model, PeftModel)


def inner(model: Any) -> Any:
    """The transformers model inside an adapted one; any other model itself."""
    return model.get_base_model() if is_adapted(model) else model


def base_model_of(path: str) -> str | None:
    """Return the base model that an adapter folder names, or None if the folder holds no adapter."""
    config = Path(path) / "adapter_config.json"
    if not config.is_file():
        return None
    base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{config} does not name its base model; add base_model_name_or_path.")
    return str(base)


def load(model: Any, path: str) -> Any:
    """Load a saved adapter onto its base model, ready to go on training."""
    with _quiet_and_repeatable(0):  # random factors are made first, then overwritten
        return PeftModel.from_pretrained(model, path, is_trainable=True)


@contextmanager
def _quiet_and_repeatable(seed: int) -> Iterator[None]:
    """Let peft build an adapter: seeded without touching the global generator, silent about its own deprecations."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        torch.manual_seed(seed)
        yield


def _layers(model: Any) -> dict[str, Any]:
    """The adapted modules by name.

    Raises:
        ModelError: for an adapter whose effect is not ``W + scale * B @ A``.
    """
    config = model.peft_config[ADAPTER]
    if getattr(config, "use_dora", False):
        raise ModelError("DoRA adapters cannot be merged as task vectors: their effect is not W + scale*B*A. Use LoRA.")
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def deltas(model: Any) -> dict[str, torch.Tensor]:
    """The adapter as dense task vectors ``scale * B @ A``, fp32 (out, in) per module; on the CPU."""
    return {name: module.get_delta_weight(ADAPTER).float().cpu() for name, module in _layers(model).items()}


@contextmanager
def using_deltas(model: Any, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Act as base plus the given task vectors, with the adapter off; the base is restored from a copy, bit for bit."""
    layers = _layers(model)
    backup: dict[str, torch.Tensor] = {}
    try:
        with torch.no_grad():
            for name, delta in state.items():
                weight = layers[name].get_base_layer().weight
                backup[name] = weight.detach().clone()
                weight.copy_((weight.float() + delta.to(weight.device)).to(weight.dtype))
        with model.disable_adapter():
            yield
    finally:
        with torch.no_grad():
            for name, weight in backup.items():
                layers[name].get_base_layer().weight.copy_(weight)


def base_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights below the adapter by module, the live ones; the names are those of :func:`deltas`."""
    return {name: module.get_base_layer().weight for name, module in _layers(model).items()}


@contextmanager
def factors_off(model: Any) -> Iterator[None]:
    """Act without the LoRA factors alone; modules saved whole keep acting, and what trains is as before afterwards."""
    layers = _layers(model).values()
    were_on = {layer: not layer.disable_adapters for layer in layers}
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer, on in were_on.items():
            layer.enable_adapters(on)
        for parameter, flag in trained.items():
            parameter.requires_grad_(flag)
