"""vLLM as the engine behind ``VLMPolicy.act``. Written against its documented interface; it was never run on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from gtr_agents.errors import ConfigError, DependencyError, ModelError
from gtr_agents.policies.inputs import chat_messages
from gtr_agents.types import Prompt

if TYPE_CHECKING:
    from gtr_agents.policies.vlm import VLMPolicy

BAN = -100.0
"""The strongest bias that vLLM knows."""


class VLLMEngine:
    """Generates with vLLM in the same process; the student's LoRA adapter is swapped in when it has changed.

    The base model is in memory twice, once for training and once in vLLM's own layout, so this needs a large GPU.
    vLLM's adapters reach the language model: set ``policy.lora.target_modules`` so that no vision module is adapted.

    Args:
        model: folder or hub id of the base model.
        rank: largest rank of the adapter.
        memory: share of the GPU's memory that vLLM may take, in (0, 1).
        **options: further arguments of ``vllm.LLM``.

    Raises:
        DependencyError: if vLLM is not installed.
        ConfigError: if there is no GPU.
    """

    def __init__(self, model: str, *, rank: int, memory: float = 0.4, **options: Any) -> None:
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as missing:
            raise DependencyError(
                "policy.engine: vllm needs the package vllm, which is not installed. Run: pip install "
                '"gtr-suite[vllm]" (it pins a torch of its own), or set policy.engine to transformers.'
            ) from missing
        if not torch.cuda.is_available():
            raise ConfigError("policy.engine: vllm needs a GPU, found none. Set policy.engine to transformers.")
        self._sampling: Any = vllm.SamplingParams
        self._adapter: Any = LoRARequest
        self._engine = vllm.LLM(
            model=model,
            enable_lora=True,
            max_lora_rank=rank,
            gpu_memory_utilization=memory,
            limit_mm_per_prompt={"image": 1},
            **options,
        )
        self._folder = TemporaryDirectory(prefix="gtr-vllm-")
        self._n_loaded = 0
        self._request: Any = None
        self._policy: VLMPolicy | None = None
        self._checked = False

    def load(self, policy: VLMPolicy) -> None:
        """Write the policy's adapter to a file and have vLLM take it from there, under a new number.

        Args:
            policy: with a LoRA adapter.

        Raises:
            ConfigError: if all weights are trained; they cannot be swapped.
        """
        if not policy.is_adapted:
            raise ConfigError("policy.engine: vllm swaps LoRA adapters, but all weights are trained. Set policy.lora.")
        self._n_loaded += 1
        folder = Path(self._folder.name) / str(self._n_loaded)
        policy.save(folder)
        self._request = self._adapter(f"student-{self._n_loaded}", self._n_loaded, str(folder))
        self._policy = policy

    def generate(
        self, prompts: Sequence[Prompt], *, temperature: float, max_new_tokens: int, seeds: Sequence[int] | None
    ) -> list[list[int]]:
        """Write one answer for each prompt; arguments and result as :class:`gtr_agents.policies.engine.Engine`.

        Raises:
            ModelError: if vLLM reads a prompt as other tokens than the policy does.
        """
        from PIL import Image

        policy = self._policy
        assert policy is not None  # load comes first
        requests = [
            {
                "prompt": policy.processor.apply_chat_template(
                    chat_messages(prompt), tokenize=False, add_generation_prompt=True
                ),
                "multi_modal_data": {"image": Image.fromarray(prompt.image)},
            }
            for prompt in prompts
        ]
        banned = {int(token): BAN for token in policy.banned.nonzero()[:, 0].tolist()}
        common = {
            "max_tokens": max_new_tokens,
            "logit_bias": banned,
            "stop_token_ids": [policy.eos_id],
            "detokenize": False,
        }
        sampling = [
            self._sampling(temperature=temperature, seed=seed, **common)
            if seed is not None
            else self._sampling(temperature=0.0, **common)
            for seed in (seeds if seeds is not None else [None] * len(prompts))
        ]
        outputs = self._engine.generate(requests, sampling, lora_request=self._request, use_tqdm=False)
        if not self._checked:
            self._check(policy, prompts[0], list(outputs[0].prompt_token_ids))
        return [list(output.outputs[0].token_ids) for output in outputs]

    def _check(self, policy: VLMPolicy, prompt: Prompt, read: list[int]) -> None:
        own = policy.prompt_tokens(prompt)
        if read != own:
            raise ModelError(
                f"vLLM reads a prompt as {len(read)} tokens, the policy as {len(own)}, or as others: their processors "
                "differ, and answers would be scored under another prompt. Set policy.engine to transformers."
            )
        self._checked = True
