"""Which teachers exist; their modules are imported when a teacher is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from gtr_agents.errors import unknown_name

if TYPE_CHECKING:
    from gtr_agents.teachers.base import Teacher

__all__ = ["TEACHERS", "teacher_class"]

TEACHERS: dict[str, str] = {
    "ema": "gtr_agents.teachers.ema:EmaTeacher",
    "merged": "gtr_agents.teachers.merged:TeacherManager",
    "static": "gtr_agents.teachers.static:StaticTeacher",
}
"""Name to ``module:class``."""


def teacher_class(name: str) -> type[Teacher]:
    """Return the class of a teacher.

    Args:
        name: Name in :data:`TEACHERS`.

    Returns:
        The class; its constructor takes the teacher's own options.

    Raises:
        UnknownNameError: If there is no such teacher.
    """
    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    module, _, attribute = TEACHERS[name].partition(":")
    return cast("type[Teacher]", getattr(import_module(module), attribute))
