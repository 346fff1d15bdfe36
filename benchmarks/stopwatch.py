"""Where computing time goes: exclusive times of named functions, and the time of the bare arithmetic inside them."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Place = tuple[Any, str, str]
"""Owner, name of its function, and the label under which the function's time is counted."""


class Stopwatch:
    """Measures computing time (all threads) by label; the time of a measured callee is not its caller's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner: list[float] = []

    @contextmanager
    def part(self, label: str) -> Iterator[None]:
        """Count the block under a label."""
        self.calls[label] += 1
        begin = time.process_time()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.process_time() - begin
            self.seconds[label] += spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    @contextmanager
    def watching(self, places: Sequence[Place]) -> Iterator[None]:
        """Measure some functions while the block runs."""
        originals = [getattr(owner, name) for owner, name, _ in places]
        own = [name in vars(owner) for owner, name, _ in places]
        for (owner, name, label), original in zip(places, originals, strict=True):
            setattr(owner, name, self._measured(original, label))
        try:
            yield
        finally:
            for (owner, name, _), original, was_own in zip(places, originals, own, strict=True):
                if was_own:
                    setattr(owner, name, original)
                else:
                    delattr(owner, name)

    def _measured(self, function: Any, label: str) -> Any:
        @functools.wraps(function)  # generate() looks at the signature
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.part(label):
                return function(*args, **kwargs)

        return measured


ATEN = torch.ops.aten
ARITHMETIC = {
    ATEN.mm.default,
    ATEN.addmm.default,
    ATEN.bmm.default,
    ATEN.convolution.default,
    ATEN.convolution_backward.default,
    ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
"""Products of matrices, convolutions and attention, forward and backward."""


class BareArithmetic(TorchDispatchMode):
    """Does every product of matrices, convolution and attention once more and adds up the computing time of that.

    The second time everything lies in the cache as well as it can and nothing else is done, so the sum is a floor under
    whatever calls these operations with these shapes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation; if it is arithmetic, run it again with the clock on."""
        del types
        result = func(*args, **(kwargs or {}))
        if func in ARITHMETIC:
            begin = time.process_time()
            func(*args, **(kwargs or {}))
            self.seconds += time.process_time() - begin
            self.calls += 1
        return result
