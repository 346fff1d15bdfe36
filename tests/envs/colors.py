"""How well colours stand apart."""

from __future__ import annotations

import numpy as np

from gtr_envs.styles import Rgb


def contrast(first: Rgb, second: Rgb) -> float:
    """Contrast ratio of two colours as the guidelines for readable web pages define it, 1 to 21."""
    linear = np.array([first, second]) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    darker, brighter = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((brighter + 0.05) / (darker + 0.05))
