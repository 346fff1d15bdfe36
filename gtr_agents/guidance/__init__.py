"""Which kinds of guidance exist; their modules are imported when one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from gtr_agents.errors import unknown_name

if TYPE_CHECKING:
    from gtr_agents.guidance.base import Guidance

__all__ = ["GUIDANCE", "guidance_class"]

GUIDANCE: dict[str, str] = {
    "reverse_kl": "gtr_agents.guidance.reverse_kl:ReverseKL",
    "thought_sft": "gtr_agents.guidance.thought_sft:ThoughtSFT",
}
"""Name to ``module:class``."""


def guidance_class(name: str) -> type[Guidance]:
    """Return the class of a kind of guidance.

    Args:
        name: Name in :data:`GUIDANCE`.

    Returns:
        The class; its constructor takes the guidance's own options.

    Raises:
        UnknownNameError: If there is no such guidance.
    """
    if name not in GUIDANCE:
        raise unknown_name("guidance", name, GUIDANCE)
    module, _, attribute = GUIDANCE[name].partition(":")
    return cast("type[Guidance]", getattr(import_module(module), attribute))
