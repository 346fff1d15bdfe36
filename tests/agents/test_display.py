"""The display shows the numbers that matter, stays silent when told, and never swallows an interruption."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gtr_agents import display
from gtr_agents.display import TrainingDisplay, duration, sparkline


def plain_console(encoding: str = "utf-8") -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=100, force_terminal=False)


def written(console: Console) -> str:
    console.file.flush()
    return console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]


def terminal(width: int = 100) -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), width=width, height=40, force_terminal=True)


def shown(panel: TrainingDisplay) -> str:
    reader = Console(file=io.StringIO(), width=panel.console.width)
    reader.print(panel._panel())
    text: str = reader.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_without_a_terminal_each_update_is_one_line() -> None:
    console = plain_console()
    with TrainingDisplay(3, "tiny", console=console) as progress:
        for update in (1, 2):
            progress.phase("collecting", 4)
            progress.advance(4)
            progress.update({"update": update, "rollout/success_rate": 0.25 * update, "unknown": 1.0})
    lines = written(console).splitlines()
    assert lines[0] == "tiny"
    assert len(lines) == 3
    assert lines[2].startswith("update 2/3 [0:00, 0:00 left] success 50.0%")


def test_a_long_phase_without_a_terminal_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "HEARTBEAT_S", 0.0)
    console = plain_console()
    with TrainingDisplay(0, "tiny", console=console) as progress:
        progress.phase("SFT", 800)
        progress.advance(25)
        progress.advance(25, {"sft/loss": 1.25, "sft/seconds": 3.0})
        progress.phase("evaluating", 10)
        progress.advance()
    assert written(console).splitlines()[1:] == ["  SFT 25/800", "  SFT 50/800, loss 1.250", "  evaluating 1/10"]


def test_a_character_the_output_cannot_write_does_not_end_the_run() -> None:
    console = plain_console("ascii")
    with TrainingDisplay(1, "tiny \u2192 points", console=console) as progress:
        progress.message("done [bold]")
    assert written(console).splitlines() == ["tiny ? points", "done [bold]"]


def test_the_numbers_of_a_phase_are_shown_while_it_lasts() -> None:
    console = terminal()
    progress = TrainingDisplay(0, "tiny", console=console)
    progress.phase("learning to look up", 600)
    progress.advance(1, {"recall/accuracy": 0.5})
    console.print(progress._panel())
    assert "looked up right" in written(console)
    console = terminal()
    progress.phase("SFT", 250)
    console.print(progress._panel())
    assert "looked up right" not in written(console)


def test_a_disabled_display_writes_nothing() -> None:
    console = plain_console()
    with TrainingDisplay(2, "tiny", enabled=False, console=console) as progress:
        progress.phase("collecting")
        progress.advance()
        progress.update({"update": 1, "rollout/success_rate": 0.5})
        progress.message("hello")
    assert written(console) == ""


def test_the_panel_shows_phase_updates_numbers_and_course() -> None:
    progress = TrainingDisplay(10, "tiny", console=terminal())
    progress.phase("teacher scoring")
    progress.update({"update": 1, "rollout/success_rate": 0.25, "guidance/kl": 0.0125})
    progress.update({"update": 2, "rollout/success_rate": 0.75})
    text = shown(progress)
    assert "2/10" in text
    assert "teacher scoring" in text
    assert "75.0% ↑" in text
    assert "0.0125" in text
    assert "▁█  25% to 75%" in text


def test_the_panel_fits_a_narrow_terminal() -> None:
    progress = TrainingDisplay(10, "tiny", console=terminal(60))
    progress.update(dict.fromkeys(display.NUMBERS, 0.5) | {"update": 1})
    text = shown(progress)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert all(label in text for label, _ in display.NUMBERS.values())


def test_in_a_terminal_the_panel_is_drawn() -> None:
    console = terminal()
    with TrainingDisplay(2, "tiny", console=console) as progress:
        progress.update({"update": 2, "rollout/success_rate": 0.5})
        progress.message("half way")
    text = written(console)
    assert "half way" in text
    assert "2/2" in text


@pytest.mark.parametrize("console", [plain_console(), terminal()], ids=["plain", "terminal"])
def test_an_interruption_passes_through(console: Console) -> None:
    with pytest.raises(KeyboardInterrupt), TrainingDisplay(2, "tiny", console=console):
        raise KeyboardInterrupt


def test_the_time_left_is_the_mean_update_times_the_updates_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    progress = TrainingDisplay(10, "tiny", enabled=False)
    progress.phase("SFT", 100)
    now += 500.0  # the supervised start does not count
    progress.phase("collecting")
    assert progress.eta_s() is None
    now += 40.0
    progress.update({"update": 3})  # a resumed run: two updates were done before
    progress.update({"update": 4})
    now += 5.0
    progress.update({"update": 4})  # the evaluation after it belongs to the same update
    assert progress.eta_s() == pytest.approx(40.0 / 2 * 6 - 5.0)


def test_missing_and_textual_metrics_are_left_out() -> None:
    progress = TrainingDisplay(1, "tiny", enabled=False)
    progress.update({"update": 1, "guidance/kl": None, "rollout/entropy": "high", "rollout/return": 1})
    assert progress.metrics == {"rollout/return": 1.0}


def test_a_sparkline_spans_its_lowest_and_highest_value() -> None:
    assert sparkline([0.2, 0.3, 0.4, 0.2]) == "▁▅█▁"
    assert sparkline([0.5, 0.5]) == "▄▄"
    assert sparkline([]) == ""
    assert sparkline([0.0, 1.0, 2.0], width=2) == "▁█"


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (0, 59.9, 75, 3675)] == ["0:00", "0:59", "1:15", "1:01:15"]
