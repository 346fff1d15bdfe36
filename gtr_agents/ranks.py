"""The processes of one run: what `accelerate launch` or `torchrun` starts, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gtr_agents.errors import ConfigError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a process waits for another, e.g. while that one evaluates. A process that dies is noticed at once."""

SPLITTING = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
"""What splits a model over processes, and the variable by which `accelerate launch` tells of it."""


class Ranks:
    """This process among those of its run. A lone process is number 0 of 1, and no call costs anything.

    Args:
        index: Number of this process, from 0; the first one leads: it alone evaluates and writes files.
        size: How many there are.
    """

    def __init__(self, index: int = 0, size: int = 1) -> None:
        self.index = index
        self.size = size

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
        """Add up the gradients of all processes, in all of them; a parameter without one counts as 0."""
        if self.size == 1:
            return
        import torch

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)


def this_process() -> Ranks:
    """Find out which process of how many this is.

    Returns:
        A lone one, unless `accelerate launch` or `torchrun` started several; they are connected then.

    Raises:
        ConfigError: if the launcher was told to split the model over processes.
    """
    for engine, variable in SPLITTING.items():
        if os.environ.get(variable, "false").lower() in ("true", "1", "yes"):
            raise ConfigError(
                f"accelerate was told to split the model over processes ({engine}), which training does not do: every "
                "process has a copy. Run `accelerate launch --multi_gpu ...` or choose no "
                f"{engine} in `accelerate config`; for a model that does not fit one GPU see `gtr plan`."
            )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    import torch
    from accelerate import PartialState

    forced = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    state = PartialState(cpu=forced or not torch.cuda.is_available(), timeout=PATIENCE)
    return Ranks(state.process_index, state.num_processes)
