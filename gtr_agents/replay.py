"""How recorded episodes are watched again: as an animated picture, in a window, or in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gtr_agents.errors import unknown_name
from gtr_agents.recorder import RunFolder, RunFolderError

WIDTH, HEAD, PICTURE, STRIP = 400, 34, 300, 156
"""Pixels: the width of a slide, and the heights of its heading, its picture and the text below."""
STEP_MS, END_MS = 900, 1800
PAGE, INK, MUTED = (17, 24, 39), (243, 244, 246), (156, 163, 175)
GOOD, BAD, STUDENT = (74, 222, 128), (248, 113, 113), (96, 165, 250)
ROLE_NAMES = {"start": "Start model", "student": "Student", "teacher": "Merged teacher"}
FPS = 30

NEXT_KEYS, BACK_KEYS = frozenset({"right", " ", "return"}), frozenset({"left", "backspace"})
NEXT_EPISODE_KEYS, PREVIOUS_EPISODE_KEYS = frozenset({"down", "tab", "n"}), frozenset({"up", "p"})
QUIT_KEYS = frozenset({"escape", "q"})


def make_gif(run: str | Path, path: str | Path | None = None, n_episodes: int = 4) -> Path:
    """Write an animated picture of some recorded episodes: the start model first, then the trained ones.

    Args:
        run: The run folder.
        path: Where to write; ``replay.gif`` in the run folder if None.
        n_episodes: How many episodes, at least 1; see :func:`showcase` for which.

    Returns:
        Path of the picture.

    Raises:
        ValueError: If ``n_episodes`` is below 1.
        RunFolderError: If the folder is no run or holds no episodes.
    """
    if n_episodes < 1:
        raise ValueError(f"Expected at least 1 episode, got {n_episodes}.")
    folder = RunFolder.open(run)
    shown = showcase(_recorded(folder), n_episodes)
    slides, durations = [], []
    for episode in shown:
        for i in range(len(episode["steps"]) + 1):
            # 64 colours keep flat drawings intact and the file small.
            slides.append(slide(folder, episode, i).quantize(64))
            durations.append(END_MS if i == len(episode["steps"]) else STEP_MS)
    target = folder.path / "replay.gif" if path is None else Path(path)
    slides[0].save(target, save_all=True, append_images=slides[1:], duration=durations, loop=0, optimize=True)
    return target


def replay(
    run: str | Path, episode: str | int | None = None, window: bool = True, console: Console | None = None
) -> None:
    """Watch recorded episodes.

    In the window the arrow keys left and right change the step, up and down (or p and n) the episode; escape closes.

    Args:
        run: The run folder.
        episode: Its id, or its number in the order recorded, from 0; None shows all.
        window: True opens a window, False prints to the terminal.
        console: Where to print; standard output if None.

    Raises:
        RunFolderError: If the folder is no run or holds no episodes, or a window cannot be opened.
        UnknownNameError: If there is no such episode.
    """
    folder = RunFolder.open(run)
    episodes = _recorded(folder)
    if episode is not None:
        episodes = [_find(episodes, episode)]
    if window:
        _show_window(folder, episodes)
    else:
        _print(episodes, console or Console(highlight=False))


def showcase(episodes: Sequence[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Choose episodes that tell the story of a run, wins preferred once it is trained.

    Args:
        episodes: All recorded ones.
        n: How many, at least 1.

    Returns:
        First one of the start model (a lost one if there is), then those of the student's last recorded update and of
        the last teacher, won ones first; at most ``n``. Only those of the start if nothing else was recorded.
    """
    start = sorted((e for e in episodes if e["role"] == "start"), key=lambda e: e["success"])
    latest = [
        sorted(_of_last_update([e for e in episodes if e["role"] == role]), key=lambda e: not e["success"])
        for role in ("student", "teacher")
    ]
    trained = [*latest[0], *latest[1]]
    if not trained or n == 1:
        return (trained or start)[:n]
    return [*start[:1], *trained][:n]


def slide(run: RunFolder, episode: Mapping[str, Any], step: int) -> Image.Image:
    """Draw one moment of an episode: what the model saw, thought and did.

    Args:
        run: Where the frames are.
        episode: As recorded.
        step: Which step, from 0; the number of steps draws the end.

    Returns:
        An RGB picture, 400 x 490 pixels.
    """
    image = Image.new("RGB", (WIDTH, HEAD + PICTURE + STRIP), PAGE)
    draw = ImageDraw.Draw(image)
    n_steps = len(episode["steps"])
    ended = step >= n_steps
    draw.text((14, 9), _who(episode), INK, _font(15))
    draw.text((WIDTH - 14, 9), "end" if ended else f"step {step + 1}/{n_steps}", MUTED, _font(15), anchor="ra")
    recorded = episode.get("final_frame") if ended else episode["steps"][step]["frame"]
    frame = run.frame(recorded or (episode["steps"][-1]["frame"] if n_steps else None))
    if frame is None:
        draw.text((WIDTH // 2, HEAD + PICTURE // 2), "frame missing", MUTED, _font(16), anchor="mm")
    else:
        with Image.open(frame) as picture:
            fitted = ImageOps.pad(picture.convert("RGB"), (PICTURE, PICTURE), color=PAGE)
        image.paste(fitted, ((WIDTH - PICTURE) // 2, HEAD))
    if ended:
        _draw_end(draw, episode)
    else:
        _draw_step(draw, episode["steps"][step])
    return image


def wrap(text: str, width: float, size: int, max_lines: int) -> list[str]:
    """Break a text into lines that fit.

    Args:
        text: Any text; white space is collapsed.
        width: Pixels.
        size: Font size in pixels.
        max_lines: At most so many lines; what is left out is marked by three dots.

    Returns:
        The lines.
    """
    font = _font(size)
    lines = [""]
    for word in text.split():
        for piece in _fitting_pieces(word, width, font):
            longer = f"{lines[-1]} {piece}".strip()
            if font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while font.getlength(f"{last}...") > width:
        last = last[:-1]
    return [*lines[: max_lines - 1], f"{last}..."]


def _fitting_pieces(word: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterable[str]:
    """Cut a word that is longer than a line."""
    while font.getlength(word) > width and len(word) > 1:
        n = next((n for n in range(len(word) - 1, 1, -1) if font.getlength(word[:n]) <= width), 1)
        yield word[:n]
        word = word[n:]
    yield word


def _draw_step(draw: ImageDraw.ImageDraw, step: Mapping[str, Any]) -> None:
    y = HEAD + PICTURE + 10
    draw.text((14, y), "thought", MUTED, _font(13))
    for i, line in enumerate(wrap(step["thought"] or step["error"] or "(none)", WIDTH - 92, 15, 3)):
        draw.text((78, y - 1 + 19 * i), line, INK, _font(15))
    y += 68
    draw.text((14, y + 6), "action", MUTED, _font(13))
    reward = f"{step['reward']:+.4g}" if step["reward"] else ""
    draw.text((WIDTH - 14, y), reward, GOOD if step["reward"] > 0 else BAD, _font(22), anchor="ra")
    room = WIDTH - 102 - _font(22).getlength(reward)
    size, lines = _largest(step["action"] or "unreadable", room)
    for i, line in enumerate(lines):
        draw.text((78, y + 19 * i), line, STUDENT if step["legal"] else BAD, _font(size))
    if not step["legal"]:
        draw.text((78, y + 28 + 14 * (len(lines) - 1)), "refused", BAD, _font(13))
    draw.text((WIDTH - 14, y + 32), _advice(step), MUTED, _font(13), anchor="ra")


def _largest(action: str, room: float) -> tuple[int, list[str]]:
    """The size of the letters with which an action fits on one line, else a small one, and its lines."""
    size = next((size for size in (22, 17) if len(wrap(action, room, size, 2)) == 1), 15)
    return size, wrap(action, room, size, 2)


def _draw_end(draw: ImageDraw.ImageDraw, episode: Mapping[str, Any]) -> None:
    middle = HEAD + PICTURE + STRIP // 2
    word, colour = ("SOLVED", GOOD) if episode["success"] else ("NOT SOLVED", BAD)
    draw.text((WIDTH // 2, middle - 16), word, colour, _font(34), anchor="mm")
    told = f"return {episode['return']:g}" + (", no solution exists" if episode["solvable"] is False else "")
    draw.text((WIDTH // 2, middle + 22), told, MUTED, _font(16), anchor="mm")


def _advice(step: Mapping[str, Any]) -> str:
    """Say what the solver would have done; nothing where it has no advice."""
    expert = step["expert_action"]
    if expert is None:
        return ""
    return "solver: the same" if expert == step["action"] else f"solver: {expert}"


def _who(episode: Mapping[str, Any]) -> str:
    name = ROLE_NAMES.get(episode["role"], episode["role"])
    after = "" if episode["role"] == "start" else f", update {episode['update']}"
    hand = " ".join(map(str, episode["numbers"])) if episode.get("numbers") else f"seed {episode['seed']}"
    return f"{name}{after}: {hand}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _of_last_update(episodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    last = max((e["update"] for e in episodes), default=0)
    return [e for e in episodes if e["update"] == last]


def _recorded(run: RunFolder) -> list[dict[str, Any]]:
    episodes = list(run.episodes())
    if not episodes:
        raise RunFolderError(
            f"{str(run.path)!r} holds no recorded episodes; they are written by the evaluations of `gtr train`."
        )
    return episodes


def _find(episodes: Sequence[dict[str, Any]], wanted: str | int) -> dict[str, Any]:
    if isinstance(wanted, int) or wanted.isdecimal():
        if int(wanted) in range(len(episodes)):
            return episodes[int(wanted)]
    elif found := [episode for episode in episodes if episode["id"] == wanted]:
        return found[0]
    raise unknown_name("episode", wanted, [f"0 to {len(episodes) - 1}", *(episode["id"] for episode in episodes)])


def _show_window(run: RunFolder, episodes: Sequence[Mapping[str, Any]]) -> None:
    from gtr_envs.rendering import Window

    try:
        window = Window(f"GTR replay: {run.path.name}", WIDTH, HEAD + PICTURE + STRIP)
    except RuntimeError as error:  # what pygame raises where there is no display
        raise RunFolderError(f"A window could not be opened ({error}); replay in the terminal instead.") from error
    place: tuple[int, int] | None = (0, 0)
    try:
        while place is not None:
            window.show(np.asarray(slide(run, episodes[place[0]], place[1])), FPS)
            for event in window.events():
                place = None if event.kind == "quit" or place is None else move(episodes, place, event.key)
    finally:
        window.close()


def move(episodes: Sequence[Mapping[str, Any]], place: tuple[int, int], key: str) -> tuple[int, int] | None:
    """Follow a key press.

    Args:
        episodes: What is being watched.
        place: Number of the episode and of the step in it; the number of steps is its end.
        key: Name of the key.

    Returns:
        The new place, the same one for a key without a meaning or at the ends, None to close.
    """
    episode, step = place
    if key in QUIT_KEYS:
        return None
    if key in BACK_KEYS:
        return episode, max(0, step - 1)
    at_end = step >= len(episodes[episode]["steps"])
    if key in NEXT_KEYS and not at_end:
        return episode, step + 1
    if key in NEXT_KEYS | NEXT_EPISODE_KEYS and episode + 1 < len(episodes):
        return episode + 1, 0
    if key in PREVIOUS_EPISODE_KEYS and episode > 0:
        return episode - 1, 0
    return place


def _print(episodes: Sequence[Mapping[str, Any]], console: Console) -> None:
    for episode in episodes:
        table = Table(box=None, expand=True, header_style="dim")
        for name in ("", "observation", "thought", "action", "solver", "reward"):
            table.add_column(name, overflow="fold", justify="right" if name in ("", "reward") else "left")
        for i, step in enumerate(episode["steps"], 1):
            table.add_row(
                str(i),
                Text(step["observation"]),
                Text(step["thought"] or step["error"] or "(none)"),
                Text(step["action"] or "unreadable", "bold" if step["legal"] else "red strike"),
                Text(step["expert_action"] or "", "dim"),
                f"{step['reward']:+g}" if step["reward"] else "",
            )
        outcome = "solved" if episode["success"] else "not solved"
        title = Text(f"{_who(episode)}, {outcome}, return {episode['return']:g}")
        console.print(Panel(table, title=title, border_style="green" if episode["success"] else "red"))
