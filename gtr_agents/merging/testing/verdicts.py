"""What a law's trial gives, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gtr_agents.errors import unknown_name


class LawBrokenError(AssertionError):
    """A merge breaks a law; the message tells the case."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a law's trial gave."""

    law: str
    """Name of the law."""
    message: str
    """What broke it, with the case; empty if it holds."""

    @property
    def holds(self) -> bool:
        """True if no case broke the law."""
        return not self.message


@dataclass(slots=True, kw_only=True)
class Trial:
    """What all trials have in common."""

    seed: int = 0
    """Of the cases."""
    tolerance: float = 1e-9
    """Largest difference that rounding may make, beside 1 and beside the value; 1e-5 for a library in float32."""

    def expect(self, got: Tensor, expected: Tensor, what: str) -> None:
        """Raise :class:`LawBrokenError` unless two tensors are equal but for rounding."""
        close = got.shape == expected.shape
        if not close or not bool(((got - expected).abs() <= self.tolerance * (1 + expected.abs())).all()):
            raise LawBrokenError(f"{what}: expected {expected.tolist()}, got {got.tolist()}")

    def expect_states(self, got: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
        """Raise :class:`LawBrokenError` unless two state dicts are equal but for rounding."""
        if set(got) != set(expected):
            raise LawBrokenError(f"{what}: expected tensors {sorted(expected)}, got {sorted(got)}")
        for name, tensor in expected.items():
            self.expect(got[name].double(), tensor.double(), f"{what}, tensor {name!r}")


def raises(function: Callable[..., Any], *arguments: Any) -> bool:
    """Tell whether a call is refused."""
    try:
        function(*arguments)
    except Exception:  # noqa: BLE001 - which exception it is, is the library's own business
        return True
    return False


def judge(laws: Mapping[str, Callable[[Any], None]], trial: Any, skip: Iterable[str]) -> list[Verdict]:
    """Try laws one after the other.

    Args:
        laws: Name to law; a law raises if it is broken.
        trial: What every law gets.
        skip: Names of laws that are not tried.

    Returns:
        One verdict per law that was tried.

    Raises:
        UnknownNameError: If a law to be skipped does not exist.
    """
    skipped = set(skip)
    for name in skipped - set(laws):
        raise unknown_name("law", name, laws)
    return [Verdict(name, _broken_by(law, trial)) for name, law in laws.items() if name not in skipped]


def _broken_by(law: Callable[[Any], None], trial: Any) -> str:
    try:
        law(trial)
    except LawBrokenError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a merge on trial may fail in any way; the verdict says how
        return f"{type(error).__name__}: {error}"
    return ""


def raise_if_broken(verdicts: Sequence[Verdict]) -> None:
    """Raise :class:`LawBrokenError` naming every broken law."""
    broken = [f"{verdict.law}: {verdict.message}" for verdict in verdicts if not verdict.holds]
    if broken:
        raise LawBrokenError(f"{len(broken)} of {len(verdicts)} laws are broken\n" + "\n".join(broken))
