"""The laws of a streaming merge, and the run they are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gtr_agents.merging.testing.verdicts import LawBrokenError, Trial
from gtr_agents.seeding import torch_generator

StateMerge = Callable[[Mapping[str, Tensor], Sequence[Mapping[str, Tensor]], Sequence[float]], Mapping[str, Tensor]]
"""(base, checkpoints, one weight each) to merged state dict."""


class Stream(Protocol):
    """What a streaming merge must be able to do."""

    def add(self, checkpoint: Mapping[str, Tensor], weight: float, *, decay: float = 1.0) -> Any:
        """Add one checkpoint after multiplying the weight of the earlier ones by ``decay``."""
        ...

    def merged(self) -> Mapping[str, Tensor]:
        """Return base plus merged task vector."""
        ...


@dataclass(slots=True)
class StreamTrial(Trial):
    """A streaming merge, its batch form, and the run they are tried on."""

    start: Callable[[Mapping[str, Tensor]], Stream]
    """Base to empty stream."""
    batch: StateMerge
    """The merge of all checkpoints at once that the stream must equal."""
    save: Callable[[Any, Path], Any] | None = None
    """(stream, folder) to nothing; None if it cannot be saved."""
    load: Callable[[Path, Mapping[str, Tensor]], Stream] | None = None
    """(folder, base) to stream."""

    def run(self) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Return base and six checkpoints of three tensors, float64, with entries that tie."""
        generator = torch_generator(self.seed, "stream laws")
        shapes = {"c": (3, 4), "a": (9,), "b": ()}

        def state() -> dict[str, Tensor]:
            return {n: torch.randint(-8, 9, s, generator=generator).double() / 8 for n, s in shapes.items()}

        return state(), [state() for _ in range(6)]


def _streaming_is_batch(trial: StreamTrial) -> None:
    base, checkpoints = trial.run()
    weights = [1.0, 0.5, 2.0, 0.25, 1.0, 4.0]
    stream = trial.start(base)
    for n, (checkpoint, weight) in enumerate(zip(checkpoints, weights, strict=True), start=1):
        stream.add(checkpoint, weight)
        expected = trial.batch(base, checkpoints[:n], weights[:n])
        trial.expect_states(stream.merged(), expected, f"after {n} checkpoints the stream must equal the batch merge")


def _decay_is_reweighting(trial: StreamTrial) -> None:
    base, checkpoints = trial.run()
    stream = trial.start(base)
    weights: list[float] = []
    for n, checkpoint in enumerate(checkpoints, start=1):
        stream.add(checkpoint, 0.5, decay=0.5)
        weights = [*(0.5 * w for w in weights), 0.5]
        expected = trial.batch(base, checkpoints[:n], weights)
        trial.expect_states(
            stream.merged(), expected, f"after {n} decays the stream must equal the batch with weights {weights}"
        )


def _tensors_alone(trial: StreamTrial) -> None:
    base, checkpoints = trial.run()
    whole, turned = trial.start(base), trial.start(dict(reversed(base.items())))
    alone = {name: trial.start({name: tensor}) for name, tensor in base.items()}
    for checkpoint in checkpoints:
        whole.add(checkpoint, 1.0)
        turned.add(dict(reversed(checkpoint.items())), 1.0)
        for name, stream in alone.items():
            stream.add({name: checkpoint[name]}, 1.0)
    expected = whole.merged()
    pieces = {name: stream.merged()[name] for name, stream in alone.items()}
    for what, got in (("turning the order of tensors", turned.merged()), ("streaming tensors alone", pieces)):
        if not all(torch.equal(got[name], tensor) for name, tensor in expected.items()):
            raise LawBrokenError(f"{what} must give the same bits")


def _merged_changes_nothing(trial: StreamTrial) -> None:
    base, checkpoints = trial.run()
    asked, quiet = trial.start(base), trial.start(base)
    for checkpoint in checkpoints:
        asked.add(checkpoint, 1.0)
        quiet.add(checkpoint, 1.0)
        for tensor in asked.merged().values():
            tensor.zero_()
    expected = quiet.merged()
    if not all(torch.equal(tensor, expected[name]) for name, tensor in asked.merged().items()):
        raise LawBrokenError("reading a merge, and changing what was read, must not change later merges")


def persistence(trial: StreamTrial, folder: Path) -> None:
    """The law that needs a folder: saved at any point and loaded, a stream goes on with the same bits."""
    if trial.save is None or trial.load is None:
        raise LawBrokenError("there is no way to save and load")
    base, checkpoints = trial.run()
    for n in range(1, len(checkpoints)):
        whole, first = trial.start(base), trial.start(base)
        for checkpoint in checkpoints[:n]:
            whole.add(checkpoint, 0.5, decay=0.75)
            first.add(checkpoint, 0.5, decay=0.75)
        trial.save(first, folder / str(n))
        second = trial.load(folder / str(n), base)
        for checkpoint in checkpoints[n:]:
            whole.add(checkpoint, 0.5, decay=0.75)
            second.add(checkpoint, 0.5, decay=0.75)
        got, expected = second.merged(), whole.merged()
        if not all(torch.equal(got[name], tensor) for name, tensor in expected.items()):
            raise LawBrokenError(f"saved after {n} checkpoints and loaded, the stream must go on with the same bits")


STREAM_LAWS: dict[str, Callable[[StreamTrial], None]] = {
    "streaming is batch": _streaming_is_batch,
    "decay is reweighting": _decay_is_reweighting,
    "tensors alone": _tensors_alone,
    "reading changes nothing": _merged_changes_nothing,
}
"""Name to law of :func:`judge_streaming`; persistence is judged beside them, as it needs a folder."""
