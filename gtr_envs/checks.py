"""Decides which numbers arguments take."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from gtr_envs.errors import OptionError


def is_int(value: object) -> TypeGuard[int]:
    """Say whether a value is a whole number; True and False are none.

    Args:
        value: Anything.

    Returns:
        True for Python's and NumPy's integers.
    """
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def checked_int(name: str, value: object, *, least: int | None = None, most: int | None = None, unit: str = "") -> int:
    """Check a whole number.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        least: The smallest number allowed; None for no limit.
        most: The largest number allowed; None for no limit.
        unit: What is counted, for the message, e.g. ``"pixels"``.

    Returns:
        The number.

    Raises:
        OptionError: If it is no whole number, too small or too large.
    """
    if is_int(value) and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    if least is not None and most is not None:
        bound = f" from {least} to {most}"
    else:
        bound = "" if least is None else f" of at least {least}"
    raise OptionError(f"Expected {name} as a whole number{bound}{' ' if unit else ''}{unit}, got {value!r}.")
