"""Decides which numbers a wrapper takes."""

from __future__ import annotations

import numpy as np

from gtr_envs.errors import OptionError


def checked_int(name: str, value: object, *, least: int) -> int:
    """Check a whole number.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        least: The smallest number allowed.

    Returns:
        The number.

    Raises:
        OptionError: If it is no whole number or too small.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise OptionError(f"Expected {name} as a whole number of at least {least}, got {value!r}.")
    return int(value)
