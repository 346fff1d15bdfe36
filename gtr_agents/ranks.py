"""The processes of one run: what `accelerate launch` or `torchrun` starts, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gtr_agents.errors import ConfigError, DependencyError
from gtr_agents.requirements import unmet

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a process waits for another, e.g. while that one evaluates. A process that dies is noticed at once."""

KEEP_LAYERS = ("false", "shard_grad_op")
"""Values of FSDP_RESHARD_AFTER_FORWARD, of its second and its first version, that keep layers between the passes."""


class Ranks:
    """This process among those of its run. A lone process is number 0 of 1, and no call costs anything.

    Args:
        index: Number of this process, from 0; the first one leads: it alone evaluates and writes files.
        size: How many there are.
        split: True if each shall keep a piece of the model while it trains, False for a copy of it.
        free_layers: True if a layer of a split model shall be freed between its forward and its backward pass.
        zero: What DeepSpeed's ``zero_optimization`` is set to, if it shall share out Adam's work; None if not.
    """

    def __init__(
        self,
        index: int = 0,
        size: int = 1,
        *,
        split: bool = False,
        free_layers: bool = True,
        zero: Mapping[str, Any] | None = None,
    ) -> None:
        self.index = index
        self.size = size
        self.split = split
        self.free_layers = free_layers
        self.zero = zero

    @property
    def leads(self) -> bool:
        """True for the first process."""
        return self.index == 0

    @property
    def name(self) -> tuple[int, ...]:
        """What distinguishes this process's random numbers; nothing if it is alone, or first."""
        return (self.index,) if self.index else ()

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by number; all must call this. Values must be picklable."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def lead_to(self, path: Path) -> None:
        """Tell the others where the model is that all begin with; only the leader calls this."""
        self.gather(str(path))

    def wait_for_leader(self) -> Path:
        """Return where the leader's model is, as soon as it is there; only the others call this."""
        return Path(self.gather("")[0])

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part of something that all have."""
        return items[self.index :: self.size]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in all of them; one that no process has stays missing."""
        if self.size == 1:
            return
        import torch

        parameters = list(parameters)
        flags = self.gather([parameter.grad is not None for parameter in parameters])
        for parameter, *found in zip(parameters, *flags, strict=True):
            if not any(found):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)


def this_process() -> Ranks:
    """Find out which process of how many this is, and whether they split the model.

    Returns:
        A lone one, unless `accelerate launch` or `torchrun` started several; they are connected then.

    Raises:
        ConfigError: if the launcher was told to split the model in a way that training does not know.
        DependencyError: if it was told to use DeepSpeed, which is not installed or too old.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    split = _is_set("ACCELERATE_USE_FSDP")
    if split and _is_set("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError(
            "accelerate was told to keep the pieces of the model in the machine's memory (fsdp_offload_params), which "
            "training does not do. Set it to false; `gtr plan` names what else saves memory."
        )
    zero = _zero() if _is_set("ACCELERATE_USE_DEEPSPEED") else None
    import torch
    from accelerate import PartialState

    forced = _is_set("ACCELERATE_USE_CPU")
    state = PartialState(cpu=forced or not torch.cuda.is_available(), timeout=PATIENCE)
    if split:  # transformers would load the weights in the first process alone, and leave it to accelerate to send them
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    free_layers = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in KEEP_LAYERS
    return Ranks(state.process_index, state.num_processes, split=split, free_layers=free_layers, zero=zero)


def _zero() -> dict[str, Any] | None:
    """What `accelerate launch --use_deepspeed`, or its file, has DeepSpeed share out; None for nothing."""
    for item in unmet("deepspeed"):  # an older one would pass over what it does not know, and train wrongly
        raise DependencyError(f"accelerate was told to use DeepSpeed, but {item}. {item.remedy}")
    from accelerate.utils import DeepSpeedPlugin

    zero: dict[str, Any] = DeepSpeedPlugin().deepspeed_config.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage == 3:
        raise ConfigError(
            "accelerate was told to split the weights by DeepSpeed (ZeRO-3), which training does not do. FSDP splits "
            "the same: accelerate launch --use_fsdp --fsdp_version 2 --fsdp_reshard_after_forward true ..."
        )
    return zero if stage else None


def _is_set(variable: str) -> bool:
    """True if a variable of the environment, as `accelerate launch` sets it, means yes."""
    return os.environ.get(variable, "false").lower() in ("true", "1", "yes")
