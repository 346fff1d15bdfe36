"""LoRA as task vectors: peft's own products as oracle, refusals with reasons, and adapters of lower rank."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gtr_agents.errors import MergeError
from gtr_agents.merging import ShardedState, StreamingTies, merge
from gtr_agents.merging.compress import CompressedAdapter, compress, randomised_svd
from gtr_agents.merging.lora import LoraDeltas, ZeroState, dense_weights, factor_space_approximation, scale_of

CLOSE = 1e-6
EXACT = 1e-12
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["up", "down"]}


class Net(nn.Module):
    """A bit of everything that LoRA can adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6)
        self.turned = Conv1D(5, 6)  # stores (in, out)
        self.head = nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.turned(self.down(torch.tanh(self.up(self.words(ids))))))


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        model = Net()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    return model


def adapted(seed: int = 1, **settings: Any) -> tuple[PeftModel, dict[str, Tensor], dict[str, Any]]:
    """A peft model with random factors, its saved tensors and its configuration."""
    config = LoraConfig(**({"r": 3, "lora_alpha": 7, "target_modules": ["up", "down"]} | settings))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = get_peft_model(net(), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3, generator=generator)
    tensors = {key: tensor.detach().clone() for key, tensor in get_peft_model_state_dict(model).items()}
    return model, tensors, config.to_dict()


def deltas_of_peft(model: PeftModel) -> dict[str, Tensor]:
    prefix = "base_model.model."
    return {
        f"{name.removeprefix(prefix)}.weight": module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def adapter(seed: int, rank: int = 2, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"up": (10, 6), "down": (6, 10)}
    tensors = {}
    for name, (out, into) in shapes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, into, generator=generator, dtype=dtype)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator, dtype=dtype)
    return tensors


def rotated(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same adapter with other factors."""
    q = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3 * torch.eye(2)
    return {key: q @ t if "lora_A" in key else t @ torch.linalg.inv(q) for key, t in tensors.items()}


# --- products


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"up": 5}, "alpha_pattern": {"down": 2}},
        {"rank_pattern": {"up": 5}, "alpha_pattern": {"^up": 1}, "use_rslora": True},
        {"target_modules": ["turned"], "fan_in_fan_out": True},
        {"target_modules": ["words", "up"]},
    ],
    ids=["plain", "rslora", "patterns", "patterns of rslora", "transposed", "embedding"],
)
def test_task_vectors_are_the_products_of_peft(settings: dict[str, Any]) -> None:
    model, tensors, config = adapted(**settings)
    deltas, expected = LoraDeltas(tensors, config, dict(net().state_dict())), deltas_of_peft(model)
    assert set(deltas) == set(expected)
    assert len(deltas) == len(expected)
    for name, delta in deltas.items():
        torch.testing.assert_close(delta, expected[name], rtol=0, atol=CLOSE)
        assert delta.is_contiguous()
        assert bool(delta.any())


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"modules_to_save": ["head"], "bias": "all"}])
def test_the_base_with_the_task_vectors_acts_like_the_adapted_model(settings: dict[str, Any]) -> None:
    model, tensors, config = adapted(**settings)
    plain = net()
    weights = dict(dense_weights(plain.state_dict(), LoraDeltas(tensors, config, plain.state_dict())))
    ids = torch.arange(11)
    before = plain(ids)
    plain.load_state_dict(weights)
    torch.testing.assert_close(plain(ids), model(ids), rtol=0, atol=1e-5)
    assert not torch.allclose(before, plain(ids))


def test_saved_files_are_read_module_by_module(tmp_path: Path) -> None:
    model, tensors, config = adapted()
    model.save_pretrained(tmp_path)
    from_disk = LoraDeltas(ShardedState(tmp_path / "adapter_model.safetensors"), config)
    in_memory = LoraDeltas(tensors, config)
    assert all(torch.equal(from_disk[name], in_memory[name]) for name in in_memory)


def test_a_weight_saved_whole_and_adapted_has_the_sum_of_both_task_vectors() -> None:
    tensors, base = adapter(1), {"up.weight": torch.full((10, 6), 2.0), "down.weight": torch.zeros(6, 10)}
    both = {**tensors, "base_model.model.up.base_layer.weight": torch.full((10, 6), 5.0)}
    product = LoraDeltas(tensors, CONFIG, base)["up.weight"]
    assert torch.equal(LoraDeltas(both, CONFIG, base)["up.weight"], product + 3.0)
    assert list(LoraDeltas(both, CONFIG, base)) == ["down.weight", "up.weight"]


def test_scales_have_the_hand_values() -> None:
    config = {"r": 4, "lora_alpha": 8, "rank_pattern": {r"layers\.0\.q": 16}, "alpha_pattern": {"v": 2}}
    assert scale_of(config, "model.layers.0.q") == 0.5
    assert scale_of(config, "model.layers.1.q") == 2.0
    assert scale_of(config, "model.layers.1.v") == 0.5
    assert scale_of(config, "model.layers.1.uv") == 2.0  # a name, or one after a dot; not the end of a name
    assert scale_of({**config, "use_rslora": True}, "model.layers.0.q") == 2.0


def test_bfloat16_factors_are_multiplied_in_float32() -> None:
    tensors = adapter(1, dtype=torch.bfloat16)
    delta = LoraDeltas(tensors, CONFIG)["up.weight"]
    a, b = (tensors[f"base_model.model.up.lora_{f}.weight"].double() for f in "AB")
    assert delta.dtype == torch.float32
    torch.testing.assert_close(delta.double(), 3.0 * b @ a, rtol=0, atol=1e-5)


# --- refusals


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "DoRA rescales every row"),
        ({"lora_bias": True}, "bias inside the adapter"),
        ({"alora_invocation_tokens": [3]}, "some tokens only"),
        ({"target_parameters": ["experts.weight"]}, "several experts"),
        ({"init_lora_weights": "pissa_niter_4"}, "change the base weights too"),
        ({"init_lora_weights": "olora"}, "change the base weights too"),
        ({"peft_type": "LOHA"}, "expected a LoRA adapter, got LOHA"),
        ({"peft_type": "ADALORA"}, "expected a LoRA adapter, got ADALORA"),
        ({"r": 3}, "expected rank 3 as configured"),
        ({"rank_pattern": {"up": 1}}, "expected rank 1 as configured"),
    ],
)
def test_other_kinds_of_adapters_are_refused_with_the_reason(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(MergeError, match=reason):
        LoraDeltas(adapter(1), {**CONFIG, **settings})


def test_an_adapter_of_peft_with_dora_is_refused_whatever_its_config_says() -> None:
    _, tensors, config = adapted(use_dora=True)
    with pytest.raises(MergeError, match="DoRA rescales"):
        LoraDeltas(tensors, config)
    with pytest.raises(MergeError, match=r"lora_magnitude_vector.*DoRA rescales"):
        LoraDeltas(tensors, {**config, "use_dora": False})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("base_model.model.up.lora_A.default.weight", "no tensor of a saved plain LoRA adapter"),
        ("base_model.model.up.lora_B.bias", "no tensor of a saved plain LoRA adapter"),
        ("base_model.model.words.token_adapter.trainable_tokens_delta", "no tensor of a saved plain LoRA adapter"),
        ("base_model.model.head.weight", "'head.weight' is saved whole"),
        ("base_model.model.head.lora_A.weight", "has no factor B"),
        ("base_model.model.head.lora_B.weight", "has no factor A"),
    ],
)
def test_tensors_that_make_no_adapter_are_refused(key: str, message: str) -> None:
    with pytest.raises(MergeError, match=message):
        LoraDeltas({**adapter(1), key: torch.zeros(2, 2)}, CONFIG)


def test_shapes_that_do_not_fit_the_base_and_convolutions_are_refused() -> None:
    base = {"up.weight": torch.zeros(6, 10), "down.weight": torch.zeros(6, 10)}
    with pytest.raises(MergeError, match=r"'up\.weight': the base has shape \(6, 10\).*fan_in_fan_out"):
        LoraDeltas(adapter(1), CONFIG, base)["up.weight"]
    kernel = {"base_model.model.c.lora_A.weight": torch.zeros(2, 3, 3, 3)}
    kernel["base_model.model.c.lora_B.weight"] = torch.zeros(4, 2, 1, 1)
    with pytest.raises(MergeError, match="convolutions cannot be merged yet"):
        LoraDeltas(kernel, CONFIG)


def test_dense_weights_of_another_base_are_refused() -> None:
    with pytest.raises(MergeError, match="is it the adapters' base"):
        dict(dense_weights({"up.weight": torch.zeros(10, 6)}, LoraDeltas(adapter(1), CONFIG)))
    with pytest.raises(MergeError, match=r"expected a task vector of \(2,\), got \(3,\)"):
        dict(dense_weights({"w": torch.zeros(2)}, {"w": torch.zeros(3)}))


# --- merging


def test_merging_products_does_not_depend_on_how_they_are_factored() -> None:
    plain = [adapter(seed) for seed in range(4)]
    turned = [rotated(tensors, seed + 10) for seed, tensors in enumerate(plain)]
    first, second = ([LoraDeltas(tensors, CONFIG) for tensors in group] for group in (plain, turned))
    for method, density in (("ties", 0.8), ("linear", 1.0)):
        one = merge(ZeroState(first[0]), first, method=method, density=density)
        two = merge(ZeroState(second[0]), second, method=method, density=density)
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, two[name], rtol=0, atol=1e-11)
    factors = [factor_space_approximation(group, density=1.0) for group in (plain, turned)]
    one, two = (LoraDeltas(tensors, CONFIG)["up.weight"] for tensors in factors)
    assert float((one - two).norm()) > 0.1 * float(one.norm())


def test_the_factor_space_has_the_hand_value() -> None:
    keys = ["base_model.model.up.lora_A.weight", "base_model.model.up.lora_B.weight"]
    pairs = [(1.0, 2.0), (-2.0, -1.0)]
    adapters = [dict(zip(keys, (torch.tensor([[a]]), torch.tensor([[b]])), strict=True)) for a, b in pairs]
    config = {"r": 1, "lora_alpha": 1}
    deltas = [LoraDeltas(tensors, config) for tensors in adapters]
    assert merge(ZeroState(deltas[0]), deltas)["up.weight"].tolist() == [[2.0]]
    assert LoraDeltas(factor_space_approximation(adapters), config)["up.weight"].tolist() == [[-4.0]]
    mean = factor_space_approximation(adapters, method="linear")
    assert LoraDeltas(mean, config)["up.weight"].tolist() == [[-0.25]]


def test_the_factor_space_is_exact_for_identical_adapters_and_refuses_saved_tensors() -> None:
    one = adapter(3)
    same = factor_space_approximation([one, one, one], density=1.0, weights=[1, 2, 3])
    assert all(torch.allclose(same[key], tensor, rtol=0, atol=EXACT) for key, tensor in one.items())
    with pytest.raises(MergeError, match="expected factors of plain LoRA only"):
        factor_space_approximation([{**one, "base_model.model.head.weight": torch.zeros(1)}])
    with pytest.raises(MergeError, match="at least one checkpoint"):
        factor_space_approximation([])


def test_adapters_stream_module_by_module_into_files(tmp_path: Path) -> None:
    vectors = [LoraDeltas(adapter(seed, dtype=torch.float32), CONFIG) for seed in range(4)]
    base = ZeroState(vectors[0])
    ties = StreamingTies(base, folder=tmp_path)
    for vector in vectors:
        ties.add(vector)
    batch = merge(base, vectors)
    for name, tensor in ties.merged_tensors():
        torch.testing.assert_close(tensor, batch[name], rtol=0, atol=CLOSE)
    assert set(batch) == {"up.weight", "down.weight"}


def test_the_linear_merge_of_products_is_the_concatenation_of_peft() -> None:
    model, first, config = adapted()
    second = {key: tensor.flip(0) * 1.5 for key, tensor in first.items()}
    shares = [0.25, 0.75]
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        model.add_adapter("second", model.peft_config["default"])
        for name, parameter in model.named_parameters():
            if ".second." in name:
                parameter.data.copy_(second[name.replace(".second.", ".")])
        model.add_weighted_adapter(["default", "second"], shares, "mean", combination_type="cat")
    vectors = [LoraDeltas(tensors, config) for tensors in (first, second)]
    ours = merge(ZeroState(vectors[0]), vectors, method="linear", weights=shares)
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            weight = f"{name.removeprefix('base_model.model.')}.weight"
            torch.testing.assert_close(module.get_delta_weight("mean"), ours[weight], rtol=0, atol=CLOSE)


# --- compression


def test_one_singular_value_of_diag_4_3_keeps_the_hand_value() -> None:
    compressed = compress({"up.weight": torch.diag(torch.tensor([4.0, 3.0]))}, 1, CONFIG)
    assert compressed.energy["up.weight"] == pytest.approx(0.64)
    assert compressed.overall_energy == pytest.approx(0.64)
    back = LoraDeltas(compressed.tensors, compressed.config)["up.weight"]
    torch.testing.assert_close(back, torch.diag(torch.tensor([4.0, 0.0])), rtol=0, atol=CLOSE)


def test_the_overall_energy_weighs_modules_by_their_norm() -> None:
    deltas = {"a.weight": torch.diag(torch.tensor([4.0, 3.0])), "b.weight": torch.diag(torch.tensor([1.0, 0.0]))}
    compressed = compress(deltas, 1, CONFIG)
    assert compressed.overall_energy == pytest.approx((16 + 1) / (25 + 1))
    zero = compress({"a.weight": torch.zeros(3, 3)}, 1, CONFIG)
    assert (zero.overall_energy, zero.energy["a.weight"]) == (1.0, 1.0)


def reloaded(compressed: CompressedAdapter, settings: dict[str, Any]) -> dict[str, Tensor]:
    """What peft makes of a compressed adapter."""
    model, tensors, _ = adapted(
        **{**settings, "r": compressed.config["r"], "lora_alpha": compressed.config["lora_alpha"]}
    )
    assert tensors.keys() >= compressed.tensors.keys()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            saved = name.replace(".default", "")
            if saved in compressed.tensors:
                parameter.copy_(compressed.tensors[saved])
    return deltas_of_peft(model)


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_rslora": True}, {"target_modules": ["turned"], "fan_in_fan_out": True}, {"target_modules": ["words"]}],
    ids=["plain", "rslora", "transposed", "embedding"],
)
def test_peft_reads_a_compressed_adapter_of_full_rank_as_the_task_vectors(settings: dict[str, Any]) -> None:
    _, tensors, config = adapted(**settings)
    deltas = LoraDeltas(tensors, config, dict(net().state_dict()))
    compressed = compress(deltas, 12, config, embeddings=deltas.embeddings)  # more than any of them can have
    assert compressed.overall_energy == pytest.approx(1.0, abs=1e-6)
    shape_only = {key: value for key, value in settings.items() if key != "use_rslora"}
    for name, delta in reloaded(compressed, shape_only).items():
        torch.testing.assert_close(delta, deltas[name], rtol=0, atol=1e-5)


def test_the_scale_of_a_compressed_adapter_is_one_whatever_scales_went_in() -> None:
    config = {**CONFIG, "use_rslora": True, "rank_pattern": {"up": 2}, "alpha_pattern": {"down": 5}}
    deltas = LoraDeltas(adapter(1), config)
    compressed = compress(deltas, 4, config)
    assert {scale_of(compressed.config, module) for module in ("up", "down")} == {1.0}
    for name, delta in LoraDeltas(compressed.tensors, compressed.config).items():
        torch.testing.assert_close(delta, deltas[name], rtol=0, atol=EXACT * 100)


def test_energy_is_what_is_lost() -> None:
    vectors = [LoraDeltas(adapter(seed), CONFIG) for seed in range(4)]
    deltas = merge(ZeroState(vectors[0]), vectors)
    energies = []
    for rank in (1, 2, 4):
        compressed = compress(deltas, rank, CONFIG)
        back = LoraDeltas(compressed.tensors, compressed.config)
        for name, delta in deltas.items():
            lost = float((back[name] - delta).square().sum() / delta.square().sum())
            assert 1 - lost == pytest.approx(compressed.energy[name], abs=1e-9)
        energies.append(compressed.overall_energy)
    assert energies == sorted(energies)
    assert energies[0] < 0.9


def test_the_randomised_decomposition_finds_what_the_exact_one_finds() -> None:
    generator = torch.Generator().manual_seed(4)
    low = torch.randn(300, 6, generator=generator) @ torch.randn(6, 280, generator=generator)
    delta = {"up.weight": low + 0.05 * torch.randn(300, 280, generator=generator)}
    before = torch.get_rng_state()
    exact = compress(delta, 6, CONFIG, exact_up_to=1000)
    fast, again = (compress(delta, 6, CONFIG, seed=1, exact_up_to=0) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(fast.tensors[key], again.tensors[key]) for key in fast.tensors)
    assert fast.overall_energy == pytest.approx(exact.overall_energy, abs=1e-5)
    assert 0.9 < fast.overall_energy < 1.0
    one, two = (LoraDeltas(c.tensors, c.config)["up.weight"] for c in (exact, fast))
    torch.testing.assert_close(one, two, rtol=0, atol=0.02)
    u, s, vt = randomised_svd(low, 6, generator)
    torch.testing.assert_close(u[:, :6] @ torch.diag(s[:6]) @ vt[:6], low, rtol=0, atol=1e-3)


def test_what_lora_cannot_hold_is_refused() -> None:
    with pytest.raises(MergeError, match=r"'head.bias' with 1 axes cannot be a LoRA module"):
        compress({"head.bias": torch.zeros(3)}, 1, CONFIG)
    with pytest.raises(MergeError, match="rank must be at least 1"):
        compress({"up.weight": torch.zeros(3, 3)}, 0, CONFIG)
