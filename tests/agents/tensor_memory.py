"""Counts the memory of torch's tensors, on any device: what an allocator of a GPU would be asked for."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorMemory(TorchDispatchMode):
    """Adds up the storages that operations make while it is entered, until they are freed; views share a storage.

    What was there before is not counted, nor what a kernel needs inside. Resident memory of a process is another thing:
    it also holds libraries and freed blocks that the C library has not returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        """Bytes that are alive."""
        self.peak = 0
        """The most so far."""
        self._known: dict[int, int] = {}
        self._counting = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._counting:
            return func(*args, **(kwargs or {}))
        self._note((args, kwargs), counts=False)
        out = func(*args, **(kwargs or {}))
        self._note(out, counts=True)
        return out

    def _note(self, tree: Any, *, counts: bool) -> None:
        """Remember storages not seen before; those that an operation is given were there already."""
        for tensor in tree_leaves(tree):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            self._known[key] = storage.nbytes() if counts else 0
            self.now += self._known[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key).atexit = False

    def _freed(self, key: int) -> None:
        self.now -= self._known.pop(key)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Leave out what is made meanwhile: it would not be on the device."""
        before, self._counting = self._counting, False
        try:
            yield
        finally:
            self._counting = before

    def restart(self) -> None:
        """Look for the peak from here on."""
        self.peak = self.now
