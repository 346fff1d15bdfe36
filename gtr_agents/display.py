"""How a training run shows itself while it runs: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

NUMBERS: dict[str, tuple[str, str]] = {
    "rollout/success_rate": ("success", "{:.1%}"),
    "rollout/success_rate_solvable": ("solvable", "{:.1%}"),
    "rollout/return": ("return", "{:+.2f}"),
    "rollout/valid_rate": ("valid answers", "{:.1%}"),
    "rollout/legal_rate": ("legal moves", "{:.1%}"),
    "rollout/cards_accuracy": ("cards read", "{:.1%}"),
    "eval/student/success_rate": ("eval student", "{:.1%}"),
    "eval/student_greedy/success_rate": ("eval greedy", "{:.1%}"),
    "eval/teacher/success_rate": ("eval teacher", "{:.1%}"),
    "guidance/kl": ("KL to teacher", "{:.4f}"),
    "rollout/entropy": ("entropy", "{:.3f}"),
    "train/ratio_error_first_epoch": ("ratio error", "{:.1e}"),
    "recall/accuracy": ("looked up right", "{:.1%}"),
    "sft/loss": ("loss", "{:.3f}"),
    "rollout/steps_per_second": ("steps/s", "{:.0f}"),
}
"""Metric -> label and format: what the panel shows, in this order, as far as it is known."""

SPARKS = "▁▂▃▄▅▆▇█"
N_SPARKS = 40
WIDE = 84
"""From so many columns on, three numbers fit side by side; below it, two."""

HEARTBEAT_S = 15.0
"""Without a terminal a long phase says every so many seconds where it is."""


def _told(numbers: Mapping[str, float]) -> list[str]:
    return [f"{label} {form.format(numbers[key])}" for key, (label, form) in NUMBERS.items() if key in numbers]


def sparkline(values: list[float], width: int = N_SPARKS) -> str:
    """Draw numbers as a row of blocks, the latest at the right, scaled from their lowest to their highest.

    Args:
        values: Finite numbers, oldest first.
        width: At most so many blocks; older values are left out.

    Returns:
        One character a value; the middle block throughout if all are equal.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    shown = values[-width:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if high == low:
        return SPARKS[3] * len(shown)
    return "".join(SPARKS[round((value - low) / (high - low) * 7 + 1e-9)] for value in shown)


def duration(seconds: float) -> str:
    """Write a duration as a clock does.

    Args:
        seconds: Seconds, at least 0.

    Returns:
        ``m:ss``, or ``h:mm:ss`` from one hour on.

    >>> duration(75), duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class TrainingDisplay:
    """Shows phase, progress, time left and the numbers that matter while a run trains.

    A context manager; nothing is shown before it is entered. In a terminal it is one panel that redraws
    itself; elsewhere (a file, a pipe, an encoding without block characters) it writes one plain ASCII line an
    update. Exceptions, Ctrl-C included, pass through untouched and leave the last panel on the screen.

    Args:
        total_updates: Updates of the run; 0 shows no bar of updates (e.g. supervised training alone).
        title: The heading, e.g. preset and environment.
        enabled: False shows nothing at all.
        console: Where to write; standard output if None.
    """

    def __init__(self, total_updates: int, title: str, enabled: bool = True, console: Console | None = None) -> None:
        self.total_updates = total_updates
        self.title = title
        self.enabled = enabled
        self.console = console or Console(highlight=False)
        self.updates_done = 0
        self.metrics: dict[str, float] = {}
        self.successes: list[float] = []
        self._changes: dict[str, float] = {}
        self._phase, self._phase_done, self._phase_total = "starting", 0, 0
        self._phase_numbers: dict[str, float] = {}
        self._started_s = self._phase_started_s = self._last_line_s = time.monotonic()
        # A resumed run goes on at a later update, so those seen are counted apart.
        self._n_timed = 0
        self._first_update_s: float | None = None
        self._last_update_s = self._started_s
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Start showing."""
        self._started_s = self._phase_started_s = self._last_line_s = time.monotonic()
        fancy = self.console.is_terminal and self.console.encoding.lower().startswith("utf")
        if self.enabled and fancy:
            self._live = Live(get_renderable=self._panel, console=self.console, refresh_per_second=4)
            self._live.start()
        elif self.enabled:
            self._line(self.title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw the last state and stop; never swallows an exception."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def phase(self, name: str, total: int | None = None) -> None:
        """Say what happens now.

        Args:
            name: E.g. ``SFT``, ``collecting``, ``teacher scoring``, ``updating``, ``evaluating``.
            total: How many times :meth:`advance` will be called for it, in units of its own; None if unknown.
        """
        self._phase, self._phase_done, self._phase_total = name, 0, total or 0
        self._phase_numbers = {}
        self._phase_started_s = time.monotonic()
        if self._first_update_s is None and name == "collecting":
            self._first_update_s = self._phase_started_s

    def advance(self, n: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Move the current phase forward.

        Args:
            n: By how much.
            metrics: How the phase goes; shown while it lasts, without a terminal whenever a line is due.
        """
        self._phase_done += n
        self._phase_numbers |= {k: v for k, v in (metrics or {}).items() if k in NUMBERS}
        if self.enabled and self._live is None and time.monotonic() - self._last_line_s > HEARTBEAT_S:
            of_total = f"/{self._phase_total}" if self._phase_total else ""
            self._line(", ".join([f"  {self._phase} {self._phase_done}{of_total}", *_told(self._phase_numbers)]))

    def update(self, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of an update, or of a part of it; numbers not given keep their last value.

        Args:
            metrics: As in ``metrics.jsonl``; ``update`` says which update is complete.
        """
        numbers = {k: float(v) for k, v in metrics.items() if k in NUMBERS and isinstance(v, (int, float))}
        self._changes |= {k: v - self.metrics[k] for k, v in numbers.items() if k in self.metrics}
        self.metrics |= numbers
        if "rollout/success_rate" in numbers:
            self.successes.append(numbers["rollout/success_rate"])
        if metrics.get("update", 0) > self.updates_done:
            self.updates_done = int(metrics["update"])
            self._n_timed += 1
            self._last_update_s = time.monotonic()
        if self.enabled and self._live is None and numbers:
            self._line(self._plain_update(numbers))

    def message(self, text: str) -> None:
        """Write a line above the panel.

        Args:
            text: Plain text; brackets have no special meaning.
        """
        if self.enabled:
            self._line(text)

    def eta_s(self) -> float | None:
        """Estimate the seconds left from the mean duration of the updates done so far.

        Returns:
            Seconds, or None before the first update is complete.
        """
        if self._first_update_s is None or not self._n_timed:
            return None
        left = self.total_updates - self.updates_done
        since_last_s = time.monotonic() - self._last_update_s
        return max(0.0, (self._last_update_s - self._first_update_s) / self._n_timed * left - since_last_s)

    def _line(self, text: str) -> None:
        self._last_line_s = time.monotonic()
        # A title or message must not end a run because the terminal cannot write one of its characters.
        writable = text.encode(self.console.encoding, "replace").decode(self.console.encoding)
        self.console.print(Text(writable), soft_wrap=True)

    def _plain_update(self, numbers: Mapping[str, float]) -> str:
        eta_s = self.eta_s()
        head = f"update {self.updates_done}/{self.total_updates}" if self.total_updates else self._phase
        elapsed = duration(time.monotonic() - self._started_s)
        left = f", {duration(eta_s)} left" if eta_s is not None else ""
        return f"{head} [{elapsed}{left}] {', '.join(_told(numbers))}"

    def _panel(self) -> RenderableType:
        parts: list[RenderableType] = [self._bars()]
        if self.metrics or self._phase_numbers:
            parts += [Text(), self._numbers()]
        if len(self.successes) > 1:
            shown = self.successes[-N_SPARKS:]
            text = Text.assemble(
                ("success of the rollouts  ", "dim"),
                (sparkline(shown), "green"),
                (f"  {min(shown):.0%} to {max(shown):.0%}", "dim"),
            )
            parts += [Text(), text]
        elapsed = duration(time.monotonic() - self._started_s)
        eta_s = self.eta_s()
        foot = f"{elapsed} elapsed" + (f" · {duration(eta_s)} left" if eta_s is not None else "")
        return Panel(
            Group(*parts),
            title=Text(self.title, "bold"),
            subtitle=Text(f"{foot} · Ctrl-C saves and stops", "dim"),
            border_style="blue",
            width=min(100, self.console.width),
        )

    def _bars(self) -> Table:
        """One row for the updates, one for the phase within the update."""
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=16, no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        if self.total_updates:
            bar = ProgressBar(total=self.total_updates, completed=self.updates_done)
            table.add_row(Text("updates"), bar, Text(f"{self.updates_done}/{self.total_updates}"))
        if self._phase_total:
            bar = ProgressBar(total=self._phase_total, completed=self._phase_done, complete_style="cyan")
            count = f"{self._phase_done}/{self._phase_total}"
        else:
            bar = ProgressBar(total=None, pulse=True, pulse_style="cyan")
            count = duration(time.monotonic() - self._phase_started_s)
        table.add_row(Text(self._phase, "cyan"), bar, Text(count, "dim"))
        return table

    def _numbers(self) -> Table:
        """The known numbers, in columns, each with the direction of its last change."""
        table = Table.grid(padding=(0, 1), expand=True)
        n_columns = 3 if self.console.width >= WIDE else 2
        for _ in range(n_columns):
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True)
            table.add_column(width=2)
        known = self.metrics | self._phase_numbers
        cells = [
            (Text(label), Text(form.format(known[key]), "bold"), self._arrow(key))
            for key, (label, form) in NUMBERS.items()
            if key in known
        ]
        for start in range(0, len(cells), n_columns):
            table.add_row(*[part for cell in cells[start : start + n_columns] for part in cell])
        return table

    def _arrow(self, key: str) -> Text:
        change = self._changes.get(key, 0.0)
        return Text("↑" if change > 0 else "↓" if change < 0 else " ", "dim")
