"""A model behind an OpenAI-compatible chat endpoint as the one who plays."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gtr_agents.endpoint_settings import EndpointSettings
from gtr_agents.errors import ConfigError, EndpointError
from gtr_agents.parsing import parse_answer
from gtr_agents.teachers.chat import ChatClient, ChatError, ExternalSettings
from gtr_agents.teachers.corrector import prompt_messages
from gtr_agents.types import Answer, Prompt, Response

if TYPE_CHECKING:
    from gtr_agents.prompts import PromptTemplate
    from gtr_agents.rollout import Noise

_NAMED = re.compile(r"openai:(?P<model>.+)@(?P<url>https?://.+)")


def is_endpoint(spec: str) -> bool:
    """Say whether a text names an endpoint and no model on disk or on the hub."""
    return spec.startswith(("http://", "https://", "openai:"))


def read_endpoint(spec: str) -> tuple[str, str]:
    """Take the name of an endpoint apart.

    Args:
        spec: ``http://host:port/v1``, or ``openai:MODEL@http://host:port/v1``.

    Returns:
        Address and name of the model there; an empty name if none was given.

    Raises:
        ConfigError: If it is neither.
    """
    if not spec.startswith("openai:"):
        return spec, ""
    named = _NAMED.fullmatch(spec)
    if named is None:
        raise ConfigError(f"expected an endpoint such as openai:MODEL@http://127.0.0.1:8000/v1, got {spec!r}")
    return named["url"], named["model"]


def open_client(spec: str, settings: EndpointSettings, *, temperature: float, max_tokens: int) -> ChatClient:
    """Find the model behind an endpoint and get ready to ask it.

    Args:
        spec: As for :func:`read_endpoint`; without a name, the only model there is taken.
        settings: How it is asked.
        temperature: Of sampled answers.
        max_tokens: Longest answer.

    Returns:
        A started client.

    Raises:
        ConfigError: If the settings cannot be used, or there are several models and none was named.
        EndpointError: If it cannot be asked.
    """
    if min(settings.concurrency, settings.max_failures) < 1 or settings.retries < 0 or settings.timeout_s <= 0:
        raise ConfigError(
            "endpoint.concurrency and endpoint.max_failures must be at least 1, endpoint.retries at least 0 and "
            f"endpoint.timeout_s above 0, got {settings}."
        )
    url, model = read_endpoint(spec)
    external = ExternalSettings(
        base_url=url,
        model=model,
        api_key_env=settings.api_key_env,
        temperature=temperature,
        max_tokens=max_tokens,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
        concurrency=settings.concurrency,
        budget_tokens=settings.budget_tokens,
        cache=settings.cache,
    )
    client = ChatClient(external)
    if (problem := client.problem()) is not None:
        raise EndpointError(
            f"{url} cannot be asked: {problem}. Is it running, and is the key in ${settings.api_key_env} right?"
        )
    if not model:
        try:
            models = client.models()
        except ChatError as error:
            raise EndpointError(f"{url} does not tell its models ({error}): name one, openai:MODEL@{url}") from error
        if len(models) != 1:
            raise ConfigError(f"{url} has {len(models)} models, name one with openai:MODEL@{url}: {', '.join(models)}")
        client = ChatClient(replace(external, model=models[0]))
    client.start()
    return client


class EndpointActor:
    """Lets a model behind a chat endpoint play: our prompts and pictures go out, its answers are parsed like any other.

    A request that fails is no answer: the episode ends there, and nothing is played. After too many failures in a row,
    and when the budget is spent, nothing is asked any more.

    Args:
        client: A started client.
        template: The format of prompts and answers.
        max_failures: Failed requests in a row after which nothing is asked any more.
    """

    def __init__(self, client: ChatClient, template: PromptTemplate, *, max_failures: int = 5) -> None:
        self.client = client
        self.template = template
        self.max_failures = max_failures
        self._in_a_row = 0
        self._ended: str | None = None
        self._lock = threading.Lock()

    def ended(self) -> str | None:
        """Say why nothing is asked any more; None if it is."""
        return self._ended or self.client.spent()

    def act(self, prompts: Sequence[Prompt], *, generator: Noise = None) -> list[Response]:
        """Ask about all prompts, several at a time.

        Args:
            prompts: What to answer.
            generator: Decides the seed that goes with each request; None asks at temperature 0.

        Returns:
            One response per prompt, with text and meaning alone: the protocol tells no log-probs and no values.
        """
        temperature = 0.0 if generator is None else self.client.settings.temperature
        numbers = _numbers(generator, len(prompts))
        pool = ThreadPoolExecutor(self.client.settings.concurrency, thread_name_prefix="endpoint")
        try:
            return list(pool.map(partial(self._answer, temperature), prompts, numbers))
        except BaseException:
            self.client.stop()  # so that requests under way end
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def predict_values(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return 0 for every state: an endpoint predicts none."""
        return [0.0] * len(prompts)

    def _answer(self, temperature: float, prompt: Prompt, number: int) -> Response:
        if (reason := self.ended()) is not None:
            return _response("", Answer(), f"not asked: {reason}")
        try:
            text = self.client.ask(prompt_messages(prompt), number, temperature=temperature)
        except ChatError as error:
            self._failed(str(error))
            return _response("", Answer(), str(error))
        with self._lock:
            self._in_a_row = 0
        answer = parse_answer(
            text,
            self.template.required_keys,
            thought_key=self.template.thought_key,
            action_key=self.template.action_key,
        )
        return _response(text, answer)

    def _failed(self, cause: str) -> None:
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= self.max_failures and self._ended is None:
                self._ended = f"{self._in_a_row} requests in a row have failed, the last one with {cause}"


def _numbers(generator: Noise, n: int) -> list[int]:
    """One number per prompt, from the generators; zeros for greedy answers."""
    import torch

    if generator is None:
        return [0] * n
    generators = [generator] * n if isinstance(generator, torch.Generator) else generator
    return [int(torch.randint(2**31, (), generator=g, device=g.device)) for g in generators]


def _response(text: str, answer: Answer, failure: str = "") -> Response:
    none: dict[str, Any] = {
        "prompt_ids": np.zeros(0, np.int64),
        "token_ids": np.zeros(0, np.int64),
        "log_probs": np.zeros(0, np.float32),
        "log_probs_t1": np.zeros(0, np.float32),
        "thought_mask": np.zeros(0, np.bool_),
    }
    return Response(text, answer, **none, value=0.0, failure=failure)
