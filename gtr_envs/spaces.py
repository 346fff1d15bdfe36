"""Decides the spaces of vision-text environments: printable text, and the pair of picture and text."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from gymnasium import spaces

PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " \n"
"""All characters a text may contain. Gymnasium's default has neither blank nor newline nor punctuation."""


def text_space(max_length: int) -> spaces.Text:
    """Make the space of printable texts, the empty text included.

    Args:
        max_length: Largest number of characters.

    Returns:
        The space.
    """
    return spaces.Text(max_length=max_length, min_length=0, charset=PRINTABLE)


def vision_text_space(image_size: int, max_length: int, observe: str = "both") -> spaces.Dict:
    """Make the observation space of a picture with a text.

    Args:
        image_size: Side of the square picture in pixels.
        max_length: Largest number of characters of the text.
        observe: ``"both"``, or the name of the only entry.

    Returns:
        A Dict space with ``image``, uint8 [image_size, image_size, 3], and ``text``, or one of the two.
    """
    image = spaces.Box(low=0, high=255, shape=(image_size, image_size, 3), dtype=np.uint8)
    entries: dict[str, spaces.Space[Any]] = {"image": image, "text": text_space(max_length)}
    return spaces.Dict({name: space for name, space in entries.items() if observe in (name, "both")})
