# ruff: noqa: ARG002 - callbacks and losses of a Trainer are called with all of their arguments
"""The free teacher inside the Trainer of transformers: real training, resumed, of whole models and of LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from gtr_agents.errors import CheckpointError, ConfigError, MergeError, ModelError
from gtr_agents.integrations.transformers import FOLDER, MergedTeacherCallback
from gtr_agents.merging import merge
from gtr_agents.policies import lora
from gtr_agents.teachers.merged import TeacherManager

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

VOCABULARY = 13


@pytest.fixture(autouse=True)
def trainer_may_draw() -> Iterator[None]:
    """The Trainer itself seeds and uses the global generators; what it does there ends with the test."""
    numpy = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        yield
    np.random.set_state(numpy)  # noqa: NPY002


def plain_model(*, tied: bool = True) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=tied, **sizes))


def lora_model(*, tied: bool = True, **settings: Any) -> Any:
    model = plain_model(tied=tied)
    torch.manual_seed(1)
    options = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.1, "target_modules": ["q_proj", "down_proj"]}
    return get_peft_model(model, LoraConfig(**options | {"task_type": "CAUSAL_LM"} | settings))


MODELS = {"plain": plain_model, "lora": lora_model}
DATA = [
    {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    for ids in torch.randint(VOCABULARY, (24, 7), generator=torch.Generator().manual_seed(2))
]
BATCH = {name: torch.stack([row[name] for row in DATA[:3]]) for name in DATA[0]}


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    defaults = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.02,
        "save_steps": 3,
        "logging_steps": 2,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "save_strategy": "steps",
    }
    return TrainingArguments(output_dir=str(folder), **defaults | options)


def trained(
    model: Any, callback: MergedTeacherCallback, folder: Path, *, resume: str | None = None, **options: Any
) -> Trainer:
    trainer = Trainer(model, arguments(folder, **options), train_dataset=DATA)
    callback.add_to(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Snapshots(TrainerCallback):
    """What is merged, noted by the tests themselves."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}

    def note(self, step: int, model: Any) -> None:
        if lora.is_adapted(model):
            self.states[step] = dict(lora.LiveDeltas(model, alone=False))
        else:
            self.states[step] = {name: p.detach().clone() for name, p in model.named_parameters()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note(state.global_step, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note(state.global_step, kwargs["model"])


@pytest.mark.parametrize("kind", MODELS)
def test_the_teacher_is_the_merge_of_what_the_trainer_had(kind: str, tmp_path: Path) -> None:
    callback, seen = MergedTeacherCallback(TeacherManager(density=0.5), every=2), Snapshots()
    trainer = Trainer(MODELS[kind](), arguments(tmp_path), train_dataset=DATA, callbacks=[callback, seen])
    trainer.train()
    expected = merge(seen.states[0], [seen.states[step] for step in (2, 4, 6)], density=0.5)
    teacher = callback.manager.teacher_state()
    assert set(teacher) == set(expected)
    assert callback.manager.version == 4
    for name, tensor in expected.items():
        torch.testing.assert_close(teacher[name], tensor, rtol=0, atol=1e-6)
    assert max(float((teacher[n] - seen.states[6][n]).abs().max()) for n in teacher) > 1e-3  # and not the student


@pytest.mark.parametrize("kind", MODELS)
def test_resuming_continues_exactly(kind: str, tmp_path: Path) -> None:
    whole = MergedTeacherCallback(TeacherManager(weights="ema"), every=2)
    straight = trained(MODELS[kind](), whole, tmp_path)
    again = MergedTeacherCallback(TeacherManager(weights="ema"), every=2)
    resumed = trained(MODELS[kind](), again, tmp_path, resume=str(tmp_path / "checkpoint-3"))
    assert equal(weights_of(straight.model), weights_of(resumed.model))
    assert equal(whole.manager.teacher_state(), again.manager.teacher_state())
    assert whole.manager.diagnostics() == again.manager.diagnostics()
    assert again.manager.n_checkpoints == 3
    started_anew = MergedTeacherCallback(TeacherManager(weights="ema"), every=2)
    trained(MODELS[kind](), started_anew, tmp_path / "other", max_steps=2)
    assert not equal(started_anew.manager.teacher_state(), again.manager.teacher_state())


def test_a_checkpoint_elsewhere_is_found_when_it_is_named(tmp_path: Path) -> None:
    trained(plain_model(), MergedTeacherCallback(every=2), tmp_path / "one")
    folder = tmp_path / "one" / "checkpoint-3"
    with pytest.raises(CheckpointError, match=r"there is no teacher in .*resume_from"):
        trained(plain_model(), MergedTeacherCallback(every=2), tmp_path / "two", resume=str(folder))
    callback = MergedTeacherCallback(every=2, resume_from=folder)
    trained(plain_model(), callback, tmp_path / "two", resume=str(folder))
    assert callback.manager.n_checkpoints == 3


def test_the_teacher_of_another_model_is_refused(tmp_path: Path) -> None:
    model = lora_model()
    trained(model, MergedTeacherCallback(every=2), tmp_path)
    other = trained(plain_model(), MergedTeacherCallback(every=2), tmp_path / "other", max_steps=3)
    callback = MergedTeacherCallback(resume_from=tmp_path / "checkpoint-3")
    with pytest.raises(CheckpointError, match="of another model or adapter"):
        callback.on_train_begin(other.args, other.state, other.control, model=other.model)


@pytest.mark.parametrize(("every", "steps"), [(4, [4]), ("save", [3, 6]), ("epoch", [6])])
def test_checkpoints_are_added_when_it_was_said(every: Any, steps: list[int], tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every=every)
    trained(plain_model(), callback, tmp_path)
    assert list(callback.manager._started().members) == [f"step-{step}" for step in steps]
    assert (tmp_path / "checkpoint-6" / FOLDER).is_dir()
    loaded = TeacherManager()
    loaded.load(tmp_path / "checkpoint-6" / FOLDER)
    assert equal(loaded.teacher_state(), callback.manager.teacher_state())


def test_a_step_counts_once_even_if_it_is_saved_twice(tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every="save")
    trainer = trained(plain_model(), callback, tmp_path)
    callback.on_save(trainer.args, trainer.state, trainer.control)
    assert callback.manager.n_checkpoints == 2
    resumed = MergedTeacherCallback(every="save")
    resumed.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
    resumed.on_save(trainer.args, trainer.state, trainer.control)
    assert resumed.manager.n_checkpoints == 2


@pytest.mark.parametrize("every", [0, -1, "step"])
def test_an_interval_that_cannot_be_is_refused(every: Any) -> None:
    with pytest.raises(ConfigError, match="every must be a number of steps"):
        MergedTeacherCallback(every=every)


# --- acting as the teacher


@pytest.mark.parametrize("kind", MODELS)
def test_inside_the_model_is_the_teacher_and_outside_the_student_bit_for_bit(kind: str, tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every=1)
    model = trained(MODELS[kind](), callback, tmp_path).model
    model.train()
    next(iter(model.modules())).training = True
    before, modes = weights_of(model), [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    places = {name: p.data_ptr() for name, p in model.named_parameters()}

    def as_it_was() -> bool:
        return (
            equal(before, weights_of(model))
            and modes == [module.training for module in model.modules()]
            and flags == [parameter.requires_grad for parameter in model.parameters()]
            and places == {name: p.data_ptr() for name, p in model.named_parameters()}
        )

    with callback.teacher() as teacher, torch.no_grad():
        assert teacher is model
        assert not any(module.training for module in model.modules())
        assert not equal(before, weights_of(model))
        logits = model(**BATCH).logits
        for name, parameter in model.named_parameters():  # what happens to the teacher is no matter of the student
            if parameter.data_ptr() != places[name]:
                parameter.zero_()
        assert model(**BATCH).logits.std() < 0.1 * logits.std() or kind == "lora"
    assert as_it_was()
    torch.testing.assert_close(callback.teacher_logits(**BATCH), by_hand(kind, callback)(**BATCH).logits)
    torch.testing.assert_close(callback.teacher_logits(**BATCH), logits)
    with pytest.raises(KeyError, match="stop"), callback.teacher():
        raise KeyError("stop")
    assert as_it_was()
    with callback.teacher(), pytest.raises(ModelError, match="the teacher already"), callback.teacher():
        pass
    assert as_it_was()


def by_hand(kind: str, callback: MergedTeacherCallback) -> Any:
    """A model of its own with the teacher's weights; the base of the LoRA model is the plain one."""
    model, state = plain_model().eval(), callback.manager.teacher_state()
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            if kind == "lora":
                own[f"{name.removeprefix('base_model.model.')}.weight"] += tensor
            else:
                own[name].copy_(tensor)
    return model


def test_the_first_teacher_is_the_start(tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every=100)
    trained(lora_model(), callback, tmp_path)
    start = plain_model().eval()
    torch.testing.assert_close(callback.teacher_logits(**BATCH), start(**BATCH).logits.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", MODELS)
def test_a_teacher_between_forward_and_backward_changes_no_gradient(kind: str, tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every=1)
    model = trained(MODELS[kind](lora_dropout=0.0) if kind == "lora" else plain_model(), callback, tmp_path).model
    gradients = []
    for ask in (False, True):
        model.zero_grad()
        loss = model(**BATCH).loss
        if ask:
            callback.teacher_log_probs(**BATCH)
        loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert equal(*gradients)
    assert gradients[0]


def test_log_probs_are_those_of_the_labels_in_float32(tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every=1)
    trained(plain_model(), callback, tmp_path)
    labels = BATCH["labels"].clone()
    labels[:, :3] = -100
    found = callback.teacher_log_probs(**BATCH | {"labels": labels})
    logits = by_hand("plain", callback)(**BATCH).logits.detach()
    assert (found.shape, found.dtype, found.requires_grad) == ((3, 6), torch.float32, False)
    for b in range(3):
        for t in range(6):
            expected = logits[b, t].log_softmax(-1)[labels[b, t + 1]] if t >= 2 else torch.zeros(())
            assert float(found[b, t]) == pytest.approx(float(expected), abs=1e-5)
    without = {name: value for name, value in BATCH.items() if name != "labels"}
    torch.testing.assert_close(callback.teacher_log_probs(**without)[:, 2:], found[:, 2:])
    with pytest.raises(ConfigError, match="expected labels or input_ids"):
        callback.teacher_log_probs(attention_mask=BATCH["attention_mask"])


def test_a_loss_may_ask_the_teacher_while_the_trainer_trains(tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every=2)
    asked: list[float] = []

    class Towards(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            target = callback.teacher_logits(**inputs).log_softmax(-1)
            outputs = model(**inputs)
            own = outputs.logits.float().log_softmax(-1)
            divergence = (own.exp() * (own - target)).sum(-1).mean()
            asked.append(float(divergence.detach()))
            loss = outputs.loss + divergence
            return (loss, outputs) if return_outputs else loss

    trainer = Towards(plain_model(), arguments(tmp_path), train_dataset=DATA, callbacks=[callback])
    trainer.train()
    assert len(asked) == 6
    assert asked[0] == pytest.approx(0.0, abs=1e-6)  # student and teacher start together
    assert asked[-1] > 1e-5


def test_what_is_trained_beside_the_factors_is_merged_too(tmp_path: Path) -> None:
    callback, seen = MergedTeacherCallback(every=2), Snapshots()
    model = lora_model(tied=False, modules_to_save=["lm_head"], target_modules=["q_proj"], lora_dropout=0.0)
    trainer = Trainer(model, arguments(tmp_path, max_steps=2), train_dataset=DATA, callbacks=[callback, seen])
    trainer.train()
    name = "base_model.model.lm_head.modules_to_save.default.weight"
    assert set(callback.manager.teacher_state()) == {name, *seen.states[0]}
    with torch.no_grad():
        student = model.eval()(**BATCH).logits
    # One checkpoint without trim is the student itself, with its own head.
    one = MergedTeacherCallback(TeacherManager(density=1.0))
    one.on_train_begin(trainer.args, type("Start", (), {"global_step": 0})(), trainer.control, model=model)
    torch.testing.assert_close(one.teacher_logits(**BATCH), student, rtol=0, atol=1e-5)
    with torch.no_grad():
        dict(model.named_parameters())[name].zero_()
    assert one.teacher_logits(**BATCH).abs().max() > 0.01
    assert model(**BATCH).logits.abs().max() == 0


# --- logs


def test_the_numbers_of_the_teacher_are_in_the_logs_of_training(tmp_path: Path) -> None:
    told: list[dict[str, float]] = []

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            told.append(dict(logs))

    callback = MergedTeacherCallback(every=2)
    trainer = Trainer(plain_model(), arguments(tmp_path), train_dataset=DATA, callbacks=[Reporter()])
    callback.add_to(trainer)
    trainer.train()
    own = [logs for logs in told if "loss" in logs]
    assert [logs["teacher/version"] for logs in own] == [2.0, 3.0, 4.0]
    assert own[-1].items() >= callback.manager.diagnostics().items()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["teacher/checkpoints"] for entry in history] == [1.0, 2.0, 3.0]
    assert "teacher/version" not in told[-1]  # the summary of the run is the trainer's


# --- refusals


def begin(model: Any, tmp_path: Path) -> None:
    trainer = Trainer(plain_model(), arguments(tmp_path))
    MergedTeacherCallback().on_train_begin(trainer.args, trainer.state, trainer.control, model=model)


def test_before_training_there_is_no_teacher() -> None:
    with pytest.raises(MergeError, match="the teacher has no base yet"):
        MergedTeacherCallback().teacher_logits(**BATCH)


def test_models_without_whole_trainable_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none that requires a gradient"):
        begin(plain_model().requires_grad_(False), tmp_path)
    spread = plain_model()
    next(spread.parameters()).ds_id = 0
    with pytest.raises(ModelError, match="spread over processes"):
        begin(spread, tmp_path)
    quantised = lora_model()
    layer = next(iter(lora.base_weights(quantised)))
    module = dict(quantised.named_modules())[layer].get_base_layer()
    module.weight = torch.nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="is quantised"):
        begin(quantised, tmp_path)
    with pytest.raises(ModelError, match="DoRA"):
        begin(lora_model(use_dora=True), tmp_path)


def test_training_inside_the_teacher_is_refused(tmp_path: Path) -> None:
    callback = MergedTeacherCallback(every=1)
    trainer = trained(plain_model(), callback, tmp_path)
    trainer.state.global_step += 1
    with callback.teacher(), pytest.raises(ModelError, match="before training goes on"):
        callback.on_step_end(trainer.args, trainer.state, trainer.control)


def test_frozen_factors_stay_frozen(tmp_path: Path) -> None:
    model = lora_model()
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    callback = MergedTeacherCallback(every=1)
    trained(model, callback, tmp_path, max_steps=1)
    callback.teacher_logits(**BATCH)
    assert all(p.requires_grad == ("lora_B" in name) for name, p in model.named_parameters())
