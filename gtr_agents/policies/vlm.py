"""The vision-language policy: a transformers model and its processor behind act, evaluate and score."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from gtr_agents.errors import ConfigError, ModelError
from gtr_agents.merging.compress import is_factored
from gtr_agents.parsing import parse_answer
from gtr_agents.policies import lora
from gtr_agents.policies.checkpointing import checkpointable_layers, checkpointing
from gtr_agents.policies.features import check_features, model_arguments, replace_pixels
from gtr_agents.policies.generation import Generated, capture_hidden, draw_seeds, score_answers, write_answers
from gtr_agents.policies.inputs import append_answers, collate, encode
from gtr_agents.policies.loading import (
    check_processor,
    check_quantization,
    load_model,
    load_processor,
    plain_generation_config,
    set_image_options,
)
from gtr_agents.policies.sampling import SamplingRecorder, entropy_of, policy_log_probs
from gtr_agents.policies.value_head import ValueHead
from gtr_agents.prompts import get_template, template_data
from gtr_agents.types import Answer, Prompt, Response

if TYPE_CHECKING:
    from gtr_agents.policies.engine import Engine
    from gtr_agents.policies.split import SplitModel
    from gtr_agents.prompts import PromptTemplate


SCORED_ENTRIES = 2**27
"""Logits of answers that are scored at once: half a gigabyte in fp32, of which there are some copies for a moment."""


@dataclass(slots=True)
class PolicyOutput:
    """What scoring a batch returns, with gradient. B responses, T response tokens (padded)."""

    log_probs: torch.Tensor
    """Log-probability of each sampled token at the temperature asked for, fp32 [B, T]; 0 at padding."""
    entropy: torch.Tensor
    """Entropy at each position in nats, fp32 [B, T]; 0 at padding. Carries no gradient."""
    values: torch.Tensor
    """State values, fp32 [B]."""
    mask: torch.Tensor
    """True marks a sampled token, False padding; bool [B, T]."""
    prompt_loss: torch.Tensor
    """Mean cross-entropy of the prompts' own text in nats, 0-dimensional; 0 if it was not asked for."""


class VLMPolicy:
    """A vision-language model that acts by writing one JSON answer per observation.

    Args:
        model: an image-text-to-text model of transformers, adapters already attached if any.
        processor: its processor (tokenizer and image processor).
        template: prompt template, its name, or its fields as saved; its keys are what the parser requires.
        temperature: sampling temperature; the scored density uses the same.
        max_new_tokens: limit of an answer.
        value_widths: widths of the value head.
        value_stop_gradient: True keeps the critic's gradient out of the model.
        cache_inputs: True keeps the processed inputs of prompts that are still alive, so that an update does not
            process the images again. Costs memory: pixel tensors of a whole rollout.
        reuse_image_features: True runs the vision part once per prompt that is alive and keeps what it finds instead
            of pixels: for models of which only the language part is trained.
        gradient_checkpointing: True keeps only the inputs of the model's layers while training and computes the rest
            again in the backward pass: less memory, about a third more time, the same gradient.
        seed: seed of the value head's initial weights.
        engine: writes the answers in the place of the model's ``generate``; the model scores them.

    Raises:
        ModelError: if the processor has no tokenizer, no image processor or no chat template, or the model no layers
            that can be checkpointed although it is asked for.
        ConfigError: if temperature or length are not positive, or features shall be used again that training changes.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        template: str | PromptTemplate | Mapping[str, Any] = "paper",
        temperature: float = 0.2,
        max_new_tokens: int = 256,
        value_widths: tuple[int, int] = (1024, 512),
        value_stop_gradient: bool = False,
        cache_inputs: bool = True,
        reuse_image_features: bool = False,
        gradient_checkpointing: bool = False,
        seed: int = 0,
        engine: Engine | None = None,
    ) -> None:
        check_processor(processor, "the given processor")
        if temperature <= 0 or max_new_tokens < 1:
            raise ConfigError(
                f"Expected temperature > 0 and max_new_tokens >= 1, got {temperature} and {max_new_tokens}; "
                "act without a generator to answer greedily."
            )
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:  # Llama-like tokenizers; padding is told by the mask, so any id does
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.template = get_template(template)
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.cache_inputs = cache_inputs or reuse_image_features
        self.reuse_image_features = reuse_image_features
        if reuse_image_features:
            check_features(self._network)
        hidden_size = model.get_output_embeddings().weight.shape[1]
        self.value_head = ValueHead(hidden_size, value_widths, stop_gradient=value_stop_gradient, seed=seed)
        self.value_head.to(self.device)
        # generate() runs on the inner model and would follow the penalties in that one's settings.
        lora.inner(model).generation_config = plain_generation_config(self.tokenizer)
        self.eos_id: int = self.tokenizer.eos_token_id
        self.pad_id: int = self.tokenizer.pad_token_id
        self.banned = self._banned_tokens()
        self._inputs: WeakKeyDictionary[Prompt, dict[str, torch.Tensor]] = WeakKeyDictionary()
        self._pieces: dict[int, str] = {}
        self._teacher_adapter = lora.TeacherAdapter()
        self.engine = engine
        self._engine_has: list[int] | None = None
        self._acts_as_other = False
        self._checkpointed = checkpointable_layers(model) if gradient_checkpointing else []
        self._split: SplitModel | None = None
        self.model.eval()

    # --- construction ---------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        lora: Mapping[str, Any] | None = None,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> VLMPolicy:
        """Load a policy from a folder it was saved to, from any image-text-to-text model folder, or from the hub.

        Args:
            path: a folder or a hub id.
            lora: settings of a new LoRA adapter, e.g. ``{"r": 16}``; None trains all weights (or continues the saved
                adapter if the folder holds one).
            device: torch device; default the GPU if there is one.
            dtype: ``"auto"`` (as saved), ``"float32"`` or ``"bfloat16"``.
            trust_remote_code: run code that comes with the model; off unless you know whose it is.
            **kwargs: as the constructor, and ``quantization``: ``"4bit"`` keeps the base below an adapter in 4 bits
                (QLoRA, CUDA only); and ``image_processor``: changed settings of it. They override what the folder says.

        Returns:
            The policy, in evaluation mode.

        Raises:
            ModelError: if the folder holds no model, no processor, or weights that are not safetensors.
            ConfigError: for 4 bits without an adapter or CUDA, or a setting that the image processor does not have.
            DependencyError: for 4 bits without bitsandbytes.
        """
        return _load(cls, str(path), lora, device, dtype, trust_remote_code, kwargs)

    @property
    def is_adapted(self) -> bool:
        """True if a LoRA adapter is trained, False if all weights are."""
        return lora.is_adapted(self.model)

    @property
    def _network(self) -> Any:
        """The model whose forward is called; adapters act inside its modules."""
        return lora.inner(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def _banned_tokens(self) -> torch.Tensor:
        """Mark special tokens other than end-of-answer, and ids beyond the tokenizer.

        Sampling an image placeholder would break the next scoring pass.
        """
        size = self.model.get_output_embeddings().weight.shape[0]
        banned = torch.zeros(size, dtype=torch.bool)
        specials = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        specials |= set(self.tokenizer.all_special_ids)
        banned[[i for i in specials if i < size]] = True
        banned[len(self.tokenizer) :] = True
        banned[self.eos_id] = False
        return banned.to(self.device)

    # --- inputs ---------------------------------------------------------------------------------------------------

    def _encode(self, prompts: Sequence[Prompt]) -> list[dict[str, torch.Tensor]]:
        """Process prompts into per-prompt model inputs (first axis 1, unpadded)."""
        missing = [prompt for prompt in prompts if prompt not in self._inputs]
        rows = encode(self.processor, missing) if missing else []
        if rows and self.reuse_image_features:
            rows = replace_pixels(self._network, rows, self.device)
        fresh = dict(zip(missing, rows, strict=True))
        if self.cache_inputs:
            self._inputs.update(fresh)
            return [self._inputs[prompt] for prompt in prompts]
        return [fresh[prompt] for prompt in prompts]

    def _logits(self, inputs: dict[str, torch.Tensor], keep: int) -> torch.Tensor:
        """Logits of the last ``keep`` positions (0 for all) of a batch, [B, keep, V]."""
        logits: torch.Tensor = self._network(**model_arguments(inputs), use_cache=False, logits_to_keep=keep).logits
        return logits

    def prompt_lengths(self, prompts: Sequence[Prompt]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of tokens of each prompt, those of its picture included, int64 [B]."""
        return np.array([row["input_ids"].shape[1] for row in self._encode(prompts)], dtype=np.int64)

    def token_texts(self, token_ids: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
        """Decode each token alone, for display."""
        return [self._piece(int(i)) for i in token_ids]

    def _piece(self, token_id: int) -> str:
        if token_id not in self._pieces:
            self._pieces[token_id] = self.tokenizer.decode([token_id])
        return self._pieces[token_id]

    def _token_starts(self, ids: Sequence[int], text: str) -> list[int]:
        """Character offset in ``text`` at which each sampled token starts, and the end of the last one.

        Fast when the tokens' own texts join to the whole text; otherwise (multi-byte characters over several tokens,
        tokenizers that trim spaces) by decoding every prefix. A prefix that ends inside a character may decode to more
        placeholders than the character has: what a longer prefix takes back is taken back from the shorter one.
        """
        pieces = [self._piece(i) for i in ids]
        if "".join(pieces) == text:
            return [0, *np.cumsum([len(piece) for piece in pieces]).tolist()]
        lengths = [len(self.tokenizer.decode(ids[:n])) for n in range(len(ids) + 1)]
        starts: list[int] = np.minimum.accumulate(lengths[::-1])[::-1].tolist()
        return starts

    def thought_mask(self, ids: Sequence[int], text: str, answer: Answer) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark the thought tokens of a sampled answer from character offsets (True = thought, bool [T]).

        A token that reaches into the action span is an action token, so is the end-of-answer token after it; without an
        action span every token is thought.
        """
        if answer.action_span is None:
            return np.ones(len(ids), dtype=np.bool_)
        mask = ~self.span_mask(ids, text, answer.action_span)
        if answer.action_span[1] == len(text):
            mask[sum(i != self.eos_id for i in ids) :] = False
        return mask

    def span_mask(self, ids: Sequence[int], text: str, span: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mark the tokens that write any of the characters [start, end) of an answer (True = inside, bool [T])."""
        start, end = span
        mask = np.zeros(len(ids), dtype=np.bool_)
        content = [i for i in ids if i != self.eos_id]
        for index, (first, last) in enumerate(pairwise(self._token_starts(content, text))):
            # A token that only completes a character belongs to that character.
            mask[index] = last > start and min(first, last - 1) < end
        return mask

    # --- acting ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self,
        prompts: Sequence[Prompt],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
    ) -> list[Response]:
        """Answer a batch of prompts.

        Args:
            prompts: what to answer, one response each.
            generator: source of randomness, or one for each prompt; None answers greedily.
            temperature: of sampling and of the recorded log-probs, > 0; default the policy's.
            max_new_tokens: limit of an answer; default the policy's.

        Returns:
            One response per prompt, log-probs and values from the same pass that sampled.
        """
        encoded = self._encode(prompts)
        by_engine = self.engine is not None and not self._acts_as_other
        generate = self._generate_by_engine if by_engine else self._generate
        found = generate(
            prompts, encoded, generator, temperature or self.temperature, max_new_tokens or self.max_new_tokens
        )
        tokens = found.tokens
        values = self.value_head(found.hidden).float().cpu().numpy()
        log_probs, log_probs_t1 = found.log_probs.cpu().numpy(), found.log_probs_t1.cpu().numpy()
        entropies = found.entropies.cpu().numpy()
        lengths = found.lengths
        texts = self.tokenizer.batch_decode(
            [row[:n] for row, n in zip(tokens, lengths, strict=True)], skip_special_tokens=True
        )
        responses = []
        for row, (n, text) in enumerate(zip(lengths, texts, strict=True)):
            ids = tokens[row, :n]
            answer = parse_answer(
                text,
                self.template.required_keys,
                thought_key=self.template.thought_key,
                action_key=self.template.action_key,
            )
            responses.append(
                Response(
                    text=text,
                    answer=answer,
                    prompt_ids=encoded[row]["input_ids"][0].cpu().numpy(),
                    token_ids=ids.astype(np.int64),
                    log_probs=log_probs[row, :n].copy(),
                    log_probs_t1=log_probs_t1[row, :n].copy(),
                    thought_mask=self.thought_mask(ids.tolist(), text, answer),
                    value=float(values[row]),
                    entropy=float(entropies[row, :n].mean()),
                    truncated=bool(n and ids[-1] != self.eos_id),
                )
            )
        return responses

    def _generate(
        self,
        prompts: Sequence[Prompt],
        encoded: Sequence[dict[str, torch.Tensor]],
        generator: torch.Generator | Sequence[torch.Generator] | None,
        temperature: float,
        max_new_tokens: int,
    ) -> Generated:
        """Let the model write answers; everything comes from the pass that samples."""
        del prompts
        return write_answers(
            self._network,
            collate(encoded, self.pad_id, self.device),
            SamplingRecorder(self.banned, temperature, generator),
            max_new_tokens=max_new_tokens,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
        )

    def _generate_by_engine(
        self,
        prompts: Sequence[Prompt],
        encoded: Sequence[dict[str, torch.Tensor]],
        generator: torch.Generator | Sequence[torch.Generator] | None,
        temperature: float,
        max_new_tokens: int,
    ) -> Generated:
        """Let the engine write answers with the present weights, and score them with the model."""
        assert self.engine is not None
        del encoded
        has = [p._version for p in self.model.parameters() if p.requires_grad]  # counts changes in place
        if has != self._engine_has:
            self.engine.load(self)
            self._engine_has = has
        seeds = None if generator is None else draw_seeds(generator, len(prompts))
        token_ids = self.engine.generate(prompts, temperature=temperature, max_new_tokens=max_new_tokens, seeds=seeds)
        inputs, targets, _ = self._with_answers(prompts, [np.array(ids, np.int64) for ids in token_ids])
        with capture_hidden(self.model) as hidden:
            logits = self._logits(inputs, targets.shape[1] + 1)[:, :-1]
        lengths = [len(ids) for ids in token_ids]
        return score_answers(logits, hidden[0][:, 0], targets, lengths, self.banned, temperature)

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt as the model sees it, placeholders of the picture included."""
        ids: list[int] = self._encode([prompt])[0]["input_ids"][0].tolist()
        return ids

    @torch.no_grad()
    def predict_values(self, prompts: Sequence[Prompt]) -> list[float]:
        """Predict the values of the states the prompts show; one float each."""
        inputs = collate(self._encode(prompts), self.pad_id, self.device)
        with capture_hidden(self.model) as hidden:
            self._logits(inputs, 1)
        values: list[float] = self.value_head(hidden[0][:, -1]).cpu().tolist()
        return values

    def evaluate(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[np.ndarray[Any, Any]],
        *,
        temperature: float | None = None,
        with_prompts: bool = False,
        entropy_gradient: bool = False,
    ) -> PolicyOutput:
        """Score given answers under their own prompts, with gradient.

        Args:
            prompts: the prompts the answers were sampled under.
            token_ids: the sampled token ids, int64 [T] each, unpadded.
            temperature: of the scored density; default the sampling temperature.
            with_prompts: True also scores the text of the prompts, for supervised training.
            entropy_gradient: True lets the entropy have a gradient, too.

        Returns:
            Log-probs, entropy and values; padded on the right to the longest answer.
        """
        inputs, targets, mask = self._with_answers(prompts, token_ids)
        length = targets.shape[1]
        with capture_hidden(self.model) as hidden, checkpointing(self._checkpointed):
            logits = self._logits(inputs, 0 if with_prompts else length + 1)
        prompt_loss = logits.new_zeros(())
        if with_prompts:
            prompt_loss = self._prompt_loss(logits[:, : -length - 1], inputs["input_ids"][:, 1:-length])
            logits = logits[:, -length - 1 :]
        log_probs = policy_log_probs(logits[:, :-1], self.banned, temperature or self.temperature)
        chosen = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1).masked_fill(~mask, 0.0)
        with nullcontext() if entropy_gradient else torch.no_grad():
            entropy = entropy_of(log_probs).masked_fill(~mask, 0.0)
        return PolicyOutput(chosen, entropy, self.value_head(hidden[0][:, 0]), mask, prompt_loss)

    def _prompt_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of prompt tokens [B, P-1]; images, marks of the chat and padding are no text."""
        log_probs = policy_log_probs(logits, self.banned, 1.0)
        is_text = ~self.banned[targets] & (targets != self.eos_id)
        return -log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)[is_text].mean()

    def _with_answers(
        self, prompts: Sequence[Prompt], token_ids: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Left-pad prompts, right-pad answers: every answer starts at the same column.

        Returns:
            Model inputs [B, P+T], targets [B, T], mask [B, T] (True = sampled token).
        """
        inputs = collate(self._encode(prompts), self.pad_id, self.device)
        length = max(len(ids) for ids in token_ids)
        targets = torch.full((len(prompts), length), self.pad_id, dtype=torch.long)
        mask = torch.zeros(len(prompts), length, dtype=torch.bool)
        for row, ids in enumerate(token_ids):
            targets[row, : len(ids)] = torch.from_numpy(np.asarray(ids))
            mask[row, : len(ids)] = True
        targets, mask = targets.to(self.device), mask.to(self.device)
        return append_answers(inputs, targets, mask), targets, mask

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[Prompt],
        token_ids: Sequence[np.ndarray[Any, Any]],
        *,
        batch_size: int = 64,
        temperature: float = 1.0,
    ) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        """Log-probabilities of given answers under their own prompts, without gradient.

        This is what a teacher does with a student's thoughts: same tokens, same prompt, same image.

        Args:
            prompts: the prompts the answers were sampled under.
            token_ids: the sampled token ids, int64 [T] each.
            batch_size: answers scored at once, at most; fewer where the vocabulary is large.
            temperature: of the scored density.

        Returns:
            One float32 [T] per answer.
        """
        scores: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = {}
        order = np.argsort([prompt.length_class for prompt in prompts], kind="stable")
        longest = max((len(ids) for ids in token_ids), default=0) + 1
        batch_size = min(batch_size, max(1, SCORED_ENTRIES // (longest * self.banned.numel())))
        for start in range(0, len(prompts), batch_size):
            chunk = order[start : start + batch_size]
            output = self.evaluate([prompts[i] for i in chunk], [token_ids[i] for i in chunk], temperature=temperature)
            for i, row in zip(chunk, output.log_probs.cpu().numpy(), strict=True):
                scores[i] = row[: len(token_ids[i])].copy()
        return [scores[i] for i in range(len(prompts))]

    @torch.no_grad()
    def distributions(self, prompts: Sequence[Prompt], token_ids: Sequence[np.ndarray[Any, Any]]) -> torch.Tensor:
        """Log-probabilities at temperature 1 of the whole vocabulary at every position of given answers.

        Args:
            prompts: the prompts the answers were sampled under.
            token_ids: the sampled token ids, int64 [T] each, unpadded.

        Returns:
            fp32 [B, T, V], minus infinity for tokens that are never sampled; anything at padding.
        """
        inputs, targets, _ = self._with_answers(prompts, token_ids)
        logits = self._logits(inputs, targets.shape[1] + 1)
        return policy_log_probs(logits[:, :-1], self.banned, 1.0)

    # --- pieces ---------------------------------------------------------------------------------------------------

    def split(self, *, free_layers: bool = True) -> None:
        """Share the model out among the processes that are connected; each holds a piece of it while it trains.

        Args:
            free_layers: True frees a layer between its forward and its backward pass.

        Raises:
            ConfigError: for weights in 4 bits, an engine beside the model, or features that are used again.
        """
        from gtr_agents.policies.split import SplitModel

        if getattr(self.model, "is_loaded_in_4bit", False) or self.engine is not None or self.reuse_image_features:
            raise ConfigError(
                "A model in 4 bits, with an engine that writes the answers, or with features of pictures that are used "
                "again cannot be split over processes. Set policy.quantization to none, policy.engine to transformers "
                "and policy.reuse_image_features to false, or launch without FSDP."
            )
        names = list(self.model.state_dict())
        self._split = SplitModel(self._network, saved_names=names, free_layers=free_layers)

    @property
    def is_split(self) -> bool:
        """True if processes share the model, so that they must train in step."""
        return self._split is not None

    @property
    def is_whole(self) -> bool:
        """False if this process holds a piece only: now, or since training was interrupted."""
        return self._split is None or self._split.is_whole

    def in_pieces(self) -> AbstractContextManager[None]:
        """What training a model that is split happens in; nothing changes for one that is not."""
        return nullcontext() if self._split is None else self._split.in_pieces()

    def forget_pass(self) -> None:
        """Tell that no backward pass follows the last forward pass with gradient; in step, as :meth:`in_pieces`."""
        if self._split is not None:
            self._split.forget_pass()

    # --- weights --------------------------------------------------------------------------------------------------

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """Parameters an optimizer should update: the model's (or its adapter's), then the value head's."""
        return [p for p in (*self.model.parameters(), *self.value_head.parameters()) if p.requires_grad]

    def merge_state(self) -> dict[str, torch.Tensor]:
        """A copy of what checkpoints are merged from: full weights, or the LoRA deltas ``scale * B @ A`` per module.

        The value head is never part of it.
        """
        return {name: tensor.clone() for name, tensor in self.live_state().items()}

    def live_state(self) -> Mapping[str, torch.Tensor]:
        """What :meth:`merge_state` copies, without the copy: it follows the policy, so use it at once.

        LoRA deltas are computed when they are asked for, so that only one dense matrix is in memory.
        """
        if lora.is_adapted(self.model):
            return lora.LiveDeltas(self.model)
        return {name: p.detach() for name, p in self.model.named_parameters()}

    @contextmanager
    def using(self, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Act as the model described by ``state``, and come back, exactly, also after an exception.

        Student, teacher and start share one resident model. Weights and task vectors are written into it, and what was
        there is restored from a copy. Factors become a second adapter beside the student's, which stays loaded until
        other factors come: no dense task vector and no copy of the base.

        Args:
            state: as made by :meth:`merge_state`; or, for a policy with a LoRA adapter, such a state in factors
                (:func:`gtr_agents.merging.compress.factorise`).

        Raises:
            ModelError: for factors without an adapter they could stand beside, or an adapter that is not
                ``W + scale * B @ A``.
        """
        with self._as_other(), self._using(state):
            yield

    @contextmanager
    def _as_other(self) -> Iterator[None]:
        """Leave the engine aside: it has the student's weights."""
        before, self._acts_as_other = self._acts_as_other, True
        try:
            yield
        finally:
            self._acts_as_other = before

    @contextmanager
    def _using(self, state: Mapping[str, torch.Tensor]) -> Iterator[None]:
        factored = is_factored(state)
        if lora.is_adapted(self.model):
            acting = self._teacher_adapter.using if factored else lora.using_deltas
            with acting(self.model, state):
                yield
            return
        if factored:
            raise ModelError(
                "A teacher in factors (teacher.form: adapter) needs a policy with a LoRA adapter, but this one trains "
                "all weights. Set teacher.form to dense, or policy.lora."
            )
        own = dict(self.model.named_parameters())
        backup = {name: own[name].detach().clone() for name in state}
        try:
            with torch.no_grad():
                for name, tensor in state.items():
                    own[name].copy_(tensor)
            yield
        finally:
            with torch.no_grad():
                for name, tensor in backup.items():
                    own[name].copy_(tensor)

    @contextmanager
    def using_initial(self, start: Mapping[str, torch.Tensor] | None = None) -> Iterator[None]:
        """Act as the model that training began with, and come back, exactly.

        Args:
            start: its state, as made by :meth:`merge_state` then. None is for LoRA only and means the base with the
                adapter off, which is where a fresh adapter begins.

        Raises:
            ConfigError: if all weights are trained and no state is given.
        """
        if start is not None:
            with self.using(start):
                yield
            return
        if not lora.is_adapted(self.model):
            raise ConfigError(
                "Where all weights are trained, the initial model is not resident: pass start=, what merge_state() "
                "returned before the first update."
            )
        with self._as_other(), lora.using_initial(self.model):
            yield

    def _saved_state(self) -> dict[str, torch.Tensor] | None:
        """Whole tensors under the names of a state dict, which itself would cut a split model; None leaves it to it."""
        if self._split is None:
            return None
        tensors = dict(self.model.named_parameters(remove_duplicate=False)) | dict(self.model.named_buffers())
        return {name: tensors[name].detach() for name in self._split.saved_names}

    def save(self, folder: str | Path) -> Path:
        """Write model (or adapter), processor, value head and settings to ``folder``; safetensors and JSON only.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if lora.is_adapted(self.model):
            lora.save(self.model, folder, self._saved_state())
        else:
            self.model.save_pretrained(folder, state_dict=self._saved_state())
        self.processor.save_pretrained(folder)
        save_file(self.value_head.state_dict(), str(folder / "value_head.safetensors"))
        settings = {
            "template": template_data(self.template),
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "value_widths": list(self.value_head.widths),
            "value_stop_gradient": self.value_head.stop_gradient,
            # The adapter was trained on top of these weights, so it acts on no others.
            "quantization": "4bit" if getattr(self.model, "is_loaded_in_4bit", False) else "none",
        }
        (folder / "policy.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return folder


def _load(
    cls: type[VLMPolicy],
    path: str,
    lora_settings: Mapping[str, Any] | None,
    device: str | None,
    dtype: str,
    trust_remote_code: bool,
    kwargs: dict[str, Any],
) -> VLMPolicy:
    """Load model, processor, adapter, value head and settings."""
    settings_file = Path(path) / "policy.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {}
    settings.update(kwargs)
    if "value_widths" in settings:
        settings["value_widths"] = tuple(settings["value_widths"])
    base = lora.base_model_of(path)
    quantization = settings.pop("quantization", "none")
    check_quantization(quantization, adapted=base is not None or lora_settings is not None)
    processor = load_processor(path, base=base, trust_remote_code=trust_remote_code)
    set_image_options(processor, settings.pop("image_processor", {}))
    model = load_model(
        base or path, dtype=dtype, device=device, quantization=quantization, trust_remote_code=trust_remote_code
    )
    if base is not None:
        model = lora.load(model, path)
    elif lora_settings is not None:
        model = lora.attach(model, lora_settings, settings.get("seed", 0))
    policy = cls(model, processor, **settings)
    head = Path(path) / "value_head.safetensors"
    if head.is_file():
        try:
            policy.value_head.load_state_dict(load_file(str(head)))
        except RuntimeError as error:
            raise ModelError(
                f"The value head in {head} does not fit the model: {error}. Delete the file to start with a fresh one."
            ) from error
    return policy
