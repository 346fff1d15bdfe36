"""``gtr merge``: real files in, a model or an adapter out, the same numbers as in memory, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import tiny_policy
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from gtr_agents import cli
from gtr_agents.commands import parse_size
from gtr_agents.errors import CheckpointError, ConfigError, GtrError, MergeError, UnknownNameError
from gtr_agents.files import publish_folder
from gtr_agents.merging import ShardedState, merge, merge_files, write_shards
from gtr_agents.merging.lora import LoraDeltas, ZeroState
from gtr_agents.merging.merge_files import REPORT, FileMerge, Recipe, layer_of
from gtr_agents.merging.mergekit_config import mergekit_yaml
from gtr_agents.merging.sources import RenamedBase
from gtr_agents.merging.state_dict import state_hash
from gtr_agents.policies.vlm import VLMPolicy

# peft asks models for it whenever it wraps one.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

Gtr = Callable[..., tuple[int, str, str]]
GOLDEN = 1e-6
TAUS = ([0.4, -0.1, 0.3, 0.0, -0.5], [0.2, 0.3, -0.6, 0.15, -0.1], [-0.9, 0.2, 0.1, -0.4, 0.05])


@pytest.fixture
def gtr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gtr]:
    """Run the command in this process, in an empty folder: (status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = 0
        try:
            cli.main(["merge", *map(str, arguments)])
        except SystemExit as ending:
            status = int(ending.code or 0)
        output = capsys.readouterr()
        return status, output.out, output.err

    yield run
    signal.signal(signal.SIGTERM, handler)


def on_a_grid(seed: int) -> dict[str, Tensor]:
    """Weights whose sums are exact in float32, so that the order of sums cannot matter."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randint(-512, 513, shape, generator=generator) / 1024

    return {
        "model.embed.weight": draw(11, 6),
        "model.layers.0.up.weight": draw(8, 6),
        "model.layers.0.up.bias": draw(8),
        "model.layers.10.up.weight": draw(8, 6),
        "model.layers.2.up.weight": draw(8, 6).double(),
        "model.scale": draw(),
        "model.steps": torch.tensor([seed]),
    }


BASE = on_a_grid(0)
CHECKPOINTS = [on_a_grid(seed) for seed in range(1, 5)]


def write(folder: Path, state: dict[str, Tensor], shard_bytes: int | None = None) -> Path:
    """A model folder: one file, or shards with an index."""
    if shard_bytes is None:
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        write_shards(folder, state.items(), shard_bytes)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A base and four checkpoints, whole and in shards."""
    base = write(tmp_path / "base", BASE)
    (base / "config.json").write_text('{"model_type": "none", "dtype": "float32", "part": {"torch_dtype": "float32"}}')
    sizes = (None, 100, 300, None)
    return base, [
        write(tmp_path / f"c{i}", state, size)
        for i, (state, size) in enumerate(zip(CHECKPOINTS, sizes, strict=True), start=1)
    ]


def golden(tmp_path: Path) -> tuple[Path, list[Path]]:
    base = write(tmp_path / "zero", {"w": torch.zeros(5)})
    return base, [write(tmp_path / f"tau{i}", {"w": torch.tensor(tau)}) for i, tau in enumerate(TAUS, start=1)]


# --- models


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": (1.0, 2.0, 1.0, 4.0), "density": 0.5, "lam": 0.5},
        {"election": "frequency"},
        {"method": "linear", "weights": (1.0, 1.0, 2.0, 4.0)},
        {"method": "dare_linear", "density": 0.5, "seed": 3},
        {"method": "dare_ties", "density": 0.5},
        {"dialect": "mergekit"},
        {"dialect": "peft", "weights": (1.0, 1.0, 1.0, 1.0)},
    ],
    ids=str,
)
def test_models_from_disk_merge_as_in_memory_bit_for_bit(
    models: tuple[Path, list[Path]], tmp_path: Path, options: dict[str, Any]
) -> None:
    base, checkpoints = models
    FileMerge(base, checkpoints, Recipe(**options), shard_bytes=300).run(tmp_path / "out")
    expected = merge(BASE, CHECKPOINTS, **{"weights": [1.0] * 4} | options)
    read = ShardedState(tmp_path / "out")
    assert {name: torch.equal(read[name], tensor) for name, tensor in expected.items()} == dict.fromkeys(BASE, True)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1


def test_two_models_interpolate_along_the_arc(models: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, checkpoints = models
    FileMerge(base, checkpoints[:2], Recipe("slerp", (1.0, 3.0))).run(tmp_path / "out")
    expected = merge(BASE, CHECKPOINTS[:2], method="slerp", weights=(1.0, 3.0))
    assert state_hash(ShardedState(tmp_path / "out")) == state_hash(expected)
    with pytest.raises(MergeError, match="two checkpoints, got 4"):
        FileMerge(base, checkpoints, Recipe("slerp"))


@pytest.mark.parametrize(("method", "density"), [("ties", 0.8), ("linear", 1.0)])
def test_sums_on_disk_give_the_same_bits_and_are_gone_on_with(
    models: tuple[Path, list[Path]], tmp_path: Path, method: str, density: float
) -> None:
    base, checkpoints = models
    recipe = Recipe(method, density=density)
    for n in (2, 4):
        job = FileMerge(base, checkpoints[:n], recipe, scratch=tmp_path / "sums")
        steps: list[int] = []
        if n == 4:  # what was added is not read again
            job._checkpoints[:2] = [Unreadable(BASE), Unreadable(BASE)]
        job.run(tmp_path / f"out{n}", steps.append)
        assert sum(steps) == job.n_steps == 6 * (n + 1)
    FileMerge(base, checkpoints, recipe).run(tmp_path / "direct")
    assert state_hash(ShardedState(tmp_path / "out4")) == state_hash(ShardedState(tmp_path / "direct"))
    with pytest.raises(MergeError, match="not part of this merge"):
        FileMerge(base, checkpoints[1:], recipe, scratch=tmp_path / "sums").run(tmp_path / "other")
    with pytest.raises(MergeError, match="saved density must be"):
        FileMerge(base, checkpoints, Recipe("ties", density=0.3), scratch=tmp_path / "sums").run(tmp_path / "other")
    assert not (tmp_path / "other").exists()


class Unreadable(dict[str, Tensor]):
    def __getitem__(self, name: str) -> Tensor:
        raise AssertionError(f"{name} was read")


def test_two_tensors_of_checkpoints_are_alive_at_most(
    models: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, checkpoints = models
    job = FileMerge(base, checkpoints)
    alive: list[weakref.ref[Tensor]] = []
    most = 0
    original = ShardedState.__getitem__

    def watched(state: ShardedState, name: str) -> Tensor:
        nonlocal most
        tensor = original(state, name)
        if state.path != base:
            alive.append(weakref.ref(tensor))
            most = max(most, sum(ref() is not None for ref in alive))
        return tensor

    monkeypatch.setattr(ShardedState, "__getitem__", watched)
    job.run(tmp_path / "out")
    assert len(alive) == 4 * 6  # every tensor of every checkpoint once
    assert most <= 2


def test_the_type_of_the_weights_can_be_chosen_and_the_configuration_says_it(
    models: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    base, checkpoints = models
    FileMerge(base, checkpoints, dtype="bfloat16").run(tmp_path / "out")
    read, exact = ShardedState(tmp_path / "out"), merge(BASE, CHECKPOINTS, weights=[1.0] * 4)
    assert {read[name].dtype for name in read} == {torch.bfloat16, torch.int64}
    assert all(torch.equal(read[name], exact[name].bfloat16()) for name in exact if exact[name].is_floating_point())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"dtype": "bfloat16", "model_type": "none", "part": {"torch_dtype": "bfloat16"}}


# --- the report


def test_the_report_has_the_golden_numbers(tmp_path: Path, gtr: Gtr) -> None:
    base, checkpoints = golden(tmp_path)
    status, out, _ = gtr(base, *checkpoints, "--out", tmp_path / "out")
    assert status == 0
    assert load_file(tmp_path / "out" / "model-00001.safetensors")["w"].tolist() == pytest.approx(
        [-0.9, 0.25, -0.6, -0.4, -0.5], abs=GOLDEN
    )
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    merged, mean = 0.81 + 0.0625 + 0.36 + 0.16 + 0.25, (0.3**2 + 0.4**2 + 0.2**2 + 0.25**2 + 0.5**2) / 9
    expected = {
        "agreement": 0.7,
        "elected_agreement": (1 / 3 + 2 / 3 + 1 / 3 + 1 / 2 + 1) / 5,
        "conflict_mass": 1.25 / 4.15,
        "coverage": 1.0,
        "norm_ratio": (merged / mean) ** 0.5,
    }
    assert report["overall"] == pytest.approx(expected, abs=GOLDEN)
    assert report["layers"] == {"w": report["overall"]}
    assert report["recipe"]["weights"] == [1.0, 1.0, 1.0]
    cells = [line.split("│")[1:-1] for line in out.splitlines() if "│ all" in line]
    assert [cell.strip() for cell in cells[0]] == ["all", "0.700", "0.301", f"{expected['norm_ratio']:.3f}", "1.000"]


@pytest.mark.parametrize(
    ("taus", "weights", "expected"),
    [
        ((0, 1), ("1", "1"), [0.30, 0.30, -0.60, 0.15, -0.50]),
        ((0, 1), ("1", "3"), [0.25, 0.30, -0.60, 0.15, -0.50]),
        ((0, 1, 2), ("0.25", "0.25", "0.5"), [-0.90, 0.7 / 3, -0.60, -0.40, -0.50]),
    ],
)
def test_golden_merges_come_out_of_the_command(
    tmp_path: Path, gtr: Gtr, taus: tuple[int, ...], weights: tuple[str, ...], expected: list[float]
) -> None:
    base, checkpoints = golden(tmp_path)
    assert gtr(base, *[checkpoints[i] for i in taus], "--out", "out", "--weights", *weights)[0] == 0
    assert load_file("out/model-00001.safetensors")["w"].tolist() == pytest.approx(expected, abs=GOLDEN)


def test_layers_are_reported_apart_and_in_their_order(models: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, checkpoints = models
    report = FileMerge(base, checkpoints).run(tmp_path / "out")
    layers = ["model", "model.embed", "model.layers.0", "model.layers.2", "model.layers.10"]
    assert list(report["layers"]) == layers
    assert report["n_tensors"] == 6
    same = FileMerge(base, [base, base]).run(tmp_path / "same")["layers"]["model.layers.0"]
    assert (same["coverage"], same["norm_ratio"]) == (0.0, 0.0)  # nothing has changed, so nothing can agree


def test_a_mean_is_as_long_as_itself(models: tuple[Path, list[Path]], tmp_path: Path) -> None:
    report = FileMerge(*models, Recipe("linear")).run(tmp_path / "out")
    assert report["overall"]["norm_ratio"] == pytest.approx(1.0, abs=GOLDEN)
    assert 0.5 < report["overall"]["agreement"] < 1.0
    assert 0.0 < report["overall"]["conflict_mass"] < 0.5


def test_the_layer_of_a_tensor_is_its_name_up_to_the_first_number() -> None:
    names = ("model.layers.3.mlp.up_proj.weight", "model.visual.blocks.10.0.bias", "lm_head.weight", "scale")
    assert [layer_of(name) for name in names] == ["model.layers.3", "model.visual.blocks.10", "lm_head", "scale"]


# --- adapters

WIDTH = 24


def tiny_llama() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=40,
                hidden_size=WIDTH,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                tie_word_embeddings=True,
                max_position_embeddings=32,
            )
        ).eval()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A tiny causal language model, and three adapters for it: two of LoRA with other ranks, one of rsLoRA."""
    root = tmp_path_factory.mktemp("adapters")
    tiny_llama().save_pretrained(root / "base")
    folders = []
    for number, settings in enumerate(
        ({"r": 4, "lora_alpha": 8}, {"r": 2, "lora_alpha": 2}, {"r": 4, "lora_alpha": 4, "use_rslora": True}), start=1
    ):
        folders.append(adapter(root / f"a{number}", number, **settings))
    return root / "base", folders


def adapter(folder: Path, seed: int, **settings: Any) -> Path:
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(tiny_llama(), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.1)
        model.save_pretrained(folder)
    return folder


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=torch.arange(12).reshape(1, -1)).logits
    return result


def deltas(folders: list[Path]) -> list[LoraDeltas]:
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in folders]
    return [LoraDeltas(ShardedState(f), config) for f, config in zip(folders, configs, strict=True)]


def test_adapters_merge_into_a_model_that_transformers_loads(
    adapters: tuple[Path, list[Path]], tmp_path: Path, gtr: Gtr
) -> None:
    base, folders = adapters
    assert gtr(base, *folders, "--out", "out", "--weights", "1", "1", "2", "--shard-size", "5KB", "--quiet")[0] == 0
    vectors = deltas(folders)
    expected = merge(ZeroState(vectors[0]), vectors, weights=(1.0, 1.0, 2.0))
    start, merged = ShardedState(base), ShardedState(tmp_path / "out")
    assert len(expected) == 4
    assert list(merged) == list(start)
    for name in start:
        wanted = start[name] + expected[name] if name in expected else start[name]
        torch.testing.assert_close(merged[name], wanted, rtol=0, atol=1e-6)
        assert torch.equal(merged[name], start[name]) == (name not in expected)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert not torch.equal(logits(loaded), logits(tiny_llama()))


def test_an_adapter_of_full_rank_acts_as_the_merged_model(
    adapters: tuple[Path, list[Path]], tmp_path: Path, gtr: Gtr
) -> None:
    base, folders = adapters
    assert gtr(base, *folders, "--out", "dense")[0] == 0
    status, out, _ = gtr(base, *folders, "--out", "adapter", "--rank", WIDTH)
    assert (status, "energy kept" in out) == (0, True)
    with torch.random.fork_rng(devices=[]):  # peft draws factors before it loads them
        peft = PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "adapter"))
    dense = LlamaForCausalLM.from_pretrained(tmp_path / "dense")
    torch.testing.assert_close(logits(peft), logits(dense), rtol=0, atol=1e-5)
    assert (logits(dense) - logits(tiny_llama())).abs().max() > 1e-3
    report = json.loads((tmp_path / "adapter" / REPORT).read_text())
    assert report["overall"]["retained_energy"] == pytest.approx(1.0, abs=1e-6)


def test_a_low_rank_tells_what_it_keeps(adapters: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, folders = adapters
    report = FileMerge(base, folders, Recipe(lam=2.0), rank=2, dtype="bfloat16").run(tmp_path / "out")
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    vectors = deltas(folders)
    merged = merge(ZeroState(vectors[0]), vectors, weights=[1.0] * 3)
    kept, whole = {}, {}
    for name, delta in merged.items():
        squares = torch.linalg.svdvals(delta.double()).square()
        kept[name], whole[name] = float(squares[:2].sum()), float(squares.sum())
        module = f"base_model.model.{name.removesuffix('.weight')}"
        product = (written[f"{module}.lora_B.weight"].double() @ written[f"{module}.lora_A.weight"].double()) / 2.0
        error = float((product - delta.double()).square().sum())
        assert error == pytest.approx(whole[name] - kept[name], rel=2e-2)  # factors in bfloat16
    assert report["retained_energy"] == pytest.approx({name: kept[name] / whole[name] for name in kept}, abs=1e-5)
    assert report["overall"]["retained_energy"] == pytest.approx(sum(kept.values()) / sum(whole.values()), abs=1e-5)
    first = [name for name in kept if ".layers.0." in name]
    expected = sum(kept[name] for name in first) / sum(whole[name] for name in first)
    assert report["layers"]["model.layers.0"]["retained_energy"] == pytest.approx(expected, abs=1e-5)
    assert expected < 0.95
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["lora_alpha"] == 2


def test_a_merged_adapter_is_loaded_without_the_initialisation_of_its_inputs(
    adapters: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    base, folders = adapters
    other = shutil.copytree(folders[0], tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text()) | {"init_lora_weights": "orthogonal"}
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    (other / "tokenizer.json").write_text("{}")
    (other / "optimizer.pt").write_bytes(b"pickled, but not the weights")
    FileMerge(base, [other], rank=1).run(tmp_path / "out")
    files = ["adapter_config.json", "adapter_model.safetensors", REPORT, "tokenizer.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (written["init_lora_weights"], written["base_model_name_or_path"]) == (True, str(base))


def test_adapters_are_summed_on_disk_too(adapters: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, folders = adapters
    FileMerge(base, folders, scratch=tmp_path / "sums").run(tmp_path / "one")
    FileMerge(base, folders).run(tmp_path / "two")
    assert state_hash(ShardedState(tmp_path / "one")) == state_hash(ShardedState(tmp_path / "two"))


def test_adapters_find_their_weights_in_files_that_name_them_otherwise(
    adapters: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    base, folders = adapters
    state = {name.replace("model.", "language_model.model.", 1): tensor for name, tensor in ShardedState(base).items()}
    renamed = write(tmp_path / "renamed", state)
    FileMerge(renamed, folders).run(tmp_path / "one")
    FileMerge(base, folders).run(tmp_path / "two")
    one, two = ShardedState(tmp_path / "one"), ShardedState(tmp_path / "two")
    assert set(one) == set(state) != set(two)
    assert all(torch.equal(one[name.replace("model.", "language_model.model.", 1)], two[name]) for name in two)


def test_a_name_that_could_mean_two_tensors_means_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", {"model.a.w": torch.zeros(1), "a.w": torch.zeros(2), "b.w": torch.zeros(3)})
    base = RenamedBase(ShardedState(folder))
    assert [base.stored(name) for name in ("a.w", "model.language_model.a.w", "model.b.w", "c.w")] == [
        "a.w",
        None,
        "b.w",
        None,
    ]
    assert ("model.b.w" in base, "c.w" in base, len(base), list(base)) == (True, False, 3, ["a.w", "b.w", "model.a.w"])


# --- our own folders


def test_runs_and_checkpoints_of_ours_are_models(tmp_path: Path, gtr: Gtr) -> None:
    tiny_policy(seed=0).save(tmp_path / "run0" / "checkpoints" / "start")
    checkpoints = tmp_path / "run1" / "checkpoints"
    publish_folder(tiny_policy(seed=1).save(checkpoints / "fresh"), checkpoints / "update-000003")
    assert gtr("run0", "run1", "run1/checkpoints/update-000003", "--out", "merged", "--density", "1")[0] == 0
    merged = VLMPolicy.from_pretrained(tmp_path / "merged")  # value head and settings come with it
    assert not any(name.startswith("net.") for name in load_file(tmp_path / "merged" / "model-00001.safetensors"))
    own, other = merged.merge_state(), tiny_policy(seed=1).merge_state()
    assert max(float((own[name] - other[name]).abs().max()) for name in own) < 1e-6
    assert not torch.equal(next(iter(own.values())), next(iter(tiny_policy(seed=0).merge_state().values())))


# --- nothing half-written


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "out")))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
def test_an_interruption_leaves_nothing(
    models: tuple[Path, list[Path]], tmp_path: Path, gtr: Gtr, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    base, checkpoints = models
    written: list[int] = []
    original = merge_files.write_shards

    def interrupted(folder: Path, tensors: Any, shard_bytes: int) -> Path:
        def some() -> Iterator[tuple[str, Tensor]]:
            for number, item in enumerate(tensors):
                if number == 3:
                    written.append(len(list(Path(folder).glob("*.safetensors"))))
                    raise error
                yield item

        return original(folder, some(), shard_bytes)

    monkeypatch.setattr(merge_files, "write_shards", interrupted)
    status, _, err = gtr(base, *checkpoints, "--out", "out", "--shard-size", "1")
    assert written == [3]  # it was in the middle
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert ("No space left" in err) == isinstance(error, OSError)
    assert leftovers(tmp_path) == []
    monkeypatch.undo()
    assert FileMerge(base, checkpoints).run(tmp_path / "out")["n_tensors"] == 6


def test_what_a_killed_merge_left_goes_with_the_next(models: tuple[Path, list[Path]], tmp_path: Path) -> None:
    (tmp_path / ".writing-out-1").mkdir()
    FileMerge(*models).run(tmp_path / "out")
    assert leftovers(tmp_path) == ["out"]


def test_a_disk_that_is_too_small_is_told_before_the_work(
    models: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(CheckpointError, match="are free there"):
        FileMerge(*models).run(tmp_path / "out")
    assert leftovers(tmp_path) == []


def test_a_folder_that_exists_is_left_alone(models: tuple[Path, list[Path]], tmp_path: Path, gtr: Gtr) -> None:
    (tmp_path / "out").mkdir()
    status, _, err = gtr(models[0], *models[1], "--out", "out")
    assert (status, "exists already" in err) == (2, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_dry_run_writes_nothing_and_tells_sizes(models: tuple[Path, list[Path]], tmp_path: Path, gtr: Gtr) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, out, _ = gtr(
        models[0], *models[1], "--out", "out", "--dry-run", "--export-mergekit", "m.yaml", "--scratch", "sums"
    )
    assert status == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "6 tensors of 219 entries" in out
    assert "merge_method: ties" in out
    plan = FileMerge(*models).plan
    assert plan.output_bytes == sum(tensor.nbytes for tensor in BASE.values())
    assert plan.largest == 66


# --- refusals


def refused(message: str, *arguments: Any, error: type[GtrError] = MergeError, **options: Any) -> None:
    with pytest.raises(error, match=message):
        FileMerge(*arguments, **options)


def test_tensors_that_do_not_fit_are_refused_before_anything_is_read(
    models: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, checkpoints = models
    fewer = write(tmp_path / "fewer", {k: v for k, v in BASE.items() if k != "model.scale"})
    wider = write(tmp_path / "wider", BASE | {"model.scale": torch.zeros(2)})
    monkeypatch.setattr(ShardedState, "__getitem__", Unreadable.__getitem__)
    refused("missing: .*model.scale", base, [*checkpoints, fewer])
    refused(r"must have shape \(\) as in the base, got \(2,\)", base, [wider])


def test_numbers_that_are_not_finite_are_refused_and_leave_nothing(
    models: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    bad = write(tmp_path / "bad", CHECKPOINTS[0] | {"model.layers.2.up.weight": torch.full((8, 6), torch.nan).double()})
    with pytest.raises(MergeError, match="holds NaN"):
        FileMerge(models[0], [models[1][0], bad]).run(tmp_path / "out")
    assert leftovers(tmp_path) == []


def test_options_that_cannot_be_are_refused(models: tuple[Path, list[Path]]) -> None:
    base, checkpoints = models
    refused("4 checkpoints, got 2 weights", base, checkpoints, Recipe(weights=(1.0, 2.0)))
    refused("at least one checkpoint", base, [])
    refused("--rank makes an adapter of adapters", base, checkpoints, rank=4)
    refused("rank must be at least 1", base, checkpoints, rank=0, error=ConfigError)
    refused("at least 1 byte", base, checkpoints, shard_bytes=0, error=ConfigError)
    refused("Unknown dtype", base, checkpoints, dtype="int8", error=UnknownNameError)
    refused("sums can be kept on disk", base, checkpoints, Recipe("dare_ties"), scratch="x")
    refused("sums can be kept on disk", base, checkpoints, Recipe(dialect="peft"), scratch="x")
    for options, message in (
        ({"method": "tiles"}, "Did you mean 'ties'"),
        ({"dialect": "ors"}, "Unknown dialect"),
        ({"density": 0.0}, "density must be"),
        ({"method": "linear", "dialect": "peft"}, "dialects differ in 'ties' only"),
        ({"dialect": "original"}, "all tensors as one vector"),
    ):
        with pytest.raises(GtrError, match=message):
            Recipe(**options)


def test_what_is_no_checkpoint_is_refused_with_the_reason(
    models: tuple[Path, list[Path]], adapters: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    base, checkpoints = models
    refused("the base does not exist: .*nowhere", tmp_path / "nowhere", checkpoints, error=CheckpointError)
    refused("checkpoint 2 does not exist", base, [checkpoints[0], "x"], error=CheckpointError)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused("checkpoint 1 is pickled.*pytorch_model.bin", base, [pickled], error=CheckpointError)
    refused("is pickled", base, [pickled / "pytorch_model.bin"], error=CheckpointError)
    refused("expected a safetensors file", base, [tmp_path / "pickled" / ".."], error=CheckpointError)
    refused("expected all checkpoints to be models or all to be adapters", base, [checkpoints[0], adapters[1][0]])
    refused("base must be a model, got an adapter", adapters[1][0], adapters[1])
    refused("has no tensors .* that the adapters change", base, adapters[1])
    (checkpoints[1] / "model-00002.safetensors").unlink()
    refused("lacks .*model-00002.safetensors.*index", base, checkpoints, error=CheckpointError)
    (checkpoints[1] / "model.safetensors.index.json").write_text("[]")
    refused("not readable as an index", base, checkpoints, error=CheckpointError)
    (base / "config.json").write_text('{"quantization_config": {}}')
    refused("the base is quantised", base, checkpoints)
    (base / "config.json").write_text("[]")
    refused("expected a JSON object, got list", base, checkpoints, error=CheckpointError)
    (base / "config.json").write_text("{")
    refused("not readable as JSON", base, checkpoints, error=CheckpointError)


def test_types_that_cannot_be_merged_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "eight", {"w": torch.zeros(2).to(torch.float8_e4m3fn)})
    refused("has type F8_E4M3.*quantised", folder, [folder], error=CheckpointError)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "DoRA rescales"),
        ({"peft_type": "LOHA"}, "expected a LoRA adapter, got LOHA"),
        ({"init_lora_weights": "pissa"}, "change the base weights too"),
    ],
)
def test_adapters_of_other_kinds_are_refused_with_the_reason(
    adapters: tuple[Path, list[Path]], tmp_path: Path, gtr: Gtr, settings: dict[str, Any], message: str
) -> None:
    base, folders = adapters
    odd = shutil.copytree(folders[0], tmp_path / "odd")
    config = json.loads((odd / "adapter_config.json").read_text())
    (odd / "adapter_config.json").write_text(json.dumps(config | settings))
    status, _, err = gtr(base, folders[1], odd, "--out", "out")
    assert (status, message in err) == (2, True), err
    assert leftovers(tmp_path) == []


def test_adapters_that_change_other_modules_are_refused(adapters: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, folders = adapters
    refused("must hold the same tensors", base, [folders[0], adapter(tmp_path / "k", 9, target_modules=["k_proj"])])
    saved = adapter(tmp_path / "saved", 9, modules_to_save=["norm"])
    refused("saved whole", base, [saved], rank=4)
    assert FileMerge(base, [saved]).run(tmp_path / "out")["n_tensors"] == 9  # "norm" is the end of five names


# --- mergekit


def exported(*arguments: Any, **options: Any) -> tuple[dict[str, Any], str]:
    text = mergekit_yaml(FileMerge(*arguments, **options))
    return yaml.safe_load(text), "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))


def test_ties_is_exported_with_all_its_numbers(models: tuple[Path, list[Path]], tmp_path: Path, gtr: Gtr) -> None:
    base, checkpoints = models
    options = ("--weights", "1", "2", "3", "4", "--density", "0.5", "--lam", "1.5", "--dtype", "bfloat16")
    assert gtr(base, *checkpoints, "--out", "out", *options, "--export-mergekit", "new/m.yaml")[0] == 0
    text = (tmp_path / "new" / "m.yaml").read_text()
    assert yaml.safe_load(text) == {
        "merge_method": "ties",
        "models": [
            {"model": str(path), "parameters": {"weight": float(n), "density": 0.5}}
            for n, path in enumerate(checkpoints, start=1)
        ],
        "base_model": str(base),
        "parameters": {"normalize": True, "lambda": 1.5},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    assert "# - Entries whose signs are undecided get the positive side, not 0." in text


def test_every_method_is_exported_as_what_comes_nearest(models: tuple[Path, list[Path]]) -> None:
    base, checkpoints = models
    linear, _ = exported(base, checkpoints, Recipe("linear"))
    assert (linear["merge_method"], "base_model" in linear) == ("linear", False)
    assert linear["models"][0]["parameters"] == {"weight": 1.0}
    scaled, _ = exported(base, checkpoints, Recipe("linear", lam=0.5))
    assert (scaled["merge_method"], scaled["parameters"]) == ("task_arithmetic", {"normalize": True, "lambda": 0.5})
    dare, notes = exported(base, checkpoints, Recipe("dare_ties", density=0.3))
    assert dare["merge_method"] == "dare_ties"
    assert dare["parameters"] == {"normalize": True, "lambda": 1.0, "rescale": True}
    assert dare["models"][0]["parameters"] == {"weight": 1.0, "density": 0.3}
    assert "another generator" in notes
    assert exported(base, checkpoints, Recipe("dare_linear"))[0]["merge_method"] == "dare_linear"
    slerp, _ = exported(base, checkpoints[:2], Recipe("slerp", (1.0, 3.0)))
    assert (slerp["merge_method"], slerp["parameters"]["nuslerp_flatten"]) == ("nuslerp", True)
    same, notes = exported(base, checkpoints, Recipe(dialect="mergekit"))
    assert (same["merge_method"], "undecided" in notes) == ("ties", False)


def test_adapters_are_exported_beside_their_base(adapters: tuple[Path, list[Path]]) -> None:
    base, folders = adapters
    document, notes = exported(base, folders, rank=2)
    assert [entry["model"] for entry in document["models"]] == [f"{base}+{folder}" for folder in folders]
    assert document["out_dtype"] == "float32"
    assert "--rank makes an adapter" in notes


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(dialect="peft"), "cannot compute the dialect 'peft'"),
        (Recipe(election="frequency"), "elect by total only"),
        (Recipe("slerp", lam=2.0), "has no scale"),
    ],
    ids=str,
)
def test_what_mergekit_does_not_have_is_not_exported(
    models: tuple[Path, list[Path]], recipe: Recipe, message: str
) -> None:
    job = FileMerge(models[0], models[1][:2], recipe)
    with pytest.raises(MergeError, match=message):
        mergekit_yaml(job)


# --- sizes


def test_sizes_are_read_in_decimal_units() -> None:
    texts = ("200", "1KB", "1.5GB", "2 m", "5T")
    assert [parse_size(text) for text in texts] == [200, 1000, 1_500_000_000, 2_000_000, 5 * 10**12]
    for text in ("", "GB", "-1GB", "1GiB", "1 2"):
        with pytest.raises(ConfigError, match="expected a size such as"):
            parse_size(text)
