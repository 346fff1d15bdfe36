"""The teacher of GTR: a model behind a chat endpoint, asked about every step (arXiv 2503.08525)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from gtr_agents.errors import TeacherError
from gtr_agents.teachers.chat import ChatClient, ChatError, ExternalSettings
from gtr_agents.teachers.corrector import chat_messages, correction_of
from gtr_agents.types import Correction, Step

if TYPE_CHECKING:
    from gtr_agents.prompts import PromptTemplate


class ExternalTeacher:
    """Asks a model behind an OpenAI-compatible chat endpoint what it thinks of every step.

    The key of the service is read from the environment when it is needed, and from nowhere else. What the model writes
    is data: it is parsed, and what cannot be read is tried again, then counted. Calls go out side by side; with
    several at once a budget may be exceeded by those under way.

    Args:
        settings: Where, how, and what it may cost; None takes the defaults.
        **options: Fields of :class:`ExternalSettings`, in the place of ``settings``.
    """

    def __init__(self, settings: ExternalSettings | None = None, **options: Any) -> None:
        self.settings = settings or ExternalSettings(**options)
        self.needs_expert = self.settings.tool
        self._client = ChatClient(self.settings)
        self._failures = 0
        self._in_a_row = 0

    def check(self) -> str | None:
        """Look whether the service can be asked, before anything long begins.

        Returns:
            A warning, or None if nothing is known to be wrong.

        Raises:
            TeacherError: If it cannot, and the settings say to stop then.
        """
        if (problem := self._client.problem()) is None:
            return None
        s = self.settings
        told = (
            f"The external teacher at {self._client.url} cannot be asked: {problem}. Is it running, and is the key in "
            f"${s.api_key_env} right?"
        )
        if s.on_failure == "stop":
            raise TeacherError(told)
        return f"{told} Training begins without it, and asks again in every update (teacher.external.on_failure=skip)."

    def think(
        self, steps: Sequence[Step], template: PromptTemplate, on_done: Callable[[int], None] | None = None
    ) -> list[Correction]:
        """Ask about all steps.

        Args:
            steps: What is asked about; every picture is sent.
            template: The format that corrections must have.
            on_done: Told how many further steps are done.

        Returns:
            One correction per step.

        Raises:
            TeacherError: If a call fails, or the budget is spent, and the settings say to stop then.
        """
        corrections = [Correction()] * len(steps)
        self._in_a_row = 0
        self._client.start()
        pool = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="teacher")
        try:
            waiting = iter(range(len(steps)))
            running: dict[Future[Correction], int] = {}
            while True:
                # Only as many as can run: what was not begun need not be taken back.
                while len(running) < self.settings.concurrency and (index := next(waiting, None)) is not None:
                    running[pool.submit(self._correction, steps[index], template)] = index
                if not running:
                    return corrections
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    corrections[running.pop(future)] = self._judged(future.result())
                    if on_done is not None:
                        on_done(1)
        finally:
            self._client.stop()
            pool.shutdown(wait=False, cancel_futures=True)

    def diagnostics(self) -> dict[str, float]:
        """Return what the teacher did and cost so far in this run, under ``teacher/``.

        Returns:
            ``calls`` and ``failed_calls`` (to the server), ``cache_hits``, ``failures`` (steps without an opinion),
            ``tokens_in``, ``tokens_out``, ``usd``, and ``seconds`` (of all calls together).
        """
        names = ("calls", "failed_calls", "cache_hits", "tokens_in", "tokens_out")
        counts = {f"teacher/{name}": float(self._client.counts[name]) for name in names}
        own = {"failures": float(self._failures), "usd": self._client.usd, "seconds": self._client.seconds}
        return counts | {f"teacher/{name}": value for name, value in own.items()}

    def state(self) -> dict[str, Any]:
        """Return the counts, so that a resumed run does not spend its budget twice."""
        return {"counts": dict(self._client.counts), "failures": self._failures, "seconds": self._client.seconds}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the counts back.

        Args:
            state: What :meth:`state` returned.
        """
        self._client.counts.clear()
        self._client.counts.update({name: int(n) for name, n in state["counts"].items()})
        self._client.seconds = float(state["seconds"])
        self._failures = int(state["failures"])

    def _correction(self, step: Step, template: PromptTemplate) -> Correction:
        """Ask about one step; in a thread of its own."""
        s = self.settings
        if self._in_a_row >= s.max_failures and s.on_failure == "skip":
            return Correction(error=f"not asked: the last {s.max_failures} calls or more have failed")
        corrector = s.protocol == "corrector"
        messages = chat_messages(step, template, corrector=corrector, tool=s.tool)
        reply = ""
        try:
            for attempt in range(s.retries + 1):
                reply = self._client.ask(messages, attempt)
                if (correction := correction_of(reply, step, template, corrector=corrector)) is not None:
                    return correction
        except ChatError as error:
            return Correction(error=str(error))
        kind = "verdict" if corrector else "answer"
        return Correction(error=f"no reply was a well-formed {kind}; the last one began {reply[:80]!r}")

    def _judged(self, correction: Correction) -> Correction:
        """Count failures; stop the run for one if it is configured so."""
        if correction.error is None:
            self._in_a_row = 0
            return correction
        self._failures += 1
        self._in_a_row += 1
        if self.settings.on_failure == "stop":
            raise TeacherError(
                f"The external teacher at {self._client.url} (model {self.settings.model!r}) has no opinion: "
                f"{correction.error}. Is it running, and is the key in ${self.settings.api_key_env} right? Resume the "
                "run when it answers again, or let it go on without with teacher.external.on_failure=skip."
            )
        return correction
