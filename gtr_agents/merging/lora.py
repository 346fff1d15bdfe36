"""LoRA adapters as task vectors, and merged task vectors as something a model can use.

An adapter's effect on a weight is ``scale * B @ A``. The factors themselves are an accident: ``(Q A, B Q^-1)`` is the
same adapter for every invertible Q, and a merge of factors depends on Q. So adapters are merged as products, one module
at a time::

    vectors = [LoraDeltas(adapter, config) for adapter, config in saved]
    delta = merge(ZeroState(vectors[0]), vectors)       # or StreamingTies(ZeroState(vectors[0]))

and the result is used as dense weights (:func:`dense_weights`), as an adapter of chosen rank
(:mod:`gtr_agents.merging.compress`), or replaced by the cheap :func:`factor_space_approximation`. Everything here works
on state dicts in the format of peft's files; peft itself is not needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.merging import merge
from gtr_agents.merging.state_dict import StateDict, add_delta, compute_dtype, task_vector

PREFIX = "base_model.model."
"""What peft writes before the name of every module."""

_FACTOR = re.compile(r"(?P<module>.+)\.(?:lora_(?P<linear>[AB])\.weight|lora_embedding_(?P<embedding>[AB]))")

REFUSED = {
    "use_dora": "DoRA rescales every row of W + scale*B*A to a learned length",
    "lora_bias": "a bias inside the adapter is added beside scale*B*A",
    "use_qalora": "QALoRA averages inputs in groups before A",
    "use_bdlora": "BD-LoRA's factors are blocks of a larger matrix",
    "alora_invocation_tokens": "activated LoRA acts on some tokens only",
    "arrow_config": "Arrow chooses among adapters for every token",
    "kasa_config": "KaSA puts learned singular values between B and A",
    "monteclora_config": "MonteCLoRA samples the factors",
    "velora_config": "VeLoRA's effect is not known to be scale*B*A",
    "target_parameters": "the factors of several experts are stacked in one tensor",
    "layer_replication": "layers of the base are repeated, so that modules are not the base's",
}
"""Setting of ``adapter_config.json`` to why an adapter with it is not ``W + scale*B*A``."""

PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base as it is; all others take the start of B*A out of the base."""


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse adapters whose effect is not ``W + scale * B @ A``.

    Args:
        config: What ``adapter_config.json`` holds.

    Raises:
        MergeError: If the adapter is of another kind; the message says why it cannot be merged.
    """
    kind = str(getattr(config.get("peft_type", "LORA"), "value", config.get("peft_type", "LORA")))
    if kind.upper() != "LORA":
        raise MergeError(
            f"expected a LoRA adapter, got {kind}: only LoRA's effect is W + scale*B*A. Merge dense weights"
        )
    for setting, reason in REFUSED.items():
        if config.get(setting):
            raise MergeError(f"adapters with {setting} cannot be merged: {reason}. Merge dense weights instead")
    init = config.get("init_lora_weights", True)
    if init not in PLAIN_INITS:
        raise MergeError(
            f"adapters with init_lora_weights={init!r} cannot be merged: they change the base weights too. Convert the "
            "adapter to plain LoRA first (peft: path_initial_model_for_weight_conversion)"
        )


def scale_of(config: Mapping[str, Any], module: str) -> float:
    """Return the factor before ``B @ A``: ``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA (arXiv 2312.03732).

    Args:
        config: What ``adapter_config.json`` holds; patterns may set r and alpha per module.
        module: Name of the module in the base model.
    """
    rank = rank_of(config, module)
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """Return the rank a module's adapter is configured with."""
    return int(_by_pattern(config.get("rank_pattern"), module, config["r"]))


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches a module's name or the end of it after a dot."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            return value
    return default


class LoraDeltas(Mapping[str, Tensor]):
    """The task vectors of an adapter by the names of the base's weights; each is computed when it is asked for.

    ``scale * B @ A`` has the shape of the stored weight: transposed for layers that store it so
    (``fan_in_fan_out``) and for embeddings. Tensors saved whole (``modules_to_save``, biases) give saved minus base.
    Computed in float32, or float64 if the factors are.

    Args:
        adapter: Tensors of ``adapter_model.safetensors``, a dict or a :class:`ShardedState`.
        config: What ``adapter_config.json`` holds.
        base: The base model; needed if tensors are saved whole, otherwise only to check shapes.

    Raises:
        MergeError: If the adapter is of a kind that cannot be merged (the reason is given), a factor is missing or does
            not have the configured rank, or tensors are saved whole and there is no base that has them.
    """

    def __init__(self, adapter: StateDict, config: Mapping[str, Any], base: StateDict | None = None) -> None:
        check_config(config)
        self._adapter = adapter
        self._config = config
        self._base = base
        self._factors: dict[str, tuple[str, str]] = {}
        self._saved: dict[str, str] = {}
        self.embeddings: set[str] = set()
        """Weights of embeddings among them."""
        for key in adapter:
            self._sort_in(key)
        for weight, (a, b) in self._factors.items():
            self._check_factors(weight, a, b)
        for weight in self._saved:
            if base is None or weight not in base:
                raise MergeError(
                    f"{weight!r} is saved whole: its task vector needs the base model's tensor of that name"
                )

    def _sort_in(self, key: str) -> None:
        name = key.removeprefix(PREFIX)
        factor = _FACTOR.fullmatch(name)
        if factor:
            weight = f"{factor['module']}.weight"
            other = key.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")
            if factor["embedding"]:
                self.embeddings.add(weight)
            if "A" in (factor["linear"], factor["embedding"]):
                self._factors[weight] = (key, other)
            elif key.replace("lora_B", "lora_A").replace("lora_embedding_B", "lora_embedding_A") not in self._adapter:
                raise MergeError(f"{key!r} has no factor A beside it; the adapter is incomplete")
        elif "lora_magnitude_vector" in name:
            raise MergeError(
                f"adapters with {key!r} cannot be merged: {REFUSED['use_dora']}. Merge dense weights instead"
            )
        elif "lora_" in name or "trainable_tokens" in name:
            raise MergeError(
                f"{key!r} is no tensor of a saved plain LoRA adapter; expected NAME.lora_A.weight and "
                "NAME.lora_B.weight as peft's save_pretrained writes them"
            )
        elif ".original_module." not in name:  # the frozen copy beside a module saved whole, which is not used
            self._saved[re.sub(r"\.(base_layer|modules_to_save)\.", ".", name)] = key

    def _check_factors(self, weight: str, a: str, b: str) -> None:
        if b not in self._adapter:
            raise MergeError(f"{a!r} has no factor B beside it; the adapter is incomplete")
        first, second = self._adapter[a], self._adapter[b]
        rank = rank_of(self._config, weight.removesuffix(".weight"))
        if first.dim() != 2 or second.dim() != 2:
            raise MergeError(f"{a!r}: expected matrices, got {first.dim()} axes; convolutions cannot be merged yet")
        if first.shape[0] != rank or second.shape[1] != rank:
            raise MergeError(
                f"{a!r}: expected rank {rank} as configured, got factors {tuple(first.shape)} and {tuple(second.shape)}"
            )

    def __getitem__(self, weight: str) -> Tensor:
        if weight not in self._factors:
            return self._saved_delta(weight)
        a, b = (self._adapter[key].detach() for key in self._factors[weight])
        dtype = compute_dtype(a)
        delta = (b.to(dtype) @ a.to(dtype)) * scale_of(self._config, weight.removesuffix(".weight"))
        if weight in self.embeddings or self._config.get("fan_in_fan_out"):
            delta = delta.T.contiguous()
        if self._base is not None:
            # A base on disk tells shapes without reading tensors.
            own = tuple(getattr(self._base, "outline", self._base.__getitem__)(weight).shape)
            if own != delta.shape:
                raise MergeError(
                    f"{weight!r}: the base has shape {own}, the adapter's product {tuple(delta.shape)}; is "
                    "fan_in_fan_out right?"
                )
        # peft saves adapted embeddings whole beside their factors; the effective weight is the sum.
        return delta + self._saved_delta(weight) if weight in self._saved else delta

    def _saved_delta(self, weight: str) -> Tensor:
        key = self._saved[weight]
        assert self._base is not None
        return task_vector(self._base[weight], self._adapter[key])

    @property
    def saved_whole(self) -> set[str]:
        """Weights that are saved whole, alone or beside factors."""
        return set(self._saved)

    def __contains__(self, weight: object) -> bool:
        return weight in self._factors or weight in self._saved

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._factors, *self._saved}))

    def __len__(self) -> int:
        return len({*self._factors, *self._saved})


class ZeroState(Mapping[str, Tensor]):
    """Zeros of given shapes, made when asked for: the base under checkpoints that are task vectors already.

    Args:
        like: Tensors whose names, shapes, types and devices are taken; each is read once.
    """

    def __init__(self, like: StateDict) -> None:
        self._like = {name: torch.empty_like(like[name], device="meta") for name in sorted(like)}
        self._devices = {name: like[name].device for name in self._like}

    def __getitem__(self, name: str) -> Tensor:
        return torch.zeros_like(self._like[name], device=self._devices[name])

    def __contains__(self, name: object) -> bool:
        return name in self._like

    def __iter__(self) -> Iterator[str]:
        return iter(self._like)

    def __len__(self) -> int:
        return len(self._like)


def dense_weights(base: StateDict, deltas: StateDict, lam: float = 1.0) -> Iterator[tuple[str, Tensor]]:
    """Give the base's tensors with the task vectors added, one after the other: exact up to the base's type.

    A bfloat16 base swallows small task vectors (a delta of 0.5 % of the weight keeps an error of a third); keep deltas
    apart or compress them where that matters.

    Args:
        base: The base model.
        deltas: Merged task vectors by name; tensors without one stay.
        lam: Their scale.

    Yields:
        Name and new tensor in the base's type.

    Raises:
        MergeError: If a task vector has no tensor in the base or another shape.
    """
    if extra := sorted(set(deltas) - set(base)):
        raise MergeError(f"the base has no tensors {extra[:3]} that task vectors are for; is it the adapters' base?")
    for name, start in base.items():
        if name not in deltas:
            yield name, start.clone()
            continue
        delta = deltas[name]
        if delta.shape != start.shape:
            raise MergeError(f"{name!r}: expected a task vector of {tuple(start.shape)}, got {tuple(delta.shape)}")
        yield name, add_delta(start, delta, lam)


def factor_space_approximation(adapters: Sequence[StateDict], **options: Any) -> dict[str, Tensor]:
    """Merge the factors A and B each for themselves: cheap, and in general *not* the merge of the adapters.

    The product of merged factors has cross terms between checkpoints, and depends on how each adapter happens to be
    factored. It is fair for checkpoints of one run that have hardly moved apart, and exact for identical ones.

    Args:
        adapters: Tensors in peft's format, of equal configuration. Tensors saved whole are refused: what is merged here
            is the tensors themselves, not differences to a base.
        **options: As for :func:`gtr_agents.merging.merge`.

    Returns:
        An adapter of the same rank, for the same configuration.

    Raises:
        MergeError: If a tensor is no factor, or the adapters do not fit together.
    """
    for adapter in adapters:
        if other := [key for key in adapter if not _FACTOR.fullmatch(key.removeprefix(PREFIX))]:
            raise MergeError(f"expected factors of plain LoRA only, got {other[0]!r}; merge task vectors instead")
    zeros = ZeroState(adapters[0]) if adapters else {}
    return merge(zeros, adapters, **options)
