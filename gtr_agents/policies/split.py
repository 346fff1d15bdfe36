"""A model that several processes hold in pieces while it trains, and whole while it acts (FSDP).

Splitting is torch's ``fully_shard``. While a minibatch trains, every process keeps its piece of weights, gradients and
optimizer state, and each layer is gathered for as long as it computes. Everything else needs whole weights and no
lockstep - episodes that end at different times, a teacher that takes the student's place, one process that evaluates
while the others wait - so between updates all weights are gathered, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from gtr_agents.policies.checkpointing import checkpointable_layers


class SplitModel:
    """Splits a model over the processes that are connected, and gathers it.

    Args:
        model: a transformers model, the one whose forward is called (not an adapter around it); the same in all
            processes. It is split in place and left whole.
        saved_names: what is in its state dict, or that of an adapter around it: once split, it would tell pieces.
        free_layers: True frees a layer between its forward and its backward pass, and gathers it twice.

    Raises:
        ModelError: if the model does not mark its layers.
    """

    def __init__(self, model: Any, *, saved_names: Sequence[str], free_layers: bool = True) -> None:
        self.saved_names = saved_names
        device = next(model.parameters()).device
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for part in (*reversed(checkpointable_layers(model)), model):  # what is inside first
            fully_shard(part, mesh=mesh)
        self._parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
        self._layers = [part for part in self._parts if part is not model] if free_layers else []
        for part in self._parts:
            part.set_gradient_divide_factor(1.0)  # gradients are those of a minibatch of all: a sum, no mean
            part.set_force_sum_reduction_for_comms(True)
        with torch.no_grad():  # the first pass decides which module is the root; generate() would begin with a layer
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
        self.is_whole = False
        """False while pieces are trained, and after that was interrupted: then no process has all weights."""
        self._gather()

    @contextmanager
    def in_pieces(self) -> Iterator[None]:
        """Hold pieces inside the context; all processes must enter, compute in step and leave together."""
        self.is_whole = False
        for part in self._parts:
            part.set_reshard_after_forward(part in self._layers, recurse=False)
            part.reshard()
        yield
        self._gather()  # not after an exception: the other processes may be anywhere

    def forget_pass(self) -> None:
        """Let go of what a forward pass gathered that no backward pass follows, or it would be used after a step."""
        for part in self._parts:
            part.reshard()

    def _gather(self) -> None:
        for part in self._parts:
            part.set_reshard_after_forward(False, recurse=False)  # or a process could not act by itself
            part.unshard()
        self.is_whole = True


def is_piece(tensor: torch.Tensor) -> bool:
    """True for a tensor of which this process has a piece."""
    return isinstance(tensor, DTensor)


def gathered(tree: Any, *, keep: bool) -> Any:
    """Replace all pieces in nested dicts by whole tensors on the CPU; all processes must call this.

    Args:
        tree: nested dicts with pieces.
        keep: False has None in their place, for a process that takes part for others: all together may be large.
    """
    if isinstance(tree, Mapping):
        return {key: gathered(value, keep=keep) for key, value in tree.items()}
    if not isinstance(tree, DTensor):
        return tree
    whole = tree.full_tensor()
    return whole.cpu() if keep else None


def cut_like(tree: Any, parameter: torch.Tensor) -> Any:
    """Cut whole tensors in nested dicts into the pieces of a parameter of their shape; undoes :func:`gathered`."""
    if isinstance(tree, Mapping):
        return {key: cut_like(value, parameter) for key, value in tree.items()}
    if not (isinstance(tree, torch.Tensor) and isinstance(parameter, DTensor) and tree.shape == parameter.shape):
        return tree
    # Every process has the whole tensor, so nothing is sent.
    return distribute_tensor(tree.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[torch.nn.Parameter], limit: float) -> torch.Tensor:
    """Scale gradients so that the norm of all of them, pieces and whole ones, is at most ``limit``.

    Args:
        parameters: those with gradients; others are passed over. The whole ones must be equal in all processes.
        limit: the largest norm.

    Returns:
        The norm before, 0-dimensional; not finite if a gradient is not.
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    pieces = [p for p in with_gradient if is_piece(p)]
    if not pieces:
        return torch.nn.utils.clip_grad_norm_(with_gradient, limit)
    others = [p for p in with_gradient if not is_piece(p)]
    norms = [_norm(group) for group in (pieces, others) if group]
    norm: torch.Tensor = torch.stack(norms).norm()
    for group in (pieces, others):  # torch does not scale the two kinds in one call
        torch.nn.utils.clip_grads_with_norm_(group, limit, norm)
    return norm


def _norm(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """Norm of all gradients, the same in all processes, 0-dimensional."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
