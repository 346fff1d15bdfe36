"""Decides how frames become files: PNG by itself, GIF with pillow, MP4 with imageio; the only door to these two."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from gtr_envs.errors import DependencyError, require_known
from gtr_envs.rendering import Frame

_REMEDY = 'Run: pip install "gtr-suite[video]"'
LOOP_FOREVER = 0
"""GIF's number of repetitions that stands for no end."""


def png_bytes(frame: Frame) -> bytes:
    """Encode a picture as PNG, without loss.

    Args:
        frame: uint8 [H, W, 3].

    Returns:
        The content of the file.
    """
    height, width, _ = frame.shape
    # 8 bits a channel, colour type 2 (RGB), and the only methods of compression, filtering and interlacing there are.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    # Every row begins with the number of its filter; 0 leaves the row as it is.
    rows = b"".join(b"\0" + row.tobytes() for row in frame)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def require_video(kind: str) -> None:
    """Check that moving pictures of a kind can be written here.

    Args:
        kind: One of :data:`VIDEO_WRITERS`.

    Raises:
        UnknownNameError: If the kind is unknown.
        DependencyError: If its library is not installed.
    """
    require_known("video", kind, VIDEO_WRITERS)
    try:
        if kind == "gif":
            import PIL.Image  # noqa: F401
        else:
            import imageio.v3  # noqa: F401
            import imageio_ffmpeg  # noqa: F401
    except ImportError as missing:
        raise DependencyError(
            f"Expected the packages that write {kind.upper()} files, but {missing.name} is not installed. {_REMEDY}"
        ) from missing


def write_gif(path: Path, frames: Sequence[Frame], fps: int) -> None:
    """Write a GIF that repeats for ever.

    Args:
        path: Where to, with the ending ``.gif``.
        frames: Pictures of one size, uint8 [H, W, 3], at least one.
        fps: Pictures a second.
    """
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=LOOP_FOREVER)


def write_mp4(path: Path, frames: Sequence[Frame], fps: int) -> None:
    """Write an MP4 with the codec H.264.

    Args:
        path: Where to, with the ending ``.mp4``.
        frames: Pictures of one size, uint8 [H, W, 3], at least one; an odd side is stretched to an even one.
        fps: Pictures a second.
    """
    import imageio.v3

    # The codec halves the resolution of the colours, so sides must be even; imageio's own default is 16.
    imageio.v3.imwrite(path, list(frames), plugin="FFMPEG", fps=fps, macro_block_size=2)


VIDEO_WRITERS: dict[str, Callable[[Path, Sequence[Frame], int], None]] = {"gif": write_gif, "mp4": write_mp4}
"""What writes a moving picture, by its kind."""
