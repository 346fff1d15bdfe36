"""The free teacher inside the ``Trainer`` of transformers: a callback that merges, publishes, saves and resumes.

::

    callback = MergedTeacherCallback(every=50)
    trainer = Trainer(model, args, train_dataset=data)
    callback.add_to(trainer)
    trainer.train()

and in the loss, here of a subclass of ``Trainer``::

    log_probs = callback.teacher_log_probs(**inputs)

It uses nothing but the events of ``TrainerCallback``, which the trainers of TRL offer too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gtr_agents.errors import CheckpointError, ConfigError, MergeError, ModelError
from gtr_agents.policies import lora
from gtr_agents.teachers.merged import TeacherManager

FOLDER = "merged_teacher"
"""Where the teacher lies in a checkpoint folder of the trainer."""
IGNORED = -100
"""Label of tokens that do not count, as everywhere in transformers."""
_SPREAD = ("ds_id", "full_tensor", "_is_flat_param")
"""Attributes of parameters whose weights are spread over processes (DeepSpeed ZeRO-3, FSDP)."""


class MergedTeacherCallback(TrainerCallback):
    """Merges the weights that a trainer trains, as they come, into a teacher for the same run.

    The start of training is the first teacher. What is merged is every trained parameter, or for a PEFT LoRA model the
    products ``scale * B @ A`` and whatever else is trained. All of it lives on the CPU in the merge's type: the start,
    four sums and the teacher, so six times the trained weights, and six times the *adapted* weights for LoRA.

    Args:
        teacher: How is merged; TIES with equal weights if None. Must not be shared with another run.
        every: A checkpoint is added after every so many optimizer steps, >= 1, or at every ``"save"`` or ``"epoch"``.
        resume_from: The trainer's checkpoint folder to go on from, only needed if it does not lie in the trainer's
            ``output_dir``.

    Raises:
        ConfigError: If ``every`` is neither.
    """

    def __init__(
        self,
        teacher: TeacherManager | None = None,
        *,
        every: int | Literal["save", "epoch"] = 100,
        resume_from: str | Path | None = None,
    ) -> None:
        if every not in ("save", "epoch") and (isinstance(every, str) or every < 1):
            raise ConfigError(f"every must be a number of steps, at least 1, or 'save' or 'epoch', got {every!r}")
        self.manager = teacher or TeacherManager()
        """The teacher's weights and numbers."""
        self.every = every
        self.resume_from = None if resume_from is None else Path(resume_from)
        self._model: Any = None
        self._inside = False
        self._last_step = -1
        self._saved: Path | None = None
        self._metrics: dict[str, float] = {}

    def add_to(self, trainer: Any) -> None:
        """Join a trainer, before the callbacks that report its logs.

        Given to the trainer as one of its ``callbacks`` instead, everything works, but reporters (TensorBoard, ...) are
        told of the logs before the teacher's numbers are in them.

        Args:
            trainer: A ``transformers.Trainer``.
        """
        trainer.callback_handler.callbacks.insert(0, self)

    # --- events

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the weights as the first teacher, or go on where a checkpoint of the trainer left off.

        Raises:
            CheckpointError: If training is resumed and the checkpoint folder holds no teacher, or another model's.
            ModelError: If the weights are spread over processes, quantised, or nothing is trained.
        """
        del control
        self._model = kwargs["model"]
        self._last_step, self._saved = -1, None
        weights = self._weights()
        if state.global_step == 0:
            self.manager.start(weights)
        else:
            self._load(args, state, weights)
        self._metrics = self.manager.diagnostics()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add a checkpoint if its turn has come."""
        del args, control, kwargs
        if isinstance(self.every, int) and state.global_step % self.every == 0:
            self._add(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add a checkpoint if there is one every epoch."""
        del args, control, kwargs
        if self.every == "epoch":
            self._add(state)
            if self._saved is not None and self._saved.name == _name(state):  # saved after the epoch's last step
                self.manager.save(self._saved / FOLDER)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add a checkpoint if there is one every save, and write the teacher into the trainer's checkpoint folder."""
        del control, kwargs
        if self.every == "save":
            self._add(state)
        folder = Path(str(args.output_dir)) / _name(state)
        if state.is_world_process_zero and folder.is_dir():
            self.manager.save(folder / FOLDER)
            self._saved = folder

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the teacher's numbers, under ``teacher/``, to what the trainer logs of training."""
        del args, control
        logs = kwargs.get("logs")
        if logs is not None and "loss" in logs:
            logs.update(self._metrics)
            if state.log_history:
                state.log_history[-1].update(self._metrics)

    def _add(self, state: TrainerState) -> None:
        if state.global_step == self._last_step:  # a trainer may save twice after one step
            return
        self.manager.add(self._weights(), f"step-{state.global_step}")
        self._last_step = state.global_step
        self._metrics = self.manager.diagnostics()

    def _load(self, args: TrainingArguments, state: TrainerState, weights: dict[str, Tensor]) -> None:
        given = self.resume_from or Path(str(args.output_dir)) / _name(state)
        folder = given / FOLDER
        if not folder.is_dir():
            raise CheckpointError(
                f"training goes on after step {state.global_step}, but there is no teacher in {folder}; expected a "
                "checkpoint that was saved with this callback. If it lies elsewhere: "
                "MergedTeacherCallback(resume_from=FOLDER)"
            )
        self.manager.load(folder)
        saved = self.manager.teacher_state()
        if {name: t.shape for name, t in saved.items()} != {name: t.shape for name, t in weights.items()}:
            odd = sorted(saved.keys() ^ weights.keys())[:3]
            raise CheckpointError(f"the teacher in {folder} is of another model or adapter: {odd or 'shapes'} differ")
        self._last_step = state.global_step

    # --- the teacher

    @contextmanager
    def teacher(self) -> Iterator[Any]:
        """Let the trainer's model be the teacher, in evaluation mode, and the student again afterwards, bit for bit.

        The student's weights are put aside, not overwritten: gradients of a forward pass before may be computed after.
        For LoRA the teacher's task vectors are added to the base's weights in float32 and rounded to their type.

        Yields:
            The model. Saving it here saves a LoRA model's own factors, not the teacher.

        Raises:
            MergeError: Before training begins.
            ModelError: If the model is the teacher already.
        """
        state = self.manager.teacher_state()
        if self._inside:
            raise ModelError("the model is the teacher already; leave the inner `with callback.teacher()` out")
        adapted = lora.base_weights(self._model) if lora.is_adapted(self._model) else {}
        places = self._trained() | adapted
        modes = {module: module.training for module in self._model.modules()}
        aside: dict[str, Tensor] = {}
        self._inside = True
        try:
            with lora.factors_off(self._model) if adapted else nullcontext():
                for name, tensor in state.items():
                    weight = places[name]
                    own = weight.detach()
                    new = own.float() + tensor.to(own.device) if name in adapted else tensor.to(own.device)
                    aside[name] = weight.data
                    weight.data = new.to(own.dtype, copy=True)
                self._model.eval()
                yield self._model
        finally:
            for name, tensor in aside.items():
                places[name].data = tensor
            for module, training in modes.items():
                module.training = training
            self._inside = False

    @torch.no_grad()
    def teacher_logits(self, **model_inputs: Any) -> Tensor:
        """Compute the teacher's logits.

        Args:
            **model_inputs: What the model takes; ``labels`` are left out. Tensors go to the model's device.

        Returns:
            float32 [B, T, vocabulary].
        """
        with self.teacher() as model:
            device = next(model.parameters()).device
            inputs = {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in model_inputs.items()
                if name not in ("labels", "num_items_in_batch")
            }
            logits: Tensor = model(**inputs).logits
            return logits.float()

    @torch.no_grad()
    def teacher_log_probs(self, **model_inputs: Any) -> Tensor:
        """Compute what the teacher gives each label, from the tokens before it.

        Args:
            **model_inputs: What the model takes, ``labels`` [B, T] among them (``input_ids`` if there are none).

        Returns:
            float32 [B, T - 1]: entry t is of label t + 1; 0 where that is -100.
        """
        labels = model_inputs.get("labels", model_inputs.get("input_ids"))
        if labels is None:
            raise ConfigError(f"expected labels or input_ids among the inputs, got {sorted(model_inputs)}")
        log_probs = self.teacher_logits(**model_inputs)[:, :-1].log_softmax(-1)
        wanted = labels[:, 1:].to(log_probs.device)
        counts = wanted != IGNORED
        chosen = log_probs.gather(-1, wanted.masked_fill(~counts, 0).unsqueeze(-1)).squeeze(-1)
        return chosen.masked_fill(~counts, 0.0)

    # --- weights

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """Return the trained parameters by name, without LoRA's factors."""
        adapted = lora.is_adapted(self._model)
        return {
            name: parameter
            for name, parameter in self._model.named_parameters()
            if parameter.requires_grad and not (adapted and "lora_" in name)
        }

    def _weights(self) -> dict[str, Tensor]:
        """Return copies on the CPU of what is merged."""
        if self._model is None:
            raise MergeError("training has not begun; the teacher needs the trainer's model")
        if self._inside:
            raise ModelError("the model is the teacher now; leave `with callback.teacher()` before training goes on")
        trained = self._trained()
        adapted = lora.base_weights(self._model) if lora.is_adapted(self._model) else {}
        for name, parameter in (trained | adapted).items():
            if any(hasattr(parameter, attribute) for attribute in _SPREAD):
                raise ModelError(
                    f"{name!r} is spread over processes (FSDP or DeepSpeed ZeRO-3); the teacher needs whole weights. "
                    "Train with data parallelism, or with LoRA"
                )
            if not parameter.is_floating_point():
                raise ModelError(f"{name!r} is quantised ({parameter.dtype}); no task vector can be added to it")
        if not trained and not adapted:
            raise ModelError("expected a model with trainable parameters, got none that requires a gradient")
        copies = {name: parameter.detach().cpu().clone() for name, parameter in trained.items()}
        return copies | (dict(lora.LiveDeltas(self._model, alone=False)) if adapted else {})


def _name(state: TrainerState) -> str:
    """Return how the trainer calls the checkpoint folder of a step."""
    return f"checkpoint-{state.global_step}"
