"""Which of the packages that the suite names as its requirements are missing, or of a version it was not made for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from gtr_agents.errors import DependencyError, missing_package

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "gtr-suite"


@dataclass(frozen=True, slots=True)
class Unmet:
    """A requirement that this machine does not meet."""

    name: str
    """Name of the package."""
    wanted: str
    """Versions that are wanted, e.g. ``>=5,<6``; empty if any will do."""
    installed: str | None
    """The version that is there; None if none is."""
    too_old: bool
    """True if a newer one is needed; False if it is missing, or newer than what the suite was tried with."""

    @property
    def remedy(self) -> str:
        """The command that mends it."""
        return f'Run: pip install "{self.name}{self.wanted}"'

    def __str__(self) -> str:
        """What is wrong, in half a sentence."""
        wanted = f"{self.name}{self.wanted}"
        return f"{wanted} is not installed" if self.installed is None else f"{wanted} is needed, got {self.installed}"


def unmet(extra: str = "") -> Iterator[Unmet]:
    """Compare what is installed with what the suite's own metadata ask for; nothing is imported.

    Args:
        extra: an extra such as ``agents``; empty for what everything needs.

    Yields:
        The requirements that are not met, in the order of ``pyproject.toml``.
    """
    from packaging.requirements import Requirement
    from packaging.version import Version

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a source tree that was put on the path; nobody knows what it asks for
        return
    for line in lines:
        requirement = Requirement(line)
        if requirement.name == DISTRIBUTION or not _belongs_to(requirement, extra):
            continue
        wanted = str(requirement.specifier)
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Unmet(requirement.name, wanted, None, too_old=False)
            continue
        version = Version(installed)
        if not requirement.specifier.contains(version, prereleases=True):
            lower = [s for s in requirement.specifier if s.operator in (">=", ">", "==", "~=")]
            too_old = any(version < Version(s.version) for s in lower)
            yield Unmet(requirement.name, wanted, installed, too_old)


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement is the extra's own; those without an extra belong to the empty one."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return not extra
    return marker.evaluate({"extra": extra})


def check_versions() -> None:
    """Refuse to train with packages that are older than what the suite was made for.

    Newer ones are tried; `gtr doctor` tells of them.

    Raises:
        DependencyError: with the command that installs all of them in the right versions.
    """
    old = [item for item in (*unmet(), *unmet("agents")) if item.too_old]
    if old:
        wanted = " ".join(f'"{item.name}{item.wanted}"' for item in old)
        raise DependencyError(f"{'; '.join(map(str, old))}. Run: pip install {wanted}")


def explain(error: ImportError) -> None:
    """Say what to install, if it is known why an import failed; return if it is not.

    Args:
        error: what Python said.

    Raises:
        DependencyError: naming the packages that are too old, or the one that is missing.
    """
    if isinstance(error, DependencyError):
        return
    with suppress(ModuleNotFoundError):  # packaging, which reads the versions, is missing too
        check_versions()
    if isinstance(error, ModuleNotFoundError):
        raise missing_package(error) from error
