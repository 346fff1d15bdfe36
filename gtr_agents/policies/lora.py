"""LoRA adapters: attach, load, and see them as dense task vectors. The only door to peft."""

from __future__ import annotations

import copy
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from gtr_agents.errors import ConfigError, MergeError, ModelError
from gtr_agents.merging.compress import FACTOR_A, FACTOR_B, Products
from gtr_agents.merging.lora import check_config
from gtr_agents.policies.families import family_of

ADAPTER = "default"
"""Name of the student's adapter."""
TEACHER = "teacher-v"
"""What the names of a teacher's adapters begin with; a number follows."""
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


def save(model: Any, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the student's adapter, and no teacher's that is beside it; from ``state`` if the model cannot tell."""
    model.save_pretrained(folder, selected_adapters=[ADAPTER], state_dict=state)


def _layers(model: Any, *, alone: bool = True) -> dict[str, Any]:
    """The adapted modules by name; ``alone`` says that nothing beside their factors may be trained.

    Raises:
        ModelError: for an adapter whose effect is not ``W + scale * B @ A``, or not that alone.
    """
    config = model.peft_config[ADAPTER].to_dict()
    try:
        check_config(config)
    except MergeError as error:
        raise ModelError(f"This adapter cannot share its base with a teacher: {error}.") from error
    others = {"bias": config.get("bias", "none") != "none"}
    others |= {name: bool(config.get(name)) for name in ("modules_to_save", "trainable_token_indices")}
    if alone and (found := [name for name, is_set in others.items() if is_set]):
        raise ModelError(
            f"An adapter with {', '.join(found)} cannot share its base with a teacher: it trains tensors beside "
            "scale*B*A, which a teacher of task vectors does not have. Leave that out, or train all weights."
        )
    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer) and ADAPTER in m.scaling}


class LiveDeltas(Mapping[str, torch.Tensor]):
    """The student's adapter as dense task vectors ``scale * B @ A``, fp32 (out, in) per module, on the CPU.

    Each is computed when it is asked for, from what the factors are then.

    Args:
        model: the adapted model.
        alone: False for a caller that looks after what is trained beside the factors.

    Raises:
        ModelError: for an adapter whose effect is not ``W + scale * B @ A``, or not that alone.
    """

    def __init__(self, model: Any, *, alone: bool = True) -> None:
        self._layers = _layers(model, alone=alone)

    @torch.no_grad()
    def __getitem__(self, name: str) -> torch.Tensor:
        delta: torch.Tensor = self._layers[name].get_delta_weight(ADAPTER).float().cpu()
        return delta

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


@contextmanager
def _student_kept(model: Any) -> Iterator[None]:
    """Let another model act on the base, in evaluation mode; who acted before comes back, with flags and modes."""
    active = model.active_adapters[0]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        # peft lets every active adapter train, whatever it was before.
        model.set_adapter(active)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


@contextmanager
def using_initial(model: Any) -> Iterator[None]:
    """Act as the base, with every adapter off."""
    with _student_kept(model), model.disable_adapter():
        yield


@contextmanager
def using_deltas(model: Any, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Act as base plus the given task vectors, with the adapter off; the base is restored from a copy, bit for bit.

    Raises:
        ModelError: for a weight that another module uses too, which the adapter would not change.
    """
    layers = _layers(model)
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for name in state:
        if uses[id(layers[name].get_base_layer().weight)] > 1:
            raise ModelError(
                f"{name} shares its weight with another module, which the teacher must not change. Leave it out of "
                "target_modules, or use a teacher in factors (teacher.form: adapter)."
            )
    backup: dict[str, torch.Tensor] = {}
    try:
        with torch.no_grad():
            for name, delta in state.items():
                weight = layers[name].get_base_layer().weight
                backup[name] = weight.detach().clone()
                weight.copy_((weight.float() + delta.to(weight.device)).to(weight.dtype))
        with using_initial(model):
            yield
    finally:
        with torch.no_grad():
            for name, weight in backup.items():
                layers[name].get_base_layer().weight.copy_(weight)


class TeacherAdapter:
    """The teacher as a second adapter beside the student's: loaded once per set of factors, then switched to.

    Every set gets a name of its own (``teacher-v1``, ``teacher-v2``, ...), because peft ignores what is added under a
    name that exists. The one before is deleted when the new one is complete; if that fails, it stays.
    """

    def __init__(self) -> None:
        self.version = 0
        """How many sets have been loaded; 0 if none is there."""
        self._source: list[tuple[torch.Tensor, int]] = []

    @contextmanager
    def using(self, model: Any, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Act as base plus the products of factors, with the student's adapter off.

        Args:
            model: the adapted model.
            state: factors of every adapted module (:attr:`gtr_agents.merging.compress.Factors.tensors`). Tensors that
                were changed in place are loaded anew.

        Raises:
            ModelError: if factors are missing, too many, or of another shape, or it is not the student who acts;
                nothing is changed then.
        """
        layers = _layers(model)
        if model.active_adapters != [ADAPTER] or next(iter(layers.values())).disable_adapters:
            raise ModelError(
                "A teacher takes the student's place: first leave the context in which another model acts."
            )
        with _student_kept(model):
            source = [(tensor, tensor._version) for _, tensor in sorted(state.items())]
            if not self._holds(source):
                self._load(model, layers, state)
                self._source = source
            model.set_adapter(f"{TEACHER}{self.version}")
            model.eval().requires_grad_(False)  # what was just loaded is neither
            yield

    def _holds(self, source: list[tuple[torch.Tensor, int]]) -> bool:
        """Compare identities and numbers of changes, not values: that costs nothing."""
        return len(source) == len(self._source) and all(
            mine is theirs and n == m for (mine, n), (theirs, m) in zip(source, self._source, strict=True)
        )

    def _load(self, model: Any, layers: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> None:
        if missing := sorted({*Products(state)} ^ {*layers}):
            raise ModelError(
                f"Expected factors of exactly the {len(layers)} adapted modules; {missing[0]!r} is on one side only. "
                "Is the teacher of a run with other target_modules?"
            )
        rank = next(iter(state[name + FACTOR_A].shape[0] for name in layers))
        config = copy.deepcopy(model.peft_config[ADAPTER])
        config.r = config.lora_alpha = rank
        config.rank_pattern, config.alpha_pattern, config.use_rslora = {}, {}, False
        config.lora_dropout, config.init_lora_weights, config.inference_mode = 0.0, True, True
        fresh = f"{TEACHER}{self.version + 1}"
        try:
            with _quiet_and_repeatable(0):  # embeddings are drawn before they are overwritten
                model.add_adapter(fresh, config, low_cpu_mem_usage=True)
            for name, layer in layers.items():
                _put_factors(layer, fresh, name, state[name + FACTOR_B], state[name + FACTOR_A])
        except BaseException:
            if fresh in model.peft_config:
                model.delete_adapter(fresh)
            raise
        old = f"{TEACHER}{self.version}"
        self.version += 1
        if old in model.peft_config:
            model.delete_adapter(old)


def _put_factors(layer: Any, adapter: str, name: str, b: torch.Tensor, a: torch.Tensor) -> None:
    """Give a new, still empty adapter of one module its factors, in the type of the student's.

    Args:
        layer: the adapted module.
        adapter: name of the new adapter.
        name: name of the module, for messages.
        b: (out, rank), for the weight as the base stores it.
        a: (rank, in).
    """
    embedding = adapter in layer.lora_embedding_A
    if embedding or getattr(layer, "fan_in_fan_out", False):  # the base stores the transpose of what peft multiplies
        b, a = a.T, b.T
    for factor, value in (("A", a), ("B", b)):
        place = getattr(layer, f"lora_embedding_{factor}" if embedding else f"lora_{factor}")
        student = place[ADAPTER] if embedding else place[ADAPTER].weight
        empty = place[adapter] if embedding else place[adapter].weight
        if empty.shape != value.shape:
            raise ModelError(
                f"{name}: expected a factor {factor} of shape {tuple(empty.shape)}, got {tuple(value.shape)}."
            )
        # A copy: the adapter must not follow changes of the state it was made from.
        tensor = torch.empty(value.shape, dtype=student.dtype, device=student.device).copy_(value)
        parameter = torch.nn.Parameter(tensor, requires_grad=False)
        if embedding:
            place[adapter] = parameter
        else:
            place[adapter].weight = parameter


def base_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """The weights below the adapter by module, the live ones; the names are those of :class:`LiveDeltas`."""
    return {name: module.get_base_layer().weight for name, module in _layers(model, alone=False).items()}


@contextmanager
def factors_off(model: Any) -> Iterator[None]:
    """Act without the LoRA factors alone; modules saved whole keep acting, and what trains is as before afterwards."""
    layers = _layers(model, alone=False).values()
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
