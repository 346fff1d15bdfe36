"""The typed errors of ``gtr_agents`` and how the message for an unknown name is worded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class GtrError(Exception):
    """Base of every error this package raises on purpose; its message says what to do."""


class ConfigError(GtrError):
    """A setting is missing, contradictory or outside its range."""


class UnknownNameError(ConfigError):
    """A name (preset, estimator, merge method, ...) is not in its table."""


class ModelError(GtrError):
    """A model folder, processor or model class cannot be used as a policy."""


class CheckpointError(GtrError):
    """A checkpoint folder is missing, incomplete or not what its manifest says."""


class MergeError(GtrError):
    """Checkpoints cannot be merged: other tensors, non-finite values, unusable weights, a repeated id."""


class TrainingError(GtrError):
    """Training cannot go on, e.g. because the numbers are no longer finite."""


class NotFiniteError(TrainingError):
    """Too many samples had no finite loss.

    Args:
        message: What happened.
        samples: The samples, as JSON holds them.
    """

    def __init__(self, message: str, samples: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.samples = samples


class HangError(TrainingError):
    """Something did not come back in time; the message names it."""


class EnvironmentFailedError(TrainingError):
    """An environment raised an exception; the message tells how to bring it there again."""


class TeacherError(GtrError):
    """An external teacher gives no opinion, or its budget is spent, and the run was told to stop then."""


class EpisodeSetError(GtrError):
    """An environment does not deal the episodes that a set names."""


class EvaluationFolderError(GtrError):
    """A folder holds an evaluation of something else, or cannot be read."""


class BusyFolderError(GtrError):
    """Another process writes to a folder."""


class EndpointError(GtrError):
    """A model behind a chat endpoint cannot be asked any more: too many failures in a row, or a spent budget."""


class DependencyError(GtrError, ImportError):
    """A package is not installed, or of a version that does not do; the message says what to run."""


def missing_package(error: ModuleNotFoundError) -> DependencyError:
    """Build the error for a package that is not installed.

    Args:
        error: What Python said.

    Returns:
        The error; its message names the package and the command that installs it.

    Raises:
        ModuleNotFoundError: The same again, if it is a module of our own that is missing: that is a fault, no choice.
    """
    package = (error.name or "").partition(".")[0]
    if not package or package.startswith("gtr_"):
        raise error
    return DependencyError(
        f'Training needs the package {package!r}, which is not installed. Run: pip install "gtr-suite[agents]" '
        "(the environments of gtr_envs work without it)."
    )


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not in its table.

    Args:
        kind: What the name stands for, in the singular (``"preset"``).
        name: The name that was given.
        known: The names that exist.

    Returns:
        An error naming all known names, sorted, and the nearest one if any is near.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"Unknown {kind} {name!r}; expected one of: {', '.join(names) or '(none)'}.{hint}")
