"""The laws of merging hold for ours, and every one of them is seen to fail for a merge that breaks it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gtr_agents.errors import UnknownNameError
from gtr_agents.merging import StreamingLinear, StreamingTies, merge
from gtr_agents.merging.lora import LoraDeltas, ZeroState, factor_space_approximation
from gtr_agents.merging.testing import (
    LORA_LAWS,
    MERGE_LAWS,
    STREAM_LAWS,
    LawBrokenError,
    Verdict,
    check_lora,
    check_merge,
    check_streaming,
    judge_lora,
    judge_merge,
    judge_streaming,
)
from gtr_agents.merging.ties import ties_merge


def ours(vectors: Sequence[Tensor], weights: Sequence[float], density: float, **options: Any) -> Tensor:
    base = {"w": torch.zeros_like(vectors[0])} if vectors else {}
    return merge(base, [{"w": v} for v in vectors], weights=weights, density=density, **options)["w"]


def broken(verdicts: Sequence[Verdict]) -> set[str]:
    return {verdict.law for verdict in verdicts if not verdict.holds}


# --- merges


def test_our_ties_keeps_every_law() -> None:
    assert len(judge_merge(ours)) == len(MERGE_LAWS)
    check_merge(ours)
    check_merge(functools.partial(ours, dialect="ours", trim_scope="global"), seed=1)


@pytest.mark.parametrize(
    ("options", "skip"),
    [
        ({"method": "linear"}, {"neutral zero", "weighted election", "selective average"}),
        ({"election": "frequency"}, set()),
        ({"zero": "majority"}, set()),
        ({"zero": "positive"}, {"sign symmetry"}),
    ],
)
def test_other_settings_keep_all_but_the_laws_that_they_name(options: dict[str, Any], skip: set[str]) -> None:
    other = functools.partial(ours, **options)
    densities = (1.0,) if options.get("method") == "linear" else (0.3, 1.0)
    check_merge(other, densities=densities, skip=skip)
    assert broken(judge_merge(other, densities=densities)) == skip


def by_count(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """Divides by the number of agreeing vectors, as PEFT does."""
    return ours(vectors, weights, density, dialect="peft")


def forgets_weights(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    return ours(vectors, [1.0 if w else 0.0 for w in weights], density)


def shrinks_by_share(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    return ours(vectors, weights, density) * max(weights)


def squares(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    return ours(vectors, weights, density) ** 2


def prefers_the_last(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    return ours(vectors, [w * (n + 1) for n, w in enumerate(weights)], density)


def sums_up(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    return ours(vectors, weights, density) * len(vectors)


def positive_ties(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    return ours(vectors, weights, density, zero="positive")


def trims_to_nothing(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    merged = ours(vectors, weights, density)
    return merged if int(density * merged.numel()) else torch.zeros_like(merged)


def keeps_the_smallest_of_few(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    kept = [v - ours([v], [1.0], 1.0 - density) if density < 0.5 else v for v in vectors]
    return ours(kept, weights, max(density, 0.5))


def means(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    return ours(vectors, weights, density, method="linear")


def writes_into_inputs(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    merged = ours(vectors, weights, density)
    vectors[0].zero_()
    return merged


def draws_globally(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    torch.rand(1)
    return ours(vectors, weights, density)


def accepts_anything(vectors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    pairs = list(zip(vectors, weights, strict=False)) or [(torch.zeros(2).double(), 1.0)]
    return ties_merge([p[0] for p in pairs], [p[1] for p in pairs], density=density)


def always_fails(*_: Any) -> Tensor:
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("merge_", "law"),
    [
        (by_count, "idempotence"),
        (shrinks_by_share, "idempotence"),
        (sums_up, "one-hot weights"),
        (prefers_the_last, "permutation"),
        (shrinks_by_share, "weight scale"),
        (squares, "homogeneity"),
        (positive_ties, "sign symmetry"),
        (sums_up, "bound"),
        (means, "neutral zero"),
        (keeps_the_smallest_of_few, "nested trim"),
        (trims_to_nothing, "tiny vectors"),
        (forgets_weights, "linear limit"),
        (forgets_weights, "weighted election"),
        (means, "selective average"),
        (writes_into_inputs, "inputs untouched"),
        (draws_globally, "global random state"),
        (accepts_anything, "refusals"),
    ],
)
def test_every_law_of_merging_is_broken_by_a_merge_made_for_it(merge_: Callable[..., Tensor], law: str) -> None:
    with torch.random.fork_rng(devices=[]):
        verdicts = judge_merge(merge_)
    assert law in broken(verdicts)
    assert len(broken(verdicts)) < len(MERGE_LAWS)  # the suite tells merges apart


def test_the_broken_merges_cover_every_law() -> None:
    (mark,) = test_every_law_of_merging_is_broken_by_a_merge_made_for_it.pytestmark
    assert {law for _, law in mark.args[1]} == set(MERGE_LAWS)


def test_small_faults_break_only_their_law() -> None:
    with torch.random.fork_rng(devices=[]):
        assert broken(judge_merge(positive_ties)) == {"sign symmetry"}
        assert broken(judge_merge(draws_globally)) == {"global random state"}
        assert broken(judge_merge(trims_to_nothing)) >= {"tiny vectors"}
        assert broken(judge_merge(accepts_anything)) == {"refusals"}


def test_a_broken_law_is_told_with_its_case_and_an_exception_by_its_name() -> None:
    with pytest.raises(
        LawBrokenError, match=r"(?s)laws are broken.*idempotence: copies of one vector must merge to it"
    ):
        check_merge(by_count)
    verdicts = judge_merge(always_fails)
    assert broken(verdicts) == set(MERGE_LAWS) - {"refusals"}
    assert verdicts[0].message == "RuntimeError: out of order"


def test_a_law_that_does_not_exist_cannot_be_skipped() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'idempotence'"):
        check_merge(ours, skip=["idempotent"])


# --- streams


def batch(
    base: Mapping[str, Tensor], checkpoints: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    return merge(base, checkpoints, weights=weights)


def load(folder: Path, base: Mapping[str, Tensor]) -> StreamingTies:
    return StreamingTies.load(folder, base)


STORE = {"save": StreamingTies.save, "load": load}


def test_our_stream_keeps_every_law_in_memory_and_on_disk(tmp_path: Path) -> None:
    check_streaming(StreamingTies, batch, tmp_path / "memory", **STORE)
    verdicts = judge_streaming(StreamingTies, batch, tmp_path / "again", **STORE)
    assert [verdict.law for verdict in verdicts] == [*STREAM_LAWS, "persistence"]
    numbers = iter(range(10_000))

    def on_disk(base: Mapping[str, Tensor]) -> StreamingTies:
        return StreamingTies(base, folder=tmp_path / f"disk-{next(numbers)}")

    check_streaming(on_disk, batch, tmp_path / "disk", **STORE)


def test_our_linear_stream_keeps_every_law_in_memory_and_on_disk(tmp_path: Path) -> None:
    linear = functools.partial(merge, method="linear")
    numbers = iter(range(10_000))
    for start in (StreamingLinear, lambda base: StreamingLinear(base, folder=tmp_path / f"disk-{next(numbers)}")):
        check_streaming(
            start,
            lambda base, checkpoints, weights: linear(base, checkpoints, weights=weights),
            tmp_path / str(next(numbers)),
            save=StreamingLinear.save,
            load=lambda folder, base: StreamingLinear.load(folder, base),
        )
    assert "streaming is batch" in broken(judge_streaming(StreamingLinear, batch, tmp_path, skip=["persistence"]))


class Pairwise(StreamingTies):
    """Merges the newest checkpoint with the last merge, as the published port does."""

    def add(self, checkpoint: Mapping[str, Tensor], *_: Any, **_options: Any) -> None:
        previous, n = self.merged(), len(self.members)
        fresh = StreamingTies(self.base)
        if n:
            fresh.add(previous, float(n))
        fresh.add(checkpoint, 1.0)
        tensors, settings = fresh.state_dict()
        members = {f"checkpoint-{i}": 1.0 for i in range(n + 1)}
        self.load_state_dict(tensors, {**settings, "members": members})


class NoDecay(StreamingTies):
    def add(self, checkpoint: Mapping[str, Tensor], weight: float = 1.0, id: str | None = None, **_: Any) -> None:
        super().add(checkpoint, weight, id)


class GlobalTrim(StreamingTies):
    def __init__(self, base: Mapping[str, Tensor]) -> None:
        super().__init__(base, trim_scope="global")


class HandsOutItsOwn(StreamingTies):
    def merged(self, lam: float = 1.0) -> dict[str, Tensor]:
        self.kept = getattr(self, "kept", None) or super().merged(lam)
        return self.kept

    def add(self, *arguments: Any, **options: Any) -> None:
        super().add(*arguments, **options)
        self.kept = super().merged()


class Forgetful(StreamingTies):
    def load_state_dict(self, tensors: Mapping[str, Tensor], settings: dict[str, Any]) -> None:
        super().load_state_dict({name: tensor.round() for name, tensor in tensors.items()}, settings)


@pytest.mark.parametrize(
    ("stream", "law"),
    [
        (Pairwise, "streaming is batch"),
        (NoDecay, "decay is reweighting"),
        (GlobalTrim, "tensors alone"),
        (HandsOutItsOwn, "reading changes nothing"),
    ],
)
def test_every_law_of_streaming_is_broken_by_a_stream_made_for_it(
    tmp_path: Path, stream: type[StreamingTies], law: str
) -> None:
    assert law in broken(judge_streaming(stream, batch, tmp_path, skip=["persistence"]))


def test_a_stream_that_does_not_come_back_as_it_was_breaks_persistence(tmp_path: Path) -> None:
    store = STORE | {"load": lambda folder, base: Forgetful.load(folder, base)}
    assert broken(judge_streaming(StreamingTies, batch, tmp_path / "a", **store)) == {"persistence"}
    (verdict,) = [v for v in judge_streaming(StreamingTies, batch, tmp_path / "b") if not v.holds]
    assert verdict == Verdict("persistence", "there is no way to save and load")


# --- adapters


def merge_adapters(
    adapters: Sequence[Mapping[str, Tensor]], config: Mapping[str, Any], weights: Sequence[float], density: float
) -> dict[str, Tensor]:
    vectors = [LoraDeltas(adapter, config) for adapter in adapters]
    return merge(ZeroState(vectors[0]), vectors, weights=weights, density=density)


def in_factor_space(
    adapters: Sequence[Mapping[str, Tensor]], config: Mapping[str, Any], weights: Sequence[float], density: float
) -> dict[str, Tensor]:
    return dict(LoraDeltas(factor_space_approximation(adapters, weights=weights, density=density), config))


def without_scale(adapters: Any, config: Mapping[str, Any], weights: Any, density: float) -> dict[str, Tensor]:
    return merge_adapters(adapters, {**config, "lora_alpha": 2}, weights, density)


def takes_rslora_for_lora(adapters: Any, config: Mapping[str, Any], weights: Any, density: float) -> dict[str, Tensor]:
    return merge_adapters(adapters, {**config, "use_rslora": False}, weights, density)


def ignores_magnitudes(adapters: Any, config: Mapping[str, Any], weights: Any, density: float) -> dict[str, Tensor]:
    plain = [{key: t for key, t in adapter.items() if "magnitude" not in key} for adapter in adapters]
    return merge_adapters(plain, {**config, "use_dora": False}, weights, density)


def zips(adapters: Any, config: Mapping[str, Any], weights: Any, density: float) -> dict[str, Tensor]:
    pairs = list(zip(adapters, weights, strict=False))
    return merge_adapters([p[0] for p in pairs], config, [p[1] for p in pairs], density)


def weights_are_sizes(adapters: Any, config: Mapping[str, Any], weights: Any, density: float) -> dict[str, Tensor]:
    return {name: t * sum(weights) for name, t in merge_adapters(adapters, config, weights, density).items()}


def shrinks(adapters: Any, config: Mapping[str, Any], weights: Any, density: float) -> dict[str, Tensor]:
    return {name: t / len(weights) for name, t in merge_adapters(adapters, config, weights, density).items()}


def test_our_merge_of_adapters_keeps_every_law() -> None:
    assert len(judge_lora(merge_adapters)) == len(LORA_LAWS)
    check_lora(merge_adapters)


@pytest.mark.parametrize(
    ("merge_", "laws"),
    [
        (in_factor_space, {"rotation"}),
        (without_scale, {"LoRA is itself", "rsLoRA is itself", "idempotence"}),
        (takes_rslora_for_lora, {"rsLoRA is itself"}),
        (ignores_magnitudes, {"DoRA is refused"}),
        (zips, {"unequal lengths"}),
        (weights_are_sizes, {"weight scale"}),
        (shrinks, {"idempotence"}),
    ],
)
def test_every_law_of_adapters_is_broken_by_the_merge_made_for_it_and_no_other(
    merge_: Callable[..., dict[str, Tensor]], laws: set[str]
) -> None:
    assert broken(judge_lora(merge_)) == laws


def test_the_broken_merges_of_adapters_cover_every_law() -> None:
    (mark,) = test_every_law_of_adapters_is_broken_by_the_merge_made_for_it_and_no_other.pytestmark
    assert set.union(*(laws for _, laws in mark.args[1])) == set(LORA_LAWS)
