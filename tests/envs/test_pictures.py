"""Frames as files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gtr_envs.errors import DependencyError, UnknownNameError
from gtr_envs.wrappers.pictures import png_bytes, require_video, write_gif, write_mp4

RNG = np.random.default_rng(0)
FRAMES = [RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8) for _ in range(3)]


def test_a_png_is_read_back_without_loss(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "frame.png"
    path.write_bytes(png_bytes(FRAMES[0]))
    with image.open(path) as read:
        assert (read.format, read.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(read), FRAMES[0])


def test_a_part_of_a_larger_picture_can_be_encoded() -> None:
    part = FRAMES[0][2:8, 3:9]
    assert png_bytes(part) == png_bytes(part.copy())


def test_a_gif_shows_every_frame_for_its_time(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "episode.gif"
    write_gif(path, FRAMES, 4)
    with image.open(path) as read:
        assert (read.n_frames, read.size, read.info["duration"], read.info["loop"]) == (3, (31, 20), 250, 0)


def test_an_mp4_holds_every_frame(tmp_path: Path) -> None:
    pytest.importorskip("imageio.v3")
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    path = tmp_path / "episode.mp4"
    frames = [np.full((64, 64, 3), shade, dtype=np.uint8) for shade in (0, 128, 255)]
    write_mp4(path, frames, 4)
    raw = [ffmpeg, "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = np.frombuffer(subprocess.run(raw, check=True, capture_output=True).stdout, np.uint8).reshape(-1, 64, 64, 3)
    assert [abs(int(frame.mean()) - shade) < 8 for frame, shade in zip(read, (0, 128, 255), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("kind", "module", "name"), [("gif", "PIL", "GIF"), ("mp4", "imageio", "MP4"), ("mp4", "imageio_ffmpeg", "MP4")]
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    kind: str, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for imported in [imported for imported in sys.modules if imported.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, imported)
    monkeypatch.setitem(sys.modules, module, None)  # what Python itself takes for "cannot be imported"
    with pytest.raises(DependencyError, match=rf'{name} files.*pip install "gtr-suite\[video\]"'):
        require_video(kind)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="expected one of \\['gif', 'mp4'\\], got 'avi'"):
        require_video("avi")


def test_importing_the_wrappers_loads_neither_library() -> None:
    code = "import sys, gtr_envs.wrappers\nprint(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "gtr_envs" in loaded
    assert {"PIL", "imageio", "imageio_ffmpeg", "torch", "stable_baselines3"}.isdisjoint(loaded)
