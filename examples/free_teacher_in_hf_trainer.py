"""The free teacher in a training loop of others: Hugging Face's Trainer, one callback and one line in the loss.

A tiny language model learns to name the largest of four digits from data in which every fourth answer is wrong. On the
way its own weights are merged into a teacher, and the loss keeps it near that teacher.

    python examples/free_teacher_in_hf_trainer.py

needs the extra `agents`. The same callback works with a PEFT LoRA model.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from gtr_agents.integrations.transformers import MergedTeacherCallback
from gtr_agents.teachers.merged import TeacherManager


def questions(n: int, wrong: float, seed: int) -> list[dict[str, Tensor]]:
    """Draw rows of four digits and an answer, the only token that counts; a share of the answers is any digit."""
    generator = torch.Generator().manual_seed(seed)
    digits = torch.randint(10, (n, 4), generator=generator)
    guess = torch.randint(10, (n,), generator=generator)
    answers = torch.where(torch.rand(n, generator=generator) < wrong, guess, digits.max(1).values)
    ids = torch.cat([digits, answers.unsqueeze(1)], 1)
    labels = ids.clone()
    labels[:, :4] = -100
    return [{"input_ids": i, "labels": o} for i, o in zip(ids, labels, strict=True)]


class NearTheTeacher(Trainer):
    """A trainer whose loss has the divergence to the teacher added."""

    teacher: MergedTeacherCallback
    beta: float

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Add ``beta * KL(student || teacher)`` of the answers to the trainer's own loss."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        target = self.teacher.teacher_logits(**inputs)[:, -2].log_softmax(-1)
        own = outputs.logits[:, -2].float().log_softmax(-1)
        loss = loss + self.beta * (own.exp() * (own - target)).sum(-1).mean()
        return (loss, outputs) if return_outputs else loss


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, rows: list[dict[str, Tensor]]) -> float:
    """Share of rows whose answer is the likeliest token."""
    ids = torch.stack([row["input_ids"] for row in rows])
    answers = model(input_ids=ids).logits[:, -2].argmax(-1)
    return float((answers == ids[:, -1]).float().mean())


def main() -> None:
    """Train, and compare student and teacher on questions with right answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps")
    parser.add_argument("--beta", type=float, default=0.1, help="weight of the divergence; 0 leaves the teacher out")
    options = parser.parse_args()

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=10, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config)
    callback = MergedTeacherCallback(TeacherManager(weights="ema"), every=max(1, options.steps // 20))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=32,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            logging_steps=max(1, options.steps // 4),
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        trainer = NearTheTeacher(model, arguments, train_dataset=questions(4000, wrong=0.25, seed=1))
        trainer.teacher, trainer.beta = callback, options.beta
        callback.add_to(trainer)
        trainer.train()

    test = questions(1000, wrong=0.0, seed=2)
    print(f"student: {accuracy(model.eval(), test):.1%} right")
    with callback.teacher() as teacher:
        print(f"teacher: {accuracy(teacher, test):.1%} right, merged from {callback.manager.n_checkpoints} checkpoints")


if __name__ == "__main__":
    main()
