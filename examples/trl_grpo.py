"""The environments in TRL: its GRPOTrainer trains a tiny model that plays EZPoints by calling a tool.

The model first imitates an expert for a moment, so that it can write a call at all. Then TRL does the rest: it plays
groups of episodes of the same hand, in many turns, and learns from their returns.

    python examples/trl_grpo.py

needs the extra `trl`. With a real model leave `imitate` out, and give its own processor: TRL knows the tool calls of
Qwen, LFM2, Gemma and others.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch

from gtr_agents.integrations.trl import (
    PICTURES_AS_TENSORS,
    ToolEnvironment,
    episode_return,
    success,
    trl_dataset,
    trl_environment,
)
from gtr_agents.policies.tiny import ASSISTANT, END, build_tiny_vlm, tool_vocabulary, with_tools

PROMPT = "Play.\n"


def tiny_player(**sizes: Any) -> tuple[Any, Any]:
    """Build a tiny vision-language model and its processor, which writes a call of the tool in three tokens."""
    model, processor = build_tiny_vlm(vocabulary=tool_vocabulary("play", "action"), **sizes)
    return model, with_tools(processor)


def expert_conversation(game: ToolEnvironment, seed: int) -> list[dict[str, Any]]:
    """Play one hand with the solver and write it down as TRL would."""
    solver: Any = game.env.unwrapped
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": PROMPT}, *game.reset(seed=seed)]}
    ]
    while not game.ended:
        action = solver.expert_action()
        call = {"type": "function", "function": {"name": "play", "arguments": {"action": action}}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "name": "play", "content": game.play(action)})
    return messages[:-1]


def imitate(model: Any, processor: Any, conversations: Callable[[int], list[Any]], steps: int) -> float:
    """Learn the answers of conversations by cross-entropy, a batch a step, and return the last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    begin, end = (processor.tokenizer.convert_tokens_to_ids(token) for token in (ASSISTANT, END))
    for step in range(steps):
        batch = processor.apply_chat_template(
            conversations(step),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        ids = batch["input_ids"]
        # Between the mark of an answer and its end; +1 at the first and -1 after the second make a running count.
        closed = (ids == end).int().cumsum(1).roll(1, 1).index_fill(1, torch.tensor([0]), 0)
        answers = ((ids == begin).int().cumsum(1) - closed > 0) & (ids != begin)
        loss = model(**batch, labels=ids.masked_fill(~answers, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def main() -> None:
    """Imitate, then train with TRL."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imitation-steps", type=int, default=100, help="steps of imitation before")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of GRPO")
    options = parser.parse_args()
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    environment = trl_environment("EZPoints-v0", image_size=96)
    model, processor = tiny_player(hidden_size=64, layers=2, heads=2, ff_size=128, vision_layers=1)
    game = environment()

    def hands(step: int) -> list[Any]:
        return [expert_conversation(game, 10_000 + 8 * step + i) for i in range(8)]

    print(f"imitation: loss {imitate(model, processor, hands, options.imitation_steps):.2f}")

    warnings.filterwarnings("ignore", "You are using 'environment_factory'")
    warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)  # TRL 1.16 still says it so
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=16,
            num_generations=8,
            max_completion_length=320,
            max_tool_calling_iterations=6,
            chat_template_kwargs=PICTURES_AS_TENSORS,
            learning_rate=3e-4,
            reward_weights=[1.0, 0.0],
            logging_steps=max(1, options.steps // 5),
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model,
            reward_funcs=[episode_return, success],
            args=arguments,
            train_dataset=trl_dataset(1000, prompt=PROMPT),
            processing_class=processor,
            environment_factory=environment,
        )
        trainer.train()
    for line in trainer.state.log_history:
        if "rewards/success/mean" in line:
            won, calls = line["rewards/success/mean"], line["tools/call_frequency"]
            print(f"step {line['step']:3}: return {line['reward']:+.2f}, won {won:.1%}, {calls:.1f} calls an episode")


if __name__ == "__main__":
    main()
