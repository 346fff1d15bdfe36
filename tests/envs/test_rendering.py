"""Canvas and window."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pygame
import pytest

from gtr_envs.errors import DependencyError
from gtr_envs.rendering import Canvas, Event, Window, line_frame, require_community_edition, text_frame, wrap_text


def test_the_other_distribution_is_named_with_the_remedy() -> None:
    require_community_edition(SimpleNamespace(IS_CE=1))
    with pytest.raises(DependencyError, match=r"got pygame 2\.6\.1.*pip install pygame-ce"):
        require_community_edition(SimpleNamespace(__version__="2.6.1"))


def test_a_missing_library_is_named_with_the_remedy() -> None:
    code = "import sys; sys.modules['pygame'] = None; import gtr_envs.rendering"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DependencyError: Drawing needs the package pygame-ce" in done.stderr


def test_pictures_need_neither_display_nor_mixer() -> None:
    code = (
        "import os; os.environ.pop('SDL_VIDEODRIVER', None)\n"
        "from gtr_envs.cards.points24 import Points24Env\n"
        "import pygame\n"
        "env = Points24Env(render_mode='rgb_array'); env.reset(seed=0); env.render()\n"
        "assert not pygame.display.get_init() and pygame.mixer.get_init() is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_shapes_cover_the_pixels_they_name() -> None:
    canvas = Canvas(20, 10, (0, 0, 0))
    canvas.box(0, 0, 5, 10, (255, 0, 0))
    canvas.circle((10, 5), 3, (0, 255, 0))
    canvas.polygon([(15, 0), (20, 0), (20, 10), (15, 10)], (0, 0, 255))
    frame = canvas.frame()
    assert frame.shape == (10, 20, 3)
    assert frame[5, 2].tolist() == [255, 0, 0]
    assert frame[5, 10].tolist() == [0, 255, 0]
    assert frame[5, 17].tolist() == [0, 0, 255]
    assert frame[0, 10].tolist() == [0, 0, 0]


def ink_box(frame: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of everything bright."""
    rows, columns = np.flatnonzero((frame > 100).any(axis=(1, 2))), np.flatnonzero((frame > 100).any(axis=(0, 2)))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def test_letters_have_the_height_that_is_asked_and_are_narrowed_to_the_width() -> None:
    canvas = Canvas(60, 60, (0, 0, 0))
    canvas.letters("10", (30, 30), 20, 40, (255, 255, 255))
    top, bottom, left, right = ink_box(canvas.frame())
    assert (top, bottom) == (10, 49)
    assert left >= 20
    assert right <= 39


def test_a_line_is_narrowed_to_the_width() -> None:
    canvas = Canvas(80, 40, (0, 0, 0))
    canvas.write("a very long line of text", (10, 20), 20, 50, (255, 255, 255))
    _, _, left, right = ink_box(canvas.frame())
    assert left >= 10
    assert right <= 60


@pytest.mark.parametrize("height", [6, 8, 26])
def test_a_text_frame_is_as_high_as_asked(height: int) -> None:
    frame = text_frame("M", height, (255, 255, 255), (0, 0, 0))
    assert frame.shape[0] == height
    assert frame.any()


INK, GROUND = (250, 250, 250), (38, 44, 56)
WORDS = "soapbottle 3 on diningtable 1"


@pytest.mark.parametrize("height", [8, 10, 11, 13, 15, 40])
def test_words_of_every_height_have_the_proportions_of_the_font(height: int) -> None:
    exact = text_frame(WORDS, 400, INK, GROUND).shape[1] * height / 400
    frame = line_frame(WORDS, height, INK, GROUND)
    assert frame.shape == (height, frame.shape[1], 3)
    assert frame.shape[1] == pytest.approx(exact, rel=0.05, abs=1)
    assert frame.max() > 200
    assert (frame[:, -3:] >= np.array(GROUND)).all()


def test_lines_too_small_to_be_shrunk_are_left_as_they_are() -> None:
    assert np.array_equal(line_frame(WORDS, 7, INK, GROUND), text_frame(WORDS, 7, INK, GROUND))


@pytest.mark.parametrize("height", [7, 8, 13, 20])
def test_wrapped_lines_fit_and_lose_no_word(height: int) -> None:
    lines = wrap_text(WORDS * 4, height, 120)
    assert " ".join(lines).split() == (WORDS * 4).split()
    assert all(line_frame(line, height, INK, GROUND).shape[1] <= 121 for line in lines if " " in line)


def test_a_window_reports_clicks_keys_and_quitting() -> None:
    window = Window("test", 80, 60)
    window.events()
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(3, 4)))
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=3, pos=(3, 4)))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_5, unicode="5"))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_KP_ENTER, unicode="\r"))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_BACKSPACE, unicode="\b"))
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    events = [event for event in window.events() if event.kind != "other"]
    assert events == [
        Event("click", position=(3, 4)),
        Event("key", key="5"),
        Event("key", key="return"),
        Event("key", key="backspace"),
        Event("quit"),
    ]
    window.close()
    window.close()


def test_a_window_shows_the_frame() -> None:
    window = Window("test", 4, 3)
    frame = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    window.show(frame, fps=1000)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
    assert np.array_equal(shown, frame)
    window.close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed on Linux only")
def test_no_font_file_stays_open_for_forked_workers_to_share() -> None:
    # Workers that read one open file move each other's place in it, and letters cannot be found.
    assert text_frame("A letter", 23, (255, 255, 255), (0, 0, 0)).any()
    opened = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    # Other libraries of the same process, such as matplotlib, may hold fonts of their own.
    assert not [name for name in opened if name.endswith(pygame.font.get_default_font())]
