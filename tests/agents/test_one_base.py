"""Student, teacher and initial model are three views of one resident base, and the student never notices."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoraConfig, get_peft_model
from small_models import prompts_of, same_weights, text_env, tiny_policy, weights_of
from torch import Tensor

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import ConfigError, ModelError
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.merging.compress import factorise
from gtr_agents.policies import lora
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.merged import TeacherManager

IDS = [np.array([5, 6, 7, 8]), np.array([9, 10])]
FULL_RANK = 64  # of the smallest side of the tiny model's matrices


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_policy().save(tmp_path / "base")


def scores(policy: VLMPolicy) -> np.ndarray:
    return np.concatenate(policy.score(prompts_of(n=2), IDS))


def adapted(base: Path, seed: int, **settings: object) -> VLMPolicy:
    """A policy whose adapter is not the zero it starts as."""
    policy = VLMPolicy.from_pretrained(base, lora={"r": 4, **settings})
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name or "embedding_A" in name:
                parameter.normal_(0.0, 0.05, generator=noise)
    return policy


def task_vectors(policy: VLMPolicy, seed: int) -> dict[str, Tensor]:
    """Task vectors of full rank."""
    noise = torch.Generator().manual_seed(seed)
    return {name: 0.01 * torch.randn(delta.shape, generator=noise) for name, delta in policy.merge_state().items()}


def in_factors(state: dict[str, Tensor], rank: int = FULL_RANK) -> dict[str, Tensor]:
    return factorise(state.items(), rank).tensors


def separate_model(base: Path, state: dict[str, Tensor]) -> VLMPolicy:
    """A model of its own whose weights are the base's with task vectors added."""
    policy = VLMPolicy.from_pretrained(base)
    own = dict(policy.model.named_parameters())
    with torch.no_grad():
        for name, delta in state.items():
            own[name.removeprefix("base_model.model.") + ".weight"].add_(delta)
    return policy


def snapshot(policy: VLMPolicy) -> tuple[dict[str, Tensor], dict[str, bool], list[bool], list[str]]:
    """All that a switch could change of the student: weights, what trains, modes and the active adapter."""
    own = {name: p for name, p in policy.model.named_parameters() if lora.TEACHER not in name}
    modes = [m.training for name, m in policy.model.named_modules() if lora.TEACHER not in name]
    weights = {name: p.detach().clone() for name, p in own.items()}
    return weights, {name: p.requires_grad for name, p in own.items()}, modes, policy.model.active_adapters


def assert_untouched(policy: VLMPolicy, before: tuple[object, ...]) -> None:
    after = snapshot(policy)
    assert same_weights(before[0], after[0])  # type: ignore[arg-type]
    assert before[1:] == after[1:]


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "alpha": 16}], ids=["LoRA", "rsLoRA"])
@pytest.mark.parametrize("form", ["dense", "adapter"])
def test_three_views_of_one_base_score_like_three_models(base: Path, settings: dict[str, object], form: str) -> None:
    policy = adapted(base, 2, **settings)
    state = task_vectors(policy, 3)
    alone = VLMPolicy.from_pretrained(policy.save(base.parent / "student"))
    own = scores(policy)
    assert np.array_equal(own, scores(alone))
    with policy.using(state if form == "dense" else in_factors(state)):
        as_teacher = scores(policy)
    with policy.using_initial():
        as_initial = scores(policy)
    np.testing.assert_allclose(as_teacher, scores(separate_model(base, state)), atol=1e-5)
    np.testing.assert_allclose(as_initial, scores(VLMPolicy.from_pretrained(base)), atol=1e-5)
    assert np.array_equal(scores(policy), own)
    assert min(np.abs(as_teacher - own).max(), np.abs(as_initial - own).max()) > 1e-2  # three different models


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "alpha": 16}], ids=["LoRA", "rsLoRA"])
def test_a_teacher_made_of_the_student_alone_is_the_student(base: Path, settings: dict[str, object]) -> None:
    policy = adapted(base, 2, **settings)
    with policy.using(in_factors(policy.merge_state(), rank=4)):
        as_teacher = scores(policy)
    np.testing.assert_allclose(as_teacher, scores(policy), atol=1e-5)


@pytest.mark.parametrize("view", ["dense", "adapter", "initial"])
@pytest.mark.parametrize("training", [False, True])
def test_every_switch_gives_the_student_back_also_after_an_exception(base: Path, view: str, training: bool) -> None:
    policy = adapted(base, 2, dropout=0.5)
    state = task_vectors(policy, 3)
    frozen = next(p for name, p in policy.model.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)  # peft alone would let it train again
    own = scores(policy)
    policy.model.train(training)
    before = snapshot(policy)

    def interrupted() -> None:
        with (
            policy.using_initial()
            if view == "initial"
            else policy.using(state if view == "dense" else in_factors(state))
        ):
            assert not any(module.training for module in policy.model.modules())
            assert not any(p.requires_grad for p in policy.model.parameters())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_untouched(policy, before)
    assert not any(p.requires_grad for name, p in policy.model.named_parameters() if lora.TEACHER in name)
    policy.model.eval()
    assert np.array_equal(scores(policy), own)


def test_other_factors_get_another_name_and_replace_the_ones_before(base: Path) -> None:
    policy = adapted(base, 2)
    first, second = (in_factors(task_vectors(policy, seed)) for seed in (3, 4))
    seen = []
    for state in (first, first, second, first):
        with policy.using(state):
            seen.append((policy.model.active_adapters, scores(policy)))
        assert list(policy.model.peft_config) == ["default", *seen[-1][0]]
    assert [names for names, _ in seen] == [["teacher-v1"], ["teacher-v1"], ["teacher-v2"], ["teacher-v3"]]
    assert np.array_equal(seen[0][1], seen[1][1])
    assert np.array_equal(seen[0][1], seen[3][1])
    assert np.abs(seen[0][1] - seen[2][1]).max() > 1e-2


def test_views_inside_each_other(base: Path) -> None:
    policy = adapted(base, 2)
    first, second = (in_factors(task_vectors(policy, seed)) for seed in (3, 4))
    own = scores(policy)
    with policy.using_initial():
        as_initial = scores(policy)
        with pytest.raises(ModelError, match="first leave the context"):
            policy.using(first).__enter__()
    with policy.using(first):
        as_teacher = scores(policy)
        with policy.using_initial():
            assert np.array_equal(scores(policy), as_initial)
        assert np.array_equal(scores(policy), as_teacher)
        with pytest.raises(ModelError, match="first leave the context"):
            policy.using(second).__enter__()
        assert np.array_equal(scores(policy), as_teacher)
    assert np.array_equal(scores(policy), own)


def test_factors_changed_in_place_change_the_teacher(base: Path) -> None:
    policy = adapted(base, 2)
    state = in_factors(task_vectors(policy, 3))
    with policy.using(state):
        before = scores(policy)
    with torch.no_grad():
        for tensor in state.values():
            tensor.mul_(-1.5)
    with policy.using(state):
        assert np.abs(scores(policy) - before).max() > 1e-2


def test_another_rank_is_another_adapter(base: Path) -> None:
    policy = adapted(base, 2)
    state = task_vectors(policy, 3)
    for rank in (2, 8, 3):
        with policy.using(in_factors(state, rank)):
            shapes = {p.shape[0] for n, p in policy.model.named_parameters() if "teacher" in n and "lora_A" in n}
        assert shapes == {rank}


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_factors_that_do_not_fit_leave_student_and_teacher_as_they_were(base: Path, damage: str) -> None:
    policy = adapted(base, 2)
    good = in_factors(task_vectors(policy, 3), 4)
    with policy.using(good):
        as_teacher = scores(policy)
    before, bad = snapshot(policy), dict(good)
    first = sorted(bad)[-2]
    if damage == "missing":
        del bad[first]
    else:
        bad[first] = torch.zeros(4, 3)
    with pytest.raises(ModelError, match="on one side only" if damage == "missing" else "expected a factor A"):
        policy.using(bad).__enter__()
    assert_untouched(policy, before)
    assert list(policy.model.peft_config) == ["default", "teacher-v1"]
    with policy.using(good):
        assert np.array_equal(scores(policy), as_teacher)


def test_the_optimizer_never_sees_the_teacher_and_it_is_not_saved(base: Path, tmp_path: Path) -> None:
    policy = adapted(base, 2)
    trainable = policy.trainable_parameters()
    merged = policy.merge_state()
    global_state = torch.get_rng_state()
    with policy.using(in_factors(task_vectors(policy, 3))):
        pass
    assert torch.equal(torch.get_rng_state(), global_state)
    assert [id(p) for p in policy.trainable_parameters()] == [id(p) for p in trainable]
    assert same_weights(policy.merge_state(), merged)
    folder = policy.save(tmp_path / "saved")
    assert not [path for path in folder.rglob("*") if "teacher" in path.name]
    assert np.array_equal(scores(VLMPolicy.from_pretrained(folder)), scores(policy))


def test_the_live_state_is_the_state_and_follows_the_policy(base: Path) -> None:
    for policy in (adapted(base, 2), tiny_policy()):
        live, copied = policy.live_state(), policy.merge_state()
        assert len(live) == len(copied)
        assert same_weights(dict(live), copied)
        with torch.no_grad():
            for parameter in policy.trainable_parameters():
                parameter.mul_(2.0)
        assert all(not torch.equal(live[name], copied[name]) for name in live if bool(copied[name].any()))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_an_adapter_of_embeddings_is_switched_too_but_not_written_into_tied_weights(base: Path) -> None:
    policy = adapted(base, 2, target_modules=["embed_tokens", "q_proj"])
    state, own = policy.merge_state(), scores(policy)
    assert sum("embed_tokens" in name for name in state) == 1
    with policy.using_initial():
        assert np.abs(scores(policy) - own).max() > 1e-2
    with policy.using(in_factors(state, 8)):
        np.testing.assert_allclose(scores(policy), own, atol=1e-5)
    before = snapshot(policy)
    with pytest.raises(ModelError, match="shares its weight"):  # the output layer would move too
        policy.using(state).__enter__()
    assert_untouched(policy, before)


def test_a_bfloat16_base_keeps_the_teacher_in_the_type_of_the_student(base: Path) -> None:
    policy = VLMPolicy.from_pretrained(base, lora={"r": 4}, dtype="bfloat16")
    before = snapshot(policy)
    with policy.using(in_factors(task_vectors(policy, 3), 8)):
        types = {p.dtype for name, p in policy.model.named_parameters() if "lora_" in name}
        assert np.isfinite(scores(policy)).all()
    assert types == {torch.float32}
    assert_untouched(policy, before)


def with_adapter(config: object) -> VLMPolicy:
    policy = tiny_policy()
    with lora._quiet_and_repeatable(0):
        policy.model = get_peft_model(policy.model, config)
    return policy


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "DoRA rescales every row"),
        ({"lora_bias": True}, "a bias inside the adapter"),
        ({"bias": "all"}, "adapter with bias"),
        ({"modules_to_save": ["lm_head"]}, "adapter with modules_to_save .* Leave that out"),
        ({"init_lora_weights": "olora"}, "they change the base weights too"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
@pytest.mark.filterwarnings("ignore")  # peft's own, about what is refused here
def test_adapters_that_are_no_plain_task_vector_are_refused_with_the_reason(
    options: dict[str, object], reason: str
) -> None:
    policy = with_adapter(LoraConfig(r=2, target_modules=["q_proj"], **options))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=reason):
        policy.merge_state()
    with pytest.raises(ModelError, match=reason):
        policy.using(in_factors({"x": torch.zeros(2, 2)}, 1)).__enter__()


def test_an_adapter_that_is_no_lora_is_refused() -> None:
    policy = with_adapter(LoHaConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="expected a LoRA adapter, got LOHA"):
        policy.merge_state()


def test_the_initial_model_of_full_training_is_what_is_given() -> None:
    policy = tiny_policy()
    start, own = copy.deepcopy(policy.merge_state()), scores(policy)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    moved = scores(policy)
    with policy.using_initial(start):
        assert np.array_equal(scores(policy), own)
    assert np.array_equal(scores(policy), moved)
    with pytest.raises(ConfigError, match="pass start="):
        policy.using_initial().__enter__()


def test_a_run_that_continued_an_adapter_began_at_that_one(base: Path) -> None:
    policy = adapted(base, 2)
    start, own = policy.merge_state(), scores(policy)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.mul_(1.5)
    with policy.using_initial(start):
        np.testing.assert_allclose(scores(policy), own, atol=1e-5)


def test_factors_need_an_adapter_beside_which_they_can_stand() -> None:
    with pytest.raises(ModelError, match="needs a policy with a LoRA adapter"):
        tiny_policy().using(in_factors({"x": torch.zeros(2, 2)}, 1)).__enter__()


# --- whole runs


class Watcher:
    """Keeps the metrics that do not measure time."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def on_phase(self, name: str, total: int | None) -> None: ...

    def on_progress(self, n: int) -> None: ...

    def on_update(self, learner: object, rollout: object, metrics: dict[str, float]) -> None:
        del learner, rollout
        self.metrics.append({name: value for name, value in metrics.items() if "second" not in name})


def run(policy: VLMPolicy, teacher: TeacherManager) -> PPO:
    return PPO(
        policy,
        lambda: text_env("EZPoints-v0", illegal="terminate"),
        settings=PPOSettings(baseline="tree", gamma=1.0, epochs=1, minibatch_size=8, learning_rate=1e-2),
        rollout=RolloutSettings(n_envs=4, hands=2, attempts=2),
        guidance=ReverseKL(beta=1.0, estimator="abs"),
        teacher=teacher,
        seed=3,
    )


def test_a_run_whose_teacher_is_an_adapter_is_the_run_whose_teacher_is_dense(schooled: Path, tmp_path: Path) -> None:
    options = {"dense": {}, "adapter": {"form": "adapter", "rank": FULL_RANK}}
    options["both"] = options["adapter"] | {"accumulators": "disk", "folder": tmp_path / "live"}
    metrics, weights = {}, {}
    for name, form in options.items():
        policy, watcher = VLMPolicy.from_pretrained(schooled, lora={"r": 4}), Watcher()
        run(policy, TeacherManager(**form)).learn(updates=3, callbacks=[watcher])  # type: ignore[arg-type]
        metrics[name] = watcher.metrics
        weights[name] = {n: w for n, w in weights_of(policy).items() if lora.TEACHER not in n}
    for dense, adapter, both in zip(metrics["dense"], metrics["adapter"], metrics["both"], strict=True):
        assert adapter["guidance/kl"] == pytest.approx(dense["guidance/kl"], abs=1e-4)
        assert adapter["teacher/retained_energy"] == pytest.approx(1.0, abs=1e-5)
        assert both == adapter
    assert metrics["adapter"][0]["guidance/kl"] == pytest.approx(0.0, abs=1e-6)  # the first teacher is the base itself
    assert metrics["adapter"][2]["guidance/kl"] > 0
    assert same_weights(weights["both"], weights["adapter"])


def test_a_run_with_an_adapter_teacher_on_disk_is_resumed_bit_for_bit(schooled: Path, tmp_path: Path) -> None:
    def teacher(name: str) -> TeacherManager:
        return TeacherManager(form="adapter", rank=FULL_RANK, accumulators="disk", folder=tmp_path / name)

    whole = run(VLMPolicy.from_pretrained(schooled, lora={"r": 4}), teacher("a"))
    whole.learn(updates=2)
    folder = whole.save(tmp_path / "saved")
    whole.learn(updates=3)
    resumed = run(VLMPolicy.from_pretrained(folder), teacher("b"))
    resumed.restore(folder)
    resumed.learn(updates=3)
    first, second = weights_of(whole.policy), weights_of(resumed.policy)
    assert all(torch.equal(first[name], second[name]) for name in first if lora.TEACHER not in name)
    assert resumed.teacher is not None
    assert whole.teacher is not None
    assert resumed.teacher.diagnostics() == whole.teacher.diagnostics()
