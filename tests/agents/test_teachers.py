"""The merged teacher moves, has the right size and survives crashes; the checkpoint store never shows half a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gtr_agents.errors import CheckpointError, ConfigError, GtrError, MergeError, UnknownNameError
from gtr_agents.merging import merge
from gtr_agents.teachers import TEACHERS, teacher_class
from gtr_agents.teachers.base import Teacher
from gtr_agents.teachers.checkpoints import CheckpointStore
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.teachers.static import StaticTeacher

GOLDEN = 1e-6


def weights(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(6, 5, generator=generator) for name in ("layer.weight", "head.weight")}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def started(**options: object) -> TeacherManager:
    teacher = TeacherManager(**options)  # type: ignore[arg-type]
    teacher.start(weights(0))
    return teacher


# --- the moving teacher


def test_the_first_teacher_is_the_base() -> None:
    teacher = started()
    assert same(teacher.teacher_state(), weights(0))
    assert (teacher.version, teacher.n_checkpoints) == (1, 0)


def test_every_checkpoint_publishes_the_merge_of_all_so_far() -> None:
    teacher = started()
    for k in range(1, 4):
        teacher.add(weights(k))
        expected = merge(weights(0), [weights(i) for i in range(1, k + 1)])
        for name, tensor in teacher.teacher_state().items():
            assert torch.allclose(tensor, expected[name], atol=GOLDEN)
        assert (teacher.version, teacher.n_checkpoints) == (k + 1, k)


def test_a_new_checkpoint_changes_the_teacher() -> None:
    teacher = started()
    teacher.add(weights(1))
    before = teacher.teacher_state()
    kept = {name: tensor.clone() for name, tensor in before.items()}
    teacher.add(weights(2))
    assert not same(teacher.teacher_state(), kept)
    assert same(before, kept)  # what was published before is not written over


def test_identical_checkpoints_give_the_checkpoint_back_in_full_size() -> None:
    teacher = started(density=1.0)
    for n in range(4):
        teacher.add(weights(1), id=f"update-{n}")
    assert all(
        torch.allclose(tensor, weights(1)[name], atol=GOLDEN) for name, tensor in teacher.teacher_state().items()
    )
    assert teacher.diagnostics()["teacher/norm_ratio"] == pytest.approx(1.0, abs=GOLDEN)
    assert teacher.diagnostics()["teacher/drift"] == pytest.approx(1.0, abs=GOLDEN)


def test_the_exponential_teacher_is_the_merge_with_exponential_weights() -> None:
    teacher = started(weights="ema", alpha=0.3)
    for k in range(1, 5):
        teacher.add(weights(k))
    expected = merge(weights(0), [weights(k) for k in range(1, 5)], weights=[0.343, 0.147, 0.21, 0.3])
    for name, tensor in teacher.teacher_state().items():
        assert torch.allclose(tensor, expected[name], atol=1e-5)


@pytest.mark.parametrize(("alpha", "winner"), [(1.0, 3), (0.0, 1)], ids=["newest only", "first only"])
def test_an_extreme_alpha_picks_one_checkpoint(alpha: float, winner: int) -> None:
    teacher = started(weights="ema", alpha=alpha, density=1.0)
    for k in (1, 2, 3):
        teacher.add(weights(k))
    expected = weights(winner)
    assert all(torch.allclose(tensor, expected[name], atol=GOLDEN) for name, tensor in teacher.teacher_state().items())


@pytest.mark.parametrize(
    ("scheme", "shares"), [("sma", [0.25] * 4), ("ema", [0.421875, 0.140625, 0.1875, 0.25])], ids=["sma", "ema"]
)
def test_the_linear_teacher_is_the_weighted_mean(scheme: str, shares: list[float]) -> None:
    teacher = started(method="linear", weights=scheme, alpha=0.25)
    for k in range(1, 5):
        teacher.add(weights(k))
    for name, tensor in teacher.teacher_state().items():
        mean = torch.stack([share * weights(k)[name] for k, share in enumerate(shares, start=1)]).sum(0)
        assert torch.allclose(tensor, mean, atol=1e-6)


def test_with_an_interval_all_checkpoints_count_and_only_publication_waits() -> None:
    teacher, every = started(merge_interval=2), started()
    versions = []
    for k in range(1, 5):
        teacher.add(weights(k))
        every.add(weights(k))
        versions.append(teacher.version)
    assert versions == [1, 2, 2, 3]
    assert same(teacher.teacher_state(), every.teacher_state())


def test_lambda_scales_the_step_from_the_base() -> None:
    teacher = started(lam=0.0)
    teacher.add(weights(1))
    assert same(teacher.teacher_state(), weights(0))


def test_deltas_can_be_merged_onto_zeros() -> None:
    teacher = TeacherManager(density=1.0)
    teacher.start({"w": torch.zeros(2)})
    teacher.add({"w": torch.tensor([1.0, -1.0])})
    teacher.add({"w": torch.tensor([3.0, 0.0])})
    assert teacher.teacher_state()["w"].tolist() == [2.0, -1.0]


def test_drift_is_the_cosine_of_successive_task_vectors() -> None:
    teacher = TeacherManager(weights="ema", alpha=1.0, density=1.0)
    teacher.start({"w": torch.tensor([1.0, 1.0])})
    drifts = []
    for values in ([2.0, 1.0], [2.0, 2.0], [2.0, 2.0], [0.0, 0.0]):
        teacher.add({"w": torch.tensor(values)})
        drifts.append(teacher.diagnostics()["teacher/drift"])
    assert drifts == pytest.approx([0.0, 0.5**0.5, 1.0, -1.0], abs=GOLDEN)


def test_a_refused_checkpoint_leaves_teacher_and_version_as_they_were() -> None:
    teacher = started(weights="ema")
    teacher.add(weights(1), id="a")
    before, diagnostics = teacher.teacher_state(), teacher.diagnostics()
    broken = weights(2)
    broken["head.weight"][0, 0] = float("nan")
    for checkpoint, id_ in ((weights(2), "a"), (broken, "b")):
        with pytest.raises(MergeError):
            teacher.add(checkpoint, id=id_)
    assert teacher.teacher_state() is before
    assert teacher.diagnostics() == diagnostics


def test_a_restart_forgets_the_earlier_run() -> None:
    teacher = started()
    teacher.add(weights(1))
    teacher.start(weights(5))
    assert same(teacher.teacher_state(), weights(5))
    assert (teacher.version, teacher.n_checkpoints) == (1, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "tie"}, UnknownNameError, "Did you mean 'ties'"),
        ({"weights": "emma"}, UnknownNameError, "Did you mean 'ema'"),
        ({"election": "x"}, UnknownNameError, "frequency, total"),
        ({"alpha": 1.2}, ConfigError, r"alpha must be in \[0, 1\], got 1.2"),
        ({"merge_interval": 0}, ConfigError, "at least 1, got 0"),
        ({"density": 0.0}, MergeError, r"density must be in \(0, 1\]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    options: dict[str, object], error: type[GtrError], message: str
) -> None:
    with pytest.raises(error, match=message):
        TeacherManager(**options)  # type: ignore[arg-type]


def test_a_teacher_that_was_not_started_says_so(tmp_path: Path) -> None:
    teacher = TeacherManager()
    assert (teacher.version, teacher.n_checkpoints) == (0, 0)
    for call in (teacher.teacher_state, teacher.diagnostics, lambda: teacher.save(tmp_path)):
        with pytest.raises(MergeError, match=r"call start\(base\)"):
            call()


# --- saving and loading


@pytest.mark.parametrize(
    "options",
    [{}, {"weights": "ema"}, {"merge_interval": 3}, {"method": "linear"}],
    ids=["sma", "ema", "interval", "linear"],
)
def test_a_resumed_teacher_continues_bit_for_bit(tmp_path: Path, options: dict[str, object]) -> None:
    whole, first, second = started(**options), started(**options), TeacherManager(**options)  # type: ignore[arg-type]
    for k in range(1, 5):
        whole.add(weights(k))
        first.add(weights(k))
        first.save(tmp_path)
    second.load(tmp_path)
    assert same(second.teacher_state(), first.teacher_state())
    assert second.diagnostics() == first.diagnostics()
    for k in range(5, 8):
        whole.add(weights(k))
        second.add(weights(k))
    assert same(second.teacher_state(), whole.teacher_state())
    assert second.diagnostics() == whole.diagnostics()
    assert second.version == whole.version


def test_saving_again_leaves_one_state_on_disk(tmp_path: Path) -> None:
    teacher = started()
    teacher.save(tmp_path)
    teacher.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]


def test_a_teacher_merged_with_other_settings_is_refused(tmp_path: Path) -> None:
    started().save(tmp_path)
    with pytest.raises(CheckpointError, match="use the same settings"):
        TeacherManager(density=0.2).load(tmp_path)


def test_loading_a_teacher_from_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there are: none"):
        TeacherManager().load(tmp_path)


@pytest.mark.parametrize("call", ["safetensors.torch.save_file", "pathlib.Path.write_text", "pathlib.Path.rename"])
def test_a_crash_while_saving_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    teacher = started()
    teacher.add(weights(1), id="a")
    teacher.save(tmp_path)
    teacher.add(weights(2), id="b")

    def crash(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(call.replace("safetensors.torch", "gtr_agents.teachers.checkpoints"), crash)
        with pytest.raises(OSError, match="disk full"):
            teacher.save(tmp_path)
    loaded = TeacherManager()
    loaded.load(tmp_path)
    assert loaded.version == 2
    loaded.add(weights(2), id="b")
    assert same(loaded.teacher_state(), teacher.teacher_state())
    loaded.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


# --- the static teacher


def test_the_static_teacher_stays_what_it_was(tmp_path: Path) -> None:
    teacher, base = StaticTeacher(), weights(0)
    assert teacher.version == 0
    teacher.start(base)
    base["layer.weight"].add_(1.0)
    teacher.add(weights(1))
    assert same(teacher.teacher_state(), weights(0))
    teacher.save(tmp_path)
    teacher.save(tmp_path)
    loaded = StaticTeacher()
    loaded.load(tmp_path)
    assert same(loaded.teacher_state(), weights(0))
    assert loaded.diagnostics() == {"teacher/version": 1.0}


def test_a_static_teacher_that_was_not_started_says_so() -> None:
    with pytest.raises(MergeError, match=r"call start\(base\)"):
        StaticTeacher().teacher_state()


def test_every_teacher_of_the_table_can_be_built_and_played_through() -> None:
    for name in TEACHERS:
        teacher: Teacher = teacher_class(name)()
        teacher.start(weights(0))
        teacher.add(weights(1), id="a")
        assert teacher.version >= 1
        assert teacher.teacher_state().keys() == weights(0).keys()


def test_an_unknown_teacher_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"merged, oracle, static.*Did you mean 'merged'"):
        teacher_class("merge")


# --- the checkpoint store


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    path = store.save("update-1", {"policy": weights(1), "head": {"n": torch.tensor([3])}}, {"update": 1})
    assert path == tmp_path / "checkpoints" / "update-1"
    states, meta = store.load("update-1")
    assert same(states["policy"], weights(1))
    assert states["head"]["n"].tolist() == [3]
    assert meta == {"update": 1}


def test_tensors_that_share_memory_can_be_saved(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    CheckpointStore(tmp_path).save("a", {"policy": {"embed": tied, "head": tied, "view": tied.view(2, 2).T}})
    states, _ = CheckpointStore(tmp_path).load("a")
    assert states["policy"]["head"].tolist() == [0, 1, 2, 3]
    assert states["policy"]["view"].tolist() == [[0, 2], [1, 3]]


def test_checkpoints_are_listed_oldest_first_and_the_newest_is_the_default(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for name in ("b", "c", "a"):
        store.save(name, {}, {"name": name})
    assert store.ids() == ["b", "c", "a"]
    assert store.load()[1] == {"name": "a"}


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2)
    for k in range(5):
        store.save(f"update-{k}", {})
    assert store.ids() == ["update-3", "update-4"]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_names_that_are_no_plain_file_names_are_refused(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match="expected a name"):
        store.save(name, {})
    with pytest.raises(CheckpointError, match="expected a name"):
        store.save("good", {name: {}})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_id_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save("a", {})
    with pytest.raises(CheckpointError, match="'a' exists already"):
        store.save("a", {})


def test_keeping_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="at least 1"):
        CheckpointStore(tmp_path, keep_last=0)


def test_a_checkpoint_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save("a", {})
    with pytest.raises(CheckpointError, match=r"no checkpoint 'b' in .*; there are: a"):
        store.load("b")


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save("a", {"policy": weights(1)}) / "policy.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        CheckpointStore(tmp_path).load("a")


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    (CheckpointStore(tmp_path).save("a", {"policy": weights(1)}) / "policy.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is incomplete"):
        CheckpointStore(tmp_path).load("a")


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"sequence": 1})])
def test_a_broken_manifest_is_noticed(tmp_path: Path, text: str) -> None:
    (CheckpointStore(tmp_path).save("a", {}) / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match="manifest"):
        CheckpointStore(tmp_path).load("a")


def test_meta_data_json_cannot_hold_leaves_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(TypeError):
        store.save("a", {}, {"bad": object()})
    assert store.ids() == []
