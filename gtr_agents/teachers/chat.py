"""A client for any OpenAI-compatible chat endpoint: retries that end, a budget, a cache, and no secrets anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gtr_agents.errors import TeacherError

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses of a server that may answer later; any other one of 400 and above will not change by itself."""


@dataclass(frozen=True, slots=True)
class ExternalSettings:
    """Where the teacher is, how it is asked, and what it may cost."""

    base_url: str = "http://127.0.0.1:8000/v1"
    """Address of the service up to its version; `gtr serve` listens at the default."""
    model: str = "default"
    """Name of the model there."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it is not needed where the server asks for none."""
    protocol: Literal["answer", "corrector"] = "answer"
    """answer: the teacher sees what the agent saw and answers itself; corrector: it judges the agent's thought."""
    tool: bool = False
    """corrector: True shows it what the environment's expert would answer (the solver tool of GTR)."""
    temperature: NonNegativeFloat = 0.4
    """Sampling temperature; 0 is greedy."""
    max_tokens: PositiveInt = 400
    """Longest reply."""
    timeout_s: PositiveFloat = 60.0
    """Seconds without a sign of the server after which a call has failed."""
    retries: NonNegativeInt = 3
    """Further attempts at a call that failed or whose reply cannot be read."""
    backoff_s: NonNegativeFloat = 1.0
    """Wait before the first of them; it doubles every time. A server's own Retry-After counts instead."""
    max_backoff_s: NonNegativeFloat = 30.0
    """Longest wait."""
    concurrency: PositiveInt = 4
    """Calls at the same time."""
    on_failure: Literal["skip", "stop"] = "skip"
    """skip: no sample for a step whose call failed; stop: end the run with the reason."""
    max_failures: PositiveInt = 3
    """skip: after so many failed steps in a row the others of this update are not asked about."""
    budget_tokens: PositiveInt | None = None
    """Tokens, in and out, that the run may use; null for no limit."""
    budget_usd: PositiveFloat | None = None
    """Money that the run may use, by the two prices below; null for no limit."""
    usd_per_million_in: NonNegativeFloat = 0.0
    """Price of a million tokens that are sent."""
    usd_per_million_out: NonNegativeFloat = 0.0
    """Price of a million tokens that come back."""
    on_budget: Literal["skip", "stop"] = "skip"
    """skip: train on without further samples when the budget is spent; stop: end the run."""
    cache: str | None = None
    """Folder in which replies are kept, by everything that was sent; null for none."""


class ChatError(Exception):
    """One call failed, after all its attempts."""


class ChatClient:
    """Asks a chat endpoint, from several threads.

    Args:
        settings: Where and how.
    """

    def __init__(self, settings: ExternalSettings) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http: httpx2.Client | None = None

    @property
    def url(self) -> str:
        """Where calls go."""
        return self.settings.base_url.rstrip("/") + "/chat/completions"

    @property
    def usd(self) -> float:
        """What the calls cost so far."""
        s = self.settings
        return (
            self.counts["tokens_in"] * s.usd_per_million_in + self.counts["tokens_out"] * s.usd_per_million_out
        ) / 1e6

    def spent(self) -> str | None:
        """Say which budget is spent, None if none is. Calls under way are not counted yet."""
        s, tokens = self.settings, self.counts["tokens_in"] + self.counts["tokens_out"]
        if s.budget_tokens is not None and tokens >= s.budget_tokens:
            return f"the budget of {s.budget_tokens:,} tokens is spent"
        if s.budget_usd is not None and self.usd >= s.budget_usd:
            return f"the budget of {s.budget_usd:.2f} USD is spent"
        return None

    def problem(self) -> str | None:
        """Say why calls would fail now, None if nothing is known to be wrong. Asks for the list of models, no more."""
        try:
            with httpx2.Client(timeout=min(5.0, self.settings.timeout_s), headers=self._headers()) as http:
                status = http.get(self.settings.base_url.rstrip("/") + "/models").status_code
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return f"{type(error).__name__}: {error}"
        return f"it refuses the key (status {status})" if status in (401, 403) else None

    def models(self) -> list[str]:
        """List the models that the service offers.

        Raises:
            ChatError: If it does not tell.
        """
        try:
            with httpx2.Client(timeout=min(5.0, self.settings.timeout_s), headers=self._headers()) as http:
                response = http.get(self.settings.base_url.rstrip("/") + "/models")
            return [str(model["id"]) for model in response.json()["data"]]
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise ChatError(f"{type(error).__name__}: {error}") from error

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.settings.api_key_env, "")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def start(self) -> None:
        """Open the connection pool."""
        self._stopping.clear()
        self._http = httpx2.Client(timeout=self.settings.timeout_s, headers=self._headers())

    def stop(self) -> None:
        """Close it; calls under way fail, waits end."""
        self._stopping.set()
        if self._http is not None:
            self._http.close()

    def ask(self, messages: list[dict[str, Any]], attempt: int = 0, *, temperature: float | None = None) -> str:
        """Get the reply to some messages, from the cache if it is there.

        Args:
            messages: As the chat protocol has them.
            attempt: Number of the attempt at a readable reply; another one asks with another seed.
            temperature: Sampling temperature, 0 for greedy; None takes that of the settings.

        Returns:
            The text of the reply.

        Raises:
            ChatError: If there is none after all attempts.
            TeacherError: If the budget is spent and the settings say to stop then.
        """
        s = self.settings
        body: dict[str, Any] = {
            "model": s.model,
            "messages": messages,
            "temperature": s.temperature if temperature is None else temperature,
            "max_tokens": s.max_tokens,
        }
        digest = hashlib.sha256(json.dumps([body, attempt], sort_keys=True).encode()).hexdigest()
        body["seed"] = int(digest[:7], 16)  # servers that honour it make a run repeatable
        kept = None if s.cache is None else Path(s.cache) / digest[:2] / f"{digest}.json"
        if kept is not None and (reply := _read(kept)) is not None:
            self._count(cache_hits=1)
            return reply
        if (reason := self.spent()) is not None:
            if s.on_budget == "stop":
                raise TeacherError(f"{reason[0].upper()}{reason[1:]}; raise teacher.external.budget_* and resume.")
            raise ChatError(reason)
        started = time.perf_counter()
        try:
            reply, usage = self._post(body)
        finally:
            with self._lock:
                self.seconds += time.perf_counter() - started
        self._count(**usage)
        if kept is not None:
            _write(kept, reply)
        return reply

    def _post(self, body: dict[str, Any]) -> tuple[str, dict[str, int]]:
        """Send until a reply comes, the attempts are used up, or the client is stopped."""
        s, wait = self.settings, self.settings.backoff_s
        assert self._http is not None
        for attempt in range(s.retries + 1):
            self._count(calls=1)
            pause = wait
            try:
                response = self._http.post(self.url, json=body)
                if response.status_code < 400:
                    return _content(response)
                cause = f"status {response.status_code}: {_message(response)}"
                if response.status_code not in RETRIED:
                    raise ChatError(cause)
                pause = _retry_after(response, wait)
            except httpx2.TimeoutException:
                cause = f"no answer within {s.timeout_s:g} s"
            except (httpx2.HTTPError, httpx2.InvalidURL, RuntimeError) as error:  # RuntimeError: closed while waiting
                cause = f"{type(error).__name__}: {error}"
            except _UnreadableError as error:
                cause = str(error)
            self._count(failed_calls=1)
            if attempt < s.retries and self._stopping.wait(min(pause, s.max_backoff_s)):
                raise ChatError("stopped")
            wait *= 2
        raise ChatError(f"{cause} (after {s.retries + 1} attempts)")

    def _count(self, **numbers: int) -> None:
        with self._lock:
            self.counts.update(numbers)


class _UnreadableError(Exception):
    """A reply that is not one of the chat protocol."""


def _content(response: httpx2.Response) -> tuple[str, dict[str, int]]:
    """The text of a reply and the tokens it used; services that do not tell use count as free."""
    try:
        reply = response.json()
        text = reply["choices"][0]["message"]["content"]
        usage = reply.get("usage") or {}
        tokens = {"tokens_in": int(usage.get("prompt_tokens", 0)), "tokens_out": int(usage.get("completion_tokens", 0))}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _UnreadableError(
            f"the reply is not one of the chat protocol ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(text, str):
        raise _UnreadableError(f"the reply holds no text but a {type(text).__name__}")
    return text, tokens


def _message(response: httpx2.Response) -> str:
    """What a server says about an error, shortly."""
    text = response.text
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(response.json()["error"]["message"])
    return " ".join(text.split())[:200] or "no reason given"


def _retry_after(response: httpx2.Response, otherwise: float) -> float:
    """How long a server wants to be left alone, in seconds; dates are not read."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", otherwise)))
    except ValueError:
        return otherwise


def _read(path: Path) -> str | None:
    """A kept reply; one that cannot be read was never kept."""
    try:
        reply = json.loads(path.read_text(encoding="utf-8"))["reply"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reply if isinstance(reply, str) else None


def _write(path: Path, reply: str) -> None:
    """Keep a reply; half a file is never seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    fresh.write_text(json.dumps({"reply": reply}) + "\n", encoding="utf-8")
    fresh.replace(path)
