"""Which teachers exist; their modules are imported when a teacher is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from gtr_agents.errors import unknown_name

if TYPE_CHECKING:
    from gtr_agents.teachers.base import Teacher, Thinker

__all__ = ["TEACHERS", "THINKERS", "teacher_class"]

TEACHERS: dict[str, str] = {
    "ema": "gtr_agents.teachers.ema:EmaTeacher",
    "merged": "gtr_agents.teachers.merged:TeacherManager",
    "static": "gtr_agents.teachers.static:StaticTeacher",
}
"""Teachers with weights of the policy's kind, which score and think; name to ``module:class``."""

THINKERS: dict[str, str] = {
    "external": "gtr_agents.teachers.external:ExternalTeacher",
    "oracle": "gtr_agents.teachers.oracle:OracleTeacher",
}
"""Teachers without such weights, which only write thoughts; name to ``module:class``."""


def teacher_class(name: str) -> type[Teacher] | type[Thinker]:
    """Return the class of a teacher.

    Args:
        name: Name in :data:`TEACHERS` or :data:`THINKERS`.

    Returns:
        The class; its constructor takes the teacher's own options.

    Raises:
        UnknownNameError: If there is no such teacher.
    """
    known = TEACHERS | THINKERS
    if name not in known:
        raise unknown_name("teacher", name, known)
    module, _, attribute = known[name].partition(":")
    return cast("type[Teacher] | type[Thinker]", getattr(import_module(module), attribute))
