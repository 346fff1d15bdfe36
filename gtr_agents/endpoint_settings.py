"""How a model behind a chat endpoint is asked; apart, because the command line reads it and loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """How a model behind a chat endpoint is asked, and what it may cost."""

    concurrency: int = 8
    """Requests at the same time."""
    timeout_s: float = 60.0
    """Seconds without a sign of the server after which a request has failed."""
    retries: int = 3
    """Further attempts at a request that failed."""
    max_failures: int = 5
    """The evaluation stops after so many failed requests in a row."""
    budget_tokens: int | None = None
    """Tokens, in and out, that one call of the command may use; default no limit."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it is not needed where the server asks for none."""
    cache: str | None = None
    """Folder in which replies are kept, by everything that was sent; default none."""
