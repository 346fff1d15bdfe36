"""A teacher in factors, a teacher on disk, and the moving average: the same teachers in other clothes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gtr_agents.errors import CheckpointError, ConfigError, MergeError, UnknownNameError
from gtr_agents.merging import ShardedState, StreamingTies, merge, stores
from gtr_agents.merging.archive import SparseArchive
from gtr_agents.merging.compress import Products, is_factored
from gtr_agents.teachers import checkpoints, places
from gtr_agents.teachers.ema import EmaTeacher
from gtr_agents.teachers.merged import TeacherManager

FULL = 5  # the smaller side


def weights(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(6, 5, generator=generator).to(dtype) for name in ("layer.weight", "head.weight")}


def same(first: object, second: object) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)  # type: ignore[attr-defined,index]


def played(teacher: TeacherManager, until: int, start: int = 1) -> TeacherManager:
    if start == 1:
        teacher.start(weights(0))
    for k in range(start, until + 1):
        teacher.add(weights(k), f"update-{k}")
    return teacher


# --- in factors


def test_factors_of_full_rank_are_the_dense_teacher() -> None:
    dense, factors = played(TeacherManager(), 3), played(TeacherManager(form="adapter", rank=FULL), 3)
    assert is_factored(factors.teacher_state())
    assert not is_factored(dense.teacher_state())
    for name, tensor in Products(factors.teacher_state()).items():
        torch.testing.assert_close(tensor, dense.teacher_state()[name], rtol=0, atol=1e-5)
    metrics = factors.diagnostics()
    assert metrics["teacher/retained_energy"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["teacher/drift"] == pytest.approx(dense.diagnostics()["teacher/drift"], abs=1e-5)
    assert metrics.keys() - dense.diagnostics().keys() == {"teacher/retained_energy", "teacher/retained_energy_min"}


def test_the_retained_energy_is_told_and_a_low_one_warned_about_once() -> None:
    teacher = TeacherManager(form="adapter", rank=1, density=1.0)
    teacher.start({"a": torch.zeros(3, 3), "b": torch.zeros(3, 3)})
    assert teacher.diagnostics()["teacher/retained_energy"] == 1.0  # nothing to lose yet
    checkpoint = {"a": torch.diag(torch.tensor([4.0, 3.0, 0.0])), "b": torch.diag(torch.tensor([5.0, 0.0, 0.0]))}
    with pytest.warns(UserWarning, match=r"rank 1 keeps 0\.820 .* raise teacher\.rank"):
        teacher.add(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        teacher.add({name: 2 * tensor for name, tensor in checkpoint.items()})
    metrics = teacher.diagnostics()
    assert metrics["teacher/retained_energy"] == pytest.approx((16 + 25) / 50)
    assert metrics["teacher/retained_energy_min"] == pytest.approx(0.64)


def test_an_enough_energy_is_no_reason_to_warn() -> None:
    teacher = TeacherManager(form="adapter", rank=1, density=1.0)
    teacher.start({"a": torch.zeros(2, 2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        teacher.add({"a": torch.diag(torch.tensor([10.0, 1.0]))})


def test_full_weights_are_refused_in_factors() -> None:
    with pytest.raises(MergeError, match=r"'norm\.weight' has 1 axes; use form 'dense'"):
        TeacherManager(form="adapter").start(weights(0) | {"norm.weight": torch.ones(5)})


@pytest.mark.parametrize(
    ("options", "error"),
    [({"form": "adaptor"}, UnknownNameError), ({"accumulators": "disc"}, UnknownNameError), ({"rank": 0}, ConfigError)],
)
def test_forms_and_places_that_do_not_exist_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        TeacherManager(**options)  # type: ignore[arg-type]


# --- on disk

KINDS = {
    "ties": (TeacherManager, {}),
    "linear ema": (TeacherManager, {"method": "linear", "weights": "ema"}),
    "factors": (TeacherManager, {"form": "adapter", "rank": FULL}),
    "interval": (TeacherManager, {"merge_interval": 2}),
    "ema": (EmaTeacher, {"alpha": 0.3}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_on_disk_is_the_one_in_memory_bit_for_bit(tmp_path: Path, kind: str) -> None:
    make, options = KINDS[kind]
    memory = make(**options)
    disk = make(**options, accumulators="disk", folder=tmp_path / "live")
    for teacher in (memory, disk):
        teacher.start(weights(0, torch.bfloat16))
    for k in range(1, 5):
        for teacher in (memory, disk):
            teacher.add(weights(k, torch.bfloat16))
        assert same(disk.teacher_state(), memory.teacher_state())
        assert disk.diagnostics() == memory.diagnostics()
        assert disk.version == memory.version


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_on_disk_is_resumed_bit_for_bit(tmp_path: Path, kind: str) -> None:
    make, options = KINDS[kind]

    def fresh(name: str) -> TeacherManager:
        teacher: TeacherManager = make(**options, accumulators="disk", folder=tmp_path / name)
        return teacher

    whole, first, second = played(fresh("a"), 6), played(fresh("b"), 3), fresh("c")
    first.save(tmp_path / "saved")
    first.save(tmp_path / "saved")  # again, beside what it replaces
    second.load(tmp_path / "saved")
    assert same(second.teacher_state(), first.teacher_state())
    assert second.diagnostics() == first.diagnostics()
    played(first, 4, start=4)  # what goes on here must not move what was saved
    played(second, 6, start=4)
    assert same(second.teacher_state(), whole.teacher_state())
    assert second.diagnostics() == whole.diagnostics()
    third = fresh("d")
    third.load(tmp_path / "saved")
    assert third.n_checkpoints == 3


def test_a_checkpoint_of_files_is_links_and_old_teachers_are_deleted(tmp_path: Path) -> None:
    teacher = played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 3)
    teacher.save(tmp_path / "saved")
    saved = [path for path in (tmp_path / "saved" / "000001").rglob("*.safetensors")]
    assert len(saved) == 1 + 2 + 1  # base, sums of two tensors, teacher
    assert all(path.stat().st_nlink == 2 for path in saved)
    assert [path.name for path in (tmp_path / "live" / "teacher").iterdir()] == ["v000004"]
    assert isinstance(teacher.teacher_state(), ShardedState)


def test_where_no_link_can_be_made_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError("cross-device link")

    teacher = played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 2)
    monkeypatch.setattr(os, "link", no_link)
    teacher.save(tmp_path / "saved")
    other = TeacherManager(accumulators="disk", folder=tmp_path / "other")
    other.load(tmp_path / "saved")
    assert same(other.teacher_state(), teacher.teacher_state())


def test_no_sum_is_read_into_memory_to_be_saved_or_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 2)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(checkpoints, "load_file", refuse)
    monkeypatch.setattr(stores.FolderStore, "read", refuse)
    teacher.save(tmp_path / "saved")
    TeacherManager(accumulators="disk", folder=tmp_path / "other").load(tmp_path / "saved")


def test_without_a_folder_a_saved_teacher_is_used_where_it_lies(tmp_path: Path) -> None:
    teacher = played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 2)
    teacher.save(tmp_path / "saved")
    before = sorted(tmp_path.rglob("*"))
    reader = TeacherManager(accumulators="disk")
    with pytest.raises(ConfigError, match="needs a folder"):
        reader.start(weights(0))
    reader.load(tmp_path / "saved")
    assert same(reader.teacher_state(), teacher.teacher_state())
    assert reader.diagnostics() == teacher.diagnostics()
    with pytest.raises(ConfigError, match="needs a folder"):
        reader.add(weights(3))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_state_of_the_other_place_or_form_is_refused(tmp_path: Path) -> None:
    played(TeacherManager(), 2).save(tmp_path / "saved")
    for options in ({"accumulators": "disk", "folder": tmp_path / "live"}, {"form": "adapter"}):
        with pytest.raises(CheckpointError, match="use the same settings"):
            TeacherManager(**options).load(tmp_path / "saved")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="use the same settings"):
        EmaTeacher().load(tmp_path / "saved")


def test_a_damaged_file_of_sums_is_noticed(tmp_path: Path) -> None:
    played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 2).save(tmp_path / "saved")
    file = next((tmp_path / "saved").rglob("sums-*/*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        TeacherManager(accumulators="disk", folder=tmp_path / "other").load(tmp_path / "saved")


@pytest.mark.parametrize("write", range(6))
def test_a_failure_in_the_middle_of_an_update_leaves_the_teacher_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    teacher = played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 2)
    before = {name: tensor.clone() for name, tensor in teacher.teacher_state().items()}
    calls = 0

    def fails_once(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == write + 1:
            raise OSError("disk full")
        flush(*args)  # type: ignore[arg-type]

    def no_shards(*_: object) -> None:
        raise OSError("disk full")

    flush = stores.flush
    with monkeypatch.context() as patch:
        patch.setattr(stores, "flush", fails_once)
        if write == 5:  # the sums are complete by then, the teacher is not
            patch.setattr(places, "write_shards", no_shards)
        with pytest.raises(OSError, match="disk full"):
            teacher.add(weights(3), "update-3")
    assert same(teacher.teacher_state(), before)
    assert teacher.version == 3
    if teacher.n_checkpoints == 2:
        teacher.add(weights(3), "update-3")
    assert same(played(teacher, 4, start=4).teacher_state(), played(TeacherManager(), 4).teacher_state())


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_teacher_forms import played, weights
from gtr_agents import files
from gtr_agents.merging import stores
from gtr_agents.teachers import places
from gtr_agents.teachers.merged import TeacherManager

folder = Path(sys.argv[2])
calls = 0

def counted(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == point:
            os._exit(9)  # as abrupt as SIGKILL: nothing is cleaned up
        return function(*args, **kwargs)
    return call

stores.flush, places.write_shards = counted(stores.flush), counted(places.write_shards)
stores.map_new_file, places.shutil.rmtree = counted(stores.map_new_file), counted(places.shutil.rmtree)
for point in (3, 6, 9):  # while sums are written, when they are complete, after that
    child = os.fork()
    if child == 0:
        teacher = TeacherManager(accumulators="disk", folder=folder / str(point))
        teacher.load(folder / "saved")
        calls = 0
        teacher.add(weights(3), "update-3")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_killed_between_two_writes_leaves_the_saved_teacher_usable(tmp_path: Path) -> None:
    played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 2).save(tmp_path / "saved")
    expected = played(TeacherManager(), 4)
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    exits = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert exits == ["9", "9", "9"]
    for point in ("3", "6", "9"):
        teacher = TeacherManager(accumulators="disk", folder=tmp_path / point)
        teacher.load(tmp_path / "saved")
        assert (teacher.version, teacher.n_checkpoints) == (3, 2)
        assert same(played(teacher, 4, start=3).teacher_state(), expected.teacher_state())


def test_the_settings_of_the_sums_are_readable_by_any_tool(tmp_path: Path) -> None:
    played(TeacherManager(accumulators="disk", folder=tmp_path / "live"), 2)
    manifest = json.loads(next((tmp_path / "live" / "sums").glob("sums-*/manifest.json")).read_text())
    assert list(manifest["settings"]["members"]) == ["update-1", "update-2"]


# --- a sliding window


@pytest.mark.parametrize("scheme", ["sma", "ema"])
@pytest.mark.parametrize("method", ["ties", "linear"])
def test_a_window_is_the_merge_of_the_newest_checkpoints(tmp_path: Path, method: str, scheme: str) -> None:
    options = {"method": method, "weights": scheme, "alpha": 0.3}
    teacher = TeacherManager(**options, accumulators="disk", window=2, folder=tmp_path / "live")  # type: ignore[arg-type]
    played(teacher, 5)
    shares = [0.5, 0.5] if scheme == "sma" else [0.7, 1.0]
    expected = merge(weights(0), [weights(4), weights(5)], method=method, weights=shares)
    for name, tensor in teacher.teacher_state().items():
        # Eight bits of a logarithm: the range of these values is below 1e4, so the error of each is below 2 %.
        assert float((tensor - expected[name]).abs().max()) < 0.02 * float(weights(5)[name].abs().max() + 4)
    assert (teacher.n_checkpoints, teacher.version) == (5, 6)
    assert sorted(path.name for path in (tmp_path / "live" / "archive").iterdir()) == ["update-4", "update-5"]


def test_a_window_that_holds_all_is_the_whole_merge_of_what_was_archived(tmp_path: Path) -> None:
    wide = played(TeacherManager(accumulators="disk", window=9, folder=tmp_path / "wide"), 3)
    archive = SparseArchive(tmp_path / "wide" / "archive")
    ties = StreamingTies(weights(0))
    for k in range(1, 4):
        ties.add_vectors(archive.read(f"update-{k}"), 1.0, f"update-{k}")
    assert same(wide.teacher_state(), ties.merged())


def test_a_window_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    def fresh(name: str) -> TeacherManager:
        return TeacherManager(accumulators="disk", window=2, merge_interval=2, folder=tmp_path / name)

    whole, first, second = played(fresh("a"), 7), played(fresh("b"), 4), fresh("c")
    first.save(tmp_path / "saved")
    second.load(tmp_path / "saved")
    played(first, 6, start=5)
    played(second, 7, start=5)
    assert same(second.teacher_state(), whole.teacher_state())
    assert second.diagnostics() == whole.diagnostics()
    with pytest.raises(MergeError, match="must not count twice"):
        second.add(weights(8), "update-7")
    played(second, 8, start=8)  # nothing was lost by what was refused


def test_a_window_in_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="window must be 0, or at least 1 with accumulators on disk"):
        TeacherManager(window=3)


# --- the moving average


def test_the_moving_average_starts_at_the_base_and_moves_by_alpha() -> None:
    teacher = EmaTeacher(alpha=0.25)
    teacher.start({"w": torch.tensor([1.0, 0.0])})
    assert teacher.teacher_state()["w"].tolist() == [1.0, 0.0]
    assert (teacher.version, teacher.n_checkpoints) == (1, 0)
    teacher.add({"w": torch.tensor([5.0, 4.0])})
    assert teacher.teacher_state()["w"].tolist() == [2.0, 1.0]
    teacher.add({"w": torch.tensor([2.0, -3.0])})
    assert teacher.teacher_state()["w"].tolist() == [2.0, 0.0]
    assert (teacher.version, teacher.n_checkpoints) == (3, 2)


@pytest.mark.parametrize(("alpha", "winner"), [(0.0, 0), (1.0, 3)], ids=["stands still", "newest only"])
def test_an_extreme_moving_average(alpha: float, winner: int) -> None:
    state = played(EmaTeacher(alpha=alpha), 3).teacher_state()
    assert all(torch.allclose(tensor, weights(winner)[name], atol=1e-6) for name, tensor in state.items())


def test_many_small_steps_are_not_lost_in_sixteen_bits() -> None:
    teacher = EmaTeacher(alpha=0.001)
    teacher.start({"w": torch.ones(1, dtype=torch.bfloat16)})
    for k in range(700):
        teacher.add({"w": torch.full((1,), 2.0, dtype=torch.bfloat16)}, str(k))
    assert float(teacher.teacher_state()["w"]) == pytest.approx(2 - 0.999**700, abs=0.01)
