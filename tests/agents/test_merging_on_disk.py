"""Merging from and in files: lazily read shards, accumulators in a folder, and crashes at every point."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gtr_agents.errors import CheckpointError, MergeError
from gtr_agents.merging import ShardedState, StreamingLinear, StreamingTies, merge, stores, write_shards
from gtr_agents.merging.shards import map_new_file
from gtr_agents.merging.state_dict import state_hash


def weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "b.weight": torch.randn(7, 3, generator=generator),
        "a.weight": torch.randn(40, generator=generator, dtype=torch.float64),
        "c.half": torch.randn(5, generator=generator).bfloat16(),
        "d.empty": torch.zeros(0, 4),
        "e.scalar": torch.tensor(float(seed)),
        "n.steps": torch.tensor([seed]),
    }


BASE = weights(0)
CHECKPOINTS = [weights(seed) for seed in range(1, 6)]


def same(first: StreamingTies, second: StreamingTies) -> bool:
    """Accumulators, settings and merged tensors are equal bit for bit."""
    (one, settings), (two, others) = first.state_dict(), second.state_dict()
    merged = state_hash(first.merged()) == state_hash(second.merged())
    return settings == others and state_hash(one) == state_hash(two) and merged


def in_memory(n: int) -> StreamingTies:
    ties = StreamingTies(BASE)
    for checkpoint in CHECKPOINTS[:n]:
        ties.add(checkpoint, 0.5, decay=0.75)
    return ties


# --- shards


def test_what_is_written_in_shards_is_read_back_one_tensor_at_a_time(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "model", BASE.items(), shard_bytes=20)
    assert len(list(folder.glob("*.safetensors"))) > 2
    read = ShardedState(folder)
    assert list(read) == sorted(BASE)
    assert len(read) == len(BASE)
    assert state_hash(read) == state_hash(BASE)
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(places) == set(BASE)
    assert all(name in load_file(folder / file) for name, file in places.items())


def test_one_file_is_a_state_too(tmp_path: Path) -> None:
    save_file(BASE, tmp_path / "adapter_model.safetensors")
    assert state_hash(ShardedState(tmp_path / "adapter_model.safetensors")) == state_hash(BASE)


def test_folders_that_make_no_state_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a safetensors file"):
        ShardedState(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        ShardedState(tmp_path / "missing.safetensors")
    save_file(BASE, tmp_path / "one.safetensors")
    save_file(BASE, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match="remove one of them"):
        ShardedState(tmp_path)
    with pytest.raises(CheckpointError, match="holds safetensors files already"):
        write_shards(tmp_path, BASE.items())


def test_a_mapped_file_is_a_safetensors_file_of_what_was_written_into_it(tmp_path: Path) -> None:
    like = {"x": torch.zeros(3, 2), "y": torch.zeros(0), "z": torch.zeros((), dtype=torch.float64)}
    tensors = map_new_file(tmp_path / "new.safetensors", like)
    assert all(not tensor.any() for tensor in tensors.values())
    tensors["x"][1, 1] = 4.0
    tensors["z"].fill_(-2.5)
    read = load_file(tmp_path / "new.safetensors")
    assert read["x"].tolist() == [[0, 0], [0, 4.0], [0, 0]]
    assert read["z"].item() == -2.5
    assert read["y"].shape == (0,)


@pytest.mark.parametrize("shard_bytes", [1, 200, 1 << 20])
def test_merging_from_shards_equals_merging_from_memory(tmp_path: Path, shard_bytes: int) -> None:
    lazy = [
        ShardedState(write_shards(tmp_path / str(i), states.items(), shard_bytes))
        for i, states in enumerate([BASE, *CHECKPOINTS])
    ]
    expected, batch = in_memory(5), merge(BASE, CHECKPOINTS)
    assert state_hash(merge(lazy[0], lazy[1:])) == state_hash(batch)
    ties = StreamingTies(lazy[0], folder=tmp_path / "sums")
    for checkpoint in lazy[1:]:
        ties.add(checkpoint, 0.5, decay=0.75)
    assert same(ties, expected)
    written = write_shards(tmp_path / "teacher", ties.merged_tensors(), shard_bytes)
    assert state_hash(ShardedState(written)) == state_hash(expected.merged())


# --- accumulators in a folder


def test_accumulators_in_a_folder_have_the_bits_of_those_in_memory_after_every_change(tmp_path: Path) -> None:
    ram, disk = StreamingTies(BASE), StreamingTies(BASE, folder=tmp_path)
    assert same(ram, disk)
    for n, checkpoint in enumerate(CHECKPOINTS):
        for ties in (ram, disk):
            ties.add(checkpoint, 1.0 / (n + 1), id=f"update-{n}")
        assert same(ram, disk)
    ram.decay(0.3)
    disk.decay(0.3)
    assert same(ram, disk)
    assert ram.diagnostics() == disk.diagnostics()
    assert ram.tensor_diagnostics() == disk.tensor_diagnostics()
    assert len([*tmp_path.iterdir()]) == 1  # older states are gone


class Watched(Mapping[str, Tensor]):
    """Makes tensors when asked and counts how many of them are alive at once."""

    def __init__(self, n: int, seed: int) -> None:
        self.names, self.seed = [f"w{i:02d}" for i in range(n)], seed
        self.alive = self.most = 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.full((4, 3), float(self.seed + self.names.index(name)))
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(tensor, self.forget)
        return tensor

    def forget(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_no_more_than_a_few_tensors_are_in_memory_at_once(tmp_path: Path, scope: str) -> None:
    base, checkpoint = Watched(20, 0), Watched(20, 1)
    ties = StreamingTies(base, trim_scope=scope, folder=tmp_path)
    ties.add(checkpoint)
    for _ in ties.merged_tensors():
        pass
    assert base.most <= 3
    assert checkpoint.most <= 2


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_a_run_continues_from_its_folder(tmp_path: Path, scope: str) -> None:
    whole = StreamingTies(BASE, 0.5, trim_scope=scope)
    for checkpoint in CHECKPOINTS:
        whole.add(checkpoint)
        StreamingTies(BASE, 0.5, trim_scope=scope, folder=tmp_path).add(checkpoint)  # a new process each time
    assert same(StreamingTies(BASE, 0.5, trim_scope=scope, folder=tmp_path), whole)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("from_disk", [False, True])
def test_save_and_load_continue_bit_for_bit(tmp_path: Path, from_disk: bool, on_disk: bool) -> None:
    ties = StreamingTies(BASE, 0.4, "frequency", min_mass=0.1, folder=tmp_path / "own" if from_disk else None)
    whole = StreamingTies(BASE, 0.4, "frequency", min_mass=0.1)
    for checkpoint in CHECKPOINTS[:3]:
        ties.add(checkpoint)
        whole.add(checkpoint)
    ties.save(tmp_path / "saved")
    loaded = StreamingTies.load(tmp_path / "saved", BASE, on_disk=on_disk)
    assert loaded.rules == ties.rules
    for checkpoint in CHECKPOINTS[3:]:
        loaded.add(checkpoint, 0.5, decay=0.5)
        whole.add(checkpoint, 0.5, decay=0.5)
    assert same(loaded, whole)
    assert same(StreamingTies.load(tmp_path / "saved", BASE), whole) == on_disk


def test_saving_again_replaces_and_saving_where_it_lives_does_nothing(tmp_path: Path) -> None:
    ties = in_memory(2)
    ties.save(tmp_path)
    ties.add(CHECKPOINTS[2], 0.5, decay=0.75)
    ties.save(tmp_path)
    disk = StreamingTies.load(tmp_path, BASE, on_disk=True)
    assert same(disk, in_memory(3))
    before = sorted(tmp_path.iterdir())
    disk.save(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_refused_checkpoint_leaves_no_trace_on_disk(tmp_path: Path) -> None:
    ties = StreamingTies(BASE, folder=tmp_path)
    ties.add(CHECKPOINTS[0], 0.5, decay=0.75)
    before = sorted(tmp_path.rglob("*"))
    bad = {**CHECKPOINTS[1], "e.scalar": torch.tensor(float("nan"))}
    with pytest.raises(MergeError, match=r"'e\.scalar' holds NaN"):
        ties.add(bad)
    assert sorted(tmp_path.rglob("*")) == before
    assert same(ties, in_memory(1))


def test_a_state_of_another_base_or_with_other_rules_is_refused(tmp_path: Path) -> None:
    in_memory(1).save(tmp_path)
    with pytest.raises(MergeError, match="saved base_hash must be"):
        StreamingTies(weights(9), folder=tmp_path)
    with pytest.raises(MergeError, match=r"saved density must be 0\.5, got 0\.8"):
        StreamingTies(BASE, 0.5, folder=tmp_path)
    with pytest.raises(MergeError, match="saved trim_scope must be 'global', got 'tensor'"):
        StreamingTies(BASE, trim_scope="global", folder=tmp_path)
    with pytest.raises(MergeError, match="found none"):
        StreamingTies.load(tmp_path / "elsewhere", BASE)


def test_a_linear_stream_has_the_hand_values_and_one_sum() -> None:
    linear = StreamingLinear({"w": torch.tensor([1.0, 2.0])})
    assert linear.merged()["w"].tolist() == [1.0, 2.0]
    linear.add({"w": torch.tensor([2.0, 2.0])})
    linear.add({"w": torch.tensor([1.0, -2.0])}, 1.5, decay=0.5)
    assert linear.merged()["w"].tolist() == [1.25, -1.0]
    assert linear.merged(lam=2.0)["w"].tolist() == [1.5, -4.0]
    assert {name: t.tolist() for name, t in linear.state_dict()[0].items()} == {"total/w": [0.5, -6.0]}


def test_a_state_of_another_method_is_refused(tmp_path: Path) -> None:
    in_memory(1).save(tmp_path / "ties")
    with pytest.raises(MergeError, match="saved method must be 'linear', got 'ties'"):
        StreamingLinear(BASE, folder=tmp_path / "ties")
    StreamingLinear(BASE).save(tmp_path / "linear")
    with pytest.raises(MergeError, match="saved method must be 'ties', got 'linear'"):
        StreamingTies.load(tmp_path / "linear", BASE)


def test_settings_from_before_there_were_more_rules_still_load() -> None:
    ties = in_memory(2)
    tensors, settings = ties.state_dict()
    old = {key: settings[key] for key in ("density", "election", "members", "total_weight", "base_hash")}
    again = StreamingTies(BASE)
    again.load_state_dict(tensors, old)
    assert same(again, ties)
    with pytest.raises(MergeError, match="saved zero must be 'positive', got 'zero'"):
        StreamingTies(BASE, zero="positive").load_state_dict(tensors, old)


def test_damaged_files_are_noticed(tmp_path: Path) -> None:
    ties = in_memory(1)
    ties.save(tmp_path)
    (state,) = tmp_path.iterdir()
    path = state / "00001.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(MergeError, match="SHA-256 differs"):
        StreamingTies.load(tmp_path, BASE)
    path.unlink()
    with pytest.raises(MergeError, match="missing"):
        StreamingTies.load(tmp_path, BASE)
    path.write_bytes(good)
    for text in ("{", "[]"):
        (state / "manifest.json").write_text(text)
        with pytest.raises(MergeError, match=r"manifest\.json"):
            StreamingTies.load(tmp_path, BASE)


# --- crashes


class Killed(BaseException):
    """Stands for the process's end: nothing catches it, and nothing of ours may run after it."""


CUTS = [
    (name, call) for name, calls in (("flush", 8), ("sha256", 5), ("map_new_file", 5)) for call in range(1, calls + 1)
]


@pytest.mark.parametrize(("name", "call"), CUTS)
@pytest.mark.parametrize("tidy", [True, False])
def test_a_crash_at_any_point_of_an_update_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int, tidy: bool
) -> None:
    ties = StreamingTies(BASE, folder=tmp_path)
    ties.add(CHECKPOINTS[0], 0.5, decay=0.75, id="checkpoint-1")
    real, calls = getattr(stores, name), 0

    def dying(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stores, name, dying)
        if not tidy:  # a killed process does not clean up
            patch.setattr(stores.shutil, "rmtree", lambda *_: None)
        with pytest.raises(Killed):
            ties.add(CHECKPOINTS[1], 0.5, decay=0.75, id="checkpoint-2")
    again = StreamingTies(BASE, folder=tmp_path)
    if "checkpoint-2" in again.members:  # only after the rename
        assert (name, call) == ("flush", 8)
        with pytest.raises(MergeError, match="must not count twice"):
            again.add(CHECKPOINTS[1], 0.5, decay=0.75, id="checkpoint-2")
    else:
        assert same(again, in_memory(1))
        again.add(CHECKPOINTS[1], 0.5, decay=0.75, id="checkpoint-2")
    assert same(again, in_memory(2))
    again.add(CHECKPOINTS[2], 0.5, decay=0.75)
    assert same(StreamingTies(BASE, folder=tmp_path), in_memory(3))
    assert len([*tmp_path.iterdir()]) == 1
