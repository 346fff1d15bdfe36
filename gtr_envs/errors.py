"""The typed errors of the environments; every message says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from gymnasium import error


class GtrEnvsError(Exception):
    """Base of all errors raised on purpose by this package."""


class OptionError(GtrEnvsError, ValueError):
    """Raised when a constructor argument or an entry of ``reset(options=...)`` cannot be used."""


class UnknownNameError(OptionError):
    """Raised when a name is not one of a fixed set of names."""


class InvalidActionError(GtrEnvsError, error.InvalidAction):
    """Raised when an action is not a member of the action space."""


class ResetNeededError(GtrEnvsError, error.ResetNeeded):
    """Raised when an environment is stepped or drawn without a running episode."""


class EnvironmentClosedError(GtrEnvsError, error.ClosedEnvironmentError):
    """Raised when a closed environment is used again."""


class DealError(GtrEnvsError, RuntimeError):
    """Raised when no hand satisfies what the constructor asked for."""


class GameError(GtrEnvsError, ValueError):
    """Raised when a game file is broken or incomplete, or there is no game to play."""


class ThorError(GtrEnvsError, RuntimeError):
    """Raised when AI2-THOR has failed or ended; the engine cannot go on."""


class ThorTimeoutError(ThorError, TimeoutError):
    """Raised when AI2-THOR does not answer in time."""


class DependencyError(GtrEnvsError, error.DependencyNotInstalled, ImportError):
    """Raised when a library is missing or a conflicting one is installed in its place."""


class DisplayError(GtrEnvsError, RuntimeError):
    """Raised when a window is asked for where there is no display."""


class PlayError(GtrEnvsError, TypeError):
    """Raised when a person cannot play an environment, or not in this way."""


class ContractError(GtrEnvsError, AssertionError):
    """Raised when an environment breaks the contract of vision-text environments."""


def require_known(what: str, name: object, known: Iterable[str]) -> None:
    """Check that a name is one of the known names.

    Args:
        what: What the name stands for, as it should appear in the message, e.g. ``"option"``.
        name: The name that was given.
        known: All names that are accepted.

    Raises:
        UnknownNameError: If ``name`` is not among ``known``; the message lists them and the nearest match.
    """
    names = sorted(known)
    if isinstance(name, str) and name in names:
        return
    near = get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownNameError(f"Unknown {what}: expected one of {names}, got {name!r}.{hint}")
