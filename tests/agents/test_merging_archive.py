"""Task vectors in eight bits: how small, how exact, and that what was added can be taken out again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.merging import StreamingLinear, StreamingTies, archive
from gtr_agents.merging.archive import BLOCK, LEVELS, SparseArchive, decode, encode
from gtr_agents.merging.trim import trim


def vector(seed: int, n: int = 600, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator, dtype=dtype)


def state(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {"a": vector(seed, 60, dtype).reshape(6, 10), "b": vector(seed + 100, 30, dtype)}


def zeros(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state(0, dtype).items()}


# --- the code


@settings(max_examples=60, deadline=None)
@example([3.4028234663852886e38], torch.float32)  # the largest number there is
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=0, max_size=40),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_signs_and_zeros_are_exact_and_magnitudes_within_the_bound(values: list[float], dtype: torch.dtype) -> None:
    given_ = torch.tensor(values, dtype=dtype)
    back = decode(encode(given_), given_.shape, dtype)
    assert torch.equal(back == 0, given_ == 0) or float(given_[given_ != 0].abs().min()) < 1e-37
    kept = given_ != 0
    logs = given_[kept].abs().double().log()
    if not logs.numel():
        return
    normal = kept & (given_.abs() > 1e-37)  # below that, float32 itself has few digits
    bound = math.expm1(float(logs.max() - logs.min()) / (2 * LEVELS)) + 2e-5  # of the ends, which are float32
    error = (back[normal] - given_[normal]).abs() / given_[normal].abs()
    assert torch.equal(torch.sign(back[normal]), torch.sign(given_[normal]))
    assert not error.numel() or float(error.max()) <= bound


@pytest.mark.parametrize("density", [0.05, 0.2, 0.8, 1.0])
def test_the_size_is_close_to_one_bit_and_nine_per_kept_entry(density: float, tmp_path: Path) -> None:
    trimmed = trim(vector(1, 200_000), density)
    store = SparseArchive(tmp_path)
    store.add("update-1", {"w": trimmed.reshape(400, 500)})
    bits = store.bits_per_entry()["update-1"]
    assert bits == pytest.approx(1 + 9 * density + 64 / BLOCK * density, abs=0.03)
    error = (store.read("update-1")["w"].reshape(-1) - trimmed).abs().max()
    assert float(error) < (0.05 if density == 1.0 else 0.02) * float(trimmed.abs().max())


def test_blocks_have_scales_of_their_own() -> None:
    mixed = torch.cat([torch.full((BLOCK,), 1e-6), torch.full((BLOCK,), 1e6), torch.tensor([-3.0])])
    parts = encode(mixed)
    assert parts["scales"].shape == (3, 2)
    torch.testing.assert_close(decode(parts, mixed.shape), mixed, rtol=2e-6, atol=0)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (1,), (2, 3, 4)])
def test_every_shape_comes_back(shape: tuple[int, ...]) -> None:
    given_ = torch.full(shape, -0.5)
    torch.testing.assert_close(decode(encode(given_), given_.shape), given_, rtol=1e-6, atol=0)
    nothing = torch.zeros(shape)
    assert torch.equal(decode(encode(nothing), nothing.shape), nothing)


def test_packing_what_was_unpacked_changes_it_no_more_than_by_rounding() -> None:
    once = decode(encode(vector(3)), torch.Size([600]))
    torch.testing.assert_close(decode(encode(once), once.shape), once, rtol=1e-5, atol=0)


# --- the archive


def test_what_is_read_twice_is_the_same_and_of_the_type_that_was_given(tmp_path: Path) -> None:
    store = SparseArchive(tmp_path / "archive")
    store.add("b", state(1))
    store.add("a", state(2, torch.float64))
    assert store.ids() == ["b", "a"]
    assert store.read("a")["a"].dtype == torch.float64
    assert list(store.read("b")) == ["a", "b"]
    assert len(store.read("b")) == 2
    assert all(torch.equal(store.read("b")[name], SparseArchive(store.folder).read("b")[name]) for name in ("a", "b"))
    store.remove("b")
    store.remove("b")
    assert store.ids() == ["a"]


def test_an_update_that_is_repeated_replaces_what_it_archived(tmp_path: Path) -> None:
    store = SparseArchive(tmp_path)
    for seed in (1, 2):
        store.add("x", state(seed))
    torch.testing.assert_close(store.read("x")["a"], state(2)["a"], rtol=0.05, atol=0)
    assert store.ids() == ["x"]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden"])
def test_ids_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MergeError, match="expected an id of letters"):
        SparseArchive(tmp_path).add(name, state(1))


def test_a_crash_while_archiving_shows_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = SparseArchive(tmp_path), 0

    def fails(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("disk full")
        save_file(*args)  # type: ignore[arg-type]

    save_file = archive.save_file
    monkeypatch.setattr(archive, "save_file", fails)
    with pytest.raises(OSError, match="disk full"):
        store.add("x", state(1))
    assert store.ids() == []
    store.add("x", state(1))
    assert store.ids() == ["x"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_damage_is_noticed(tmp_path: Path) -> None:
    store = SparseArchive(tmp_path)
    store.add("x", state(1))
    file = tmp_path / "x" / "00000.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(MergeError, match="SHA-256 differs"):
        store.read("x")["a"]
    with pytest.raises(MergeError, match="no archived task vectors 'y'"):
        store.read("y")


# --- adding and taking out


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5),
    st.integers(0, 4),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["ties", "linear"]),
)
def test_what_was_added_and_taken_out_was_never_there(
    weights: list[float], out: int, dtype: torch.dtype, method: str
) -> None:
    out %= len(weights)
    vectors = [{name: trim(tensor, 0.6) for name, tensor in state(k, dtype).items()} for k in range(len(weights))]

    def streamed() -> StreamingLinear | StreamingTies:
        return StreamingTies(zeros(dtype)) if method == "ties" else StreamingLinear(zeros(dtype))

    moved, never = streamed(), streamed()
    for k, weight in enumerate(weights):
        moved.add_vectors(vectors[k], weight, str(k), decay=0.5)
        never.add_vectors(vectors[k], weight if k != out else 0.0, str(k), decay=0.5)
    moved.remove(str(out), vectors[out])
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    (sums, settings_), (others, expected) = moved.state_dict(), never.state_dict()
    for name, tensor in sums.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=10 * tolerance)
        if "mass" in name:  # exactly nothing where nothing is, or residues would be divided by residues
            assert torch.equal(tensor == 0, others[name] == 0)
    assert settings_["total_weight"] == pytest.approx(expected["total_weight"])
    for name, tensor in moved.merged().items():
        assert bool(torch.isfinite(tensor).all())
        assert float(tensor.abs().max()) <= max(float(v[name].abs().max()) for v in vectors) * (1 + 1e-3)


def test_four_hundred_additions_and_removals_leave_no_trace() -> None:
    ties = StreamingTies(zeros())
    for k in range(400):
        ties.add_vectors(state(k), 1.0, str(k))
        if k >= 3:
            ties.remove(str(k - 3), state(k - 3))
    fresh = StreamingTies(zeros())
    for k in (397, 398, 399):
        fresh.add_vectors(state(k), 1.0, str(k))
    for name, tensor in ties.merged().items():
        torch.testing.assert_close(tensor, fresh.merged()[name], rtol=0, atol=1e-5)


def test_taking_all_out_leaves_exactly_the_base() -> None:
    ties = StreamingTies(zeros())
    for k in range(3):
        ties.add_vectors(state(k), 0.1 * (k + 1), str(k), decay=0.7)
    for k in range(3):
        ties.remove(str(k), state(k))
    assert all(not tensor.any() for tensor in ties.state_dict()[0].values())
    assert ties.total_weight == 0


def test_adding_sparse_vectors_is_adding_the_checkpoint() -> None:
    one, two = StreamingTies(state(9), density=0.5), StreamingTies(state(9), density=0.5)
    one.add(state(1))
    two.add_vectors(two.sparse_vectors(state(1)))
    assert all(torch.equal(tensor, two.state_dict()[0][name]) for name, tensor in one.state_dict()[0].items())


def test_what_does_not_fit_is_refused() -> None:
    ties = StreamingTies(zeros())
    ties.add_vectors(state(1), id="x")
    with pytest.raises(MergeError, match="'y' is no member of the merge: x"):
        ties.remove("y", state(1))
    with pytest.raises(MergeError, match="must hold the same tensors"):
        ties.remove("x", {"a": state(1)["a"]})
    with pytest.raises(MergeError, match="must not count twice"):
        ties.add_vectors(state(1), id="x")
    with pytest.raises(MergeError, match="must have shape"):
        ties.add_vectors({"a": torch.zeros(2), "b": torch.zeros(30)}, id="y")
    with pytest.raises(MergeError, match="NaN or infinity"):
        ties.add_vectors({"a": torch.full((6, 10), torch.nan), "b": torch.zeros(30)}, id="y")
    assert list(ties.members) == ["x"]
